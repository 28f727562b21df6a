//! ServiceEntry as users write it (Istio: networking.istio.io, `ServiceEntry`).

use crate::fields::{LabelSelector, Port};
use crate::workload_entry::WorkloadEntry;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A service that Kubernetes does not know: hosts, ports and where its endpoints are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["hosts"]))]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": "!(has(self.workloadSelector) && has(self.endpoints) && size(self.endpoints) > 0)",
      "message": "workloadSelector and endpoints exclude each other: keep one of them" },
    { "rule": "!((!has(self.resolution) || self.resolution == 'NONE') && has(self.endpoints) && size(self.endpoints) > 0)",
      "message": "resolution NONE cannot have endpoints: set resolution to STATIC or DNS, or remove the endpoints" },
    { "rule": "!(has(self.resolution) && self.resolution == 'DNS_ROUND_ROBIN' && has(self.endpoints) && size(self.endpoints) > 1)",
      "message": "resolution DNS_ROUND_ROBIN takes one endpoint at most" },
    { "rule": "!(has(self.resolution) && self.resolution != 'STATIC' && self.resolution != 'NONE' && has(self.addresses) && self.addresses.exists(a, a.contains('/')))",
      "message": "address ranges are for resolution NONE and STATIC only" }
]))]
pub struct ServiceEntry {
    /// Host names; `*.suffix` is allowed, `*` alone is not.
    #[schemars(length(min = 1, max = 256), inner(length(max = 253)))]
    pub hosts: Vec<String>,
    /// Virtual addresses or ranges of the service.
    #[schemars(length(max = 256), inner(length(max = 64)))]
    pub addresses: Vec<String>,
    /// Ports.
    #[schemars(length(max = 256))]
    pub ports: Vec<Port>,
    /// Whether the service belongs to the mesh; MESH_EXTERNAL when absent.
    pub location: Option<Location>,
    /// How endpoints are found; NONE when absent.
    pub resolution: Option<Resolution>,
    /// Endpoints.
    #[schemars(length(max = 4096))]
    pub endpoints: Vec<WorkloadEntry>,
    /// WorkloadEntries and pods of this namespace that are the endpoints.
    pub workload_selector: Option<LabelSelector>,
    /// Namespaces that see the service: names, `.` for this one, `*` for all (the default).
    pub export_to: Vec<String>,
    /// Names that the servers' certificates may carry.
    pub subject_alt_names: Vec<String>,
}

/// Whether a service belongs to the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Location {
    /// Outside the mesh, such as a public API.
    MeshExternal,
    /// Inside the mesh, such as virtual machines of it.
    MeshInternal,
}

/// How the endpoints of a service are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Resolution {
    /// Connections go where the client wanted.
    None,
    /// From the endpoints' addresses.
    Static,
    /// By resolving the endpoints' names, or else the hosts; every address is used.
    Dns,
    /// By resolving; one address at a time is used.
    DnsRoundRobin,
    /// By resolving the name that each request asks for.
    DynamicDns,
}
