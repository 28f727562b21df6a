//! What reviews mean, and that they are asked for once.

use super::*;
use k8s_openapi::api::authentication::v1::UserInfo;
use std::sync::atomic::{AtomicUsize, Ordering};

fn status(user: &str, audiences: Option<&[&str]>) -> TokenReviewStatus {
    TokenReviewStatus {
        authenticated: Some(true),
        audiences: audiences.map(|all| all.iter().map(|one| (*one).to_owned()).collect()),
        user: Some(UserInfo {
            username: Some(user.to_owned()),
            ..UserInfo::default()
        }),
        error: None,
    }
}

#[test]
fn only_a_service_account_with_the_right_audience_passes() {
    let check = |status: TokenReviewStatus, want: Result<(&str, &str), &str>| match (
        account(&status),
        want,
    ) {
        (Ok(got), Ok((namespace, account))) => {
            assert_eq!(
                (&*got.namespace, &*got.service_account),
                (namespace, account)
            );
        }
        (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
        (got, want) => panic!("{got:?} instead of {want:?}"),
    };
    let sleep = "system:serviceaccount:default:sleep";
    check(status(sleep, Some(&["istio-ca"])), Ok(("default", "sleep")));
    check(
        status(sleep, Some(&["api", "istio-ca"])),
        Ok(("default", "sleep")),
    );
    check(status(sleep, Some(&["api"])), Err("audience istio-ca"));
    check(status(sleep, None), Err("audience istio-ca"));
    for user in [
        "admin",
        "system:serviceaccount:default",
        "system:serviceaccount::x",
    ] {
        check(status(user, Some(&["istio-ca"])), Err("service account"));
    }
    check(TokenReviewStatus::default(), Err("forged"));
    let said = TokenReviewStatus {
        error: Some("token has expired".to_owned()),
        ..TokenReviewStatus::default()
    };
    check(said, Err("token has expired"));
}

struct Counting(AtomicUsize);

#[tonic::async_trait]
impl Reviewer for Counting {
    async fn review(&self, token: &str) -> Result<TokenReviewStatus, String> {
        self.0.fetch_add(1, Ordering::Relaxed);
        match token {
            "good" => Ok(status("system:serviceaccount:a:b", Some(&["istio-ca"]))),
            "down" => Err("connection refused".to_owned()),
            _ => Ok(TokenReviewStatus::default()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn answers_are_believed_for_some_seconds() {
    let reviewer = Arc::new(Counting(AtomicUsize::new(0)));
    let tokens = Tokens::new(reviewer.clone());
    let mut asked = Vec::new();
    let mut ask = async |token: &str, wait: u64| {
        tokio::time::advance(Duration::from_secs(wait)).await;
        let said = tokens.account(token, None).await;
        asked.push(reviewer.0.swap(0, Ordering::Relaxed));
        said
    };
    assert!(ask("good", 0).await.is_ok());
    assert!(ask("good", 9).await.is_ok());
    assert!(ask("good", 2).await.is_ok());
    assert!(matches!(
        ask("forged", 0).await,
        Err(TokenError::Refused(_))
    ));
    assert!(matches!(
        ask("forged", 0).await,
        Err(TokenError::Refused(_))
    ));
    assert!(matches!(
        ask("down", 0).await,
        Err(TokenError::Unavailable(_))
    ));
    assert!(matches!(
        ask("down", 0).await,
        Err(TokenError::Unavailable(_))
    ));
    let long = "x".repeat(1 << 20);
    assert!(matches!(ask(&long, 0).await, Err(TokenError::Refused(_))));
    assert_eq!(asked, [1, 0, 1, 1, 0, 1, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_made_up_tokens_ends_at_the_door() {
    let reviewer = Arc::new(Counting(AtomicUsize::new(0)));
    let tokens = Tokens::new(reviewer.clone());
    let (flood, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
    assert!(tokens.account("good", Some(flood)).await.is_ok());
    for number in 0..2000 {
        let _ = tokens.account(&number.to_string(), Some(flood)).await;
    }
    let asked = reviewer.0.load(Ordering::Relaxed);
    assert_eq!(asked, BURST as usize);
    assert!(
        tokens.account("good", Some(flood)).await.is_ok(),
        "it is known"
    );
    assert!(tokens.account("down", Some(other)).await.is_err());
    assert_eq!(reviewer.0.load(Ordering::Relaxed), asked + 1);
}
