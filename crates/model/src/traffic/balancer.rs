//! How an endpoint is chosen: the algorithm, preference for near ones, and care for those that have just started.

use lateen_base::Str;
use serde::Serialize;
use std::time::Duration;

/// Load-balancing settings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoadBalancer {
    /// The algorithm.
    pub algorithm: Balancer,
    /// Preference for near endpoints; absent: the service's own, else the mesh's.
    pub locality: Option<Locality>,
    /// Less traffic for endpoints that have just started; absent: none.
    pub warmup: Option<Warmup>,
}

impl Default for LoadBalancer {
    fn default() -> Self {
        Self {
            algorithm: Balancer::LeastRequest,
            locality: None,
            warmup: None,
        }
    }
}

/// Load-balancing algorithms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Balancer {
    /// Two random choices, the less loaded wins.
    LeastRequest,
    /// In turn.
    RoundRobin,
    /// Evenly at random.
    Random,
    /// To the address that the client asked for.
    Passthrough,
    /// Same key, same endpoint.
    ConsistentHash(ConsistentHash),
}

/// Same key, same endpoint; without a key an endpoint at random.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConsistentHash {
    /// Where the key comes from.
    pub key: HashKey,
    /// How keys are spread.
    pub table: HashTable,
}

/// Where the key of a request comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum HashKey {
    /// A header, lower case.
    Header(Str),
    /// A cookie.
    Cookie(HashCookie),
    /// The client's address.
    SourceIp,
    /// A parameter of the query.
    QueryParameter(Str),
}

/// A cookie that holds a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HashCookie {
    /// Its name.
    pub name: Str,
    /// Its path; empty: none.
    pub path: Str,
    /// Its lifetime, zero for the client's session; absent: it is never made here.
    pub ttl: Option<Duration>,
    /// Further attributes of a cookie that is made here; an empty value stands for none.
    pub attributes: Vec<(Str, Str)>,
}

/// How keys are spread over endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum HashTable {
    /// A ring with at least so many places.
    Ring {
        /// At least 1, at most [`HashTable::MOST`].
        minimum: u32,
    },
    /// Maglev, with a table of so many places.
    Maglev {
        /// A prime, at most [`HashTable::MAGLEV_MOST`].
        size: u32,
    },
}

impl HashTable {
    /// Istio's default size of a ring.
    pub const RING: u32 = 1024;
    /// Envoy's bound on the size of a ring.
    pub const MOST: u32 = 8 * 1024 * 1024;
    /// Envoy's default size of a table.
    pub const MAGLEV: u32 = 65537;
    /// Envoy's bound on the size of a table.
    pub const MAGLEV_MOST: u32 = 5_000_011;
}

/// Preference for near endpoints (Istio: `localityLbSetting`). At most one of the lists has an effect, `distribute` first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Locality {
    /// Whether it is in force.
    pub enabled: bool,
    /// Shares of traffic by the client's locality; the first that fits counts.
    pub distribute: Vec<Distribute>,
    /// Regions that take over.
    pub failover: Vec<Failover>,
    /// Labels by which endpoints are ranked, `key` (compared with the client's) or `key=value`.
    pub failover_priority: Vec<Str>,
}

impl Default for Locality {
    fn default() -> Self {
        Self {
            enabled: true,
            distribute: Vec::new(),
            failover: Vec::new(),
            failover_priority: Vec::new(),
        }
    }
}

/// Shares of traffic from one locality.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Distribute {
    /// Locality of clients, `region/zone/subzone`, shorter ones and `*` cover more.
    pub from: Str,
    /// Shares by locality of endpoints, in order of the locality; they add up to 100.
    pub to: Vec<(Str, u32)>,
}

/// The region that takes over for another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failover {
    /// The region that fails.
    pub from: Str,
    /// The region that takes over.
    pub to: Str,
}

/// Less traffic for endpoints that have just started (Istio: `warmup`; Envoy: slow start).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Warmup {
    /// How long it lasts.
    pub duration: Duration,
    /// Share of an endpoint's weight at the start, in per cent, 0 to 100.
    pub minimum_percent: f64,
    /// How traffic grows: 1 evenly, more: faster at first. At least 1.
    pub aggression: f64,
}
