//! Which DestinationRule is in force for a service, and what several of them mean together.

use super::host::HostTable;
use super::resources::ResourceSet;
use crate::matching::labels_match;
use crate::mesh::Scope;
use crate::name::Origin;
use crate::service::Service;
use crate::traffic::{Subset, TrafficPolicy, TrafficSettings};
use lateen_base::Str;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

type ByHost = HostTable<Vec<Arc<TrafficPolicy>>>;

/// Visible DestinationRules in lookup order.
#[derive(Debug, Default)]
pub(super) struct Policies {
    /// Those of the client's namespace that select the client by label: they win over all others.
    selected: ByHost,
    by_namespace: HashMap<Str, ByHost>,
    /// Namespace searched first; absent for clients in the root namespace, where the service's goes first
    /// (Istio: else mesh-wide rules would hide those of the services from gateways there).
    client: Option<Str>,
    root: Str,
}

/// The rules for one host, merged.
#[derive(Debug, Default)]
pub(super) struct Merged {
    /// The first rule with settings for the whole host, else the oldest.
    pub origin: Option<Origin>,
    pub settings: TrafficSettings,
    /// By name: the rule that declares it, its labels and its settings with the host's filled in.
    pub subsets: BTreeMap<Str, MergedSubset>,
}

/// One subset with inherited settings filled in.
#[derive(Debug)]
pub(super) struct MergedSubset {
    pub origin: Origin,
    pub labels: BTreeMap<Str, Str>,
    pub settings: TrafficSettings,
}

impl Policies {
    pub fn build(set: &ResourceSet, scope: &Scope, root: &Str) -> Self {
        let mut policies = Self {
            client: (scope.namespace != *root).then(|| scope.namespace.clone()),
            root: root.clone(),
            ..Self::default()
        };
        let mut all: Vec<_> = set
            .policies
            .values()
            .filter(|p| p.visibility.includes(&scope.namespace))
            .collect();
        all.sort_by(|a, b| {
            (a.origin.created, &a.origin.name).cmp(&(b.origin.created, &b.origin.name))
        });
        for policy in all {
            let table = if policy.workload_selector.is_empty() {
                policies
                    .by_namespace
                    .entry(policy.origin.namespace.clone())
                    .or_default()
            } else if policy.origin.namespace == scope.namespace
                && labels_match(&policy.workload_selector, &scope.labels)
            {
                &mut policies.selected
            } else {
                continue;
            };
            table.slot(&policy.host, Vec::new).push(policy.clone());
        }
        policies
    }

    /// What is in force for `service`: client's namespace, then the service's, then the root
    /// namespace; in each the most specific host (Istio: `destinationRule` lookup).
    pub fn of(&self, service: &Service) -> Merged {
        let host = &service.key.hostname;
        let namespaces = [
            self.client.as_ref(),
            Some(&service.key.namespace),
            Some(&self.root),
        ];
        let in_namespaces = namespaces
            .into_iter()
            .flatten()
            .filter_map(|ns| self.by_namespace.get(ns));
        std::iter::once(&self.selected)
            .chain(in_namespaces)
            .find_map(|table| table.find(host))
            .map_or_else(Merged::default, |rules| merge(rules))
    }
}

/// Rules of one namespace for one host, oldest first: subsets are added, the first settings win.
fn merge(rules: &[Arc<TrafficPolicy>]) -> Merged {
    let with_settings = rules
        .iter()
        .find(|r| r.settings != TrafficSettings::default());
    let first = with_settings.or(rules.first());
    let settings = first.map(|r| r.settings.clone()).unwrap_or_default();
    let mut subsets = BTreeMap::new();
    for rule in rules {
        for subset in &rule.subsets {
            subsets
                .entry(subset.name.clone())
                .or_insert_with(|| MergedSubset {
                    origin: rule.origin.clone(),
                    labels: subset.labels.clone(),
                    settings: inherit(subset, &settings),
                });
        }
    }
    Merged {
        origin: first.map(|r| r.origin.clone()),
        settings,
        subsets,
    }
}

/// A subset's settings on top of the host's (Istio: `MergeSubsetTrafficPolicy`): first the host's own say for a port
/// counts, then the subset's blocks one by one; what the subset says for a port replaces all of that.
fn inherit(subset: &Subset, host: &TrafficSettings) -> TrafficSettings {
    let own = &subset.settings;
    let over = |below: &TrafficSettings| TrafficSettings {
        balancer: own.balancer.clone().or_else(|| below.balancer.clone()),
        pool: own.pool.clone().or_else(|| below.pool.clone()),
        outlier: own.outlier.clone().or_else(|| below.outlier.clone()),
        tls: own.tls.clone().or_else(|| below.tls.clone()),
        tunnel: own.tunnel.clone().or_else(|| below.tunnel.clone()),
        proxy_protocol: own.proxy_protocol.or(below.proxy_protocol),
        retry_budget: own.retry_budget.or(below.retry_budget),
        ports: BTreeMap::new(),
    };
    let mut ports: BTreeMap<_, _> = host.ports.iter().map(|(p, s)| (*p, over(s))).collect();
    ports.extend(own.ports.iter().map(|(p, s)| (*p, s.clone())));
    TrafficSettings {
        ports,
        ..over(host)
    }
}
