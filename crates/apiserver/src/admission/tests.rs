//! Real HTTPS webhooks on loopback: which are called, with what, and what becomes of their answers.

use super::*;
use crate::auth::tests::Objects;
use crate::tls::Authority;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

/// A webhook server that answers by path and tells what it was asked.
struct Server {
    authority: Authority,
    port: u16,
    asked: mpsc::UnboundedReceiver<(String, Value)>,
}

/// `response` of the review for a path; the uid is filled in.
fn answer(path: &str, request: &Value) -> Value {
    let patch = |patch: Value| json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch.to_string())});
    match path {
        "/allow" => json!({"allowed": true, "warnings": ["mind the gap"]}),
        "/deny" => json!({"allowed": false, "status": {"code": 403, "message": "not today"}}),
        "/deny-silently" => json!({"allowed": false}),
        "/label" => patch(json!([{"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}])),
        // Counts its own calls in the object.
        "/count" => {
            let seen = request["object"]["data"]["count"]
                .as_str()
                .unwrap_or("0")
                .parse::<u32>()
                .unwrap()
                + 1;
            patch(json!([{"op": "add", "path": "/data", "value": {"count": seen.to_string()}}]))
        }
        "/misfit" => patch(json!([{"op": "remove", "path": "/absent"}])),
        "/uid" => json!({"allowed": true, "uid": "other"}),
        _ => json!({"allowed": true}),
    }
}

impl Server {
    async fn start() -> Self {
        let authority = Authority::open(None).unwrap();
        let acceptor = TlsAcceptor::from(authority.server_config(&["hook.a.svc".into()]).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, asked) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, tell) = (acceptor.clone(), tell.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service =
                        hyper::service::service_fn(move |request| serve(request, tell.clone()));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            authority,
            port,
            asked,
        }
    }

    fn bundle(&self) -> String {
        STANDARD.encode(self.authority.pem())
    }

    /// A stored configuration with one webhook for creates of ConfigMaps; `more` is merged into the webhook.
    fn configuration(&self, stage: &str, name: &str, path: &str, more: Value) -> Value {
        let mut hook = json!({
            "name": format!("{name}.hooks.example"), "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": format!("https://127.0.0.1:{}{path}", self.port), "caBundle": self.bundle()},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
        });
        for (key, value) in more.as_object().unwrap() {
            hook[key] = value.clone();
        }
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{stage}WebhookConfiguration"),
            "metadata": {"name": name}, "webhooks": [hook]})
    }

    fn asked(&mut self) -> Vec<String> {
        let mut paths = Vec::new();
        while let Ok((path, _)) = self.asked.try_recv() {
            paths.push(path);
        }
        paths
    }
}

async fn serve(
    request: Request<Incoming>,
    tell: mpsc::UnboundedSender<(String, Value)>,
) -> Result<Response<Full<bytes::Bytes>>, std::convert::Infallible> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let review: Value = serde_json::from_slice(&body).unwrap();
    tell.send((format!("{path}?{query}"), review["request"].clone()))
        .unwrap();
    match path.as_str() {
        "/hang" => std::future::pending().await,
        "/junk" => return Ok(Response::new("junk".into())),
        "/broken" => {
            return Ok(Response::builder()
                .status(503)
                .body("out of order".into())
                .unwrap());
        }
        "/old" => {
            return Ok(Response::new(
                r#"{"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview"}"#.into(),
            ));
        }
        _ => {}
    }
    let mut response = answer(&path, &review["request"]);
    if response["uid"].is_null() {
        response["uid"] = review["request"]["uid"].clone();
    }
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
    Ok(Response::new(review.to_string().into()))
}

fn webhooks(objects: Vec<Value>) -> Webhooks {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "labels": {"inject": "yes"}}});
    let objects = objects
        .into_iter()
        .chain([namespace])
        .map(Arc::new)
        .collect();
    Webhooks::new(Arc::new(Objects(objects)))
}

fn create() -> AdmissionInput {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "a", "labels": {"x": "y"}}});
    AdmissionInput {
        operation: Operation::Create,
        kind: GroupVersionKind {
            group: "".into(),
            version: "v1".into(),
            kind: "ConfigMap".into(),
        },
        resource: GroupVersionResource {
            group: "".into(),
            version: "v1".into(),
            resource: "configmaps".into(),
        },
        subresource: String::new(),
        namespace: Some("a".into()),
        name: "c".into(),
        user: User {
            name: "jane".into(),
            groups: vec!["team".into()],
            ..User::default()
        },
        object: Some(object),
        old_object: None,
        dry_run: false,
    }
}

#[tokio::test]
async fn a_request_as_kubernetes_sends_it() {
    let mut server = Server::start().await;
    let hooks = webhooks(vec![server.configuration(
        "Mutating",
        "one",
        "/label",
        json!({"timeoutSeconds": 3}),
    )]);
    let mut input = create();
    assert_eq!(mutate(&hooks, &mut input).await, Ok(vec![]));
    assert_eq!(
        input.object.as_ref().unwrap()["metadata"]["labels"],
        json!({"a": "b"})
    );

    let (path, request) = server.asked.recv().await.unwrap();
    assert_eq!(path, "/label?timeout=3s");
    assert_eq!(
        request["kind"],
        json!({"group": "", "version": "v1", "kind": "ConfigMap"})
    );
    assert_eq!(request["resource"]["resource"], "configmaps");
    assert_eq!(
        (
            &request["operation"],
            &request["namespace"],
            &request["name"]
        ),
        (&json!("CREATE"), &json!("a"), &json!("c"))
    );
    assert_eq!(
        request["userInfo"],
        json!({"username": "jane", "groups": ["team"]})
    );
    assert_eq!(
        (&request["oldObject"], &request["dryRun"]),
        (&Value::Null, &json!(false))
    );
    assert_eq!(request["options"]["kind"], "CreateOptions");
}

/// Whether a validating webhook with `more` is called for `input`.
async fn called(more: Value, input: &AdmissionInput) -> bool {
    let mut server = Server::start().await;
    let hooks = webhooks(vec![server.configuration("Validating", "one", "/", more)]);
    validate(&hooks, input).await.unwrap();
    !server.asked().is_empty()
}

#[tokio::test]
async fn matching() {
    let input = create();
    let rule = |patch: Value| {
        let mut rule = json!({"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]});
        for (key, value) in patch.as_object().unwrap() {
            rule[key] = value.clone();
        }
        json!({"rules": [rule]})
    };
    assert!(called(rule(json!({})), &input).await);
    assert!(called(rule(json!({"scope": "Namespaced"})), &input).await);
    assert!(!called(rule(json!({"scope": "Cluster"})), &input).await);
    assert!(!called(rule(json!({"operations": ["UPDATE"]})), &input).await);
    assert!(
        !called(
            rule(json!({"resources": ["configmaps/status", "pods"]})),
            &input
        )
        .await
    );
    assert!(called(rule(json!({"resources": ["*/*"]})), &input).await);
    assert!(
        called(rule(json!({"apiVersions": ["v2"]})), &input).await,
        "equivalent versions"
    );
    let mut exact = rule(json!({"apiVersions": ["v2"]}));
    exact["matchPolicy"] = json!("Exact");
    assert!(!called(exact, &input).await);

    let label = |key: &str, value: &str| json!({"matchLabels": {key: value}});
    assert!(called(json!({"namespaceSelector": label("inject", "yes")}), &input).await);
    assert!(!called(json!({"namespaceSelector": label("inject", "no")}), &input).await);
    assert!(called(json!({"objectSelector": label("x", "y")}), &input).await);
    assert!(!called(json!({"objectSelector": label("x", "z")}), &input).await);
    let expression = |operator: &str| {
        json!({"namespaceSelector": {"matchExpressions":
        [{"key": "inject", "operator": operator, "values": ["yes"]}]}})
    };
    for (operator, wanted) in [
        ("In", true),
        ("NotIn", false),
        ("Exists", true),
        ("DoesNotExist", false),
    ] {
        assert_eq!(
            called(expression(operator), &input).await,
            wanted,
            "{operator}"
        );
    }

    let condition =
        |expression: &str| json!({"matchConditions": [{"name": "c", "expression": expression}]});
    assert!(
        called(
            condition("object.metadata.labels.x == 'y' && request.userInfo.username == 'jane'"),
            &input
        )
        .await
    );
    assert!(!called(condition("request.operation == 'DELETE'"), &input).await);
    let mut ignore = condition("object.absent.field == 1");
    ignore["failurePolicy"] = json!("Ignore");
    assert!(!called(ignore, &input).await);

    let mut own = create();
    own.resource.group = hook::GROUP.into();
    own.resource.resource = "validatingwebhookconfigurations".into();
    assert!(
        !called(rule(json!({})), &own).await,
        "configurations are exempt"
    );
}

#[tokio::test]
async fn namespaces_are_matched_by_their_own_labels() {
    let mut input = create();
    input.resource.resource = "namespaces".into();
    input.namespace = Some("new".into());
    input.object = Some(json!({"metadata": {"name": "new", "labels": {"inject": "yes"}}}));
    let rules = json!([{"operations": ["*"], "apiGroups": [""], "apiVersions": ["*"], "resources": ["namespaces"], "scope": "Cluster"}]);
    let hook = |value: &str| json!({"rules": rules, "namespaceSelector": {"matchLabels": {"inject": value}}});
    assert!(called(hook("yes"), &input).await);
    assert!(!called(hook("no"), &input).await);
}

/// What a client gets from one validating webhook: its warnings, or code and sentence.
async fn outcome(path: &str, more: Value) -> Result<Vec<String>, (u16, String)> {
    let server = Server::start().await;
    let hooks = webhooks(vec![server.configuration("Validating", "one", path, more)]);
    validate(&hooks, &create()).await.map_err(|error| {
        (
            error.code,
            error.message.replace(&server.port.to_string(), "PORT"),
        )
    })
}

#[tokio::test]
async fn verdicts_and_failures() {
    let none = || json!({});
    assert_eq!(
        outcome("/allow", none()).await,
        Ok(vec!["mind the gap".to_owned()])
    );
    let denied =
        |text: &str| format!("admission webhook \"one.hooks.example\" denied the request{text}");
    assert_eq!(
        outcome("/deny", none()).await,
        Err((403, denied(": not today")))
    );
    assert_eq!(
        outcome("/deny-silently", none()).await,
        Err((400, denied(" without explanation")))
    );

    let failed = "Internal error occurred: failed calling webhook \"one.hooks.example\": ";
    for (path, part) in [
        ("/junk", "received invalid webhook response: not JSON"),
        (
            "/old",
            "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got admission.k8s.io/v1beta1",
        ),
        ("/uid", "expected response.uid="),
        (
            "/broken",
            "failed to call webhook: the webhook answered HTTP 503 Service Unavailable instead of 200: out of order",
        ),
    ] {
        let (code, message) = outcome(path, none()).await.unwrap_err();
        assert!(
            code == 500 && message.starts_with(failed) && message.contains(part),
            "{message}"
        );
        assert_eq!(
            outcome(path, json!({"failurePolicy": "Ignore"})).await,
            Ok(vec![]),
            "{path}"
        );
    }
    assert!(
        outcome("/deny", json!({"failurePolicy": "Ignore"}))
            .await
            .is_err(),
        "a refusal is no failure"
    );
}

#[tokio::test]
async fn a_webhook_that_does_not_answer_in_time() {
    let (code, message) = outcome("/hang", json!({"timeoutSeconds": 1}))
        .await
        .unwrap_err();
    assert_eq!(code, 500);
    assert!(
        message
            .contains("Post \"https://127.0.0.1:PORT/hang?timeout=1s\": context deadline exceeded"),
        "{message}"
    );
}

#[tokio::test]
async fn trust_comes_from_the_bundle_alone() {
    let other = STANDARD.encode(Authority::open(None).unwrap().pem());
    let server = Server::start().await;
    let mut configuration = server.configuration("Validating", "one", "/allow", json!({}));
    configuration["webhooks"][0]["clientConfig"]["caBundle"] = json!(other);
    let error = validate(&webhooks(vec![configuration.clone()]), &create())
        .await
        .unwrap_err();
    assert!(
        error.message.contains("tls: invalid peer certificate"),
        "{error}"
    );
    configuration["webhooks"][0]["clientConfig"]["caBundle"] = json!("");
    let error = validate(&webhooks(vec![configuration]), &create())
        .await
        .unwrap_err();
    assert!(error.message.contains("caBundle is not usable"), "{error}");
}

#[tokio::test]
async fn services() {
    let mut server = Server::start().await;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hook", "namespace": "a"},
        "spec": {"clusterIP": "127.0.0.1", "ports": [{"port": server.port, "name": "https"}]}});
    let client = json!({"clientConfig": {"service": {"name": "hook", "namespace": "a", "path": "/allow", "port": server.port},
        "caBundle": server.bundle()}});
    let configuration = server.configuration("Validating", "one", "", client);
    let slice = |ready: bool| {
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "hook-x", "namespace": "a", "labels": {"kubernetes.io/service-name": "hook"}},
        "ports": [{"name": "https", "port": server.port}],
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": ready}}]})
    };
    let ask = async |objects: Vec<&Value>| {
        let objects = objects
            .into_iter()
            .cloned()
            .chain([configuration.clone()])
            .collect();
        validate(&webhooks(objects), &create())
            .await
            .map_err(|error| error.message)
    };
    let warned = Ok(vec!["mind the gap".to_owned()]);
    assert_eq!(ask(vec![&service]).await, warned);
    assert_eq!(ask(vec![&service, &slice(true)]).await, warned);
    assert!(
        ask(vec![&service, &slice(false)])
            .await
            .unwrap_err()
            .contains("no endpoints available for service \"hook\"")
    );
    assert!(
        ask(vec![])
            .await
            .unwrap_err()
            .contains("service \"hook\" not found")
    );
    let mut headless = service.clone();
    headless["spec"]["clusterIP"] = json!("None");
    assert_eq!(ask(vec![&headless, &slice(true)]).await, warned);
    assert_eq!(server.asked()[0], "/allow?timeout=10s");
}

#[tokio::test]
async fn order_reinvocation_and_dry_run() {
    let mut server = Server::start().await;
    let again = json!({"reinvocationPolicy": "IfNeeded"});
    let hooks = webhooks(vec![
        server.configuration("Mutating", "b", "/label", json!({})),
        server.configuration("Mutating", "a", "/count", again.clone()),
        server.configuration("Mutating", "c", "/none", again),
    ]);
    let mut input = create();
    mutate(&hooks, &mut input).await.unwrap();
    let paths: Vec<String> = server
        .asked()
        .iter()
        .map(|path| path.split('?').next().unwrap().to_owned())
        .collect();
    // `a` is asked again because `b` changed the object after it; then `c` is because `a` did.
    assert_eq!(paths, ["/count", "/label", "/none", "/count", "/none"]);
    assert_eq!(input.object.unwrap()["data"]["count"], "2");

    let hooks = webhooks(vec![server.configuration(
        "Mutating",
        "a",
        "/label",
        json!({"sideEffects": "Some"}),
    )]);
    let mut dry = AdmissionInput {
        dry_run: true,
        ..create()
    };
    let error = mutate(&hooks, &mut dry).await.unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (
            400,
            "admission webhook \"a.hooks.example\" does not support dry run"
        )
    );

    let hooks = webhooks(vec![server.configuration(
        "Mutating",
        "a",
        "/misfit",
        json!({}),
    )]);
    let error = mutate(&hooks, &mut create()).await.unwrap_err();
    assert!(error.message.contains("does not apply"), "{error}");
    let mut gone = AdmissionInput {
        object: None,
        operation: Operation::Delete,
        ..create()
    };
    let any = json!([{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}]);
    let hooks = webhooks(vec![server.configuration(
        "Mutating",
        "a",
        "/label",
        json!({"rules": any}),
    )]);
    let error = mutate(&hooks, &mut gone).await.unwrap_err();
    assert!(
        error.message.contains("not supported for this operation"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_meets_webhooks() {
    use crate::auth::tests::kubectl::{Cluster, Unasked};
    let Some(cluster) = Cluster::start(Arc::new(Unasked)).await else {
        return;
    };
    let server = Server::start().await;
    let label = server.configuration("Mutating", "labels", "/label", json!({}));
    let only = |label: &str| json!({"objectSelector": {"matchLabels": {"ask": label}}});
    let deny = server.configuration("Validating", "denies", "/deny", only("deny"));
    let warn = server.configuration("Validating", "warns", "/allow", json!({}));
    let broken = server.configuration("Mutating", "a-broken", "/broken", only("broken"));
    for configuration in [&label, &deny, &warn, &broken] {
        cluster.good("apply -f -", &configuration.to_string()).await;
    }
    let ran = cluster.run("create configmap one", "").await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("Warning: mind the gap"), "{}", ran.err);
    let labels = cluster
        .good("get configmap one -o jsonpath={.metadata.labels}", "")
        .await;
    assert_eq!(labels, r#"{"a":"b"}"#);

    let map = |label: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "two", "labels": {"ask": label}}}).to_string()
    };
    cluster
        .bad(
            "create -f -",
            &map("broken"),
            "failed calling webhook \"a-broken.hooks.example\"",
        )
        .await;
    cluster
        .good("delete mutatingwebhookconfiguration labels", "")
        .await;
    let refusal = "admission webhook \"denies.hooks.example\" denied the request: not today";
    cluster.bad("create -f -", &map("deny"), refusal).await;
    cluster
        .bad("create -f - --dry-run=server", &map("deny"), refusal)
        .await;
    cluster.good("create -f -", &map("other")).await;
    cluster.server.stop().await;
}
