//! The TLS and TCP rules of a VirtualService as users write them.

use crate::fields::{Destination, Labels};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One rule for TLS that is passed through.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["match"]))]
pub struct TlsRoute {
    /// Conditions, any of which suffices.
    #[serde(rename = "match")]
    pub matches: Vec<TlsMatchAttributes>,
    /// Weighted destinations.
    pub route: Vec<RouteDestination>,
}

/// One condition on a TLS connection: every given part must match.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["sniHosts"]))]
pub struct TlsMatchAttributes {
    /// Server names: exact or `*.suffix`, each covered by one of the object's hosts.
    pub sni_hosts: Vec<String>,
    /// Destination addresses or ranges.
    pub destination_subnets: Vec<String>,
    /// Port that the client addressed.
    #[schemars(range(min = 0, max = 65535))]
    pub port: Option<u32>,
    /// Labels of the client's workload.
    pub source_labels: Labels,
    /// Gateways that the condition is limited to; the object's when empty.
    pub gateways: Vec<String>,
    /// Namespace of the client's workload.
    pub source_namespace: Option<String>,
}

/// One rule for opaque TCP.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpRoute {
    /// Conditions, any of which suffices; everything when empty.
    #[serde(rename = "match")]
    pub matches: Vec<L4MatchAttributes>,
    /// Weighted destinations.
    pub route: Vec<RouteDestination>,
}

/// One condition on a TCP connection: every given part must match.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct L4MatchAttributes {
    /// Destination addresses or ranges.
    pub destination_subnets: Vec<String>,
    /// Port that the client addressed.
    #[schemars(range(min = 0, max = 65535))]
    pub port: Option<u32>,
    /// Deprecated: one source address or range.
    pub source_subnet: Option<String>,
    /// Labels of the client's workload.
    pub source_labels: Labels,
    /// Gateways that the condition is limited to; the object's when empty.
    pub gateways: Vec<String>,
    /// Namespace of the client's workload.
    pub source_namespace: Option<String>,
}

/// A weighted destination of a TLS or TCP rule.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["destination"]))]
pub struct RouteDestination {
    /// Where to.
    pub destination: Destination,
    /// Share of connections relative to the other weights. One destination alone gets everything.
    #[schemars(range(min = 0))]
    pub weight: Option<i32>,
}
