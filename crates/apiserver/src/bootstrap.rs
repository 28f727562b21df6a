//! What every cluster has from the start: namespaces, the `kubernetes` Service, the system's roles, and the default
//! service account and root certificate of each namespace.

use crate::api::{Api, Call};
use crate::crd;
use crate::error::ApiError;
use crate::lookup::Lookup;
use crate::meta;
use crate::store::Resource;
use crate::verbs::write;
use serde_json::{Value, json};
use std::sync::Arc;

/// Creates what is missing and serves the stored definitions.
///
/// # Errors
/// The store refuses.
pub async fn prepare(api: &Api) -> Result<(), ApiError> {
    for definition in api
        .store
        .list("apiextensions.k8s.io", "customresourcedefinitions", None)
    {
        crd::serve(api, &definition);
    }
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        ensure(
            api,
            "",
            "namespaces",
            None,
            json!({"metadata": {"name": name}}),
        )
        .await?;
    }
    for class in [
        ("system-cluster-critical", 2_000_000_000),
        ("system-node-critical", 2_000_001_000),
    ] {
        let object = json!({"metadata": {"name": class.0}, "value": class.1, "preemptionPolicy": "PreemptLowerPriority"});
        ensure(api, "scheduling.k8s.io", "priorityclasses", None, object).await?;
    }
    roles(api).await?;
    let service = json!({
        "metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "clusterIP": api.services.first().to_string(),
            "ports": [{"name": "https", "port": 443, "targetPort": 6443, "protocol": "TCP"}],
        },
    });
    ensure(api, "", "services", Some("default"), service).await
}

/// Keeps the default service account and the root certificate of every namespace there, until the server stops.
/// `certificate` is the authority's PEM text.
pub async fn furnish_namespaces(api: Arc<Api>, certificate: String) {
    let mut changed = api.store.subscribe(&Resource::new("", "namespaces"));
    let mut stopping = api.stopping.subscribe();
    loop {
        changed.borrow_and_update();
        for namespace in api.store.list("", "namespaces", None) {
            if let Err(error) = furnish(&api, &namespace, &certificate).await {
                tracing::warn!(%error, namespace = meta::text(&namespace, "name"), "a namespace could not be furnished");
            }
        }
        tokio::select! {
            result = changed.changed() => if result.is_err() { return },
            _ = stopping.changed() => return,
        }
    }
}

/// The same for one namespace.
///
/// # Errors
/// The store refuses.
pub async fn furnish(api: &Api, namespace: &Value, certificate: &str) -> Result<(), ApiError> {
    if meta::is_deleting(namespace) {
        return Ok(());
    }
    let name = meta::text(namespace, "name");
    ensure(
        api,
        "",
        "serviceaccounts",
        Some(name),
        json!({"metadata": {"name": "default"}}),
    )
    .await?;
    let root = json!({
        "metadata": {"name": "kube-root-ca.crt", "annotations": {
            "kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver.",
        }},
        "data": {"ca.crt": certificate},
    });
    ensure(api, "", "configmaps", Some(name), root).await
}

async fn ensure(
    api: &Api,
    group: &str,
    plural: &str,
    namespace: Option<&str>,
    object: Value,
) -> Result<(), ApiError> {
    let name = meta::text(&object, "name");
    if api.store.find(group, plural, namespace, name).is_some() {
        return Ok(());
    }
    let kind = api
        .registry
        .find(group, "v1", plural)
        .ok_or_else(ApiError::not_served)?;
    match write::create(api, &Call::internal(&kind, namespace, None), object).await {
        Err(error) if error.code != 409 => Err(error),
        _ => Ok(()),
    }
}

const RBAC: &str = "rbac.authorization.k8s.io";

async fn roles(api: &Api) -> Result<(), ApiError> {
    let read = json!(["get", "list", "watch"]);
    let write = json!([
        "create",
        "delete",
        "deletecollection",
        "get",
        "list",
        "patch",
        "update",
        "watch"
    ]);
    let core = json!([
        "bindings",
        "configmaps",
        "endpoints",
        "events",
        "limitranges",
        "namespaces",
        "persistentvolumeclaims",
        "pods",
        "pods/log",
        "pods/status",
        "replicationcontrollers",
        "replicationcontrollers/scale",
        "resourcequotas",
        "serviceaccounts",
        "services",
        "services/status",
    ]);
    let written = json!([
        "configmaps",
        "endpoints",
        "events",
        "persistentvolumeclaims",
        "pods",
        "pods/attach",
        "pods/eviction",
        "pods/exec",
        "pods/portforward",
        "replicationcontrollers",
        "replicationcontrollers/scale",
        "secrets",
        "serviceaccounts",
        "serviceaccounts/token",
        "services",
    ]);
    let groups = json!([
        "apps",
        "autoscaling",
        "batch",
        "discovery.k8s.io",
        "networking.k8s.io",
        "policy"
    ]);
    let view = vec![
        json!({"apiGroups": [""], "resources": core, "verbs": read}),
        json!({"apiGroups": groups, "resources": ["*"], "verbs": read}),
    ];
    let mut edit = view.clone();
    edit.push(json!({"apiGroups": [""], "resources": written, "verbs": write}));
    edit.push(json!({"apiGroups": groups, "resources": ["*"], "verbs": write}));
    let mut admin = edit.clone();
    admin
        .push(json!({"apiGroups": [RBAC], "resources": ["roles", "rolebindings"], "verbs": write}));
    admin.push(json!({"apiGroups": ["authorization.k8s.io"], "resources": ["localsubjectaccessreviews"], "verbs": ["create"]}));
    let own = json!(["selfsubjectaccessreviews", "selfsubjectrulesreviews"]);
    let documents = json!([
        "/api",
        "/api/*",
        "/apis",
        "/apis/*",
        "/healthz",
        "/livez",
        "/openapi",
        "/openapi/*",
        "/readyz",
        "/version",
        "/version/"
    ]);
    let health = json!(["/healthz", "/livez", "/readyz", "/version", "/version/"]);
    let issuer = json!([
        "/.well-known/openid-configuration",
        "/.well-known/openid-configuration/",
        "/openid/v1/jwks",
        "/openid/v1/jwks/"
    ]);
    let all = vec![
        (
            "cluster-admin",
            vec![
                json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}),
                json!({"nonResourceURLs": ["*"], "verbs": ["*"]}),
            ],
        ),
        ("view", view),
        ("edit", edit),
        ("admin", admin),
        (
            "system:basic-user",
            vec![
                json!({"apiGroups": ["authorization.k8s.io"], "resources": own, "verbs": ["create"]}),
                json!({"apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"], "verbs": ["create"]}),
            ],
        ),
        (
            "system:discovery",
            vec![json!({"nonResourceURLs": documents, "verbs": ["get"]})],
        ),
        (
            "system:public-info-viewer",
            vec![json!({"nonResourceURLs": health, "verbs": ["get"]})],
        ),
        (
            "system:service-account-issuer-discovery",
            vec![json!({"nonResourceURLs": issuer, "verbs": ["get"]})],
        ),
        (
            "system:auth-delegator",
            vec![
                json!({"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}),
                json!({"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]}),
            ],
        ),
    ];
    for (name, rules) in all {
        let object = json!({"metadata": {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}, "rules": rules});
        ensure(api, RBAC, "clusterroles", None, object).await?;
    }
    bindings(api).await
}

async fn bindings(api: &Api) -> Result<(), ApiError> {
    let all: [(&str, &[&str]); 5] = [
        ("cluster-admin", &["system:masters"]),
        ("system:basic-user", &["system:authenticated"]),
        ("system:discovery", &["system:authenticated"]),
        (
            "system:public-info-viewer",
            &["system:authenticated", "system:unauthenticated"],
        ),
        (
            "system:service-account-issuer-discovery",
            &["system:serviceaccounts"],
        ),
    ];
    for (role, groups) in all {
        let subjects: Vec<Value> = groups
            .iter()
            .map(|group| json!({"kind": "Group", "apiGroup": RBAC, "name": group}))
            .collect();
        let object = json!({
            "metadata": {"name": role, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role}, "subjects": subjects,
        });
        ensure(api, RBAC, "clusterrolebindings", None, object).await?;
    }
    Ok(())
}
