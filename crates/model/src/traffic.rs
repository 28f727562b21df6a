//! Traffic policies: what one DestinationRule says about a host and its subsets.

mod balancer;
mod pool;

pub use balancer::{
    Balancer, ConsistentHash, Distribute, Failover, HashCookie, HashKey, HashTable, LoadBalancer,
    Locality, Warmup,
};
pub use pool::{ConnectionPool, Http2Keepalive, OutlierDetection, TcpKeepalive};

use crate::name::{Origin, Visibility};
use crate::tls::ClientTls;
use lateen_base::Str;
use serde::Serialize;
use std::collections::BTreeMap;

/// One DestinationRule. The host is lower case and fully qualified, or `*.suffix`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrafficPolicy {
    /// The DestinationRule.
    pub origin: Origin,
    /// Host it applies to.
    pub host: Str,
    /// Who may see it.
    pub visibility: Visibility,
    /// Client workloads it is limited to; empty: all.
    pub workload_selector: BTreeMap<Str, Str>,
    /// Settings for the whole host.
    pub settings: TrafficSettings,
    /// Named subsets.
    pub subsets: Vec<Subset>,
}

/// A named group of a service's endpoints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Subset {
    /// Name that routes use.
    pub name: Str,
    /// Labels that its endpoints carry.
    pub labels: BTreeMap<Str, Str>,
    /// Overrides of the host's settings, block by block.
    pub settings: TrafficSettings,
}

/// Settings that a subset may override, block by block; absent blocks inherit.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct TrafficSettings {
    /// How an endpoint is chosen; absent: least request (Istio's default), near endpoints as the mesh says.
    pub balancer: Option<LoadBalancer>,
    /// Limits on connections and requests; absent: the mesh's.
    pub pool: Option<ConnectionPool>,
    /// When failing endpoints are left out; absent: the mesh's, which is never by default.
    pub outlier: Option<OutlierDetection>,
    /// TLS towards the endpoints; absent: mutual TLS where an endpoint has it (auto mTLS).
    pub tls: Option<ClientTls>,
    /// A tunnel that opaque bytes are sent through; absent: none.
    pub tunnel: Option<Tunnel>,
    /// PROXY protocol header at the beginning of each connection to an endpoint; absent: none.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Limit on concurrent retries; absent: that of `pool`.
    pub retry_budget: Option<RetryBudget>,
    /// Settings of single service ports, which replace all of the above for that port: nothing is inherited
    /// (Istio: `portLevelSettings`). Their own `ports` are empty.
    pub ports: BTreeMap<u16, TrafficSettings>,
}

/// A tunnel for TCP and TLS routes (Istio: `tunnel`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tunnel {
    /// Whether it is asked for by POST instead of CONNECT.
    pub post: bool,
    /// Host at its far end.
    pub host: Str,
    /// Port at its far end.
    pub port: u16,
}

/// Versions of the PROXY protocol (haproxy: `proxy-protocol.txt`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum ProxyProtocol {
    /// One line of text.
    V1,
    /// Binary.
    V2,
}

/// A limit on concurrent retries that grows with what is under way (Istio: `retryBudget`).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RetryBudget {
    /// Share of active and waiting requests that may be retries, in per cent, 0 to 100.
    pub percent: f64,
    /// Retries that are always allowed.
    pub least: u32,
}
