//! What Kubernetes does with its own kinds on the way into the store: defaults, built-in admission, validation.

pub mod addresses;
mod defaults;
mod validate;

pub use defaults::defaults;
pub use validate::{inert, refused, validate};

use crate::api::{Api, Call};
use crate::error::ApiError;
use crate::kinds::Kind;
use crate::lookup::Lookup;
use crate::meta;
use serde_json::{Value, json};

/// Whether objects of a kind count changes in `metadata.generation`.
pub fn has_generation(kind: &Kind) -> bool {
    kind.custom.is_some()
        || matches!(
            kind.plural.as_str(),
            "pods"
                | "deployments"
                | "replicasets"
                | "statefulsets"
                | "daemonsets"
                | "replicationcontrollers"
                | "jobs"
                | "cronjobs"
                | "ingresses"
                | "ingressclasses"
                | "networkpolicies"
                | "poddisruptionbudgets"
                | "endpointslices"
                | "mutatingwebhookconfigurations"
                | "validatingwebhookconfigurations"
                | "customresourcedefinitions"
                | "priorityclasses"
        )
}

/// Why a name is no good for a kind; absent when it is.
pub fn not_a_name(kind: &Kind, name: &str) -> Option<&'static str> {
    if kind.custom.is_some() {
        return meta::not_a_subdomain(name);
    }
    match kind.plural.as_str() {
        "services" => meta::not_a_service_name(name),
        "namespaces" => meta::not_a_label(name),
        // RBAC names may hold colons, as `system:masters`; they only must fit a path.
        "roles" | "clusterroles" | "rolebindings" | "clusterrolebindings" => match name {
            "." | ".." => Some("may not be '.' or '..'"),
            name if name.contains(['/', '%']) => Some("may not contain '/' or '%'"),
            _ => None,
        },
        _ => meta::not_a_subdomain(name),
    }
}

/// Built-in admission on create, before webhooks.
///
/// # Errors
/// 403 when a pod's service account does not exist.
pub fn admit(api: &Api, call: &Call, object: &mut Value) -> Result<(), ApiError> {
    if call.kind.is("", "pods") {
        return service_account(api, object);
    }
    Ok(())
}

/// The ServiceAccount admission plugin: the account must exist; its token is mounted into each container.
fn service_account(api: &Api, pod: &mut Value) -> Result<(), ApiError> {
    if pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string() {
        return Ok(());
    }
    let name = match pod["spec"]["serviceAccountName"].as_str() {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => "default".to_owned(),
    };
    let namespace = meta::text(pod, "namespace").to_owned();
    let account = api.store.find("", "serviceaccounts", Some(&namespace), &name).ok_or_else(|| {
        let pod_name = meta::text(pod, "name");
        let why = format!("error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found");
        ApiError::forbidden("", "pods", pod_name, &why)
    })?;
    let spec = &mut pod["spec"];
    spec["serviceAccountName"] = json!(name);
    spec["serviceAccount"] = json!(name);
    if spec["imagePullSecrets"].is_null() && account["imagePullSecrets"].is_array() {
        spec["imagePullSecrets"] = account["imagePullSecrets"].clone();
    }
    let mounts = spec["automountServiceAccountToken"]
        .as_bool()
        .or(account["automountServiceAccountToken"].as_bool());
    if mounts.unwrap_or(true) {
        mount_token(spec);
    }
    Ok(())
}

const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

fn mount_token(spec: &mut Value) {
    let volumes = spec["volumes"].as_array().into_iter().flatten();
    let existing = volumes
        .filter_map(|volume| volume["name"].as_str())
        .find(|name| name.starts_with("kube-api-access-"));
    let volume = existing.map_or_else(
        || format!("kube-api-access-{}", meta::random_suffix()),
        str::to_owned,
    );
    let mut used = false;
    for list in ["initContainers", "containers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            let mounts = &mut container["volumeMounts"];
            if !mounts.is_array() {
                *mounts = json!([]);
            }
            let Some(mounts) = mounts.as_array_mut() else {
                continue;
            };
            if !mounts.iter().any(|mount| mount["mountPath"] == TOKEN_PATH) {
                mounts.push(json!({"name": volume, "readOnly": true, "mountPath": TOKEN_PATH}));
                used = true;
            }
        }
    }
    let known = spec["volumes"]
        .as_array()
        .is_some_and(|list| list.iter().any(|entry| entry["name"] == volume));
    if !used || known {
        return;
    }
    if !spec["volumes"].is_array() {
        spec["volumes"] = json!([]);
    }
    if let Some(volumes) = spec["volumes"].as_array_mut() {
        volumes.push(json!({"name": volume, "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
            ]}},
        ]}}));
    }
}

#[cfg(test)]
mod tests;
