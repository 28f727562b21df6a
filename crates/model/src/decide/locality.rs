//! Which endpoints are near: ranks and shares by locality, as one client sees them (Istio: `localityLbSetting`,
//! Kubernetes: `trafficDistribution`).

use super::cluster::Endpoint;
use super::resources::ResourceSet;
use crate::mesh::Scope;
use crate::service::{Service, TrafficDistribution};
use crate::traffic::{Distribute, Failover, Locality};
use crate::workload::Workload;
use lateen_base::Str;
use std::collections::{BTreeMap, BTreeSet};

const NETWORK: &str = "topology.istio.io/network";
const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";
const SUBZONE: &str = "topology.istio.io/subzone";
const HOST: &str = "kubernetes.io/hostname";
/// A pod's own word about where it is, with dots for slashes.
const LOCALITY: &str = "topology.istio.io/locality";

/// Where a client is.
#[derive(Debug, Default)]
pub(super) struct Client {
    locality: String,
    node: Str,
    labels: BTreeMap<Str, Str>,
}

impl Client {
    /// The proxy's own workload, else what the proxy says of itself.
    pub fn of(set: &ResourceSet, scope: &Scope) -> Self {
        let own =
            |w: &&std::sync::Arc<Workload>| w.name == scope.pod && w.namespace == scope.namespace;
        let said = scope
            .labels
            .get(LOCALITY)
            .map(|text| text.replace('.', "/"));
        let said = said.unwrap_or_default();
        match set.workloads.values().find(own) {
            Some(own) => Self {
                locality: match &*own.locality {
                    "" => said,
                    known => known.to_owned(),
                },
                node: own.node.clone(),
                labels: own.labels.clone(),
            },
            None => Self {
                locality: said,
                node: Str::default(),
                labels: scope.labels.clone(),
            },
        }
    }

    fn value(&self, key: &str) -> &str {
        value(key, &self.locality, &self.node, &self.labels)
    }
}

/// Which settings hold: the DestinationRule's, else the service's, else the mesh's.
pub(super) struct Preference<'a> {
    locality: Option<&'a Locality>,
    /// Labels of a service that prefers near endpoints.
    labels: &'static [&'static str],
    /// Whether endpoints that fail are left out: without, farther ones would never be used (Istio).
    ejects: bool,
}

impl<'a> Preference<'a> {
    pub fn of(
        rule: Option<&'a Locality>,
        service: &Service,
        mesh: &'a Locality,
        ejects: bool,
    ) -> Self {
        let labels: &[&str] = match service.traffic_distribution {
            _ if rule.is_some() => &[],
            None => &[],
            Some(TrafficDistribution::SameZone) => &[NETWORK, REGION, ZONE],
            Some(TrafficDistribution::SameNode) => &[NETWORK, REGION, ZONE, SUBZONE, HOST],
        };
        let locality = rule.unwrap_or(mesh);
        Self {
            locality: Some(locality).filter(|l| l.enabled && labels.is_empty()),
            labels,
            ejects,
        }
    }

    /// Gives endpoints their ranks and shares; those that a distribution leaves out are gone.
    pub fn arrange(&self, endpoints: &mut Vec<Endpoint>, client: &Client) {
        if !self.labels.is_empty() {
            return rank_by_labels(endpoints, client, self.labels);
        }
        let Some(settings) = self.locality else {
            return;
        };
        if !settings.distribute.is_empty() {
            return distribute(endpoints, client, &settings.distribute);
        }
        if !self.ejects {
            return;
        }
        let labels: Vec<&str> = settings.failover_priority.iter().map(|l| &**l).collect();
        match labels.is_empty() {
            false => rank_by_labels(endpoints, client, &labels),
            true => rank_by_locality(endpoints, client, &settings.failover),
        }
    }
}

/// How many labels, in their order, an endpoint shares with the client decides.
fn rank_by_labels(endpoints: &mut [Endpoint], client: &Client, labels: &[&str]) {
    rank(endpoints, |workload| {
        let of = |key: &str| value(key, &workload.locality, &workload.node, &workload.labels);
        let shared = labels
            .iter()
            .take_while(|label| match label.split_once('=') {
                Some((key, wanted)) => of(key) == wanted,
                None => of(label) == client.value(label),
            });
        (labels.len() - shared.count()) as u32
    });
}

/// Sub-zone, zone, region, the region that takes over, the rest (Istio: `applyLocalityFailover`).
fn rank_by_locality(endpoints: &mut [Endpoint], client: &Client, failover: &[Failover]) {
    if client.locality.is_empty() {
        return;
    }
    let own = parts(&client.locality);
    let takes_over = failover.iter().find(|f| &*f.from == own[0]);
    rank(endpoints, |workload| {
        let its = parts(&workload.locality);
        let same = own.iter().zip(its).take_while(|(a, b)| *a == b).count();
        match (same, takes_over) {
            (0, Some(failover)) if its[0] != &*failover.to => 4,
            (same, _) => 3 - same as u32,
        }
    });
}

/// Sets ranks without gaps.
fn rank(endpoints: &mut [Endpoint], of: impl Fn(&Workload) -> u32) {
    let ranks: Vec<u32> = endpoints.iter().map(|e| of(&e.workload)).collect();
    let used: BTreeSet<u32> = ranks.iter().copied().collect();
    for (endpoint, rank) in endpoints.iter_mut().zip(ranks) {
        endpoint.priority = used.range(..rank).count() as u32;
    }
}

/// Shares by locality (Istio: `applyLocalityWeights`). A share is for all localities that it covers, by their weight.
fn distribute(endpoints: &mut Vec<Endpoint>, client: &Client, rules: &[Distribute]) {
    let Some(rule) = rules.iter().find(|r| covers(&r.from, &client.locality)) else {
        return;
    };
    let mut weights: BTreeMap<Str, u64> = BTreeMap::new();
    for endpoint in endpoints.iter() {
        let weight = weights.entry(endpoint.workload.locality.clone());
        *weight.or_default() += u64::from(endpoint.weight);
    }
    let target = |locality: &Str| rule.to.iter().position(|(to, _)| covers(to, locality));
    let mut whole = vec![0u64; rule.to.len()];
    for (locality, weight) in &weights {
        if let Some(at) = target(locality) {
            whole[at] += weight;
        }
    }
    endpoints.retain_mut(|endpoint| {
        let locality = &endpoint.workload.locality;
        let Some(at) = target(locality) else {
            return false;
        };
        let share = weights[locality] * u64::from(rule.to[at].1);
        endpoint.locality_weight = share.div_ceil(whole[at].max(1)) as u32;
        endpoint.locality_weight > 0
    });
}

/// Whether a locality of a rule covers this one: `*`, or part by part, where `*` and missing parts cover everything.
fn covers(rule: &str, locality: &str) -> bool {
    let mut rule = rule.split('/').take(3).zip(parts(locality));
    rule.all(|(wanted, part)| matches!(wanted, "*" | "") || wanted == part)
}

/// Region, zone, sub-zone.
fn parts(locality: &str) -> [&str; 3] {
    let mut parts = locality.splitn(3, '/');
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

/// What a label of topology says of somebody; other labels are just that.
fn value<'v>(
    key: &str,
    locality: &'v str,
    node: &'v Str,
    labels: &'v BTreeMap<Str, Str>,
) -> &'v str {
    let [region, zone, subzone] = parts(locality);
    let known = match key {
        REGION => region,
        ZONE => zone,
        SUBZONE => subzone,
        HOST => node,
        _ => "",
    };
    match known {
        "" => labels.get(key).map_or("", |value| value),
        known => known,
    }
}
