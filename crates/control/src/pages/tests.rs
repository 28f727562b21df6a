//! Who sees debug pages.

use super::guard::{Guard, Peer, Refusal, View};
use http::header::AUTHORIZATION;
use http::{Extensions, HeaderMap, Request};
use hyper::body::Incoming;
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// An API server that knows three tokens; `proxy` is for the audience `istio-ca` alone.
async fn api(request: Request<Incoming>) -> crate::http::Answer {
    let body = crate::http::body(request).await.expect("a body");
    let review: Value = serde_json::from_slice(&body).expect("JSON");
    let for_proxies = review["spec"]["audiences"][0] == "istio-ca";
    let user = match review["spec"]["token"].as_str() {
        Some("root") if !for_proxies => "system:serviceaccount:istio-system:prometheus",
        Some("proxy") if for_proxies => "system:serviceaccount:shop:cart",
        Some("person") if !for_proxies => "jane",
        _ => "",
    };
    crate::http::json(&json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {},
        "status": { "authenticated": !user.is_empty(), "user": { "username": user } },
    }))
}

async fn check(peer: &str, token: Option<&str>, expected: Result<View, Refusal>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let shutdown = CancellationToken::new();
    tokio::spawn(crate::http::serve(listener, None, api, shutdown.clone()));
    let config = kube::Config::new(format!("http://{address}").parse().expect("a URL"));
    let client = kube::Client::try_from(config).expect("a client");
    let guard = Guard::new(client, "istio-system");
    let mut extensions = Extensions::new();
    extensions.insert(Peer(peer.parse::<SocketAddr>().expect("an address")));
    let mut headers = HeaderMap::new();
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().expect("a value");
        headers.insert(AUTHORIZATION, value);
    }
    let got = guard.admit(&extensions, &headers).await;
    assert_eq!(got, expected, "{peer} {token:?}");
    shutdown.cancel();
    // What was found out holds without the API server.
    let again = guard.admit(&extensions, &headers).await;
    assert_eq!(again, got, "{peer} {token:?} again");
}

#[tokio::test]
async fn tokens_decide_except_from_the_pod_itself() {
    let away = "10.244.0.9:4000";
    check("127.0.0.1:4000", None, Ok(View::All)).await;
    check("[::ffff:127.0.0.1]:4000", None, Ok(View::All)).await;
    check(away, None, Err(Refusal::NoToken)).await;
    check(away, Some("root"), Ok(View::All)).await;
    check(away, Some("proxy"), Ok(View::Namespace("shop".into()))).await;
    check(away, Some("forged"), Err(Refusal::BadToken)).await;
    check(away, Some("person"), Err(Refusal::NotAnAccount)).await;
    check(away, Some(&"x".repeat(1 << 20)), Err(Refusal::BadToken)).await;
}
