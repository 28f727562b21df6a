//! Decisions for what comes from the mesh to the application: by port alone, no routes.

use super::cluster::{Cluster, ClusterSettings, ClusterTls, Discovery, ServiceFacts};
use super::clusters::{CONNECT_TIMEOUT, Target};
use super::plan::{ConnectionFacts, ConnectionPlan, Fault, FaultReason, RequestPlan, TcpPlan};
use super::policy::Policies;
use super::resources::ResourceSet;
use super::routes;
use super::snapshot::Snapshot;
use crate::mesh::{IngressEndpoint, IngressListener, Scope, SidecarScope};
use crate::service::{Protocol, Service};
use crate::traffic::{Balancer, ConnectionPool};
use crate::workload::Workload;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The proxy's own capture ports: a connection to them would come back for ever.
const CAPTURE_PORTS: [u16; 2] = [15001, 15006];

/// One port of the application.
#[derive(Debug, Clone)]
pub(super) struct InboundPort {
    protocol: Protocol,
    /// Absent: no service is behind it.
    facts: Option<ServiceFacts>,
    /// Limits on what comes in.
    settings: Arc<ClusterSettings>,
    /// One cluster for each of `addresses`, so that requests share them.
    clusters: Vec<Arc<Cluster>>,
    /// The pod's addresses.
    addresses: Vec<IpAddr>,
    /// Whether a Sidecar object says where the application is.
    declared: bool,
}

impl InboundPort {
    /// Its clusters, one for each address of the pod.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.clusters.iter()
    }

    /// The application at `address`, for what came to port `number` of the pod.
    fn cluster(&self, number: u16, address: SocketAddr) -> Arc<Cluster> {
        let timeout = self.settings.pool.connect_timeout;
        Arc::new(Cluster {
            name: format!("inbound|{number}||").into(),
            service: self.facts.clone(),
            discovery: Discovery::Fixed(address),
            balancer: Balancer::Passthrough,
            connect_timeout: timeout.unwrap_or(CONNECT_TIMEOUT),
            protocol: self.protocol,
            tls: ClusterTls::Plain,
            settings: Arc::clone(&self.settings),
        })
    }
}

/// Ports of the proxy's own workload, by port on the pod: those that its Sidecar object declares, else those of its
/// services.
pub(super) fn ports(
    set: &ResourceSet,
    scope: &Scope,
    sidecar: Option<&SidecarScope>,
    policies: &Policies,
) -> HashMap<u16, InboundPort> {
    let limits = sidecar.and_then(|s| s.inbound_pool.as_ref());
    let mut ports = of_services(set, scope, |service, port| {
        limits.cloned().or_else(|| pool_of(policies, service, port))
    });
    let Some(declared) = sidecar.and_then(|s| s.ingress.as_deref()) else {
        return ports;
    };
    let listeners = declared.iter().map(|listener| {
        let known = ports.remove(&listener.port);
        (listener.port, of_listener(scope, listener, (known, limits)))
    });
    listeners.collect()
}

/// The limits that a DestinationRule sets for a port of the workload's own service (Istio: they hold on its side, too).
fn pool_of(policies: &Policies, service: &Service, port: u16) -> Option<ConnectionPool> {
    let settings = policies.of(service).settings;
    match settings.ports.get(&port) {
        Some(of_port) => of_port.pool.clone(),
        None => settings.pool,
    }
}

fn limited(pool: Option<&ConnectionPool>) -> Arc<ClusterSettings> {
    Arc::new(ClusterSettings {
        pool: pool.cloned().unwrap_or_default(),
        ..ClusterSettings::default()
    })
}

/// A port that a Sidecar object declares; `known` is what services say of it.
fn of_listener(
    scope: &Scope,
    listener: &IngressListener,
    (known, limits): (Option<InboundPort>, Option<&ConnectionPool>),
) -> InboundPort {
    let settings = match (&listener.pool, &known) {
        (Some(own), _) => limited(Some(own)),
        (None, Some(known)) => Arc::clone(&known.settings),
        (None, None) => limited(limits),
    };
    let mut port = InboundPort {
        protocol: listener.protocol,
        facts: known.and_then(|known| known.facts),
        settings,
        clusters: Vec::new(),
        addresses: scope.addresses.clone(),
        declared: true,
    };
    let endpoint = |ip: &IpAddr| match listener.endpoint {
        None => SocketAddr::new(*ip, listener.port),
        Some(IngressEndpoint::Instance(port)) => SocketAddr::new(*ip, port),
        Some(IngressEndpoint::Address(address)) => address,
    };
    let clusters = port.addresses.iter().map(endpoint);
    port.clusters = clusters.map(|at| port.cluster(listener.port, at)).collect();
    port
}

/// Ports of the services that the workload is an endpoint of.
fn of_services(
    set: &ResourceSet,
    scope: &Scope,
    pool: impl Fn(&Service, u16) -> Option<ConnectionPool>,
) -> HashMap<u16, InboundPort> {
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
            let mut port = InboundPort {
                protocol,
                facts: Some(facts),
                settings: limited(pool(service, number).as_ref()),
                clusters: Vec::new(),
                addresses: scope.addresses.clone(),
                declared: false,
            };
            let addresses = port.addresses.iter().map(|ip| SocketAddr::new(*ip, target));
            port.clusters = addresses.map(|at| port.cluster(target, at)).collect();
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
            let at = port.addresses.iter().position(|ip| *ip == to.ip());
            // An address that is not the pod's is a way to it all the same.
            let at = at.or_else(|| port.declared.then_some(0));
            match at.and_then(|at| port.clusters.get(at)) {
                Some(cluster) => cluster.clone(),
                None => port.cluster(to.port(), to),
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
