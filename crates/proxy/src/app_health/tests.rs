//! Probes as a kubelet makes them, by way of the proxy.

use super::*;
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// An application that answers every request with `answer`, or closes when that is empty.
async fn application(answer: &'static str) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::task::spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut seen = vec![0; 4096];
            let read = stream.read(&mut seen).await.unwrap_or(0);
            let head = String::from_utf8_lossy(&seen[..read]).into_owned();
            let answer = match head.contains("GET /moved ") {
                true => "HTTP/1.1 302 Found\r\nlocation: /ok\r\ncontent-length: 0\r\n\r\n",
                false if head.contains("x-wanted: 1") => "HTTP/1.1 204 No Content\r\n\r\n",
                false => answer,
            };
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    port
}

/// Makes the one probe of `json` (`PORT` stands for the application's) and returns the status.
fn check(answer: &'static str, json: &str, expected: Option<u16>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let port = application(answer).await;
        let text = format!("{{\"/p\": {}}}", json.replace("PORT", &port.to_string()));
        let probes = AppProbes::parse(&text).expect("valid");
        let outcome = probes.check("/p", Ipv4Addr::LOCALHOST.into()).await;
        assert_eq!(outcome.map(|o| o.status.as_u16()), expected, "{json}");
    });
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const BUSY: &str = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";

#[test]
fn the_applications_own_status_reaches_the_kubelet() {
    check(
        OK,
        r#"{"httpGet": {"path": "/ok", "port": PORT}}"#,
        Some(200),
    );
    check(
        BUSY,
        r#"{"httpGet": {"path": "ok", "port": PORT}}"#,
        Some(500),
    );
    check("", r#"{"httpGet": {"port": PORT}}"#, Some(503));
    check(BUSY, r#"{"tcpSocket": {"port": PORT}}"#, Some(200));
    check(BUSY, r#"{"grpc": {"port": PORT}}"#, Some(503));
}

#[test]
fn redirects_on_the_application_are_followed() {
    check(
        BUSY,
        r#"{"httpGet": {"path": "/moved", "port": PORT}}"#,
        Some(500),
    );
    check(
        OK,
        r#"{"httpGet": {"path": "/moved", "port": PORT}}"#,
        Some(200),
    );
    let away = "HTTP/1.1 302 Found\r\nlocation: http://192.0.2.1/\r\ncontent-length: 0\r\n\r\n";
    check(away, r#"{"httpGet": {"port": PORT}}"#, Some(200));
}

#[test]
fn a_probes_own_headers_are_sent() {
    let probe =
        r#"{"httpGet": {"port": PORT, "httpHeaders": [{"name": "X-Wanted", "value": "1"}]}}"#;
    check(BUSY, probe, Some(204));
}

#[test]
fn what_injection_did_not_write_is_refused() {
    let refusal = |text: &str| AppProbes::parse(text).expect_err("refused").to_string();
    assert!(refusal("{").contains("inject the pod anew"));
    let bad = refusal(r#"{"/app-health/a/readyz": {"exec": {}}}"#);
    assert!(bad.contains("/app-health/a/readyz"), "{bad}");
    let port = refusal(r#"{"/x": {"tcpSocket": {"port": 70000}}}"#);
    assert!(port.contains("70000"), "{port}");
}
