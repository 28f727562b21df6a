//! The command line of the long-running roles, which pods have; most of it comes from their environment, by Istio's names.

use clap::{Args, Subcommand};
use ipnet::IpNet;
use std::path::PathBuf;
use std::time::Duration;

/// The control plane's settings.
#[derive(Debug, Args)]
pub struct ControlArgs {
    /// Namespace of the control plane
    #[arg(long, env = "POD_NAMESPACE", default_value = "istio-system")]
    pub root_namespace: String,
    /// Revision that it serves
    #[arg(long, env = "REVISION", default_value = "default")]
    pub revision: String,
    /// Kubeconfig; default: the service account of this pod
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// Validity of workloads' certificates that ask for none, such as 24h or 30m
    #[arg(long, env = "DEFAULT_WORKLOAD_CERT_TTL", default_value = "24h", value_parser = duration)]
    pub workload_cert_ttl: Duration,
    /// Longest validity of workloads' certificates
    #[arg(long, env = "MAX_WORKLOAD_CERT_TTL", default_value = "2160h", value_parser = duration)]
    pub max_workload_cert_ttl: Duration,
    /// Validity of a root that the control plane makes
    #[arg(long, env = "CITADEL_SELF_SIGNED_CA_CERT_TTL", default_value = "87600h", value_parser = duration)]
    pub self_signed_ca_cert_ttl: Duration,
    /// Longest wait for proxies to trust a new root before its CA signs
    #[arg(long, env = "LATEEN_CA_TAKEOVER_TIME", default_value = "60s", value_parser = duration)]
    pub ca_takeover_time: Duration,
    /// Serves xDS also in plain text at port 15010, to everybody and without credentials
    #[arg(long)]
    pub plaintext_xds: bool,
    /// File with root certificates that servers of jwksUri are verified with, beside the system's
    #[arg(long, value_name = "FILE")]
    pub jwks_extra_root_ca: Vec<PathBuf>,
    /// Networks that are not called for a jwksUri, beside those that never are
    #[arg(
        long,
        env = "BLOCKED_CIDRS_IN_JWKS_URIS",
        value_name = "CIDR,…",
        value_delimiter = ','
    )]
    pub blocked_cidrs_in_jwks_uris: Vec<IpNet>,
    /// Calls loopback addresses for a jwksUri: for an issuer in the control plane's own pod
    #[arg(long)]
    pub allow_loopback_in_jwks_uris: bool,
}

/// A duration such as `30d`, `24h`, `1h30m` or `90s`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    // A century is more than any certificate needs, and keeps sums of dates within bounds.
    let most = Duration::from_secs(100 * 365 * 24 * 3600);
    let days = text
        .strip_suffix('d')
        .and_then(|days| days.parse::<u32>().ok());
    let read = match days {
        Some(days) => Some(Duration::from_secs(u64::from(days) * 24 * 3600)),
        None => text
            .parse::<jiff::SignedDuration>()
            .ok()
            .and_then(|read| Duration::try_from(read).ok()),
    };
    read.filter(|read| !read.is_zero() && *read <= most)
        .ok_or_else(|| format!("{text:?} is no duration: write it as in 30d, 24h, 1h30m or 90s"))
}

/// Kinds of proxies.
#[derive(Debug, Subcommand)]
pub enum Proxy {
    /// Beside one application
    Sidecar(Box<ProxyArgs>),
    /// A gateway
    Router(Box<ProxyArgs>),
}

/// What a proxy is told. Most of it comes from the pod's environment, by Istio's names.
#[derive(Debug, Args)]
pub struct ProxyArgs {
    /// DNS domain of the pod's namespace
    #[arg(long, default_value = "default.svc.cluster.local")]
    pub domain: String,
    /// Control plane's address
    #[arg(
        long,
        env = "LATEEN_DISCOVERY_ADDRESS",
        default_value = "istiod.istio-system.svc:15012"
    )]
    pub discovery: String,
    /// Address of the CA that signs certificates; default: the control plane's
    #[arg(long, env = "CA_ADDR")]
    pub ca_address: Option<String>,
    /// File with the token that the control plane knows the pod by
    #[arg(long, default_value = "/var/run/secrets/tokens/istio-token")]
    pub token: PathBuf,
    /// File with the mesh's root certificates
    #[arg(long, default_value = "/var/run/secrets/istio/root-cert.pem")]
    pub roots: PathBuf,
    /// Socket of the SPIFFE Workload API; used instead of the CA when it is there
    #[arg(long, default_value = "/var/run/secrets/workload-spiffe-uds/socket")]
    pub workload_api: PathBuf,
    /// Runs without a control plane, by the objects in this YAML file or folder; /ready, metrics and the merged port are
    /// then served by the admin port alone
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// File with the proxy's certificate and its chain, which somebody else renews; used instead of the CA
    #[arg(long, value_name = "FILE", requires = "key")]
    pub certificates: Option<PathBuf>,
    /// File with the private key of --certificates
    #[arg(long, value_name = "FILE", requires = "certificates")]
    pub key: Option<PathBuf>,
    /// Address to listen on; default: all
    #[arg(long, value_name = "IP")]
    pub bind: Option<std::net::IpAddr>,
    /// Port of administration, on loopback
    #[arg(long, default_value_t = 15000)]
    pub admin_port: u16,
    /// Lifetime of certificates to ask for, such as 24h; default: the CA's
    #[arg(long, env = "SECRET_TTL")]
    pub certificate_lifetime: Option<String>,
    /// Kind of the certificate's key: ECDSA
    #[arg(long, env = "ECC_SIGNATURE_ALGORITHM", default_value = "")]
    pub ecc_signature_algorithm: String,
    /// Curve of such a key: P256 or P384
    #[arg(long, env = "ECC_CURVE", default_value = "")]
    pub ecc_curve: String,
    /// Bits of an RSA key: 2048 or 4096; default: an ECDSA key
    #[arg(long, env = "WORKLOAD_RSA_KEY_SIZE", default_value = "")]
    pub workload_rsa_key_size: String,
    /// Most connections at once; default: half of the descriptors that the system allows
    #[arg(long, env = "LATEEN_MAX_CONNECTIONS", value_name = "N")]
    pub max_connections: Option<usize>,
    /// Sessions of mutual TLS that are remembered, at most 65535; default: 1024; 0: every connection begins with a whole
    /// handshake
    #[arg(long, env = "LATEEN_TLS_SESSIONS", value_name = "N")]
    pub tls_sessions: Option<u16>,
    /// Memory in MiB of which work is refused from nine tenths on; default: the container's limit
    #[arg(long, env = "LATEEN_MEMORY_LIMIT_MIB", value_name = "MIB")]
    pub memory_limit_mib: Option<u64>,
    /// Worker threads; default: CPUs, at most 2
    #[arg(long)]
    pub concurrency: Option<usize>,
    /// Name of the pod
    #[arg(long, env = "POD_NAME", default_value = "")]
    pub pod: String,
    /// Namespace of the pod
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// Address of the pod
    #[arg(long, env = "INSTANCE_IP")]
    pub address: Option<std::net::IpAddr>,
    /// Service account of the pod
    #[arg(long, env = "SERVICE_ACCOUNT", default_value = "")]
    pub service_account: String,
    /// Owning workload
    #[arg(long, env = "ISTIO_META_WORKLOAD_NAME", default_value = "")]
    pub workload: String,
    /// Cluster id
    #[arg(long, env = "ISTIO_META_CLUSTER_ID", default_value = "Kubernetes")]
    pub cluster: String,
    /// Folder of the pod's labels and annotations
    #[arg(long, default_value = "/etc/istio/pod")]
    pub pod_info: PathBuf,
    /// Folder that keeps the last good configuration
    #[arg(long, default_value = "/etc/istio/proxy")]
    pub cache: PathBuf,
    /// Where the application's own metrics are, as JSON (written by injection)
    #[arg(long, env = "ISTIO_PROMETHEUS_ANNOTATIONS")]
    pub app_metrics: Option<String>,
    /// The application's probes that this proxy makes, as JSON (written by injection)
    #[arg(long, env = "ISTIO_KUBE_APP_PROBERS", hide = true)]
    pub app_probes: Option<String>,
    /// Whether the application's DNS questions are answered: true or false
    #[arg(long, env = "ISTIO_META_DNS_CAPTURE", default_value = "")]
    pub dns_capture: String,
    /// Whether a sidecar is told of services when they are first used, not of all from the start: true or false
    #[arg(long, env = "LATEEN_ON_DEMAND", default_value = "")]
    pub on_demand: String,
    /// ProxyConfig as JSON or YAML (written by injection)
    #[arg(long, env = "PROXY_CONFIG", hide = true)]
    pub proxy_config: Option<String>,
    /// Ignored, for the sake of Istio's templates
    #[arg(long = "proxyLogLevel", hide = true)]
    pub proxy_log_level: Option<String>,
}

/// Capture rules.
#[derive(Debug, Args)]
pub struct CaptureArgs {
    /// Outbound CIDRs to capture: * or a list
    #[arg(long, short = 'i', default_value = "*")]
    pub include_outbound_cidrs: String,
    /// Outbound CIDRs to leave alone
    #[arg(long, short = 'x', default_value = "")]
    pub exclude_outbound_cidrs: String,
    /// Inbound ports to capture: * or a list
    #[arg(long, short = 'b', default_value = "*")]
    pub include_inbound_ports: String,
    /// Inbound ports to leave alone
    #[arg(long, short = 'd', default_value = "")]
    pub exclude_inbound_ports: String,
    /// Outbound ports to capture beside the CIDRs
    #[arg(long, short = 'q', default_value = "")]
    pub include_outbound_ports: String,
    /// Outbound ports to leave alone
    #[arg(long, short = 'o', default_value = "")]
    pub exclude_outbound_ports: String,
    /// Sends the application's DNS questions to the servers of /etc/resolv.conf to the proxy
    #[arg(long)]
    pub redirect_dns: bool,
    /// Sends DNS questions to any server to the proxy, with --redirect-dns
    #[arg(long)]
    pub capture_all_dns: bool,
    /// Removes the rules instead
    #[arg(long)]
    pub remove: bool,
}

/// What the rate-limit service does when Redis cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum WhenUncounted {
    /// Requests pass
    Pass,
    /// Clients get an error, and decide themselves
    Error,
}

/// The rate-limit service's settings.
#[derive(Debug, Args)]
pub struct RateLimitArgs {
    /// YAML file with a domain's limits, or folder of such files; read again when it changes
    #[arg(long, value_name = "PATH", default_value = "/etc/lateen/ratelimit")]
    pub config: PathBuf,
    /// Address to listen on
    #[arg(long, value_name = "IP", default_value = "::")]
    pub bind: std::net::IpAddr,
    /// Port for gRPC
    #[arg(long, default_value_t = 8081)]
    pub port: u16,
    /// Port for /metrics and /healthz
    #[arg(long, default_value_t = 8080)]
    pub admin_port: u16,
    /// Counts in this Redis, which several servers share; default: in memory
    #[arg(long, env = "REDIS_URL", value_name = "HOST:PORT")]
    pub redis: Option<String>,
    /// Password of Redis
    #[arg(long, env = "REDIS_AUTH", hide_env_values = true)]
    pub redis_password: Option<String>,
    /// Time for an answer of Redis
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 100)]
    pub redis_timeout: u64,
    /// What happens to requests while Redis is away
    #[arg(long, value_enum, default_value_t = WhenUncounted::Pass)]
    pub when_uncounted: WhenUncounted,
    /// Most counters in memory; those whose window ends first make room for others
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub max_counters: usize,
}
