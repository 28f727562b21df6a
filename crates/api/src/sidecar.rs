//! Sidecar as users write it (Istio: networking.istio.io, `Sidecar`).

use crate::destination_rule::pool::ConnectionPoolSettings;
use crate::fields::{Destination, LabelSelector, Port};
use crate::gateway::ServerTlsSettings;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the proxies beside some workloads take in and what they can reach.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Sidecar {
    /// Workloads of this namespace; all of them when absent. Without it, an object of the root namespace is the
    /// mesh's default.
    pub workload_selector: Option<LabelSelector>,
    /// Listeners for traffic to the workload.
    pub ingress: Vec<IngressListener>,
    /// Listeners for traffic from the workload.
    pub egress: Vec<EgressListener>,
    /// Limits on connections to the workload.
    pub inbound_connection_pool: Option<Box<ConnectionPoolSettings>>,
    /// What happens to destinations that the mesh does not know; as in the mesh configuration when absent.
    pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
}

/// A listener for traffic to the workload.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["port"]))]
pub struct IngressListener {
    /// Its port.
    pub port: Option<Port>,
    /// Address to listen on.
    pub bind: Option<String>,
    /// How traffic is captured.
    pub capture_mode: Option<CaptureMode>,
    /// Where the application listens: `127.0.0.1:port`, `0.0.0.0:port` or a `unix://` path.
    pub default_endpoint: Option<String>,
    /// TLS settings.
    pub tls: Option<ServerTlsSettings>,
    /// Limits on connections to this port.
    pub connection_pool: Option<ConnectionPoolSettings>,
}

/// A listener for traffic from the workload.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["hosts"]))]
pub struct EgressListener {
    /// Its port; every port when absent.
    pub port: Option<Port>,
    /// Address to listen on.
    pub bind: Option<String>,
    /// How traffic is captured.
    pub capture_mode: Option<CaptureMode>,
    /// Services that can be reached, as `namespace/host`. Namespace: a name, `.` for this one, `*` for any, `~` for none.
    pub hosts: Vec<String>,
}

/// How traffic of a listener is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CaptureMode {
    /// As the workload's capture says.
    Default,
    /// By redirection in the kernel.
    Iptables,
    /// Not at all: clients connect to the listener.
    None,
}

/// What happens to destinations that the mesh does not know.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OutboundTrafficPolicy {
    /// How they are treated.
    pub mode: Option<OutboundMode>,
    /// A gateway that they go through.
    pub egress_proxy: Option<Destination>,
}

/// How destinations that the mesh does not know are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutboundMode {
    /// Refused.
    RegistryOnly,
    /// Passed through as they are.
    AllowAny,
    /// Passed through; HTTP names are resolved by the proxy.
    AllowAnyDynamicDns,
}
