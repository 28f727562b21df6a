//! Builds the clusters of a snapshot and finds the one that a destination means.

mod secured;

use super::cluster::{
    Cluster, ClusterSettings, ClusterTls, Discovery, Endpoint, NamedEndpoint, ServiceFacts,
};
use super::locality::{Client, Preference};
use super::peers::PeerModes;
use super::plan::{Fault, FaultReason};
use super::policy::{Merged, Policies};
use super::registry::{Registry, Visible};
use super::resources::ResourceSet;
use crate::matching::labels_match;
use crate::mesh::MeshSettings;
use crate::name::{Origin, ServiceKey};
use crate::route::Destination;
use crate::service::{Location, Port, Protocol, Resolution};
use crate::traffic::{Balancer, ConnectionPool, TrafficSettings};
use crate::workload::{Health, ServicePorts, Workload};
use lateen_base::Str;
use secured::{proof, tls};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Connect timeout when no DestinationRule sets one (Istio: `meshConfig.connectTimeout`).
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Outbound clusters by name.
#[derive(Debug, Default)]
pub(super) struct Clusters {
    pub by_name: BTreeMap<Str, Arc<Cluster>>,
}

/// Where a destination leads: a cluster, or why there is none.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Target {
    Cluster(Arc<Cluster>),
    Missing {
        reason: FaultReason,
        subject: String,
    },
}

impl Target {
    /// The cluster if something in it can be sent to; else the refusal, blamed on `origin`.
    pub fn usable(&self, origin: Option<&Origin>) -> Result<&Arc<Cluster>, Fault> {
        let (reason, subject) = match self {
            Self::Missing { reason, subject } => (*reason, subject.clone()),
            Self::Cluster(cluster) if cluster.discovery.is_empty() => {
                (FaultReason::NoEndpoint, cluster.name.to_string())
            }
            Self::Cluster(cluster) => return Ok(cluster),
        };
        Err(Fault {
            reason,
            origin: origin.cloned(),
            subject,
        })
    }
}

impl Discovery {
    /// The endpoints, where they are listed by address.
    pub fn endpoints(&self) -> &[Endpoint] {
        match self {
            Self::Endpoints(list) => list,
            Self::Dns(_)
            | Self::DnsFirst(_)
            | Self::DynamicDns(_)
            | Self::OriginalDestination
            | Self::Fixed(_) => &[],
        }
    }

    /// Whether nothing can be sent anywhere. Original destinations and fixed addresses are never empty.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Endpoints(list) => list.is_empty(),
            Self::Dns(names) => names.is_empty(),
            Self::OriginalDestination
            | Self::Fixed(_)
            | Self::DnsFirst(_)
            | Self::DynamicDns(_) => false,
        }
    }
}

/// Istio's name for an outbound cluster; `subset` is empty for the whole service.
pub(super) fn outbound_name(port: u16, subset: &str, host: &str) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// What clusters are built from, as one proxy sees it.
pub(super) struct View<'a> {
    pub registry: &'a Registry,
    pub policies: &'a Policies,
    pub modes: &'a PeerModes,
    pub mesh: &'a MeshSettings,
    pub client: &'a Client,
}

type Serving<'a> = HashMap<&'a ServiceKey, Vec<(&'a Arc<Workload>, &'a ServicePorts)>>;

impl Clusters {
    pub fn build(set: &ResourceSet, seen: &View<'_>, previous: Option<&Self>) -> Self {
        let mut serving: Serving<'_> = HashMap::new();
        for workload in set.workloads.values() {
            for (key, ports) in &workload.services {
                serving.entry(key).or_default().push((workload, ports));
            }
        }
        let mut clusters = Self::default();
        for visible in &seen.registry.services {
            let merged = seen.policies.of(&visible.service);
            let workloads = serving
                .get(&visible.service.key)
                .map_or(&[][..], Vec::as_slice);
            for port in visible.ports() {
                clusters.add_port(seen, (visible, port), &merged, workloads);
            }
        }
        if let Some(previous) = previous {
            clusters.reuse(previous);
        }
        clusters
    }

    fn add_port(
        &mut self,
        seen: &View<'_>,
        (visible, port): (&Visible, &Port),
        merged: &Merged,
        workloads: &[(&Arc<Workload>, &ServicePorts)],
    ) {
        let whole = Part {
            subset: None,
            labels: &BTreeMap::new(),
            settings: &merged.settings,
            policy: merged.origin.as_ref(),
        };
        let parts = merged.subsets.iter().map(|(name, subset)| Part {
            subset: Some(name),
            labels: &subset.labels,
            settings: &subset.settings,
            policy: Some(&subset.origin),
        });
        for part in std::iter::once(whole).chain(parts) {
            let cluster = part.cluster(seen, (visible, port), workloads);
            // Services come in order of preference: the first of one host and port stays.
            self.by_name
                .entry(cluster.name.clone())
                .or_insert_with(|| Arc::new(cluster));
        }
    }

    /// Keeps the old `Arc` of every cluster that came out the same.
    fn reuse(&mut self, previous: &Self) {
        for (name, cluster) in &mut self.by_name {
            if let Some(old) = previous.by_name.get(name).filter(|old| same(old, cluster)) {
                *cluster = old.clone();
            }
        }
    }

    /// The cluster of a whole service port.
    pub fn of_port(&self, visible: &Visible, port: u16) -> Target {
        let name = outbound_name(port, "", &visible.service.key.hostname);
        self.named(&name, FaultReason::NoCluster)
    }

    /// The cluster that a route's destination means when the client addressed `port`.
    pub fn of_destination(&self, registry: &Registry, to: &Destination, port: u16) -> Target {
        let subset = to.subset.as_deref().unwrap_or("");
        let only_port = || match registry.by_name(&to.host, None)?.service.ports.as_slice() {
            [only] => Some(only.number),
            _ => None,
        };
        let port = to.port.or_else(only_port).unwrap_or(port);
        let known = registry
            .by_name(&to.host, Some(port))
            .is_some_and(|visible| visible.port(port).is_some());
        let reason = match known {
            true if !subset.is_empty() => FaultReason::NoSubset,
            _ => FaultReason::NoCluster,
        };
        self.named(&outbound_name(port, subset, &to.host), reason)
    }

    fn named(&self, name: &str, reason: FaultReason) -> Target {
        match self.by_name.get(name) {
            Some(cluster) => Target::Cluster(cluster.clone()),
            None => Target::Missing {
                reason,
                subject: name.to_owned(),
            },
        }
    }
}

/// A service port's whole or one subset of it.
struct Part<'a> {
    subset: Option<&'a Str>,
    labels: &'a BTreeMap<Str, Str>,
    settings: &'a TrafficSettings,
    policy: Option<&'a Origin>,
}

impl Part<'_> {
    fn cluster(
        &self,
        seen: &View<'_>,
        (visible, port): (&Visible, &Port),
        workloads: &[(&Arc<Workload>, &ServicePorts)],
    ) -> Cluster {
        let service = &visible.service;
        let settings = self.settings.ports.get(&port.number);
        let settings = settings.unwrap_or(self.settings);
        let subset = self.subset.map_or("", |s| s);
        // Istio: what is outside of the mesh has TLS only where a DestinationRule asks for it.
        let tls = match (service.location, &settings.tls) {
            (Location::External, None) => ClusterTls::Plain,
            (_, wanted) => tls(seen, wanted.as_ref(), &service.sans, || {
                let host = &service.key.hostname;
                format!("outbound_.{}_.{subset}_.{host}", port.number)
            }),
        };
        let chosen: Vec<_> = workloads
            .iter()
            .filter(|(w, _)| labels_match(self.labels, &w.labels))
            .copied()
            .collect();
        let defaults = &seen.mesh.traffic;
        let mut pool = settings.pool.clone().or_else(|| defaults.pool.clone());
        let pool = pool.get_or_insert_default();
        let connect_timeout = pool.connect_timeout.unwrap_or(defaults.connect_timeout);
        pool.keepalive = pool.keepalive.or(defaults.keepalive);
        let outlier = settings.outlier.as_ref().or(defaults.outlier.as_ref());
        let balancing = settings.balancer.clone().unwrap_or_default();
        let rule = balancing.locality.as_ref();
        let near = Preference::of(rule, service, &defaults.locality, outlier.is_some());
        let balancer = balancing.algorithm;
        let discovery = match service.resolution {
            _ if balancer == Balancer::Passthrough => Discovery::OriginalDestination,
            Resolution::None if visible.is_headless() => {
                endpoints(seen, (port, &tls), &chosen, &near)
            }
            Resolution::None => Discovery::OriginalDestination,
            Resolution::Static => endpoints(seen, (port, &tls), &chosen, &near),
            Resolution::DynamicDns => {
                Discovery::DynamicDns(Some(port.target.unwrap_or(port.number)))
            }
            Resolution::Dns | Resolution::DnsFirst => {
                let mut named = names(seen, port, &tls, &chosen);
                let alone = named.is_empty() && self.subset.is_none();
                named.extend(own_name(visible, port).filter(|_| alone));
                match service.resolution {
                    Resolution::DnsFirst if !named.is_empty() => {
                        Discovery::DnsFirst(named.swap_remove(0))
                    }
                    _ => Discovery::Dns(named),
                }
            }
        };
        Cluster {
            name: outbound_name(port.number, subset, &service.key.hostname).into(),
            service: Some(ServiceFacts {
                key: service.key.clone(),
                name: service.name.clone(),
                port: port.number,
                subset: self.subset.cloned(),
                policy: self.policy.cloned(),
            }),
            discovery,
            balancer,
            connect_timeout,
            protocol: port.protocol,
            tls,
            settings: Arc::new(ClusterSettings {
                h2_upgrade: h2_upgrade(port.protocol, pool, defaults.h2_upgrade),
                outlier: outlier.cloned(),
                warmup: balancing.warmup,
                tunnel: settings.tunnel.clone(),
                proxy_protocol: settings.proxy_protocol,
                retry_budget: settings.retry_budget,
                pool: pool.clone(),
            }),
        }
    }
}

/// Ready endpoints; draining ones only when nothing is ready.
fn endpoints(
    seen: &View<'_>,
    (port, tls): (&Port, &ClusterTls),
    workloads: &[(&Arc<Workload>, &ServicePorts)],
    near: &Preference<'_>,
) -> Discovery {
    let any_ready = workloads
        .iter()
        .any(|(_, ports)| ports.health == Health::Ready && ports.ports.contains_key(&port.number));
    let wanted = if any_ready {
        Health::Ready
    } else {
        Health::Draining
    };
    let mut list = Vec::new();
    for (workload, ports) in workloads.iter().filter(|(_, p)| p.health == wanted) {
        let Some(target) = ports.ports.get(&port.number) else {
            continue;
        };
        // A dual-stack pod is one endpoint: its first address is its primary one.
        let Some(ip) = workload.addresses.first() else {
            continue;
        };
        let (mutual, identity) = proof(seen, tls, workload, *target);
        list.push(Endpoint {
            address: SocketAddr::new(*ip, *target),
            weight: workload.weight.max(1),
            priority: 0,
            locality_weight: 0,
            health: wanted,
            mutual,
            identity,
            workload: (*workload).clone(),
        });
    }
    near.arrange(&mut list, seen.client);
    Discovery::Endpoints(list.into())
}

/// Names (or literal addresses) of endpoints to resolve.
fn names(
    seen: &View<'_>,
    port: &Port,
    tls: &ClusterTls,
    workloads: &[(&Arc<Workload>, &ServicePorts)],
) -> Vec<NamedEndpoint> {
    workloads
        .iter()
        .filter(|(_, ports)| ports.health != Health::Unready)
        .filter_map(|(workload, ports)| {
            let target = ports.ports.get(&port.number).copied()?;
            let host = match (&workload.hostname, workload.addresses.first()) {
                (Some(name), _) => name.clone(),
                (None, Some(ip)) => ip.to_string().into(),
                (None, None) => return None,
            };
            let (mutual, identity) = proof(seen, tls, workload, target);
            Some(NamedEndpoint {
                host,
                port: target,
                mutual,
                identity,
            })
        })
        .collect()
}

/// The service's own host, for a service that lists no endpoint.
fn own_name(visible: &Visible, port: &Port) -> Option<NamedEndpoint> {
    let host = &visible.service.key.hostname;
    (!host.starts_with('*')).then(|| NamedEndpoint {
        host: host.clone(),
        port: port.target.unwrap_or(port.number),
        mutual: false,
        identity: None,
    })
}

/// Equality that looks into workloads only when their references differ.
fn same(a: &Cluster, b: &Cluster) -> bool {
    let endpoints = match (&a.discovery, &b.discovery) {
        (Discovery::Endpoints(a), Discovery::Endpoints(b)) => {
            a.len() == b.len()
                && a.iter().zip(b.iter()).all(|(a, b)| {
                    (a.address, a.weight, a.health) == (b.address, b.weight, b.health)
                        && (a.priority, a.locality_weight) == (b.priority, b.locality_weight)
                        && (a.mutual, &a.identity) == (b.mutual, &b.identity)
                        && (Arc::ptr_eq(&a.workload, &b.workload) || a.workload == b.workload)
                })
        }
        (a, b) => a == b,
    };
    endpoints
        && a.service == b.service
        && a.balancer == b.balancer
        && a.connect_timeout == b.connect_timeout
        && a.protocol == b.protocol
        && a.tls == b.tls
        && a.settings == b.settings
}

/// Whether HTTP/1.1 becomes HTTP/2: who asks for it on a port means that it is HTTP (Istio: `shouldH2Upgrade`).
fn h2_upgrade(protocol: Protocol, pool: &ConnectionPool, mesh: bool) -> bool {
    let wanted = pool
        .h2_upgrade
        .unwrap_or(mesh && protocol == Protocol::Http);
    wanted && !pool.use_client_protocol && matches!(protocol, Protocol::Http | Protocol::Detect)
}

/// A cluster without service that sends to the original destination; `mutual`: by mutual TLS to workloads that take it.
pub(super) fn passthrough(name: &str, mutual: bool) -> Arc<Cluster> {
    let tls = match mutual {
        false => ClusterTls::Plain,
        true => ClusterTls::Mesh {
            server_name: "".into(),
            sans: Arc::default(),
            required: false,
        },
    };
    alone(name, Discovery::OriginalDestination, tls)
}

/// A cluster without service that sends to what the asked name resolves to.
pub(super) fn dynamic(name: &str) -> Arc<Cluster> {
    alone(name, Discovery::DynamicDns(None), ClusterTls::Plain)
}

fn alone(name: &str, discovery: Discovery, tls: ClusterTls) -> Arc<Cluster> {
    Arc::new(Cluster {
        name: name.into(),
        service: None,
        discovery,
        balancer: Balancer::Passthrough,
        connect_timeout: CONNECT_TIMEOUT,
        protocol: Protocol::Detect,
        tls,
        settings: Arc::default(),
    })
}

/// The same cluster, bound to the address that the client itself chose (pods of headless services).
pub(super) fn pinned(cluster: &Cluster) -> Arc<Cluster> {
    Arc::new(Cluster {
        discovery: Discovery::OriginalDestination,
        balancer: Balancer::Passthrough,
        ..cluster.clone()
    })
}
