//! Namespaces and pods that are not in the mesh, though they may be meant to be.

use super::gather::Gathered;
use k8s_openapi::api::core::v1::Pod;
use lateen_api::notice::{Notice, Severity, Subject};
use std::collections::BTreeMap;

/// Istio's code for a namespace whose pods get no sidecar.
const NOT_INJECTED: &str = "IST0102";
/// Istio's code for a pod without sidecar in a namespace whose pods get one.
const NO_PROXY: &str = "IST0103";

/// Namespaces of Kubernetes and of the mesh itself.
const SYSTEM: [&str; 4] = [
    "kube-system",
    "kube-public",
    "kube-node-lease",
    "istio-system",
];

/// What is to be said of them.
pub(super) fn injection(gathered: &Gathered) -> Vec<Notice> {
    let mut notices = Vec::new();
    for (name, labels) in &gathered.namespaces {
        if SYSTEM.contains(&&**name) {
            continue;
        }
        let mut pods = gathered
            .pods
            .iter()
            .filter(|pod| pod.metadata.namespace.as_ref() == Some(name))
            .peekable();
        match is_injected(labels) {
            Some(true) => notices.extend(pods.filter(|pod| lacks_proxy(pod)).map(without_proxy)),
            Some(false) => {}
            None if pods.peek().is_some() => notices.push(not_injected(name)),
            None => {}
        }
    }
    notices
}

/// Whether pods of a namespace with these labels get sidecars; absent: nobody has decided.
fn is_injected(labels: &BTreeMap<String, String>) -> Option<bool> {
    match labels.get("istio-injection").map(String::as_str) {
        Some("enabled") => Some(true),
        Some(_) => Some(false),
        None if labels.contains_key("istio.io/rev") => Some(true),
        None => labels.get("istio.io/dataplane-mode").map(|_| false),
    }
}

fn not_injected(name: &str) -> Notice {
    let subject = Subject {
        kind: "Namespace".to_owned(),
        namespace: String::new(),
        name: name.to_owned(),
    };
    let message = format!(
        "its pods get no sidecars: run `kubectl label namespace {name} istio-injection=enabled` and create the pods anew, or label it istio-injection=disabled to say that they need none"
    );
    Notice::new(Severity::Info, &subject, "", message).code(NOT_INJECTED)
}

fn without_proxy(pod: &Pod) -> Notice {
    let subject = Subject {
        kind: "Pod".to_owned(),
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        name: pod.metadata.name.clone().unwrap_or_default(),
    };
    let message = "has no sidecar, though its namespace wants one: it was created before; create it anew (kubectl rollout restart)";
    Notice::warning(&subject, "", message).code(NO_PROXY)
}

/// Whether a pod that is to have a sidecar has none. Those that have ended, or opted out, are to have none.
fn lacks_proxy(pod: &Pod) -> bool {
    const INJECT: &str = "sidecar.istio.io/inject";
    let meta = &pod.metadata;
    let says_no = [&meta.labels, &meta.annotations].into_iter().flatten();
    let mut says_no = says_no.map(|map| map.get(INJECT).is_some_and(|value| value == "false"));
    let spec = pod.spec.as_ref();
    let on_host = spec.and_then(|spec| spec.host_network) == Some(true);
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    let ended = matches!(phase, Some("Succeeded" | "Failed"));
    let init = spec
        .and_then(|spec| spec.init_containers.as_ref())
        .into_iter()
        .flatten();
    let mut containers = spec.iter().flat_map(|spec| &spec.containers).chain(init);
    !on_host
        && !ended
        && !says_no.any(|no| no)
        && !containers.any(|container| container.name == "istio-proxy")
}
