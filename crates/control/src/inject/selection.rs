//! Whether a pod is injected: Istio's webhook selectors and its rules for single pods, in one place.

use super::Input;
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeMap;
use std::fmt;

/// Why a pod is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skip {
    /// It uses the node's network.
    HostNetwork,
    /// Its namespace belongs to Kubernetes itself.
    SystemNamespace,
    /// Its label or annotation says no.
    PodSaysNo,
    /// Its namespace says no.
    NamespaceSaysNo,
    /// It or its namespace chose another revision.
    OtherRevision,
    /// Neither it nor its namespace asks for it.
    NotAsked,
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HostNetwork => "the pod uses the host's network, which cannot be captured",
            Self::SystemNamespace => "the namespace belongs to Kubernetes",
            Self::PodSaysNo => "the pod's sidecar.istio.io/inject says no",
            Self::NamespaceSaysNo => "the namespace's label istio-injection is disabled",
            Self::OtherRevision => "label istio.io/rev names another revision",
            Self::NotAsked => "neither the namespace nor the pod asks for injection",
        })
    }
}

/// Namespaces that are never injected (Istio: `IgnoredNamespaces`).
const SYSTEM: [&str; 4] = [
    "kube-system",
    "kube-public",
    "kube-node-lease",
    "local-path-storage",
];
const INJECT: &str = "sidecar.istio.io/inject";
const REVISION: &str = "istio.io/rev";

/// Whether the pod is injected.
///
/// # Errors
/// Why it is not.
pub(super) fn check(pod: &Pod, input: Input<'_>) -> Result<(), Skip> {
    let empty = BTreeMap::new();
    let labels = pod.metadata.labels.as_ref().unwrap_or(&empty);
    let annotations = pod.metadata.annotations.as_ref().unwrap_or(&empty);
    if pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true) {
        return Err(Skip::HostNetwork);
    }
    let namespace = input.namespace;
    if SYSTEM.contains(&namespace) {
        return Err(Skip::SystemNamespace);
    }
    // The label beats the annotation, which is the older form.
    let word = labels.get(INJECT).or_else(|| annotations.get(INJECT));
    let wish = word.filter(|word| !word.is_empty()).map(|word| yes(word));
    if wish == Some(false) {
        return Err(Skip::PodSaysNo);
    }
    match input
        .namespace_labels
        .get("istio-injection")
        .map(String::as_str)
    {
        Some("enabled") => return Ok(()),
        Some("disabled") => return Err(Skip::NamespaceSaysNo),
        // Other values select nothing, as in Istio's webhook.
        Some(_) => return Err(Skip::NotAsked),
        None => {}
    }
    // The namespace's revision beats the pod's.
    let revision = input
        .namespace_labels
        .get(REVISION)
        .or_else(|| labels.get(REVISION));
    match revision {
        Some(revision) if *revision == input.settings.revision => Ok(()),
        Some(_) => Err(Skip::OtherRevision),
        None if wish == Some(true) || input.settings.by_default => Ok(()),
        None => Err(Skip::NotAsked),
    }
}

/// Istio's words for yes; every other word is a no.
fn yes(word: &str) -> bool {
    ["y", "yes", "true", "on"]
        .iter()
        .any(|yes| word.eq_ignore_ascii_case(yes))
}
