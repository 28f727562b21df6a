//! Who sees debug pages.

use super::guard::{Guard, Peer, Refusal, View};
use http::header::AUTHORIZATION;
use http::{Extensions, HeaderMap, Request};
use hyper::body::Incoming;
use lateen_model::mesh::{Role, Scope};
use lateen_model::name::{Origin, Visibility};
use lateen_model::resource::Resource;
use lateen_model::security::{Credential, RequestAuthentication, Secret, Selection};
use lateen_xds::server::{ProxyStatus, Store};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::SystemTime;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// An API server that knows three tokens; `proxy` is for the audience `istio-ca` alone.
async fn api(request: Request<Incoming>) -> crate::http::Answer {
    let body = crate::http::body(request).await.expect("a body");
    let review: Value = serde_json::from_slice(&body).expect("JSON");
    let for_proxies = review["spec"]["audiences"][0] == "istio-ca";
    let user = match review["spec"]["token"].as_str() {
        Some("root") if !for_proxies => "system:serviceaccount:istio-system:prometheus",
        Some("proxy" | "unscoped") if for_proxies => "system:serviceaccount:shop:cart",
        Some("person") if !for_proxies => "jane",
        _ => "",
    };
    let audiences = (review["spec"]["token"] == "proxy").then(|| vec!["istio-ca"]);
    crate::http::json(&json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {},
        "status": { "authenticated": !user.is_empty(), "audiences": audiences, "user": { "username": user } },
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
    // The server did not look at the audience.
    check(away, Some("unscoped"), Err(Refusal::BadToken)).await;
    check(away, Some("forged"), Err(Refusal::BadToken)).await;
    check(away, Some("person"), Err(Refusal::NotAnAccount)).await;
    check(away, Some(&"x".repeat(1 << 20)), Err(Refusal::BadToken)).await;
}

/// What a proxy's page holds of one kind.
fn dumped(proxy: &ProxyStatus, store: &Store, kind: &str) -> Vec<String> {
    let page = super::proxies::config_dump(proxy, store);
    let all = page["resources"][kind].as_array().cloned();
    let all = all.unwrap_or_default().into_iter();
    all.map(|entry| entry["name"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn a_dump_holds_what_the_proxy_may_have() {
    let store = Store::new();
    let origin = |namespace: &str| Origin {
        kind: "Secret".into(),
        namespace: namespace.into(),
        name: "shop".into(),
        created: 0,
    };
    let policy = |namespace: &str| {
        Resource::RequestAuthentication(RequestAuthentication {
            origin: origin(namespace),
            selection: Selection::default(),
            visibility: Visibility::Namespaces(vec![namespace.into()]),
            rules: Vec::new(),
        })
    };
    let credential = Resource::Credential(Credential {
        origin: origin("shop"),
        chain: "c".into(),
        key: Secret::new("k"),
        ca: "".into(),
        crl: "".into(),
        readers: vec!["gw".into()],
    });
    store.apply(vec![policy("shop"), policy("bank"), credential], Vec::new());
    let proxy = |namespace: &str, account: &str, authenticated: bool| ProxyStatus {
        node_id: "n".into(),
        version: "v".into(),
        scope: Scope {
            on_demand: false,
            role: Role::Gateway,
            pod: "p".into(),
            namespace: namespace.into(),
            labels: BTreeMap::new(),
            addresses: Vec::new(),
            service_account: account.into(),
            workload_name: "".into(),
            canonical_name: "".into(),
            canonical_revision: "".into(),
            cluster: "".into(),
            domain: "".into(),
        },
        authenticated,
        connected_at: SystemTime::UNIX_EPOCH,
        kinds: BTreeMap::new(),
        lookups: 0,
        reach: None,
    };
    let shop = proxy("shop", "gw", true);
    assert_eq!(
        dumped(&shop, &store, "RequestAuthentication"),
        ["shop/shop"]
    );
    assert_eq!(dumped(&shop, &store, "Credential").len(), 1);
    for other in [
        proxy("shop", "cart", true),
        proxy("shop", "gw", false),
        proxy("bank", "gw", true),
    ] {
        assert_eq!(dumped(&other, &store, "Credential"), [""; 0]);
    }
}
