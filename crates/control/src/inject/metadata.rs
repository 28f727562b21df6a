//! Labels and annotations of an injected pod, and which workload it belongs to.

use super::{Facts, INIT, PROXY, Parts};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Where an earlier injection recorded what it added.
pub(super) const STATUS: &str = "sidecar.istio.io/status";
/// Where the pod's own containers with reserved names are kept as they were.
pub(super) const OVERRIDES: &str = "proxy.istio.io/overrides";
/// Kubernetes: label values have at most 63 characters.
const LABEL_LIMIT: usize = 63;

/// The workload that a pod belongs to.
pub(super) struct Owner {
    /// Its name.
    pub(super) workload: String,
    /// `kubernetes://apis/<group version>/namespaces/<ns>/<plural>/<name>` (Istio: `ISTIO_META_OWNER`).
    pub(super) uri: String,
}

impl Owner {
    /// Follows the controller reference: a ReplicaSet with a template hash stands for its Deployment, a Job
    /// with a scheduled time in its name for its CronJob.
    pub(super) fn of(pod: &Pod, namespace: &str) -> Self {
        let meta = &pod.metadata;
        let references = meta.owner_references.iter().flatten();
        let controller = references
            .into_iter()
            .find(|owner| owner.controller == Some(true));
        let (version, kind, name) = match controller {
            Some(owner) => {
                let labels = meta.labels.as_ref();
                let hash = labels.and_then(|labels| labels.get("pod-template-hash"));
                above(&owner.api_version, &owner.kind, &owner.name, hash)
            }
            None => {
                let generated = meta.generate_name.as_deref().unwrap_or_default();
                let name = meta.name.as_deref().filter(|name| !name.is_empty());
                let name = name.unwrap_or(generated.trim_end_matches('-'));
                ("v1".to_owned(), "Pod".to_owned(), name.to_owned())
            }
        };
        let plural = format!("{}s", kind.to_ascii_lowercase());
        Self {
            uri: format!("kubernetes://apis/{version}/namespaces/{namespace}/{plural}/{name}"),
            workload: name,
        }
    }
}

/// The object above a pod's controller where names tell it.
fn above(version: &str, kind: &str, name: &str, hash: Option<&String>) -> (String, String, String) {
    let same = || (version.to_owned(), kind.to_owned(), name.to_owned());
    let Some((stem, last)) = name.rsplit_once('-') else {
        return same();
    };
    match kind {
        "ReplicaSet" if hash.is_some_and(|hash| hash == last) => {
            (version.to_owned(), "Deployment".to_owned(), stem.to_owned())
        }
        // CronJob controller: the scheduled time in minutes (8 digits) or seconds (10 digits).
        "Job" if matches!(last.len(), 8..=10) && last.bytes().all(|b| b.is_ascii_digit()) => {
            ("batch/v1".to_owned(), "CronJob".to_owned(), stem.to_owned())
        }
        _ => same(),
    }
}

/// Adds labels and annotations to the pod.
pub(super) fn apply(pod: &mut Value, facts: &Facts<'_>, parts: &Parts) {
    let labels = facts.pod.metadata.labels.clone().unwrap_or_default();
    let mut new_labels = vec![
        (
            "service.istio.io/canonical-name",
            canonical_name(&labels, &facts.owner),
        ),
        (
            "service.istio.io/canonical-revision",
            canonical_revision(&labels),
        ),
    ];
    if parts.sidecar {
        new_labels.push(("security.istio.io/tlsMode", "istio".to_owned()));
    }
    let own = section(pod, "labels");
    for (key, value) in new_labels {
        own.entry(key).or_insert_with(|| json!(value));
    }
    let status = status(facts, parts);
    let first = first_application(facts).map(str::to_owned);
    let own = section(pod, "annotations");
    own.insert(STATUS.to_owned(), json!(status));
    own.insert("istio.io/rev".to_owned(), json!(facts.settings.revision));
    for (key, value) in &facts.prometheus.annotations {
        own.insert(key.clone(), json!(value));
    }
    if let Some(first) = first {
        for key in [
            "kubectl.kubernetes.io/default-container",
            "kubectl.kubernetes.io/default-logs-container",
        ] {
            own.entry(key).or_insert_with(|| json!(first));
        }
    }
}

/// `metadata.<name>` as a map, made when missing.
pub(super) fn section<'v>(pod: &'v mut Value, name: &str) -> &'v mut Map<String, Value> {
    let section = &mut pod["metadata"][name];
    if !section.is_object() {
        *section = json!({});
    }
    section.as_object_mut().expect("it is an object by now")
}

/// The record of what was added, which makes injection repeatable.
fn status(facts: &Facts<'_>, parts: &Parts) -> String {
    let mut inits = Vec::new();
    let mut containers = Vec::new();
    if parts.init.is_some() {
        inits.push(INIT);
    }
    if parts.native {
        inits.push(PROXY);
    } else {
        containers.push(PROXY);
    }
    let list = |names: Vec<&str>| match names.is_empty() {
        true => Value::Null,
        false => json!(names),
    };
    let volumes: Vec<&str> = parts.volumes.iter().map(|v| v.name.as_str()).collect();
    json!({
        "initContainers": list(inits),
        "containers": list(containers),
        "volumes": volumes,
        "imagePullSecrets": null,
        "revision": facts.settings.revision,
    })
    .to_string()
}

/// The first container that is not the proxy: where `kubectl logs` and `exec` go.
fn first_application<'a>(facts: &'a Facts<'_>) -> Option<&'a str> {
    let spec = facts.pod.spec.as_ref()?;
    let mut names = spec.containers.iter().map(|c| c.name.as_str());
    names.find(|&name| name != PROXY)
}

/// Istio: `service.istio.io/canonical-name`, `app.kubernetes.io/name`, `app`, else the workload's name.
fn canonical_name(labels: &BTreeMap<String, String>, owner: &Owner) -> String {
    let keys = [
        "service.istio.io/canonical-name",
        "app.kubernetes.io/name",
        "app",
    ];
    let found = keys.iter().find_map(|&key| labels.get(key));
    let name = found.map_or(owner.workload.as_str(), String::as_str);
    let cut: String = name.chars().take(LABEL_LIMIT).collect();
    // A cut name may end in a character that a label value may not end in.
    cut.trim_end_matches(['-', '_', '.']).to_owned()
}

/// Istio: `service.istio.io/canonical-revision`, `app.kubernetes.io/version`, `version`, else `latest`.
fn canonical_revision(labels: &BTreeMap<String, String>) -> String {
    let keys = [
        "service.istio.io/canonical-revision",
        "app.kubernetes.io/version",
        "version",
    ];
    let found = keys.iter().find_map(|&key| labels.get(key));
    found.map_or("latest", String::as_str).to_owned()
}
