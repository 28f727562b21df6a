//! `/config_dump`: the configuration in force, as `lateen proxy-config` reads it.
//!
//! ```text
//! { version, generation, scope, listeners: [..], clusters: [{ name, .., endpoints: [..] }], routes: [..],
//!   destinations: [..], resources: { services, workloads, routes, policies, gateways, scopes, mesh } }
//! ```

use super::Admin;
use super::pages::discovery;
use lateen_model::decide::cluster::{Cluster, ClusterTls, Discovery, Endpoint};
use lateen_model::name::Origin;
use serde_json::{Value, json};

impl Admin {
    /// Everything in force.
    pub(super) fn dump(&self) -> Value {
        let live = self.shared.live.load();
        let snapshot = &live.snapshot;
        let routes = snapshot.routes().into_iter().map(|r| {
            json!({
                "port": r.port, "host": r.host, "origin": r.origin.as_ref().map(origin), "rules": r.rules,
            })
        });
        let destinations = snapshot.listeners().into_iter().map(|l| {
            json!({
                "address": l.address.map(|a| format!("{}/{}", a.ip, a.prefix)),
                "port": l.port, "protocol": l.protocol, "host": &*l.host,
            })
        });
        json!({
            "version": self.version,
            "generation": live.generation,
            "state": self.state(),
            "identity": self.identity(),
            "scope": self.shared.scope,
            "listeners": self.listeners(),
            "clusters": snapshot.clusters().map(|c| cluster(c)).collect::<Vec<_>>(),
            "routes": routes.collect::<Vec<_>>(),
            "destinations": destinations.collect::<Vec<_>>(),
            // What cannot be shown must not take the rest with it.
            "resources": serde_json::to_value(&live.resources).unwrap_or(Value::Null),
        })
    }
}

fn cluster(cluster: &Cluster) -> Value {
    let endpoints: Vec<Value> = match &cluster.discovery {
        Discovery::Endpoints(endpoints) => endpoints.iter().map(endpoint).collect(),
        Discovery::Fixed(address) => vec![json!({ "address": address.to_string() })],
        Discovery::Dns(hosts) => hosts
            .iter()
            .map(|named| json!({ "address": format!("{}:{}", named.host, named.port) }))
            .collect(),
        Discovery::DnsFirst(named) => {
            vec![json!({ "address": format!("{}:{}", named.host, named.port) })]
        }
        Discovery::OriginalDestination | Discovery::DynamicDns(_) => Vec::new(),
    };
    let service = cluster.service.as_ref();
    json!({
        "name": &*cluster.name,
        "service": service.map(|s| s.key.to_string()),
        "host": service.map(|s| &*s.key.hostname),
        "port": service.map(|s| s.port),
        "subset": service.and_then(|s| s.subset.as_deref()),
        "policy": service.and_then(|s| s.policy.as_ref()).map(origin),
        "discovery": discovery(cluster),
        "balancer": cluster.balancer,
        "protocol": cluster.protocol,
        "tls": tls(&cluster.tls),
        "connect_timeout_ms": cluster.connect_timeout.as_millis() as u64,
        "endpoints": endpoints,
    })
}

fn endpoint(endpoint: &Endpoint) -> Value {
    json!({
        "address": endpoint.address.to_string(),
        "weight": endpoint.weight,
        "health": endpoint.health,
        "identity": endpoint.identity,
        "workload": &*endpoint.workload.name,
        "namespace": &*endpoint.workload.namespace,
    })
}

// Paths and names only: what is behind them is shown nowhere.
fn tls(tls: &ClusterTls) -> Value {
    match tls {
        ClusterTls::Plain => json!({ "mode": "DISABLE" }),
        ClusterTls::Mesh {
            server_name,
            sans,
            required,
        } => json!({
            "mode": "ISTIO_MUTUAL", "sni": &**server_name, "sans": sans, "required": required,
        }),
        ClusterTls::Origin(settings) => json!(**settings),
    }
}

fn origin(origin: &Origin) -> String {
    origin.to_string()
}
