//! The webhooks as the API server calls them: over TLS, with the root that is put into the configurations.

use super::{NamespaceLabels, Webhooks};
use crate::certificate::Serving;
use crate::inject::Settings;
use crate::metrics::Metrics;
use base64::Engine;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const NAME: &str = "istiod.istio-system.svc";

struct Server {
    address: std::net::SocketAddr,
    root: String,
    metrics: Arc<Metrics>,
}

async fn serve() -> Server {
    let serving = Serving::make(&[NAME.to_owned()], SystemTime::now()).expect("it can be made");
    let (_, tls) = watch::channel(serving.tls().expect("usable"));
    let enabled = BTreeMap::from([("istio-injection".to_owned(), "enabled".to_owned())]);
    let namespaces = NamespaceLabels::default();
    namespaces.write().insert("shop".to_owned(), enabled);
    let metrics: Arc<Metrics> = Arc::default();
    // Nobody listens there: a decision that needs fresh labels fails.
    let nowhere = kube::Config::new("http://127.0.0.1:1".parse().expect("a URL"));
    let webhooks = Webhooks {
        client: kube::Client::try_from(nowhere).expect("a client"),
        namespaces,
        settings: watch::channel(Settings::default()).1,
        metrics: Arc::clone(&metrics),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let handle = move |request| webhooks.clone().handle(request);
    tokio::spawn(crate::http::serve(
        listener,
        Some(tls),
        handle,
        CancellationToken::new(),
    ));
    Server {
        address,
        root: serving.root,
        metrics,
    }
}

impl Server {
    /// Posts a review and returns the status and the answer's body.
    async fn post(&self, path: &str, body: &str) -> (u16, String) {
        let mut roots = rustls::RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(self.root.as_bytes()).expect("PEM");
        roots.add(root).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(self.address).await.expect("it listens");
        let name = ServerName::try_from(NAME).expect("a name");
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = connector
            .connect(name, stream)
            .await
            .expect("it is trusted");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .expect("HTTP");
        tokio::spawn(connection);
        let request = http::Request::post(path)
            .header("host", NAME)
            .body(Full::new(bytes::Bytes::from(body.to_owned())))
            .expect("a request");
        let answer = sender.send_request(request).await.expect("an answer");
        let status = answer.status().as_u16();
        let body = answer
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    /// The `response` of a review about `object`.
    async fn review(&self, path: &str, kind: &str, namespace: &str, object: Value) -> Value {
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "u", "kind": { "group": "", "version": "v1", "kind": kind },
                "namespace": namespace, "operation": "CREATE", "object": object,
            },
        });
        let (status, body) = self.post(path, &review.to_string()).await;
        assert_eq!(status, 200, "{body}");
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(answer["kind"], "AdmissionReview");
        assert_eq!(answer["response"]["uid"], "u");
        answer["response"].clone()
    }
}

fn pod() -> Value {
    json!({ "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "app" }] } })
}

fn route(spec: Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": { "name": "r", "namespace": "shop" }, "spec": spec,
    })
}

#[tokio::test]
async fn pods_are_patched() {
    let server = serve().await;
    let response = server.review("/inject", "Pod", "shop", pod()).await;
    assert_eq!(
        (&response["allowed"], &response["patchType"]),
        (&json!(true), &json!("JSONPatch"))
    );
    let patch = response["patch"].as_str().expect("a patch");
    let patch = base64::engine::general_purpose::STANDARD
        .decode(patch)
        .expect("base64");
    let patch: json_patch::Patch = serde_json::from_slice(&patch).expect("a JSON patch");
    let mut patched = pod();
    json_patch::patch(&mut patched, &patch).expect("it fits");
    assert_eq!(patched["spec"]["initContainers"][1]["name"], "istio-proxy");
    assert_eq!(server.metrics.injected.value(), 1);
}

#[tokio::test]
async fn what_cannot_be_decided_is_refused_with_a_reason() {
    let server = serve().await;
    let mut bad = pod();
    bad["metadata"]["annotations"] = json!({ "sidecar.istio.io/nativeSidecar": "maybe" });
    let refused = server.review("/inject", "Pod", "shop", bad).await;
    assert_eq!(refused["allowed"], false);
    assert_eq!(
        refused["status"]["message"],
        "sidecar injection: annotation sidecar.istio.io/nativeSidecar: \"maybe\" is not true or false; correct or \
         remove it"
    );
    // Its labels are not known, and the API server does not answer.
    let unknown = server.review("/inject", "Pod", "elsewhere", pod()).await;
    assert_eq!(unknown["allowed"], false);
    let message = unknown["status"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("namespace elsewhere"), "{message}");
    assert_eq!(server.metrics.injections_failed.value(), 2);
}

#[tokio::test]
async fn configuration_is_validated() {
    let server = serve().await;
    let kind = "VirtualService";
    let destination = json!([{ "destination": { "host": "r" } }]);
    let good = route(json!({ "hosts": ["r"], "http": [{ "route": destination }] }));
    let good = server.review("/validate", kind, "shop", good).await;
    assert_eq!(good, json!({ "uid": "u", "allowed": true }));

    let odd = route(json!({ "hosts": ["r"], "http": [{ "route": destination }], "hots": 1 }));
    let odd = server.review("/validate", kind, "shop", odd).await;
    assert_eq!(odd["allowed"], true);
    let warning = odd["warnings"][0].as_str().unwrap_or_default();
    assert!(
        warning.contains("VirtualService shop/r: spec.hots"),
        "{warning}"
    );

    // Valid, and without effect so far: stored with a warning.
    let matched = json!([{ "uri": { "prefix": "/" }, "statPrefix": "x" }]);
    let rule = json!([{ "match": matched, "route": destination }]);
    let later = route(json!({ "hosts": ["r"], "http": rule }));
    let later = server.review("/validate", kind, "shop", later).await;
    assert_eq!(later["allowed"], true);
    let warning = later["warnings"][0].as_str().unwrap_or_default();
    assert!(
        warning.contains("spec.http[0].match[0].statPrefix: is not in force yet"),
        "{warning}"
    );

    let regex = json!([{ "uri": { "regex": "(" } }]);
    let bad = route(json!({ "hosts": ["r"], "http": [{ "match": regex, "route": destination }] }));
    let bad = server.review("/validate", kind, "shop", bad).await;
    assert_eq!(bad["allowed"], false);
    let message = bad["status"]["message"].as_str().unwrap_or_default();
    assert!(
        message.starts_with("VirtualService shop/r: spec.http[0].match[0].uri.regex: "),
        "{message}"
    );

    let deleted = server.review("/validate", kind, "shop", Value::Null).await;
    assert_eq!(deleted["allowed"], true);
}

#[tokio::test]
async fn what_is_not_a_review_is_told_so() {
    let server = serve().await;
    assert_eq!(server.post("/inject", "{}").await.0, 400);
    assert_eq!(server.post("/elsewhere", "{}").await.0, 404);
    let huge = "x".repeat(crate::http::MOST_BODY + 1);
    assert_eq!(server.post("/validate", &huge).await.0, 413);
}
