//! The plans that decisions return, and the facts they are made from. Types only.

use super::authz::Token;
use super::cluster::Cluster;
use crate::identity::SpiffeId;
use crate::name::Origin;
use crate::route::{CorsPolicy, FaultInjection, HeaderEdit, Redirect, RetryPolicy, Share};
use crate::tls::ServerTls;
use lateen_base::Str;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// What is known when a connection is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionFacts {
    /// Which way it goes.
    pub direction: Direction,
    /// The peer's address.
    pub source: SocketAddr,
    /// Where the client wanted to go: the original destination, or at a gateway the listener's own address.
    pub destination: SocketAddr,
}

/// What TLS says about a connection's peer. Without TLS: the default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Peer {
    /// Proved by the peer's certificate; absent: the peer showed none, or TLS was not the mesh's.
    pub identity: Option<SpiffeId>,
    /// Server name of the ClientHello, canonical; empty: none.
    pub server_name: Str,
    /// The protocol that was agreed on; empty: none.
    pub alpn: Str,
    /// Whether the connection is encrypted and ended here.
    pub tls: bool,
}

/// Which way a connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the application to the mesh (captured on 15001).
    Outbound,
    /// From the mesh to the application (captured on 15006).
    Inbound,
    /// Into a gateway, on the server port given in `destination`.
    Gateway,
}

/// What to do with a connection.
#[derive(Debug, Clone, PartialEq)]
pub enum ConnectionPlan {
    /// Serve HTTP (version by preface), deciding each request.
    Http,
    /// Copy bytes.
    Tcp(TcpPlan),
    /// The first side to speak decides: HTTP is served as such, everything else follows the TCP plan.
    /// A ClientHello asks [`super::server_name`] first.
    Detect(TcpPlan),
    /// TLS passed through: peek the server name, then ask [`super::server_name`]; what is not TLS follows the TCP plan.
    Sni(TcpPlan),
    /// A gateway's TLS: peek the server name, then ask [`super::gateway_tls`]; what is not TLS follows the TCP plan.
    Tls(TcpPlan),
}

/// What a gateway does with a TLS connection once its server name is known.
#[derive(Debug, Clone, PartialEq)]
pub enum GatewayTls {
    /// End TLS here, then ask [`super::gateway_decrypted`].
    Terminate {
        /// How. Its credentials, as far as they are secrets, are there.
        key: Arc<ServerTls>,
        /// Whose server it is.
        server: ServerFacts,
        /// What is inside.
        then: Inside,
    },
    /// Pass the bytes on as they are.
    Passthrough(TcpPlan),
    /// Close it.
    Refuse(Fault),
}

/// A server of a gateway, for logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// The Gateway.
    pub origin: Origin,
    /// The server's name; empty when unnamed.
    pub name: Str,
    /// The port's number in the Gateway.
    pub port: u16,
}

/// What is inside of TLS that ends at a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inside {
    /// HTTP/1.1 or HTTP/2: offer both.
    Http,
    /// Opaque bytes: offer no protocol.
    Tcp,
}

/// What to do with opaque bytes.
#[derive(Debug, Clone, PartialEq)]
pub enum TcpPlan {
    /// Send them to a cluster.
    Forward {
        /// Where to.
        cluster: Arc<Cluster>,
        /// The rule that said so; absent: no rule, by address alone.
        origin: Option<Origin>,
    },
    /// Close with a reset.
    Refuse(Fault),
}

/// The head of a request as routing sees it: one canonical form for every decision.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// Method.
    pub method: &'a http::Method,
    /// Host header or `:authority`, as sent (port included when given).
    pub authority: &'a str,
    /// Path with query, as [`super::canonical::path`] gives it.
    pub path: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Headers.
    pub headers: &'a http::HeaderMap,
    /// Its verified token; absent: it has none, or nobody asked.
    pub token: Option<&'a Token>,
}

/// What to do with a request.
#[derive(Debug, Clone, PartialEq)]
pub enum RequestPlan {
    /// Send it.
    Forward(Box<ForwardPlan>),
    /// Answer with a redirect; fields absent in it keep the request's.
    Redirect {
        /// How. Its prefix is already in `uri`, and its port is a number or the client's.
        redirect: Redirect,
        /// Which rule said so.
        route: RouteFacts,
        /// Edits of the answer.
        response_edits: Vec<HeaderEdit>,
    },
    /// Answer at once.
    Direct {
        /// Status code.
        status: u16,
        /// Body.
        body: Vec<u8>,
        /// Which rule said so.
        route: RouteFacts,
        /// Edits of the answer.
        response_edits: Vec<HeaderEdit>,
    },
    /// Answer with the fault's status.
    Refuse(Fault),
}

impl RequestPlan {
    /// The rule that it follows; absent for refusals.
    pub fn route(&self) -> Option<&RouteFacts> {
        match self {
            Self::Forward(plan) => Some(&plan.route),
            Self::Redirect { route, .. } | Self::Direct { route, .. } => Some(route),
            Self::Refuse(_) => None,
        }
    }

    /// Where it is sent; absent when it is not.
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        match self {
            Self::Forward(plan) => Some(&plan.cluster),
            Self::Redirect { .. } | Self::Direct { .. } | Self::Refuse(_) => None,
        }
    }
}

/// The rule that matched.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RouteFacts {
    /// Route name for access logs: the rule's name, `default` when no rule matched a known service, `allow_any`, `block_all`.
    pub name: Str,
    /// The user's object; absent for default routes.
    pub origin: Option<Origin>,
    /// Position of the rule within the object, from 0; absent for default routes.
    pub rule: Option<usize>,
    /// What is done to requests of the rule before its action; absent: nothing.
    pub policy: Option<Arc<RoutePolicy>>,
}

/// What a rule does to requests before its action: first the faults, then CORS (Envoy's order).
#[derive(Debug, PartialEq)]
pub struct RoutePolicy {
    /// Faults to inject.
    pub fault: Option<FaultInjection>,
    /// Cross-origin policy.
    pub cors: Option<CorsPolicy>,
}

/// How to send a request.
#[derive(Debug, Clone, PartialEq)]
pub struct ForwardPlan {
    /// The rule that matched.
    pub route: RouteFacts,
    /// Where to.
    pub cluster: Arc<Cluster>,
    /// New path with query; absent: as it came.
    pub path: Option<String>,
    /// New authority; absent: as it came.
    pub authority: Option<Str>,
    /// Edits of the request's headers, in order.
    pub request_edits: Vec<HeaderEdit>,
    /// Edits of the response's headers, in order.
    pub response_edits: Vec<HeaderEdit>,
    /// Bound on the whole exchange; absent: none.
    pub timeout: Option<Duration>,
    /// Retries in force (Istio's default when the rule says nothing).
    pub retries: Arc<RetryPolicy>,
    /// Clusters that get a copy. Those that do not exist are left out.
    pub mirrors: Arc<[MirrorPlan]>,
}

impl ForwardPlan {
    /// A plan without a rule: the request goes to `cluster` as it is, without a timeout.
    pub fn to(cluster: Arc<Cluster>, retries: Arc<RetryPolicy>) -> Self {
        Self {
            route: RouteFacts::default(),
            cluster,
            path: None,
            authority: None,
            request_edits: Vec::new(),
            response_edits: Vec::new(),
            timeout: None,
            retries,
            mirrors: no_mirrors(),
        }
    }
}

/// Most requests have none: one empty list serves them all.
fn no_mirrors() -> Arc<[MirrorPlan]> {
    static NONE: OnceLock<Arc<[MirrorPlan]>> = OnceLock::new();
    Arc::clone(NONE.get_or_init(|| Arc::from([])))
}

/// A cluster that gets a copy of requests.
#[derive(Debug, Clone, PartialEq)]
pub struct MirrorPlan {
    /// Where to.
    pub cluster: Arc<Cluster>,
    /// Of which requests.
    pub share: Share,
}

/// A refusal: one response flag, one status, one sentence, and the object that caused it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Why.
    pub reason: FaultReason,
    /// The user's object that caused it, when there is one.
    pub origin: Option<Origin>,
    /// What was looked for, such as a host or a cluster name.
    pub subject: String,
}

/// Why a request or connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultReason {
    /// No route matches the request (404, `NR`).
    NoRoute,
    /// The route's service or port does not exist (503, `NC`).
    NoCluster,
    /// The route's subset is not defined by any DestinationRule (503, `NC`).
    NoSubset,
    /// The service has no usable endpoint (503, `UH`).
    NoEndpoint,
    /// The control plane did not tell in time what the destination is, where services are told on demand (503, `NC`).
    Undiscovered,
    /// Unknown destination under REGISTRY_ONLY (502, no flag; TCP reset).
    NotInRegistry,
    /// Every try to connect failed (503, `UF`).
    ConnectFailed,
    /// The upstream closed or reset before an answer (503, `UC`).
    UpstreamReset,
    /// The upstream answered something that is no answer to what it was asked (502, `UPE`).
    UpstreamProtocol,
    /// A DestinationRule allows no more connections or requests at once (503, `UO`).
    Overflow,
    /// The upstream did not answer in time (504, `UT`).
    Timeout,
    /// The client sent something that is not valid HTTP (400, `DPE`).
    BadRequest,
    /// The request has too many or too large headers (431, no flag).
    TooLarge,
    /// An AuthorizationPolicy says no (403 with `RBAC: access denied`, no flag; TCP reset).
    Denied,
    /// The request's token is not good (401, no flag).
    Unauthenticated,
    /// A provider of external authorization says no (its own status, `UAEX`).
    AuthzRefused,
    /// A provider of external authorization cannot be asked (its `statusOnError`, `UAEX`).
    AuthzUnavailable,
    /// Plain text, or TLS that is not the mesh's, where mutual TLS is required (TCP reset).
    NotMutualTls,
    /// TLS with the client failed (closed).
    HandshakeFailed,
    /// The proxy has no memory or no connections to spare (503, `OM`).
    Overloaded,
    /// The body is larger than allowed (413, no flag).
    BodyTooLarge,
    /// The connection's server name belongs to another server of the gateway than the request's Host (421, `NR`).
    Misdirected,
    /// A RateLimitPolicy's limit is used up (its own status, `RL`).
    RateLimited,
    /// The rate-limit service cannot be asked, and has to be (500, `RLSE`).
    RateLimitUnavailable,
}

impl Fault {
    /// The HTTP status that tells of it.
    pub fn status(&self) -> u16 {
        match self.reason {
            FaultReason::NoRoute => 404,
            FaultReason::NotInRegistry | FaultReason::UpstreamProtocol => 502,
            FaultReason::Timeout => 504,
            FaultReason::BadRequest => 400,
            FaultReason::TooLarge => 431,
            FaultReason::BodyTooLarge => 413,
            FaultReason::Misdirected => 421,
            FaultReason::Denied | FaultReason::AuthzRefused | FaultReason::AuthzUnavailable => 403,
            FaultReason::Unauthenticated => 401,
            FaultReason::RateLimited => 429,
            FaultReason::RateLimitUnavailable => 500,
            _ => 503,
        }
    }

    /// Envoy's response flag; `-` when there is none.
    pub fn flag(&self) -> &'static str {
        match self.reason {
            FaultReason::NoRoute | FaultReason::Misdirected => "NR",
            FaultReason::NoCluster | FaultReason::NoSubset | FaultReason::Undiscovered => "NC",
            FaultReason::NoEndpoint => "UH",
            FaultReason::ConnectFailed => "UF",
            FaultReason::UpstreamReset => "UC",
            FaultReason::Overflow => "UO",
            FaultReason::Timeout => "UT",
            FaultReason::BadRequest => "DPE",
            FaultReason::AuthzRefused | FaultReason::AuthzUnavailable => "UAEX",
            FaultReason::Overloaded => "OM",
            FaultReason::RateLimited => "RL",
            FaultReason::RateLimitUnavailable => "RLSE",
            FaultReason::HandshakeFailed | FaultReason::UpstreamProtocol => "UPE",
            FaultReason::NotInRegistry
            | FaultReason::TooLarge
            | FaultReason::BodyTooLarge
            | FaultReason::Denied
            | FaultReason::Unauthenticated
            | FaultReason::NotMutualTls => "-",
        }
    }
}
