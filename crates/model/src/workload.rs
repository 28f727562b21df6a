//! A workload: one pod, WorkloadEntry or ServiceEntry endpoint, with the services it serves.
//! An endpoint is a workload seen through one service port; it is derived, never stored.

use crate::name::ServiceKey;
use lateen_base::Str;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// One thing that can serve or make requests.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Workload {
    /// Unique id: `Pod/ns/name`, `WorkloadEntry/ns/name` or `ServiceEntry/ns/name/index`.
    pub uid: Str,
    /// Pod or object name.
    pub name: Str,
    /// Namespace.
    pub namespace: Str,
    /// Addresses it listens on; empty when only `hostname` is known.
    pub addresses: Vec<IpAddr>,
    /// DNS name to resolve when there is no address (ServiceEntry DNS endpoints).
    pub hostname: Option<Str>,
    /// Labels, for subsets and source matching.
    pub labels: BTreeMap<Str, Str>,
    /// Kubernetes service account; empty when unknown.
    pub service_account: Str,
    /// Owning workload's name (Deployment, Job, …): metric label `destination_workload`.
    pub workload_name: Str,
    /// `service.istio.io/canonical-name`, with Istio's fallbacks applied.
    pub canonical_name: Str,
    /// `service.istio.io/canonical-revision`, with Istio's fallbacks applied (`latest`).
    pub canonical_revision: Str,
    /// Node it runs on; empty when unknown.
    pub node: Str,
    /// `region/zone/subzone`; empty when unknown.
    pub locality: Str,
    /// Load-balancing weight; at least 1.
    pub weight: u32,
    /// Whether the pod has a Lateen or Istio sidecar.
    pub has_sidecar: bool,
    /// Whether its proxy takes the mesh's mutual TLS (Istio: label `security.istio.io/tlsMode: istio`).
    pub takes_mtls: bool,
    /// Trust domain of its identity; empty: the mesh's.
    pub trust_domain: Str,
    /// Services this workload is an endpoint of.
    pub services: BTreeMap<ServiceKey, ServicePorts>,
}

/// How one workload serves one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServicePorts {
    /// Service port number to the port on this workload.
    pub ports: BTreeMap<u16, u16>,
    /// Whether it takes new requests.
    pub health: Health,
    /// The workload's own name below a headless service's, such as a StatefulSet's `web-0` (Kubernetes: the endpoint's
    /// `hostname`); absent: none.
    pub hostname: Option<Str>,
}

/// State of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Health {
    /// Takes new requests.
    Ready,
    /// Terminating but still serving: used only when nothing is ready.
    Draining,
    /// Not ready: never used.
    Unready,
}
