//! Both ends together: pure state machines without a socket, then one real stream.

mod cache;
mod session;
mod socket;

use lateen_base::Str;
use lateen_model::mesh::{MeshSettings, OutboundMode, Role, Scope};
use lateen_model::name::{Origin, Visibility};
use lateen_model::resource::{Key, Kind, Resource};
use lateen_model::route::RouteTable;
use std::net::IpAddr;

fn scope(pod: &str, namespace: &str) -> Scope {
    Scope {
        on_demand: false,
        role: Role::Sidecar,
        pod: pod.into(),
        namespace: namespace.into(),
        labels: [("app".into(), pod.into())].into(),
        addresses: vec![IpAddr::from([10, 244, 0, 9])],
        service_account: "default".into(),
        workload_name: pod.into(),
        canonical_name: pod.into(),
        canonical_revision: "latest".into(),
        cluster: "Kubernetes".into(),
        domain: "cluster.local".into(),
    }
}

/// A route table `ns/name` whose content is `host`; `exported` limits who sees it.
fn table(name: &str, host: &str, exported: Option<&str>) -> Resource {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    Resource::RouteTable(RouteTable {
        origin: Origin {
            kind: "VirtualService".into(),
            namespace: namespace.into(),
            name: name.into(),
            created: 1,
        },
        hosts: vec![host.into()],
        gateways: vec!["mesh".into()],
        visibility: match exported {
            None => Visibility::Public,
            Some(ns) => Visibility::Namespaces(vec![ns.into()]),
        },
        http: Vec::new(),
        tls: Vec::new(),
        tcp: Vec::new(),
    })
}

fn settings(outbound: OutboundMode) -> Resource {
    Resource::MeshSettings(MeshSettings {
        outbound,
        ..MeshSettings::default()
    })
}

fn key(name: &str) -> Key {
    Key {
        kind: Kind::RouteTable,
        name: Str::from(name),
    }
}
