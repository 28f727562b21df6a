//! What a proxy is told when it starts. Nothing here changes while it runs.

use crate::app_health::AppProbes;
use lateen_identity::ca::KeyKind;
use lateen_identity::source;
use lateen_model::mesh::{Role, Scope};
use lateen_model::resource::Resource;
use lateen_net::dns;
use lateen_net::http::Limits;
use lateen_net::memory::Bounds;
use lateen_telemetry::logging::LogLevel;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;

/// A proxy's configuration.
#[derive(Debug)]
pub struct Config {
    /// What the proxy is and whom it serves; [`Scope::role`] says sidecar or gateway.
    pub scope: Scope,
    /// `host:port` of the control plane; absent: none is asked, `resources` is all there is.
    pub discovery: Option<String>,
    /// How the proxy proves who it is; absent: it does not, and nobody who wants proof talks to it.
    pub identity: Option<Identity>,
    /// Resources to start from. With `discovery` they hold until the control plane has answered.
    pub resources: Option<Vec<Resource>>,
    /// File that keeps the last good configuration across restarts; absent: none.
    pub cache: Option<PathBuf>,
    /// Ports to listen on.
    pub ports: Ports,
    /// Worker threads; 0: one per CPU, at most two.
    pub concurrency: usize,
    /// How long ending takes.
    pub drain: DrainTimes,
    /// The application's own metrics, merged into `/stats/prometheus` on the merged port; absent: none.
    pub app_metrics: Option<AppMetrics>,
    /// Probes of the application that are made here on the kubelet's behalf, on the merged port.
    pub app_probes: AppProbes,
    /// Bounds on HTTP peers.
    pub limits: Limits,
    /// Most connections at once, of which an eighth is kept for a sidecar's own application; what comes beyond is reset.
    /// Absent: half of the descriptors that the process may have, as each may need another one upstream.
    pub connections: Option<usize>,
    /// Sessions of mutual TLS that are remembered, so that the next connection needs no whole handshake; 0: none is
    /// resumed. Memory for them is taken at once. Absent: as many as [`lateen_identity::tls::MeshTls`] says.
    pub tls_sessions: Option<usize>,
    /// Memory from which on new work is refused.
    pub memory: MemoryBound,
    /// How the destination of captured connections is found.
    pub destinations: Destinations,
    /// Port on loopback on which the application's DNS questions are answered, by UDP and TCP; absent: they are not.
    pub dns: Option<u16>,
    /// How names are resolved.
    pub names: dns::Settings,
    /// Version told to the control plane and shown in `istio_build`.
    pub version: String,
    /// Lets `/logging` change the level; absent: that page answers 501.
    pub log_level: Option<LogLevel>,
}

impl Config {
    /// A configuration with every default, for a proxy in `scope` without a control plane.
    pub fn new(scope: Scope) -> Self {
        let drain = DrainTimes::of(scope.role);
        Self {
            scope,
            discovery: None,
            identity: None,
            resources: None,
            cache: None,
            ports: Ports::default(),
            concurrency: 0,
            drain,
            app_metrics: None,
            app_probes: AppProbes::default(),
            limits: Limits::default(),
            connections: None,
            tls_sessions: None,
            memory: MemoryBound::Container,
            destinations: Destinations::Kernel,
            dns: None,
            names: dns::Settings::system(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            log_level: None,
        }
    }

    pub(crate) fn workers(&self) -> usize {
        match self.concurrency {
            0 => std::thread::available_parallelism()
                .map_or(1, usize::from)
                .min(2),
            n => n,
        }
    }
}

/// Memory from which on requests are answered 503, and from somewhat more on connections are reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryBound {
    /// Shares of the container's limit, of cgroups version 2 or 1; none where there is no limit.
    Container,
    /// The same shares of so many bytes.
    Limit(u64),
    /// These bytes.
    Bounds(Bounds),
    /// None.
    None,
}

/// How a proxy proves who it is.
#[derive(Debug)]
pub struct Identity {
    /// Where certificates come from.
    pub certificates: Certificates,
    /// Folder that keeps the certificate across restarts, readable by its owner only; absent: nothing is kept.
    pub cache: Option<PathBuf>,
    /// How the control plane is believed; absent: configuration comes in plain text, which a control plane serves only
    /// when it was asked to.
    pub control_plane: Option<ControlPlane>,
}

/// Where certificates come from.
#[derive(Debug)]
pub enum Certificates {
    /// The mesh's CA.
    Authority {
        /// `host:port` of the CA.
        address: String,
        /// How it is believed, and how it believes the proxy before there is a certificate.
        server: ControlPlane,
        /// Kind of the certificate's key.
        key: KeyKind,
        /// Lifetime to ask for; zero: the CA's default.
        lifetime: Duration,
    },
    /// The SPIFFE Workload API (SPIRE) on this Unix socket.
    WorkloadApi(PathBuf),
    /// Files that somebody else renews.
    Files(source::Files),
    /// Somebody else renews them.
    Given(watch::Receiver<source::State>),
}

/// How the control plane is believed, and how it believes the proxy.
#[derive(Debug, Clone)]
pub struct ControlPlane {
    /// Names of which its certificate must carry one.
    pub names: Vec<String>,
    /// File with the roots that it is verified with, as PEM; read anew for each connection.
    pub roots: PathBuf,
    /// File with the service account's token, read anew for each connection; absent: the certificate must do.
    pub token: Option<PathBuf>,
}

/// Ports that a proxy opens; port 0 lets the kernel choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Address of every port but the admin port; unspecified (the default): all, IPv4 and IPv6.
    pub bind: IpAddr,
    /// Captured outbound connections (sidecars).
    pub outbound: u16,
    /// Captured inbound connections (sidecars).
    pub inbound: u16,
    /// Administration, on loopback only.
    pub admin: u16,
    /// Readiness, merged metrics and `/quitquitquit`.
    pub merged: u16,
    /// Readiness alone.
    pub ready: u16,
    /// The proxy's own metrics.
    pub metrics: u16,
}

impl Default for Ports {
    /// Istio's ports.
    fn default() -> Self {
        Self {
            bind: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            outbound: 15001,
            inbound: 15006,
            admin: 15000,
            merged: 15020,
            ready: 15021,
            metrics: 15090,
        }
    }
}

/// How long ending takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainTimes {
    /// Kept up at least this long, so that clients hear of the end before it comes.
    pub least: Duration,
    /// Ended after this long even when connections are still busy.
    pub most: Duration,
}

impl DrainTimes {
    /// The defaults of a role: a sidecar ends as soon as it is idle (its applications have ended before it),
    /// a gateway waits for its clients to look elsewhere. Both end after five seconds at the latest.
    pub fn of(role: Role) -> Self {
        let least = match role {
            Role::Sidecar => Duration::ZERO,
            Role::Gateway => Duration::from_secs(2),
        };
        Self {
            least,
            most: Duration::from_secs(5),
        }
    }
}

/// Where the application shows its metrics (Istio: the pod's original `prometheus.io/port` and `path`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppMetrics {
    /// Port on loopback.
    pub port: u16,
    /// Path, such as `/metrics`.
    pub path: String,
}

/// How the destination of a captured connection is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destinations {
    /// The kernel remembers it (`SO_ORIGINAL_DST`).
    Kernel,
    /// Every connection was meant for this address: for trying a proxy without capture.
    Fixed(SocketAddr),
}
