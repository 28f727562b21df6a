//! Mesh-wide settings, per-namespace scopes (Sidecar objects), and what a proxy knows of itself.

use crate::name::Origin;
use lateen_base::Str;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Settings from MeshConfig that a proxy needs. One value per mesh.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MeshSettings {
    /// What happens to destinations that the mesh does not know.
    pub outbound: OutboundMode,
    /// Whether proxies write an access log to standard output (`accessLogFile: /dev/stdout`).
    pub access_log: bool,
    /// Access-log format in Envoy's command-operator language; absent: Istio's default text.
    pub access_log_format: Option<Str>,
    /// Cluster domain, such as `cluster.local`.
    pub domain: Str,
    /// Root namespace, such as `istio-system`.
    pub root_namespace: Str,
}

impl Default for MeshSettings {
    fn default() -> Self {
        Self {
            outbound: OutboundMode::AllowAny,
            access_log: true,
            access_log_format: None,
            domain: "cluster.local".into(),
            root_namespace: "istio-system".into(),
        }
    }
}

/// What happens to destinations that the mesh does not know (Istio: `outboundTrafficPolicy.mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum OutboundMode {
    /// Passed through as they are.
    AllowAny,
    /// Refused: HTTP 502, TCP reset.
    RegistryOnly,
}

/// One Sidecar object, in the part that concerns outbound scope.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SidecarScope {
    /// The Sidecar object; its namespace is where it applies (the root namespace: everywhere without its own).
    pub origin: Origin,
    /// Workloads it applies to; empty: the whole namespace.
    pub workload_selector: BTreeMap<Str, Str>,
    /// Visible services; absent: everything visible by `exportTo`.
    pub egress: Option<Vec<EgressHost>>,
    /// Override of the mesh's outbound mode.
    pub outbound: Option<OutboundMode>,
}

/// One `namespace/host` of a Sidecar's egress list, already split; `.` is replaced by the Sidecar's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EgressHost {
    /// Namespace; absent: any (`*`).
    pub namespace: Option<Str>,
    /// Exact host, `*.suffix` or `*`.
    pub host: Str,
    /// The port that this listener is limited to; absent: all.
    pub port: Option<u16>,
}

/// What a proxy is and knows of itself; sent in its node metadata, and the `Scope` that resources are seen from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scope {
    /// What it does.
    pub role: Role,
    /// Its pod's name.
    pub pod: Str,
    /// Its namespace.
    pub namespace: Str,
    /// Its pod's labels.
    pub labels: BTreeMap<Str, Str>,
    /// Its pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// Kubernetes service account.
    pub service_account: Str,
    /// Owning workload's name.
    pub workload_name: Str,
    /// Canonical service name.
    pub canonical_name: Str,
    /// Canonical revision; `latest` when unknown.
    pub canonical_revision: Str,
    /// Cluster id, such as `Kubernetes`.
    pub cluster: Str,
    /// Cluster domain, such as `cluster.local`.
    pub domain: Str,
}

/// What a proxy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Role {
    /// Beside one application.
    Sidecar,
    /// At the edge (ingress or egress).
    Gateway,
}
