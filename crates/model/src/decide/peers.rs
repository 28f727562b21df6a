//! Which servers want mutual TLS: PeerAuthentications, by Istio's precedence port > workload > namespace > mesh.

use super::plan::{ConnectionFacts, Direction};
use super::resources::ResourceSet;
use super::snapshot::Snapshot;
use crate::matching::labels_match;
use crate::name::Origin;
use crate::security::{MtlsMode, PeerAuthentication};
use lateen_base::Str;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Whether a server's port wants mutual TLS, and who said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerMode {
    /// The mode in force.
    pub mode: MtlsMode,
    /// The PeerAuthentication that sets it; absent: Istio's default, PERMISSIVE.
    pub origin: Option<Origin>,
}

/// Every PeerAuthentication, found by what it is for.
#[derive(Debug, Default)]
pub(super) struct PeerModes {
    mesh: Option<Arc<PeerAuthentication>>,
    /// The one without selector of each namespace.
    namespaces: HashMap<Str, Arc<PeerAuthentication>>,
    /// Those with selector of each namespace.
    selected: HashMap<Str, Selected>,
}

/// Objects with a selector.
#[derive(Debug, Default)]
struct Selected {
    /// Oldest first.
    all: Vec<Arc<PeerAuthentication>>,
    /// Positions in `all`, by one of the labels that are wanted.
    by_label: HashMap<Str, HashMap<Str, Vec<usize>>>,
}

impl Selected {
    fn add(&mut self, policy: &Arc<PeerAuthentication>) {
        if let Some((key, value)) = policy.selector.first_key_value() {
            let values = self.by_label.entry(key.clone()).or_default();
            let list = values.entry(value.clone()).or_default();
            list.push(self.all.len());
            self.all.push(policy.clone());
        }
    }

    /// The oldest that selects a workload.
    fn of(&self, labels: &BTreeMap<Str, Str>) -> Option<&Arc<PeerAuthentication>> {
        let at = labels.iter().filter_map(|(key, value)| {
            let list = self.by_label.get(key)?.get(value)?;
            let selects = |at: &&usize| labels_match(&self.all[**at].selector, labels);
            list.iter().find(selects)
        });
        at.min().map(|at| &self.all[*at])
    }
}

impl PeerModes {
    /// Sorts the set's objects; on one level the oldest counts. In the root namespace those with a selector are
    /// ignored (Istio), and so are ports of objects without selector.
    pub fn build(set: &ResourceSet, root: &Str) -> Self {
        let mut all: Vec<_> = set.peer_authentications.values().collect();
        all.sort_by(|a, b| {
            (a.origin.created, &a.origin.name).cmp(&(b.origin.created, &b.origin.name))
        });
        let mut modes = Self::default();
        for policy in all {
            let namespace = &policy.origin.namespace;
            match (policy.selector.is_empty(), namespace == root) {
                (true, true) => {
                    modes.mesh.get_or_insert_with(|| policy.clone());
                }
                (true, false) => {
                    let slot = modes.namespaces.entry(namespace.clone());
                    slot.or_insert_with(|| policy.clone());
                }
                (false, false) => {
                    let selected = modes.selected.entry(namespace.clone()).or_default();
                    selected.add(policy);
                }
                (false, true) => {}
            }
        }
        modes
    }

    /// The mode of `port` (of the workload, not of a service) of a workload, and who sets it.
    pub fn of(
        &self,
        namespace: &str,
        labels: &BTreeMap<Str, Str>,
        port: u16,
    ) -> (MtlsMode, Option<&Origin>) {
        let selected = self.selected.get(namespace);
        let own = selected.and_then(|selected| selected.of(labels));
        let by_port = own.and_then(|p| Some((p, (*p.ports.get(&port)?)?)));
        let by_object = || {
            let levels = [own, self.namespaces.get(namespace), self.mesh.as_ref()];
            levels
                .into_iter()
                .flatten()
                .find_map(|p| Some((p, p.mode?)))
        };
        match by_port.or_else(by_object) {
            Some((policy, mode)) => (mode, Some(&policy.origin)),
            None => (MtlsMode::Permissive, None),
        }
    }
}

/// Whether an inbound connection must, may or cannot be mutual TLS. PeerAuthentications do not concern gateways:
/// their servers say themselves ([`super::gateway_tls`]); nor what goes out. Those get `Disable`.
pub fn peer_mode(snapshot: &Snapshot, facts: &ConnectionFacts) -> PeerMode {
    match facts.direction {
        Direction::Inbound => {
            let scope = &snapshot.scope;
            let port = facts.destination.port();
            let modes = &snapshot.security.modes;
            let (mode, origin) = modes.of(&scope.namespace, &scope.labels, port);
            PeerMode {
                mode,
                origin: origin.cloned(),
            }
        }
        Direction::Outbound | Direction::Gateway => PeerMode {
            mode: MtlsMode::Disable,
            origin: None,
        },
    }
}
