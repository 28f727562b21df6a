//! DestinationRule as users write it (Istio: networking.istio.io, `DestinationRule`).

pub mod balancer;
pub mod pool;

use crate::fields::{DurationText, Labels, MatchLabels, PortSelector};
use balancer::LoadBalancerSettings;
use pool::{ConnectionPoolSettings, OutlierDetection};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Policies for traffic to a host after routing, and the host's subsets.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["host"]))]
pub struct DestinationRule {
    /// A service's host name, or `*.suffix`. A short name is looked for in this object's namespace.
    #[schemars(length(min = 1))]
    pub host: String,
    /// Policy for the whole host.
    pub traffic_policy: Option<Box<TrafficPolicy>>,
    /// Named groups of endpoints.
    pub subsets: Vec<Subset>,
    /// Namespaces that see the rule: names, `.` for this one, `*` for all (the default).
    pub export_to: Vec<String>,
    /// Client workloads of this namespace that the rule is limited to.
    pub workload_selector: Option<MatchLabels>,
}

/// A named group of a host's endpoints.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name"]))]
pub struct Subset {
    /// Name that routes use.
    pub name: String,
    /// Labels that the endpoints carry.
    pub labels: Labels,
    /// Overrides of the host's policy, field by field.
    pub traffic_policy: Option<Box<TrafficPolicy>>,
}

/// A traffic policy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficPolicy {
    /// How an endpoint is chosen.
    pub load_balancer: Option<LoadBalancerSettings>,
    /// Limits on connections and requests.
    pub connection_pool: Option<ConnectionPoolSettings>,
    /// When failing endpoints are left out.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS towards the endpoints.
    pub tls: Option<ClientTlsSettings>,
    /// Policies for single ports, which replace the ones above.
    #[schemars(length(max = 4096))]
    pub port_level_settings: Vec<PortTrafficPolicy>,
    /// A tunnel for TCP and TLS routes.
    pub tunnel: Option<TunnelSettings>,
    /// PROXY protocol towards the endpoints.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Limit on concurrent retries.
    pub retry_budget: Option<RetryBudget>,
}

/// A policy for one port.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PortTrafficPolicy {
    /// The service port.
    pub port: Option<PortSelector>,
    /// How an endpoint is chosen.
    pub load_balancer: Option<LoadBalancerSettings>,
    /// Limits on connections and requests.
    pub connection_pool: Option<ConnectionPoolSettings>,
    /// When failing endpoints are left out.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS towards the endpoints.
    pub tls: Option<ClientTlsSettings>,
}

/// TLS towards the endpoints.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientTlsSettings {
    /// How connections are secured.
    pub mode: Option<ClientTlsMode>,
    /// Path of the client's certificate (MUTUAL).
    pub client_certificate: Option<String>,
    /// Path of the client's key (MUTUAL).
    pub private_key: Option<String>,
    /// Path of the certificates that servers are verified with; the system's when absent.
    pub ca_certificates: Option<String>,
    /// Name of the secret that holds certificates.
    pub credential_name: Option<String>,
    /// Names that the server's certificate may carry.
    pub subject_alt_names: Vec<String>,
    /// Server name to send; the request's host when absent.
    pub sni: Option<String>,
    /// Whether the server's certificate is left unverified.
    pub insecure_skip_verify: Option<bool>,
    /// Path of a revocation list.
    pub ca_crl: Option<String>,
}

/// How connections to endpoints are secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ClientTlsMode {
    /// Plain text.
    Disable,
    /// TLS.
    Simple,
    /// TLS with a client certificate.
    Mutual,
    /// Mutual TLS with the mesh's own certificates.
    IstioMutual,
}

/// A tunnel for TCP and TLS routes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["targetHost", "targetPort"]))]
pub struct TunnelSettings {
    /// `CONNECT` (the default) or `POST`.
    pub protocol: Option<String>,
    /// Host at the tunnel's far end.
    pub target_host: Option<String>,
    /// Port at the tunnel's far end.
    #[schemars(range(min = 0, max = 65535))]
    pub target_port: Option<u32>,
}

/// PROXY protocol towards the endpoints.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyProtocol {
    /// Version; V1 when absent.
    pub version: Option<ProxyProtocolVersion>,
}

/// Versions of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ProxyProtocolVersion {
    /// Text form.
    V1,
    /// Binary form.
    V2,
}

/// Limit on concurrent retries.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryBudget {
    /// Share of active requests that may be retries; 20 when absent.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub percent: Option<f64>,
    /// Retries that are always allowed; 3 when absent.
    pub min_retry_concurrency: Option<u32>,
    /// Interval over which requests are counted.
    pub budget_interval: Option<DurationText>,
}
