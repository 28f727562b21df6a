//! PeerAuthentication as users write it (Istio: security.istio.io, `PeerAuthentication`).

use crate::fields::MatchLabels;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Whether workloads take mutual TLS, plain text, or both.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": "!has(self.portLevelMtls) || (has(self.selector) && has(self.selector.matchLabels) && size(self.selector.matchLabels) > 0)",
      "message": "portLevelMtls needs a selector: ports belong to workloads" }
]))]
pub struct PeerAuthentication {
    /// Workloads of this namespace; all of them when absent, and all of the mesh in the root namespace.
    pub selector: Option<MatchLabels>,
    /// The mode for every port that portLevelMtls does not name.
    pub mtls: Option<MutualTls>,
    /// Modes of single ports, by the workload's port number. Needs a selector.
    #[schemars(extend("maxProperties" = 1024))]
    pub port_level_mtls: BTreeMap<String, MutualTls>,
}

/// A mode of mutual TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MutualTls {
    /// The mode; UNSET when absent.
    pub mode: Option<MutualTlsMode>,
}

/// Modes of mutual TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MutualTlsMode {
    /// As the wider object says; PERMISSIVE when none says anything.
    Unset,
    /// Plain text only.
    Disable,
    /// Plain text and mutual TLS.
    Permissive,
    /// Mutual TLS only.
    Strict,
}
