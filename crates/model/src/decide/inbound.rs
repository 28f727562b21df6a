//! Decisions for what comes from the mesh to the application: by port alone, no routes.

use super::cluster::{Cluster, ClusterTls, Discovery, ServiceFacts};
use super::clusters::{CONNECT_TIMEOUT, Target};
use super::plan::{ConnectionFacts, ConnectionPlan, Fault, FaultReason, RequestPlan, TcpPlan};
use super::resources::ResourceSet;
use super::routes;
use super::snapshot::Snapshot;
use crate::mesh::Scope;
use crate::service::{Protocol, Service};
use crate::traffic::Balancer;
use crate::workload::Workload;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// The proxy's own capture ports: a connection to them would come back for ever.
const CAPTURE_PORTS: [u16; 2] = [15001, 15006];

/// One port of the application.
#[derive(Debug, Clone)]
pub(super) struct InboundPort {
    protocol: Protocol,
    facts: ServiceFacts,
    /// One cluster for each address of the pod, so that requests share them.
    clusters: Vec<Arc<Cluster>>,
}

impl InboundPort {
    /// Its clusters, one for each address of the pod.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.clusters.iter()
    }
}

/// Ports of the proxy's own workload, by port on the pod.
pub(super) fn ports(set: &ResourceSet, scope: &Scope) -> HashMap<u16, InboundPort> {
    let mut found: HashMap<u16, (Protocol, &Arc<Service>, u16)> = HashMap::new();
    let Some(workload) = own_workload(set, scope) else {
        return HashMap::new();
    };
    let mut services: Vec<_> = workload
        .services
        .iter()
        .filter_map(|(key, ports)| Some((set.service(key)?, ports)))
        .collect();
    services.sort_by_key(|(service, _)| service.origin.created);
    for (service, served) in services {
        for (number, target) in &served.ports {
            let Some(port) = service.ports.iter().find(|p| p.number == *number) else {
                continue;
            };
            let entry = found
                .entry(*target)
                .or_insert((port.protocol, service, *number));
            if rank(port.protocol) < rank(entry.0) {
                entry.0 = port.protocol;
            }
        }
    }
    found
        .into_iter()
        .map(|(target, (protocol, service, number))| {
            let facts = ServiceFacts {
                key: service.key.clone(),
                name: service.name.clone(),
                port: number,
                subset: None,
                policy: None,
            };
            let clusters = scope
                .addresses
                .iter()
                .map(|ip| cluster(&facts, protocol, SocketAddr::new(*ip, target)))
                .collect();
            let port = InboundPort {
                protocol,
                facts,
                clusters,
            };
            (target, port)
        })
        .collect()
}

/// Which of two declarations of one port wins: HTTP, then declared bytes, then undeclared.
fn rank(protocol: Protocol) -> u8 {
    match protocol {
        p if p.is_http() => 0,
        Protocol::Tcp | Protocol::Tls => 1,
        Protocol::Detect => 2,
        _ => 3,
    }
}

/// The workload that this proxy sits beside: by pod, else by address.
pub(super) fn own_workload<'a>(set: &'a ResourceSet, scope: &Scope) -> Option<&'a Arc<Workload>> {
    let uid = format!("Pod/{}/{}", scope.namespace, scope.pod);
    set.workload(&uid).or_else(|| {
        set.workloads()
            .find(|w| w.addresses.iter().any(|ip| scope.addresses.contains(ip)))
    })
}

fn cluster(facts: &ServiceFacts, protocol: Protocol, address: SocketAddr) -> Arc<Cluster> {
    Arc::new(Cluster {
        name: format!("inbound|{}||", address.port()).into(),
        service: Some(facts.clone()),
        discovery: Discovery::Fixed(address),
        balancer: Balancer::Passthrough,
        connect_timeout: CONNECT_TIMEOUT,
        protocol,
        tls: ClusterTls::Plain,
        settings: Arc::default(),
    })
}

fn target(snapshot: &Snapshot, facts: &ConnectionFacts) -> Target {
    let to = facts.destination;
    if CAPTURE_PORTS.contains(&to.port()) {
        return Target::Missing {
            reason: FaultReason::NoRoute,
            subject: format!("the proxy's own port {}", to.port()),
        };
    }
    Target::Cluster(match snapshot.inbound.get(&to.port()) {
        None => snapshot.inbound_passthrough.clone(),
        Some(port) => {
            let shared = port
                .clusters
                .iter()
                .find(|c| c.discovery == Discovery::Fixed(to));
            match shared {
                Some(cluster) => cluster.clone(),
                None => cluster(&port.facts, port.protocol, to),
            }
        }
    })
}

/// Bytes to the application.
pub(super) fn tcp(snapshot: &Snapshot, facts: &ConnectionFacts) -> TcpPlan {
    match target(snapshot, facts) {
        Target::Cluster(cluster) => TcpPlan::Forward {
            cluster,
            origin: None,
        },
        Target::Missing { reason, subject } => TcpPlan::Refuse(Fault {
            reason,
            origin: None,
            subject,
        }),
    }
}

/// Plan for a new connection: by the protocol of the service port behind the port.
pub(super) fn connection(snapshot: &Snapshot, facts: &ConnectionFacts) -> ConnectionPlan {
    let plan = tcp(snapshot, facts);
    if matches!(plan, TcpPlan::Refuse(_)) {
        return ConnectionPlan::Tcp(plan);
    }
    match snapshot.inbound.get(&facts.destination.port()) {
        Some(port) if port.protocol.is_http() => ConnectionPlan::Http,
        Some(port) if matches!(port.protocol, Protocol::Tcp | Protocol::Tls) => {
            ConnectionPlan::Tcp(plan)
        }
        _ => ConnectionPlan::Detect(plan),
    }
}

/// Plan for a connection whose mutual TLS ended here: as [`connection`], and where nothing is declared the client's
/// ALPN counts.
pub(super) fn secured(snapshot: &Snapshot, facts: &ConnectionFacts, alpn: &str) -> ConnectionPlan {
    match connection(snapshot, facts) {
        ConnectionPlan::Detect(_) if is_http(alpn) => ConnectionPlan::Http,
        plan => plan,
    }
}

fn is_http(alpn: &str) -> bool {
    let plain = alpn.strip_prefix("istio-").unwrap_or(alpn);
    plain == "h2" || plain.starts_with("http/")
}

/// Requests go to the application as they are, and are never sent twice.
pub(super) fn request(snapshot: &Snapshot, facts: &ConnectionFacts) -> RequestPlan {
    let target = target(snapshot, facts);
    routes::default_plan(&target, &snapshot.names.default, &snapshot.no_retries)
}
