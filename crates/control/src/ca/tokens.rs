//! Who a service account's token belongs to: the API server says it (TokenReview), and is believed for some seconds.

#[cfg(test)]
mod tests;

use crate::ca::limit::Limit;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::{Api, ObjectMeta, PostParams};
use lateen_xds::server::Identity;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Audience that a token must have (Istio).
pub(crate) const AUDIENCE: &str = "istio-ca";
/// Longest token that is looked at, in bytes; those of Kubernetes have about 1 KiB.
pub(crate) const LONGEST: usize = 16 << 10;
/// How long a positive answer is believed.
const BELIEVED: Duration = Duration::from_secs(10);
/// How long a refusal is believed: short, so that a token that is valid in a moment is not refused for long.
const REFUSED: Duration = Duration::from_secs(1);
/// Answers remembered at once.
const MOST_ANSWERS: usize = 10_000;
/// Reviews under way at once; others wait.
const MOST_REVIEWS: usize = 64;
/// Tokens that are not known yet, of one address at once, and how many more each second: a node whose pods all start
/// at once is served, a flood of made-up tokens does not reach the API server.
const BURST: u32 = 256;
const RATE: f64 = 16.0;
/// Time for one review.
const REVIEW_TIME: Duration = Duration::from_secs(10);

/// A token proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    /// It is refused.
    #[error("the service account token is refused: {0}")]
    Refused(String),
    /// Nobody can say.
    #[error("the service account token cannot be verified now: {0}; try again")]
    Unavailable(String),
}

/// Whoever can tell whose token it is.
#[tonic::async_trait]
pub(crate) trait Reviewer: Send + Sync + 'static {
    /// What the API server says of the token for [`AUDIENCE`].
    async fn review(&self, token: &str) -> Result<TokenReviewStatus, String>;
}

/// The API server.
pub(crate) struct Cluster(pub(crate) kube::Client);

#[tonic::async_trait]
impl Reviewer for Cluster {
    async fn review(&self, token: &str) -> Result<TokenReviewStatus, String> {
        let review = TokenReview {
            metadata: ObjectMeta::default(),
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: Some(vec![AUDIENCE.to_owned()]),
            },
            status: None,
        };
        let api: Api<TokenReview> = Api::all(self.0.clone());
        let how = PostParams::default();
        let answer = api.create(&how, &review);
        let answer = tokio::time::timeout(REVIEW_TIME, answer)
            .await
            .map_err(|_| "the API server does not answer".to_owned())?
            .map_err(|e| e.to_string())?;
        Ok(answer.status.unwrap_or_default())
    }
}

/// Verifies tokens; remembers answers by the tokens' hashes.
pub(crate) struct Tokens {
    reviewer: Arc<dyn Reviewer>,
    answers: Mutex<HashMap<[u8; 32], Answer>>,
    reviews: Semaphore,
    limit: Limit<IpAddr>,
}

#[derive(Clone)]
struct Answer {
    until: Instant,
    said: Result<Identity, TokenError>,
}

impl Tokens {
    pub(crate) fn new(reviewer: Arc<dyn Reviewer>) -> Self {
        Self {
            reviewer,
            answers: Mutex::default(),
            reviews: Semaphore::new(MOST_REVIEWS),
            limit: Limit::new(BURST, RATE),
        }
    }

    /// The service account of a token that came from an address.
    pub(crate) async fn account(
        &self,
        token: &str,
        source: Option<IpAddr>,
    ) -> Result<Identity, TokenError> {
        if token.is_empty() || token.len() > LONGEST {
            let why = format!("it is empty or longer than {LONGEST} bytes");
            return Err(TokenError::Refused(why));
        }
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let known = self.answers.lock().get(&hash).cloned();
        if let Some(answer) = known.filter(|answer| answer.until > Instant::now()) {
            return answer.said;
        }
        if source.is_some_and(|source| !self.limit.allows(source, Instant::now())) {
            let why = "too many tokens come from this address".to_owned();
            return Err(TokenError::Unavailable(why));
        }
        let said = {
            let _permit = self.reviews.acquire().await;
            let reviewed = self.reviewer.review(token).await;
            reviewed
                .map_err(TokenError::Unavailable)
                .and_then(|status| account(&status))
        };
        let believed = match &said {
            Ok(_) => BELIEVED,
            Err(TokenError::Refused(_)) => REFUSED,
            Err(TokenError::Unavailable(_)) => return said,
        };
        let mut answers = self.answers.lock();
        let now = Instant::now();
        if answers.len() >= MOST_ANSWERS {
            answers.retain(|_, answer| answer.until > now);
        }
        // Refusals make room for what is good, never the other way round.
        if answers.len() >= MOST_ANSWERS && said.is_ok() {
            answers.retain(|_, answer| answer.said.is_ok());
        }
        if answers.len() < MOST_ANSWERS {
            let (until, said) = (now + believed, said.clone());
            answers.insert(hash, Answer { until, said });
        }
        said
    }
}

/// The service account that a review names.
fn account(status: &TokenReviewStatus) -> Result<Identity, TokenError> {
    let refused = |why: &str| Err(TokenError::Refused(why.to_owned()));
    if status.authenticated != Some(true) {
        let why = status.error.as_deref().unwrap_or_default();
        let why: String = why.chars().take(200).collect();
        return match why.is_empty() {
            true => refused(
                "the API server does not know it; it may be forged, expired or of a deleted pod",
            ),
            false => refused(&why),
        };
    }
    // A server that does not understand audiences leaves the list out: that must not pass for consent.
    let audiences = status.audiences.iter().flatten();
    if !audiences.into_iter().any(|audience| audience == AUDIENCE) {
        return refused(
            "it is not for the audience istio-ca; mount the projected token istio-token",
        );
    }
    let name = status
        .user
        .as_ref()
        .and_then(|user| user.username.as_deref());
    let account = name
        .and_then(|name| name.strip_prefix("system:serviceaccount:"))
        .and_then(|name| name.split_once(':'))
        .filter(|(namespace, account)| !namespace.is_empty() && !account.is_empty());
    match account {
        Some((namespace, account)) if !account.contains(':') => Ok(Identity {
            namespace: namespace.into(),
            service_account: account.into(),
        }),
        _ => refused("it does not belong to a service account"),
    }
}
