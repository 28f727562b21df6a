//! Load-balancing settings of a DestinationRule as users write them.

use crate::fields::DurationText;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How an endpoint is chosen: `simple` or `consistentHash`, and settings for locality and warm-up.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerSettings {
    /// A standard algorithm; LEAST_REQUEST when absent.
    pub simple: Option<SimpleBalancer>,
    /// Same key, same endpoint.
    pub consistent_hash: Option<ConsistentHash>,
    /// Preference for near endpoints; the mesh's setting when absent.
    pub locality_lb_setting: Option<LocalityLbSetting>,
    /// Preference for the same zone.
    pub zone_aware_lb_setting: Option<ZoneAwareLbSetting>,
    /// Deprecated: length of warm-up.
    pub warmup_duration_secs: Option<DurationText>,
    /// Less traffic for endpoints that have just started.
    pub warmup: Option<Warmup>,
    /// Weights from what endpoints report about their load.
    pub backend_utilization: Option<BackendUtilization>,
}

/// Standard algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SimpleBalancer {
    /// The default: LEAST_REQUEST.
    Unspecified,
    /// Deprecated: LEAST_REQUEST.
    LeastConn,
    /// Evenly at random.
    Random,
    /// To the address that the client asked for.
    Passthrough,
    /// In turn.
    RoundRobin,
    /// The less loaded of two random choices.
    LeastRequest,
}

/// Same key, same endpoint: exactly one source of the key.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsistentHash {
    /// Key is this header.
    pub http_header_name: Option<String>,
    /// Key is this cookie.
    pub http_cookie: Option<HttpCookie>,
    /// Key is the client's address.
    pub use_source_ip: Option<bool>,
    /// Key is this query parameter.
    pub http_query_parameter_name: Option<String>,
    /// Ring hash.
    pub ring_hash: Option<RingHash>,
    /// Maglev hash.
    pub maglev: Option<Maglev>,
    /// Deprecated: least number of virtual nodes.
    pub minimum_ring_size: Option<u64>,
}

/// A cookie that holds a hash key.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name"]))]
pub struct HttpCookie {
    /// Its name.
    pub name: String,
    /// Its path.
    pub path: Option<String>,
    /// Its lifetime; with `0s` it is a session cookie. Generated when the request has none.
    pub ttl: Option<DurationText>,
    /// Further attributes of a generated cookie.
    pub attributes: Vec<CookieAttribute>,
}

/// An attribute of a generated cookie.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name"]))]
pub struct CookieAttribute {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Option<String>,
}

/// Ring hash.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RingHash {
    /// Least number of virtual nodes; 1024 when absent.
    pub minimum_ring_size: Option<u64>,
}

/// Maglev hash.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Maglev {
    /// Table size, a prime number; 65537 when absent.
    pub table_size: Option<u64>,
}

/// Preference for near endpoints: at most one of distribute, failover, failoverPriority.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalityLbSetting {
    /// Shares of traffic by locality.
    pub distribute: Vec<LocalityDistribute>,
    /// Regions that take over.
    pub failover: Vec<LocalityFailover>,
    /// Labels by which endpoints are ranked.
    pub failover_priority: Vec<String>,
    /// Whether the setting is in force; true when absent.
    pub enabled: Option<bool>,
}

/// Shares of traffic from one locality.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalityDistribute {
    /// Locality of clients, `region/zone/subzone`.
    pub from: Option<String>,
    /// Percentages by locality of endpoints; they add up to 100.
    pub to: BTreeMap<String, u32>,
}

/// The region that takes over for another.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalityFailover {
    /// The region that fails.
    pub from: Option<String>,
    /// The region that takes over.
    pub to: Option<String>,
}

/// Preference for the same zone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ZoneAwareLbSetting {
    /// Whether the setting is in force.
    pub enabled: Option<bool>,
    /// Regions that take over.
    pub failover: Vec<LocalityFailover>,
    /// Labels by which endpoints are ranked.
    pub failover_priority: Vec<String>,
    /// Number of endpoints below which zones are ignored; 6 when absent.
    pub min_cluster_size: Option<u64>,
}

/// Less traffic for endpoints that have just started.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["duration"]))]
pub struct Warmup {
    /// How long it lasts.
    pub duration: Option<DurationText>,
    /// Share of traffic at the start; 10 when absent.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub minimum_percent: Option<f64>,
    /// How fast traffic grows; 1.0, evenly, when absent.
    #[schemars(range(min = 1.0))]
    pub aggression: Option<f64>,
}

/// Weights from what endpoints report about their load (ORCA).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendUtilization {
    /// Reported metrics that count.
    pub metric_names_for_computing_utilization: Vec<String>,
    /// Weight of errors, in percent.
    pub error_utilization_penalty_percent: Option<u32>,
    /// How often weights change.
    pub weight_update_period: Option<DurationText>,
    /// How long an endpoint must report before its weight counts.
    pub weight_stabilization_period: Option<DurationText>,
    /// How long a report counts.
    pub weight_expiration_period: Option<DurationText>,
}
