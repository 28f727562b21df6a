//! Keys as policies see them: fetched, refreshed, kept when a fetch fails.

use super::*;
use std::net::Ipv4Addr;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const SET: &str = r#"{"keys":[{"crv":"P-256","kid":"1","kty":"EC","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","y":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}"#;

/// An issuer whose answers the test chooses; it notes the paths asked for.
#[derive(Clone, Default)]
struct Issuer {
    answer: Arc<Mutex<String>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Issuer {
    /// Starts it; returns its base URI.
    async fn start(&self) -> String {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (issuer, own) = (self.clone(), base.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = vec![0; 4096];
                let read = stream.read(&mut head).await.unwrap_or(0);
                let head = String::from_utf8_lossy(&head[..read]).into_owned();
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let answer = match path.as_str() {
                    "/.well-known/openid-configuration" => {
                        ok(&format!(r#"{{"issuer":"{own}","jwks_uri":"{own}/keys"}}"#))
                    }
                    "/loop" => {
                        "HTTP/1.1 302 Found\r\nlocation: /loop\r\ncontent-length: 0\r\n\r\n".into()
                    }
                    _ => issuer.answer.lock().unwrap().clone(),
                };
                issuer.asked.lock().unwrap().push(path);
                let _ = stream.write_all(answer.as_bytes()).await;
                if answer.is_empty() {
                    // Never answers; the connection stays.
                    tokio::spawn(async move {
                        let _ = stream.read(&mut [0; 1]).await;
                    });
                }
            }
        });
        base
    }

    fn say(&self, answer: String) {
        *self.answer.lock().unwrap() = answer;
    }
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn options() -> Options {
    Options {
        allow_loopback: true,
        limit: Duration::from_millis(400),
        ..Options::default()
    }
}

fn start(
    options: Options,
    uri: &str,
) -> (watch::Sender<BTreeSet<Str>>, mpsc::Receiver<Delta<Keys>>) {
    let wanted = watch::Sender::new(BTreeSet::from([Str::from(uri)]));
    let (reports, received) = mpsc::channel(8);
    tokio::spawn(run(options, wanted.subscribe(), reports));
    (wanted, received)
}

async fn next(reports: &mut mpsc::Receiver<Delta<Keys>>) -> Keys {
    match reports.recv().await {
        Some(Delta::Set(_, keys)) => keys,
        other => panic!("no keys: {other:?}"),
    }
}

/// Fetches `path` once and expects keys, or a problem that contains a text.
async fn check(options: Options, path: &str, answer: String, expected: Result<(), &str>) {
    let issuer = Issuer::default();
    issuer.say(answer);
    let base = issuer.start().await;
    let (_wanted, mut reports) = start(options, &format!("{base}{path}"));
    let keys = next(&mut reports).await;
    match expected {
        Ok(()) => assert_eq!(
            (keys.set.as_deref(), keys.problem),
            (Some(SET), None),
            "{path}"
        ),
        Err(part) => {
            assert_eq!(keys.set, None, "{path}");
            let problem = keys.problem.unwrap_or_default();
            assert!(problem.contains(part), "{path}: {problem}");
        }
    }
}

#[tokio::test]
async fn keys_come_directly_or_by_discovery() {
    check(options(), "/keys", ok(SET), Ok(())).await;
    check(
        options(),
        "/.well-known/openid-configuration",
        ok(SET),
        Ok(()),
    )
    .await;
}

#[tokio::test]
async fn what_is_too_much_or_not_a_key_set_is_refused() {
    check(
        options(),
        "/keys",
        ok("<html>"),
        Err("not a JSON Web Key Set"),
    )
    .await;
    check(
        options(),
        "/keys",
        ok(&" ".repeat(fetch::MOST_BODY + 1)),
        Err("larger than"),
    )
    .await;
    let chunks = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n200000\r\n{}",
        " ".repeat(0x20_0000)
    );
    check(options(), "/keys", chunks, Err("larger than")).await;
    let missing = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned();
    check(options(), "/keys", missing, Err("status 404")).await;
    check(options(), "/loop", String::new(), Err("redirects")).await;
    check(options(), "/keys", String::new(), Err("no whole answer")).await;
}

#[tokio::test]
async fn addresses_are_checked_where_they_are_dialled() {
    let plain = Options::default();
    check(
        plain.clone(),
        "/keys",
        ok(SET),
        Err("a loopback address, which is never called"),
    )
    .await;
    let blocked = Options {
        blocked: vec!["127.0.0.0/8".parse().unwrap()],
        ..options()
    };
    check(blocked, "/keys", ok(SET), Err("blocked network")).await;
    // By name, and by redirect.
    let (_wanted, mut reports) = start(plain, "http://localhost:1/keys");
    let problem = next(&mut reports).await.problem.unwrap_or_default();
    assert!(problem.contains("never called"), "{problem}");
    let metadata = "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/latest\r\ncontent-length: 0\r\n\r\n";
    check(
        options(),
        "/keys",
        metadata.to_owned(),
        Err("169.254.169.254"),
    )
    .await;
}

#[tokio::test]
async fn good_keys_stay_while_fetches_fail_and_change_when_they_work() {
    let issuer = Issuer::default();
    issuer.say("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n".to_owned());
    let uri = format!("{}/keys", issuer.start().await);
    let (wanted, mut reports) = start(options(), &uri);
    assert_eq!(next(&mut reports).await.set, None);
    // While failing it is asked again soon.
    issuer.say(ok(SET));
    let good = next(&mut reports).await;
    assert_eq!((good.set.as_deref(), good.problem), (Some(SET), None));
    wanted.send_replace(BTreeSet::new());
    let removed = reports.recv().await;
    assert!(matches!(removed, Some(Delta::Remove(id)) if &*id.name == uri.as_str()));
}

#[tokio::test(start_paused = true)]
async fn keys_are_refreshed_and_the_last_good_ones_survive() {
    let issuer = Issuer::default();
    issuer.say(ok(SET));
    let uri = format!("{}/keys", issuer.start().await);
    let patient = Options {
        limit: Duration::from_secs(3600),
        ..options()
    };
    let (_wanted, mut reports) = start(patient, &uri);
    assert_eq!(next(&mut reports).await.set.as_deref(), Some(SET));
    issuer.say("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n".to_owned());
    let kept = next(&mut reports).await;
    assert_eq!(kept.set.as_deref(), Some(SET));
    assert!(kept.problem.unwrap_or_default().contains("500"));
    let rotated = SET.replace("\"1\"", "\"2\"");
    issuer.say(ok(&rotated));
    let rotated_keys = next(&mut reports).await;
    assert_eq!(rotated_keys.set.as_deref(), Some(rotated.as_str()));
}

#[tokio::test]
async fn a_uri_beyond_the_bound_gets_its_turn_when_another_leaves() {
    let uri = |number: usize| Str::from(format!("http://127.0.0.1:1/{number:04}"));
    let all: BTreeSet<Str> = (0..=MOST_URIS).map(uri).collect();
    let wanted = watch::Sender::new(all.clone());
    let (reports, mut received) = mpsc::channel(8);
    tokio::spawn(run(Options::default(), wanted.subscribe(), reports));
    let mut late = async |part: &str| loop {
        match received.recv().await.expect("it runs") {
            Delta::Set(id, keys) if id.name == uri(MOST_URIS) => {
                let problem = keys.problem.unwrap_or_default();
                assert!(problem.contains(part), "{problem}");
                return;
            }
            _ => {}
        }
    };
    late("more than 2000").await;
    let fewer = all.into_iter().skip(1).collect();
    wanted.send_replace(fewer);
    late("never called").await;
}

#[tokio::test]
async fn a_set_that_cannot_be_used_does_not_replace_a_good_one() {
    let issuer = Issuer::default();
    issuer.say(ok(SET));
    let base = issuer.start().await;
    let client = Client::new(&options());
    let (reports, _received) = mpsc::channel(8);
    let shared = Shared {
        client,
        places: Semaphore::new(1),
        reports,
    };
    let uri = format!("{base}/keys");
    assert_eq!(shared.fetch(&uri).await.as_deref(), Ok(SET));
    let short = "r".repeat(170) + "A";
    issuer.say(ok(&format!(
        r#"{{"keys":[{{"kty":"RSA","n":"{short}","e":"AQAB"}}]}}"#
    )));
    let refused = shared.fetch(&uri).await.expect_err("RSA of 1024 bits");
    assert!(refused.contains("2048"), "{refused}");
}
