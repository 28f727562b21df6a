//! Limits on connections and requests, and when failing endpoints are left out.

use serde::Serialize;
use std::time::Duration;

/// Limits on connections and requests; absent ones are none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ConnectionPool {
    /// Bound on connecting; absent: the mesh's.
    pub connect_timeout: Option<Duration>,
    /// Most connections to all endpoints together.
    pub max_connections: Option<u32>,
    /// Keep-alive probes.
    pub keepalive: Option<TcpKeepalive>,
    /// Longest life of a connection.
    pub max_connection_duration: Option<Duration>,
    /// How long a connection of opaque bytes may be silent; zero: for ever. Absent: the proxy's default.
    pub tcp_idle_timeout: Option<Duration>,
    /// Most requests that wait for a connection.
    pub max_pending: Option<u32>,
    /// Most requests under way.
    pub max_requests: Option<u32>,
    /// Requests on one connection; 1: no keep-alive.
    pub max_requests_per_connection: Option<u32>,
    /// Most retries under way.
    pub max_retries: Option<u32>,
    /// How long a connection without requests is kept; zero: for ever. Absent: the proxy's default.
    pub http_idle_timeout: Option<Duration>,
    /// Whether HTTP/1.1 becomes HTTP/2 towards the endpoints; absent: the mesh's.
    pub h2_upgrade: Option<bool>,
    /// Whether the client's protocol is kept towards the endpoints.
    pub use_client_protocol: bool,
    /// Most streams on one HTTP/2 connection.
    pub max_concurrent_streams: Option<u32>,
    /// HTTP/2 keep-alive; absent: the proxy's default.
    pub http2_keepalive: Option<Http2Keepalive>,
}

/// Keep-alive probes of TCP; what is absent is the system's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct TcpKeepalive {
    /// Unanswered probes before a connection counts as dead.
    pub probes: Option<u32>,
    /// Idle time before the first probe.
    pub time: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
}

/// Keep-alive pings of HTTP/2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Http2Keepalive {
    /// Time between pings.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// When failing endpoints are left out (Envoy: outlier detection; success rates are not looked at, as in Istio).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutlierDetection {
    /// Consecutive errors (5xx, or `error_codes`) that eject; 0: none do.
    pub consecutive_5xx: u32,
    /// Consecutive 502, 503 and 504 that eject; 0: none do.
    pub consecutive_gateway: u32,
    /// Consecutive failures to connect and the like that eject, counted apart from answers; absent: they count as 503
    /// or 504.
    pub consecutive_local: Option<u32>,
    /// How often ejected endpoints are looked at.
    pub interval: Duration,
    /// How long the first ejection lasts; it grows with the number of ejections.
    pub base_ejection_time: Duration,
    /// Largest share of endpoints that may be out, in per cent, 0 to 100. One endpoint may always be out.
    pub max_ejection_percent: u32,
    /// Share of healthy endpoints, in per cent, below which all endpoints are used; 0: never.
    pub min_health_percent: u32,
    /// Statuses that count as errors in place of 5xx; empty: 5xx.
    pub error_codes: Vec<u16>,
}

impl Default for OutlierDetection {
    /// Istio's.
    fn default() -> Self {
        Self {
            consecutive_5xx: 5,
            consecutive_gateway: 0,
            consecutive_local: None,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_percent: 10,
            min_health_percent: 0,
            error_codes: Vec::new(),
        }
    }
}
