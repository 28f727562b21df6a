//! Mesh-wide settings, per-namespace scopes (Sidecar objects), and what a proxy knows of itself.

use crate::name::Origin;
use crate::route::Destination;
use crate::service::Protocol;
use crate::tls::TlsVersion;
use crate::traffic::{ConnectionPool, Locality, OutlierDetection, TcpKeepalive};
use lateen_base::Str;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

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
    /// Trust domain of the mesh, such as `cluster.local`.
    pub trust_domain: Str,
    /// Other trust domains whose members count as the mesh's own: principals of policies are written for all of them.
    pub trust_domain_aliases: Vec<Str>,
    /// Whether clients use mutual TLS where servers have it (Istio: `enableAutoMtls`).
    pub auto_mtls: bool,
    /// Lowest TLS version between members of the mesh (Istio: `meshMTLS.minProtocolVersion`).
    pub mesh_tls_min: TlsVersion,
    /// What is done to paths before anything looks at them.
    pub path_normalization: PathNormalization,
    /// Proxies in front of gateways whose `x-forwarded-for` is believed (Istio: `gatewayTopology.numTrustedProxies`).
    pub trusted_proxies: u32,
    /// Whether connections to gateways begin with a PROXY header (Istio: `gatewayTopology.proxyProtocol`).
    pub proxy_protocol: bool,
    /// What gateways do with `x-forwarded-client-cert` (Istio: `gatewayTopology.forwardClientCertDetails`).
    pub forward_client_cert: ForwardClientCert,
    /// Providers of external authorization, by name (Istio: `extensionProviders`).
    pub authz_providers: Vec<AuthzProvider>,
    /// What holds where no DestinationRule says otherwise.
    pub traffic: TrafficDefaults,
}

/// What holds where no DestinationRule says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrafficDefaults {
    /// Preference for near endpoints (Istio: `localityLbSetting`).
    pub locality: Locality,
    /// Bound on connecting (Istio: `connectTimeout`).
    pub connect_timeout: Duration,
    /// Keep-alive probes (Istio: `tcpKeepalive`); absent: none.
    pub keepalive: Option<TcpKeepalive>,
    /// Whether HTTP/1.1 becomes HTTP/2 towards declared HTTP ports (Istio: `h2UpgradePolicy`).
    pub h2_upgrade: bool,
    /// Limits on connections (Istio: `defaultTrafficPolicy.connectionPool`).
    pub pool: Option<ConnectionPool>,
    /// When failing endpoints are left out (Istio: `defaultTrafficPolicy.outlierDetection`).
    pub outlier: Option<OutlierDetection>,
}

impl Default for TrafficDefaults {
    fn default() -> Self {
        Self {
            locality: Locality::default(),
            connect_timeout: Duration::from_secs(10),
            keepalive: None,
            h2_upgrade: false,
            pool: None,
            outlier: None,
        }
    }
}

impl Default for MeshSettings {
    fn default() -> Self {
        Self {
            outbound: OutboundMode::AllowAny,
            access_log: true,
            access_log_format: None,
            domain: "cluster.local".into(),
            root_namespace: "istio-system".into(),
            trust_domain: "cluster.local".into(),
            trust_domain_aliases: Vec::new(),
            auto_mtls: true,
            mesh_tls_min: TlsVersion::V1_2,
            path_normalization: PathNormalization::Base,
            trusted_proxies: 0,
            proxy_protocol: false,
            forward_client_cert: ForwardClientCert::SanitizeSet,
            authz_providers: Vec::new(),
            traffic: TrafficDefaults::default(),
        }
    }
}

/// What happens to destinations that the mesh does not know (Istio: `outboundTrafficPolicy.mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum OutboundMode {
    /// Passed through as they are.
    AllowAny,
    /// HTTP in plain text goes to what its Host resolves to, whatever address the client chose; what is not HTTP is
    /// passed through as it is.
    AllowAnyDynamicDns,
    /// Refused: HTTP 502, TCP reset.
    RegistryOnly,
}

/// What is done to the path of a request before routing and policies look at it, and as which it travels on
/// (Istio: `pathNormalization`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum PathNormalization {
    /// Nothing.
    None,
    /// RFC 3986 §6: dot segments removed, unreserved characters decoded, a backslash is a slash. Istio's default.
    Base,
    /// As `Base`, and runs of slashes become one.
    MergeSlashes,
    /// As `MergeSlashes`, after `%2F` and `%5C` in either case were decoded.
    DecodeAndMergeSlashes,
}

/// What becomes of the header `x-forwarded-client-cert` of a request (Envoy: `forward_client_cert_details`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum ForwardClientCert {
    /// Removed.
    Sanitize,
    /// Kept when the peer showed a certificate, else removed.
    ForwardOnly,
    /// Added to when the peer showed a certificate, else removed. What sidecars do.
    AppendForward,
    /// Replaced by the peer's certificate, if it showed one. What gateways do.
    SanitizeSet,
    /// Kept, whoever sent it.
    AlwaysForwardOnly,
}

/// A provider of external authorization.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuthzProvider {
    /// The name that policies use.
    pub name: Str,
    /// Host of the service that is asked: a service's name or a ServiceEntry's host, fully qualified, lower case.
    pub host: Str,
    /// Port of that service.
    pub port: u16,
    /// Bound on one check (Istio: 600 s).
    pub timeout: Duration,
    /// Whether requests pass when the provider cannot be asked.
    pub fail_open: bool,
    /// Status of the answer when the provider cannot be asked (Istio: 403).
    pub status_on_error: u16,
    /// How much of the body is sent with the check; absent: none.
    pub body: Option<AuthzBody>,
    /// Whether the route is chosen anew after the provider changed headers.
    pub clear_route_cache: bool,
    /// How it is asked.
    pub protocol: AuthzProtocol,
}

/// The part of a request's body that a provider gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct AuthzBody {
    /// Most bytes.
    pub max_bytes: u32,
    /// Whether a longer body is cut; if not it is answered 413.
    pub allow_partial: bool,
    /// Whether gRPC carries it as bytes.
    pub as_bytes: bool,
}

/// How a provider of external authorization is asked. Header lists hold lower-case names, exact, `prefix*` or `*suffix`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum AuthzProtocol {
    /// `envoy.service.auth.v3.Authorization/Check`.
    Grpc,
    /// A request like the one to be checked, without body: 200 means yes.
    Http {
        /// Goes before the path.
        path_prefix: Str,
        /// Headers of the request that are sent, beside Host, Method, Path, Content-Length and Authorization.
        request_headers: Vec<Str>,
        /// Headers that are added to the check.
        additional_headers: Vec<(Str, Str)>,
        /// Headers of a yes that are added to the request.
        upstream_on_allow: Vec<Str>,
        /// Headers of a no that the client gets; empty: all.
        downstream_on_deny: Vec<Str>,
        /// Headers of a yes that are added to the client's response.
        downstream_on_allow: Vec<Str>,
    },
}

/// One Sidecar object: what the proxies beside some workloads take in and what they can reach.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SidecarScope {
    /// The Sidecar object; its namespace is where it applies (the root namespace: everywhere without its own).
    pub origin: Origin,
    /// Workloads it applies to; empty: the whole namespace.
    pub workload_selector: BTreeMap<Str, Str>,
    /// Visible services; absent: everything visible by `exportTo`.
    pub egress: Option<Vec<EgressHost>>,
    /// Services that `egress` would include and that are left out all the same (Istio: `~namespace/host`).
    pub excluded: Vec<EgressHost>,
    /// Override of the mesh's outbound mode.
    pub outbound: Option<OutboundMode>,
    /// Where traffic to unknown destinations goes instead of there (Istio: `egressProxy`).
    pub egress_proxy: Option<Destination>,
    /// Ports that the workload takes traffic on; absent: those of its services. Others are passed through.
    pub ingress: Option<Vec<IngressListener>>,
    /// Limits on what comes to the workload; absent: those of the DestinationRule for its service.
    pub inbound_pool: Option<ConnectionPool>,
}

/// A port of the workload that a Sidecar declares (Istio: `IstioIngressListener`).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IngressListener {
    /// Port that clients call on the pod.
    pub port: u16,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Where the application listens; absent: on that port of the pod's address.
    pub endpoint: Option<IngressEndpoint>,
    /// Limits on what comes to this port; absent: those of the whole workload.
    pub pool: Option<ConnectionPool>,
}

/// Where the application behind an [`IngressListener`] listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum IngressEndpoint {
    /// At this address.
    Address(SocketAddr),
    /// At this port of the pod's own address (Istio: `0.0.0.0:port`).
    Instance(u16),
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
    /// Whether it is told of services only when it asks for them (sidecars; gateways are told of all).
    pub on_demand: bool,
}

/// What a proxy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Role {
    /// Beside one application.
    Sidecar,
    /// At the edge (ingress or egress).
    Gateway,
}
