//! Connection pool and outlier settings of a DestinationRule (and Sidecar) as users write them.

use crate::fields::DurationText;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Limits on connections and requests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ConnectionPoolSettings {
    /// For TCP and HTTP alike.
    pub tcp: Option<TcpSettings>,
    /// For HTTP.
    pub http: Option<HttpSettings>,
}

/// Limits on TCP connections.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpSettings {
    /// Most connections to the host; no limit when absent.
    #[schemars(range(min = 0))]
    pub max_connections: Option<i32>,
    /// Bound on connecting; 10s when absent.
    pub connect_timeout: Option<DurationText>,
    /// Keep-alive probes.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Longest life of a connection.
    pub max_connection_duration: Option<DurationText>,
    /// How long a connection may be idle; 1h when absent.
    pub idle_timeout: Option<DurationText>,
}

/// Keep-alive probes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpKeepalive {
    /// Unanswered probes before a connection counts as dead.
    pub probes: Option<u32>,
    /// Idle time before the first probe.
    pub time: Option<DurationText>,
    /// Time between probes.
    pub interval: Option<DurationText>,
}

/// Limits on HTTP requests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpSettings {
    /// Most requests that wait for a connection.
    #[schemars(range(min = 0))]
    pub http1_max_pending_requests: Option<i32>,
    /// Most active requests.
    #[schemars(range(min = 0))]
    pub http2_max_requests: Option<i32>,
    /// Requests per connection; no limit when 0, no keep-alive when 1.
    #[schemars(range(min = 0))]
    pub max_requests_per_connection: Option<i32>,
    /// Most retries at a time.
    #[schemars(range(min = 0))]
    pub max_retries: Option<i32>,
    /// How long a connection without requests is kept; 1h when absent.
    pub idle_timeout: Option<DurationText>,
    /// Whether HTTP/1.1 becomes HTTP/2 towards the host.
    pub h2_upgrade_policy: Option<H2UpgradePolicy>,
    /// Whether the client's protocol is kept towards the host.
    pub use_client_protocol: Option<bool>,
    /// Most streams per HTTP/2 connection.
    #[schemars(range(min = 0))]
    pub max_concurrent_streams: Option<i32>,
    /// HTTP/2 keep-alive.
    pub http2_keep_alive: Option<Http2KeepAlive>,
}

/// Whether HTTP/1.1 becomes HTTP/2 towards the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum H2UpgradePolicy {
    /// As the mesh says.
    Default,
    /// No.
    DoNotUpgrade,
    /// Yes.
    Upgrade,
}

/// HTTP/2 keep-alive.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Http2KeepAlive {
    /// Time between pings.
    pub interval: Option<DurationText>,
    /// How long an answer may take.
    pub timeout: Option<DurationText>,
}

/// When failing endpoints are left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OutlierDetection {
    /// Deprecated: consecutive errors before an endpoint is left out.
    pub consecutive_errors: Option<i32>,
    /// Whether local errors are counted apart.
    pub split_external_local_origin_errors: Option<bool>,
    /// Consecutive local errors; 5 when absent.
    pub consecutive_local_origin_failures: Option<u32>,
    /// Consecutive 502, 503 and 504; not counted when absent.
    pub consecutive_gateway_errors: Option<u32>,
    /// Consecutive 5xx; 5 when absent, 0 switches off.
    pub consecutive_5xx_errors: Option<u32>,
    /// How often endpoints are looked at; 10s when absent.
    pub interval: Option<DurationText>,
    /// Shortest time left out, times the number of times; 30s when absent.
    pub base_ejection_time: Option<DurationText>,
    /// Largest share of endpoints that may be left out; 10 when absent.
    #[schemars(range(min = 0, max = 100))]
    pub max_ejection_percent: Option<i32>,
    /// Share of healthy endpoints below which nothing is left out; 0 when absent.
    #[schemars(range(min = 0, max = 100))]
    pub min_health_percent: Option<i32>,
    /// Status codes that count as errors.
    pub outlier_detection_http_error_codes: Vec<u32>,
}
