//! Clusters: the endpoints behind one service port and subset, as one proxy sees them.

use crate::identity::SpiffeId;
use crate::name::{Origin, ServiceKey};
use crate::service::Protocol;
use crate::tls::ClientTls;
use crate::traffic::{
    Balancer, ConnectionPool, OutlierDetection, ProxyProtocol, RetryBudget, Tunnel, Warmup,
};
use crate::workload::{Health, Workload};
use lateen_base::Str;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Where requests can be sent: built once per snapshot, shared by reference.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// Istio's name: `outbound|9080|v1|reviews.default.svc.cluster.local`, `inbound|9080||`,
    /// `PassthroughCluster`, `InboundPassthroughCluster` or `BlackHoleCluster`.
    /// Load-balancing state is kept under this name across snapshots.
    pub name: Str,
    /// The service; absent for pass-through.
    pub service: Option<ServiceFacts>,
    /// How an endpoint is chosen.
    pub discovery: Discovery,
    /// Load-balancing algorithm.
    pub balancer: Balancer,
    /// Bound on connecting.
    pub connect_timeout: Duration,
    /// Protocol towards the endpoints: HTTP/2 when `is_http2`, else what the client spoke.
    pub protocol: Protocol,
    /// How connections to the endpoints are secured.
    pub tls: ClusterTls,
    /// Limits and care that a DestinationRule asks for.
    pub settings: Arc<ClusterSettings>,
}

/// What a DestinationRule asks for beside balancing and TLS; by default nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClusterSettings {
    /// Limits on connections and requests.
    pub pool: ConnectionPool,
    /// When failing endpoints are left out; absent: never.
    pub outlier: Option<OutlierDetection>,
    /// Less traffic for endpoints that have just started; absent: none.
    pub warmup: Option<Warmup>,
    /// A tunnel for opaque bytes; absent: none.
    pub tunnel: Option<Tunnel>,
    /// PROXY protocol towards the endpoints; absent: none.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Limit on concurrent retries in place of the pool's; absent: none.
    pub retry_budget: Option<RetryBudget>,
    /// Whether HTTP/1.1 becomes HTTP/2 towards the endpoints.
    pub h2_upgrade: bool,
}

/// How connections to a cluster's endpoints are secured.
#[derive(Debug, Clone, PartialEq)]
pub enum ClusterTls {
    /// Plain text.
    Plain,
    /// Mutual TLS with the mesh's certificates to endpoints that take it ([`Endpoint::mutual`]), plain text to others.
    /// Where the endpoint is the connection's original destination, `Snapshot::identity_at` tells.
    Mesh {
        /// Server name: `outbound_.9080_.v1_.reviews.default.svc.cluster.local` (Istio). Empty for pass-through:
        /// `Snapshot::identity_at` tells it.
        server_name: Str,
        /// Names that are accepted instead of the endpoint's identity, SPIFFE ids (DestinationRule `subjectAltNames`);
        /// empty: the endpoint's identity.
        sans: Arc<[Str]>,
        /// Whether a DestinationRule asks for it (ISTIO_MUTUAL): then never plain text. An endpoint without identity
        /// must prove to be one of `sans`, or any member of the mesh when there are none.
        required: bool,
    },
    /// TLS as a DestinationRule asks for (SIMPLE or MUTUAL).
    Origin(Arc<ClientTls>),
}

/// Names of a service as metrics and logs show them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceFacts {
    /// The service's key: `destination_service` is its host name.
    pub key: ServiceKey,
    /// Metric label `destination_service_name`.
    pub name: Str,
    /// The addressed service port.
    pub port: u16,
    /// Subset, when one was chosen.
    pub subset: Option<Str>,
    /// The DestinationRule in force, for explanations.
    pub policy: Option<Origin>,
}

/// How a cluster's endpoint is chosen.
#[derive(Debug, Clone, PartialEq)]
pub enum Discovery {
    /// One of these.
    Endpoints(Arc<[Endpoint]>),
    /// The connection's original destination.
    OriginalDestination,
    /// Addresses that these names resolve to (ServiceEntry `DNS`).
    Dns(Vec<NamedEndpoint>),
    /// The first address of the name's current answer (ServiceEntry `DNS_ROUND_ROBIN`).
    DnsFirst(NamedEndpoint),
    /// What the name that the client asks for resolves to, as far as the service's host covers it, on this port;
    /// absent: the port that the client chose (ServiceEntry `DYNAMIC_DNS`).
    DynamicDns(Option<u16>),
    /// This address only: the application beside an inbound proxy.
    Fixed(SocketAddr),
}

/// One address that serves a cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// Where to connect.
    pub address: SocketAddr,
    /// Relative weight, at least 1.
    pub weight: u32,
    /// Rank by nearness: endpoints of the next rank take over what those of the ranks before cannot carry. Ranks have no
    /// gaps.
    pub priority: u32,
    /// Share of its locality within the rank, where shares are given by locality; 0: endpoints count by their weight.
    pub locality_weight: u32,
    /// Whether it takes new requests. `Unready` endpoints are kept out of clusters.
    pub health: Health,
    /// Whether connections to it use the mesh's mutual TLS.
    pub mutual: bool,
    /// Who it must prove to be then. Absent: its account is not known, and any member of the mesh will do (Istio).
    pub identity: Option<SpiffeId>,
    /// The workload behind it, for metric labels.
    pub workload: Arc<Workload>,
}

/// A host that serves a cluster under each address that its name has.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedEndpoint {
    /// The name, or a literal address.
    pub host: Str,
    /// The port on each address.
    pub port: u16,
    /// As [`Endpoint::mutual`].
    pub mutual: bool,
    /// As [`Endpoint::identity`].
    pub identity: Option<SpiffeId>,
}
