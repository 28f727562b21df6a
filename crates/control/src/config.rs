//! What the control plane is told at its start. Nothing is read from the environment here.

use crate::ca;
use crate::inject::Settings;
use crate::jwks;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// The control plane's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address that the servers listen on.
    pub bind: IpAddr,
    /// Ports of the servers.
    pub ports: Ports,
    /// Namespace of the control plane and of mesh-wide objects.
    pub root_namespace: String,
    /// Name of the control plane's Service in that namespace; the webhook certificate is for it.
    pub service: String,
    /// Name of the ConfigMap with MeshConfig under the key `mesh`.
    pub mesh_config_map: String,
    /// What injected proxies are given; trust domain and root namespace follow MeshConfig when it says so.
    pub injection: Settings,
    /// Changes are pushed once none came for this long.
    pub debounce_quiet: Duration,
    /// Changes are pushed at the latest after this long.
    pub debounce_most: Duration,
    /// Kubeconfig to use instead of the in-cluster one or `KUBECONFIG`.
    pub kubeconfig: Option<std::path::PathBuf>,
    /// The CA of the mesh.
    pub ca: ca::Settings,
    /// How keys of token issuers are fetched.
    pub jwks: jwks::Options,
    /// Version shown by `/version` and `pilot_info`.
    pub version: String,
}

/// Ports of the control plane's servers; 0 takes any free port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Readiness, metrics, debug pages.
    pub http: u16,
    /// Delta ADS and certificates over TLS, for who proves who it is.
    pub secured: u16,
    /// Delta ADS in plain text and without credentials, for everybody; absent: not served.
    pub plaintext: Option<u16>,
    /// Metrics, version and debug pages for monitoring.
    pub monitoring: u16,
    /// Webhooks over HTTPS.
    pub webhooks: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            http: 8080,
            secured: 15012,
            plaintext: None,
            monitoring: 15014,
            webhooks: 15017,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bind: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            ports: Ports::default(),
            root_namespace: "istio-system".to_owned(),
            service: "istiod".to_owned(),
            mesh_config_map: "istio".to_owned(),
            injection: Settings::default(),
            debounce_quiet: Duration::from_millis(10),
            debounce_most: Duration::from_millis(100),
            kubeconfig: None,
            ca: ca::Settings::default(),
            jwks: jwks::Options::default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}
