//! WorkloadEntry as users write it (Istio: networking.istio.io, `WorkloadEntry`).

use crate::fields::Labels;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A workload that is not a pod, such as a virtual machine; also an endpoint of a ServiceEntry.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadEntry {
    /// IP address, DNS name or `unix://` path. May be absent when a network is given.
    #[schemars(length(max = 256))]
    pub address: Option<String>,
    /// Ports by name; they override a service's target port.
    #[schemars(extend("maxProperties" = 128))]
    pub ports: BTreeMap<String, u32>,
    /// Labels.
    #[schemars(extend("maxProperties" = 256))]
    pub labels: Labels,
    /// Network that the address belongs to.
    #[schemars(length(max = 2048))]
    pub network: Option<String>,
    /// Locality, `region/zone/subzone`.
    #[schemars(length(max = 2048))]
    pub locality: Option<String>,
    /// Load-balancing weight; 1 when absent.
    pub weight: Option<u32>,
    /// Service account of the workload.
    #[schemars(length(max = 253))]
    pub service_account: Option<String>,
}
