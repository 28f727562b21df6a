//! What of a pod means something to the mesh: all that is kept of the thousands that a mesh has. It decides nothing.

use crate::workload::owner_name;
use k8s_openapi::api::core::v1 as core;
use lateen_base::Str;
use lateen_model::workload::Health;
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Labels, shared by the pods that carry the same.
pub type Labels = Arc<BTreeMap<Str, Str>>;

/// Least number of texts at which it is looked which of them are still used.
const LOOK: usize = 4096;

/// A pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: Str,
    /// Its name.
    pub name: Str,
    /// Its addresses, the primary one first; empty: it has none yet.
    pub addresses: Box<[IpAddr]>,
    /// Its labels.
    pub labels: Labels,
    /// Name of the workload that it belongs to, as [`owner_name`] finds it.
    pub owner: Str,
    /// Its service account; empty: the namespace's default.
    pub service_account: Str,
    /// Its node; empty: none yet.
    pub node: Str,
    /// Whether there is a sidecar in it.
    pub has_sidecar: bool,
    /// Whether it has ended.
    pub has_ended: bool,
    /// Its health where no EndpointSlice speaks of it.
    pub health: Health,
}

impl Pod {
    /// Reads a pod; texts that `words` knows are shared.
    pub fn of(pod: &core::Pod, words: &mut Words) -> Self {
        let (meta, spec) = (&pod.metadata, pod.spec.as_ref());
        let status = pod.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref());
        let account = spec.and_then(|spec| spec.service_account_name.as_deref());
        let node = spec.and_then(|spec| spec.node_name.as_deref());
        Self {
            namespace: words.text(meta.namespace.as_deref().unwrap_or_default()),
            name: meta.name.as_deref().unwrap_or_default().into(),
            addresses: addresses(status),
            labels: words.labels(meta.labels.as_ref()),
            owner: words.text(&owner_name(meta)),
            service_account: words.text(account.unwrap_or_default()),
            node: words.text(node.unwrap_or_default()),
            has_sidecar: has_sidecar(pod),
            has_ended: matches!(phase, Some("Succeeded" | "Failed")),
            health: health(pod),
        }
    }

    /// Whether it can serve or call at all: it has an address and has not ended.
    pub fn is_alive(&self) -> bool {
        !self.addresses.is_empty() && !self.has_ended
    }
}

/// Texts that many objects have in common, each kept once.
#[derive(Debug, Default)]
pub struct Words {
    texts: HashSet<Str>,
    labels: HashSet<Labels>,
    /// Number of both at which unused ones are thrown away.
    most: usize,
}

impl Words {
    /// The shared form of `text`.
    pub fn text(&mut self, text: &str) -> Str {
        if let Some(known) = self.texts.get(text) {
            return Str::clone(known);
        }
        self.tidy();
        let new = Str::from(text);
        self.texts.insert(Str::clone(&new));
        new
    }

    fn labels(&mut self, labels: Option<&BTreeMap<String, String>>) -> Labels {
        let pairs = labels.into_iter().flatten();
        let labels: BTreeMap<Str, Str> = pairs
            .map(|(key, value)| (self.text(key), self.text(value)))
            .collect();
        if let Some(known) = self.labels.get(&labels) {
            return Arc::clone(known);
        }
        let new = Arc::new(labels);
        self.labels.insert(Arc::clone(&new));
        new
    }

    /// Throws away what nobody else holds, each time that there is twice as much as was held then.
    fn tidy(&mut self) {
        if self.texts.len() + self.labels.len() < self.most.max(LOOK) {
            return;
        }
        self.labels.retain(|labels| Arc::strong_count(labels) > 1);
        self.texts.retain(|text| Arc::strong_count(text) > 1);
        self.most = 2 * (self.texts.len() + self.labels.len());
    }
}

fn addresses(status: Option<&core::PodStatus>) -> Box<[IpAddr]> {
    let first = status.and_then(|status| status.pod_ip.as_ref());
    let listed = status.and_then(|status| status.pod_ips.as_ref());
    let listed = listed.into_iter().flatten().map(|ip| &ip.ip);
    let mut addresses = Vec::new();
    for ip in first.into_iter().chain(listed) {
        if let Ok(ip) = ip.parse()
            && !addresses.contains(&ip)
        {
            addresses.push(ip);
        }
    }
    addresses.into()
}

fn health(pod: &core::Pod) -> Health {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    let is_ready = conditions.any(|c| c.type_ == "Ready" && c.status == "True");
    match (is_ready, pod.metadata.deletion_timestamp.is_some()) {
        (true, false) => Health::Ready,
        (true, true) => Health::Draining,
        (false, _) => Health::Unready,
    }
}

fn has_sidecar(pod: &core::Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    let spec = pod.spec.as_ref();
    let containers = spec.map(|s| s.containers.as_slice()).unwrap_or_default();
    let inits = spec
        .and_then(|s| s.init_containers.as_deref())
        .unwrap_or_default();
    annotations.is_some_and(|a| a.contains_key("sidecar.istio.io/status"))
        || containers
            .iter()
            .chain(inits)
            .any(|c| c.name == "istio-proxy")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_of_one_owner_share_what_they_have_in_common() {
        let mut words = Words::default();
        let mut read = |name: &str, phase: &str| {
            let object = serde_json::from_value(json!({
                "metadata": { "name": name, "namespace": "shop", "labels": { "app": "web" } },
                "spec": { "containers": [], "serviceAccountName": "sa" },
                "status": { "podIP": "10.0.0.1", "podIPs": [{ "ip": "10.0.0.1" }, { "ip": "::1" }], "phase": phase },
            }));
            Pod::of(&object.expect("valid"), &mut words)
        };
        let (first, second) = (read("a", "Running"), read("b", "Failed"));
        assert!(Arc::ptr_eq(&first.labels, &second.labels));
        assert!(Arc::ptr_eq(&first.service_account, &second.service_account));
        assert_eq!(first.addresses.len(), 2);
        assert_eq!((first.has_ended, second.has_ended), (false, true));
    }

    #[test]
    fn words_that_nobody_holds_are_forgotten() {
        let mut words = Words::default();
        let kept = words.text("kept");
        for number in 0..3 * LOOK {
            words.text(&number.to_string());
        }
        assert!(words.texts.len() <= LOOK, "{}", words.texts.len());
        assert!(Arc::ptr_eq(&kept, &words.text("kept")));
    }
}
