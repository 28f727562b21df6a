//! Short words for resources.

use lateen_base::Str;
use lateen_model::mesh::{MeshSettings, OutboundMode, Role, Scope};
use lateen_model::name::{Origin, ServiceKey, Visibility};
use lateen_model::resource::Resource;
use lateen_model::route::{
    Destination, HeaderOperations, HttpAction, HttpDestination, HttpRoute, RetryPolicy, RouteTable,
};
use lateen_model::service::{Address, Location, Port, Protocol, Resolution, Service};
use lateen_model::traffic::{TrafficPolicy, TrafficSettings};
use lateen_model::workload::{Health, ServicePorts, Workload};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// The namespace of everything.
const NAMESPACE: &str = "default";

pub(super) fn scope(role: Role) -> Scope {
    let labels = match role {
        Role::Sidecar => [("app", "sleep"), ("version", "v1")],
        Role::Gateway => [("istio", "ingressgateway"), ("app", "ingress")],
    };
    Scope {
        on_demand: false,
        role,
        pod: "sleep-1".into(),
        namespace: NAMESPACE.into(),
        labels: labels
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect(),
        addresses: vec!["127.1.0.100".parse().unwrap()],
        service_account: "sleep".into(),
        workload_name: "sleep".into(),
        canonical_name: "sleep".into(),
        canonical_revision: "v1".into(),
        cluster: "Kubernetes".into(),
        domain: "cluster.local".into(),
    }
}

pub(super) fn host(name: &str) -> Str {
    format!("{name}.{NAMESPACE}.svc.cluster.local").into()
}

fn key(name: &str) -> ServiceKey {
    ServiceKey {
        namespace: NAMESPACE.into(),
        hostname: host(name),
    }
}

pub(super) fn origin(kind: &str, name: &str) -> Origin {
    Origin {
        kind: kind.into(),
        namespace: NAMESPACE.into(),
        name: name.into(),
        created: 0,
    }
}

/// A service with one port.
pub(super) fn service(name: &str, vip: &str, port: u16, protocol: Protocol) -> Resource {
    Resource::Service(Service {
        key: key(name),
        name: name.into(),
        origin: origin("Service", name),
        addresses: vec![Address {
            ip: vip.parse().unwrap(),
            prefix: 32,
        }],
        ports: vec![Port {
            number: port,
            name: "p".into(),
            protocol,
            target: None,
        }],
        resolution: Resolution::Static,
        location: Location::Internal,
        visibility: Visibility::Public,
        traffic_distribution: None,
        aliases: vec![
            format!("{name}.{NAMESPACE}").into(),
            format!("{name}.{NAMESPACE}.svc").into(),
        ],
        allocated: Vec::new(),
        sans: Vec::new(),
    })
}

/// A pod that serves `port` of service `name` at `address`, labelled `version=<version>`.
pub(super) fn pod(name: &str, version: &str, port: u16, address: SocketAddr) -> Resource {
    let ports = BTreeMap::from([(port, address.port())]);
    let labels = BTreeMap::from([
        (Str::from("app"), Str::from(name)),
        ("version".into(), version.into()),
    ]);
    Resource::Workload(Workload {
        uid: format!("Pod/{NAMESPACE}/{name}-{version}-{address}").into(),
        name: format!("{name}-{version}").into(),
        namespace: NAMESPACE.into(),
        addresses: vec![address.ip()],
        hostname: None,
        labels,
        service_account: name.into(),
        workload_name: format!("{name}-{version}").into(),
        canonical_name: name.into(),
        canonical_revision: version.into(),
        node: "lateen".into(),
        locality: "".into(),
        weight: 1,
        has_sidecar: true,
        takes_mtls: false,
        trust_domain: "".into(),
        services: BTreeMap::from([(
            key(name),
            ServicePorts {
                ports,
                health: Health::Ready,
                hostname: None,
            },
        )]),
    })
}

/// A rule that sends everything to these services by weight.
pub(super) fn rule(destinations: &[(&str, u32)]) -> HttpRoute {
    let to = |(name, weight): &(&str, u32)| HttpDestination {
        destination: Destination {
            host: host(name),
            subset: None,
            port: None,
        },
        weight: *weight,
        headers: HeaderOperations::default(),
    };
    HttpRoute::of(HttpAction::Forward(destinations.iter().map(to).collect()))
}

/// A VirtualService for service `name`.
pub(super) fn routes(name: &str, rules: Vec<HttpRoute>) -> Resource {
    routes_at("mesh", &host(name), rules)
}

/// A VirtualService for a host at a gateway.
pub(super) fn routes_at(gateway: &str, host: &str, rules: Vec<HttpRoute>) -> Resource {
    Resource::RouteTable(RouteTable {
        origin: origin("VirtualService", "routes"),
        hosts: vec![host.into()],
        gateways: vec![gateway.into()],
        visibility: Visibility::Public,
        http: rules,
        tls: Vec::new(),
        tcp: Vec::new(),
    })
}

/// A DestinationRule for service `name`.
pub(super) fn policy(name: &str, settings: TrafficSettings) -> Resource {
    Resource::TrafficPolicy(TrafficPolicy {
        origin: origin("DestinationRule", name),
        host: host(name),
        visibility: Visibility::Public,
        workload_selector: BTreeMap::new(),
        settings,
        subsets: Vec::new(),
    })
}

pub(super) fn retries(attempts: u32, retry_on: &[&str]) -> Option<RetryPolicy> {
    let retry_on = retry_on.iter().map(|c| Str::from(*c)).collect();
    Some(RetryPolicy {
        attempts,
        retry_on,
        careful: false,
        ..RetryPolicy::none()
    })
}

pub(super) fn registry_only() -> Resource {
    Resource::MeshSettings(MeshSettings {
        outbound: OutboundMode::RegistryOnly,
        ..MeshSettings::default()
    })
}
