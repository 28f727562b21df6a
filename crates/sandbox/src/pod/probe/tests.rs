//! When a probe's verdict changes, and what one HTTP check says.

use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn probe(json: serde_json::Value) -> Probe {
    serde_json::from_value(json).expect("a probe")
}

/// Each step is (seconds, good); the result lists the steps at which the verdict changed.
fn check(json: serde_json::Value, steps: &[(u64, bool)], changes: &[(u64, bool)]) {
    let mut rhythm = Rhythm::new(&probe(json));
    let start = Instant::now();
    let mut seen = Vec::new();
    for (at, good) in steps {
        let result = if *good {
            Ok(())
        } else {
            Err("down".to_owned())
        };
        if let Some(verdict) = rhythm.observe(result, start + Duration::from_secs(*at)) {
            seen.push((*at, verdict == Verdict::Good));
        }
    }
    assert_eq!(seen, changes);
}

#[tokio::test]
async fn thresholds_count_in_periods() {
    let plain = serde_json::json!({"periodSeconds": 2, "failureThreshold": 2});
    check(plain.clone(), &[(0, true)], &[(0, true)]);
    check(
        plain.clone(),
        &[(0, true), (2, false), (4, false), (6, true)],
        &[(0, true), (4, false), (6, true)],
    );
    // Quick checks before the first success do not use up the failures.
    check(
        plain,
        &[(0, false), (1, false), (1, false), (2, false)],
        &[(2, false)],
    );
    let twice = serde_json::json!({"successThreshold": 2});
    check(twice, &[(0, true), (1, true)], &[(1, true)]);
}

#[test]
fn the_first_success_is_awaited_in_quick_steps() {
    let mut rhythm = Rhythm::new(&probe(serde_json::json!({"periodSeconds": 1})));
    assert_eq!(rhythm.pause(), QUICK);
    for _ in 0..20 {
        rhythm.pause();
    }
    assert_eq!(rhythm.pause(), Duration::from_secs(1));
}

async fn answer_with(text: &'static str) -> Result<(), String> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("bound");
    let port = listener.local_addr().expect("bound").port();
    let container: Container = serde_json::from_value(serde_json::json!({
        "name": "c", "ports": [{"name": "web", "containerPort": port}]
    }))
    .expect("a container");
    let action = serde_json::from_value(serde_json::json!({"port": "web", "path": "/ok"}))
        .expect("an action");
    let serve = async {
        let (mut stream, _) = listener.accept().await.expect("accepted");
        let mut request = [0u8; 1024];
        let length = stream.read(&mut request).await.expect("read");
        assert!(request[..length].starts_with(b"GET /ok HTTP/1.1\r\n"));
        stream.write_all(text.as_bytes()).await.expect("written");
    };
    let most = Duration::from_secs(5);
    let (_, result) = tokio::join!(
        serve,
        http_get(&container, Ipv4Addr::LOCALHOST, &action, most)
    );
    result
}

#[tokio::test]
async fn http_checks_judge_the_status() {
    assert_eq!(answer_with("HTTP/1.1 204 No Content\r\n\r\n").await, Ok(()));
    let bad = answer_with("HTTP/1.1 503 Service Unavailable\r\n\r\n").await;
    assert_eq!(bad, Err("HTTP probe failed with statuscode: 503".into()));
    assert!(answer_with("nonsense\n").await.is_err());
    assert!(answer_with("").await.is_err());
}
