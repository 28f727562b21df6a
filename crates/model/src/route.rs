//! Routes: what one VirtualService says, with hosts resolved to full names. Order is the user's order.

use crate::matching::{Replacement, StringMatch};
use crate::name::{Origin, Visibility};
use lateen_base::Str;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// One VirtualService. Hosts are lower case and fully qualified.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouteTable {
    /// The VirtualService.
    pub origin: Origin,
    /// Hosts it binds to: exact, `*.suffix` or `*`.
    pub hosts: Vec<Str>,
    /// Gateways it binds to, as `namespace/name`; `mesh` stands for every sidecar.
    pub gateways: Vec<Str>,
    /// Who may see it.
    pub visibility: Visibility,
    /// HTTP rules; the first that matches wins.
    pub http: Vec<HttpRoute>,
    /// Rules for TLS that is passed through, by SNI.
    pub tls: Vec<TlsRoute>,
    /// Rules for opaque TCP.
    pub tcp: Vec<TcpRoute>,
}

/// One HTTP rule.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HttpRoute {
    /// Its name in access logs; empty when unnamed.
    pub name: Str,
    /// Alternatives, any of which suffices; empty matches everything.
    pub matches: Vec<HttpMatch>,
    /// What happens to a matching request.
    pub action: HttpAction,
    /// Path or authority rewrite before sending.
    pub rewrite: Option<Rewrite>,
    /// Whole-request timeout; absent: none (Istio: disabled by default).
    pub timeout: Option<Duration>,
    /// Retry policy; absent: the mesh default.
    pub retries: Option<RetryPolicy>,
    /// Header operations for the whole rule.
    pub headers: HeaderOperations,
    /// Faults to inject before anything is sent; absent: none.
    pub fault: Option<FaultInjection>,
    /// Destinations that get a copy of the traffic.
    pub mirrors: Vec<Mirror>,
    /// Cross-origin policy; absent: none, the application's own answers count.
    pub cors: Option<CorsPolicy>,
    /// Where the rule was written, when it came by delegation or after rules that did; absent: in the table's own object,
    /// at this position.
    pub delegated: Option<Delegated>,
}

impl HttpRoute {
    /// A rule that takes every request, and does this and nothing else.
    pub fn of(action: HttpAction) -> Self {
        Self {
            name: "".into(),
            matches: Vec::new(),
            action,
            rewrite: None,
            timeout: None,
            retries: None,
            headers: HeaderOperations::default(),
            fault: None,
            mirrors: Vec::new(),
            cors: None,
            delegated: None,
        }
    }
}

/// The origin of a rule that another object delegated to, or that moved as others came by delegation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Delegated {
    /// The VirtualService that has the rule.
    pub origin: Origin,
    /// Its position there, from 0.
    pub index: usize,
    /// Position, in the table's own object, of the rule that delegates.
    pub root: usize,
}

/// A share of requests, in parts of a million (Envoy: `FractionalPercent` with denominator `MILLION`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Share(u32);

impl Share {
    /// Every request.
    pub const ALL: Self = Self(1_000_000);

    /// So many millionths; more than a million count as all.
    pub fn millionths(parts: u32) -> Self {
        Self(parts.min(1_000_000))
    }

    /// The number of millionths.
    pub fn parts(self) -> u32 {
        self.0
    }

    /// Whether a request that drew `dice` (any evenly drawn number) belongs to the share.
    pub fn takes(self, dice: u64) -> bool {
        dice % 1_000_000 < u64::from(self.0)
    }
}

/// Faults that a rule injects: first the delay, then the abort (Envoy's order).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FaultInjection {
    /// A pause before the request is sent.
    pub delay: Option<FaultDelay>,
    /// An error instead of sending it.
    pub abort: Option<FaultAbort>,
}

/// A pause before a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FaultDelay {
    /// Of which requests.
    pub share: Share,
    /// How long.
    pub delay: Duration,
}

/// An error instead of sending a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FaultAbort {
    /// Of which requests.
    pub share: Share,
    /// What the client gets.
    pub status: AbortStatus,
}

/// The status of an injected error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum AbortStatus {
    /// An HTTP status.
    Http(u16),
    /// A gRPC status code; what is not gRPC gets the HTTP status that stands for it.
    Grpc(u16),
}

/// A destination that gets a copy of traffic; its answers are dropped.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mirror {
    /// Where to.
    pub destination: Destination,
    /// Of which requests.
    pub share: Share,
}

/// Who may use what a rule serves from pages of other origins (Fetch: "CORS protocol").
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CorsPolicy {
    /// Origins that may; any suffices.
    pub allow_origins: Vec<StringMatch>,
    /// Methods of `access-control-allow-methods`.
    pub allow_methods: Vec<Str>,
    /// Headers of `access-control-allow-headers`.
    pub allow_headers: Vec<Str>,
    /// Headers of `access-control-expose-headers`.
    pub expose_headers: Vec<Str>,
    /// How long browsers may keep a preflight's answer; absent: not said.
    pub max_age: Option<Duration>,
    /// Whether credentials may be sent; absent: not said.
    pub allow_credentials: Option<bool>,
    /// Whether preflights of other origins reach the application (Istio's default) or are answered here without
    /// permission.
    pub forward_unmatched: bool,
}

/// One alternative of a rule: every given part must match.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct HttpMatch {
    /// Its name; empty when unnamed.
    pub name: Str,
    /// Path without query.
    pub uri: Option<StringMatch>,
    /// Whether `uri` ignores case (exact and prefix).
    pub ignore_uri_case: bool,
    /// `http` or `https`.
    pub scheme: Option<StringMatch>,
    /// Request method.
    pub method: Option<StringMatch>,
    /// Host header or `:authority`, as sent.
    pub authority: Option<StringMatch>,
    /// Headers by lower-case name; every one must match.
    pub headers: BTreeMap<Str, StringMatch>,
    /// Headers by lower-case name; none may match.
    pub without_headers: BTreeMap<Str, StringMatch>,
    /// Query parameters; every one must match.
    pub query: BTreeMap<Str, StringMatch>,
    /// The port that the client addressed.
    pub port: Option<u16>,
    /// The client's labels (decided once per proxy).
    pub source_labels: BTreeMap<Str, Str>,
    /// The client's namespace (decided once per proxy).
    pub source_namespace: Option<Str>,
    /// Gateways that this alternative is limited to (`namespace/name` or `mesh`); empty: the table's.
    pub gateways: Vec<Str>,
    /// Claims of the request's verified token; every one must match. Without a token none does.
    pub claims: Vec<ClaimMatch>,
}

/// A condition on a claim of the verified token (Istio: header keys `@request.auth.claims…`).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClaimMatch {
    /// Keys from the outermost claim inwards; never empty.
    pub path: Vec<Str>,
    /// What it must be: the claim's text, or one entry of its list.
    pub wanted: StringMatch,
    /// Whether it must not be that (`withoutHeaders`).
    pub not: bool,
}

/// What a matching HTTP rule does.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum HttpAction {
    /// Sends to one of these by weight. Weights are relative; one destination alone takes everything.
    Forward(Vec<HttpDestination>),
    /// Answers with a redirect.
    Redirect(Redirect),
    /// Answers at once.
    Direct(DirectResponse),
}

/// A weighted destination of an HTTP rule.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HttpDestination {
    /// Where to.
    pub destination: Destination,
    /// Relative weight.
    pub weight: u32,
    /// Header operations for this destination: after the rule's when it is the only one, before them otherwise (Istio).
    pub headers: HeaderOperations,
}

/// A service, optionally a subset of it, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Destination {
    /// Fully qualified host.
    pub host: Str,
    /// Subset named by a DestinationRule.
    pub subset: Option<Str>,
    /// Service port; absent: the port that the client addressed, or the only port of the service.
    pub port: Option<u16>,
}

/// Changes before the request is sent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rewrite {
    /// Replaces the matched prefix, or the whole path when the rule matched otherwise.
    pub uri: Option<Str>,
    /// Replaces the authority.
    pub authority: Option<Str>,
    /// Replaces what an expression finds in the path; not together with `uri`.
    pub regex: Option<Replacement>,
}

/// A redirect. Absent parts keep the request's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Redirect {
    /// New path (and query, when it holds `?`).
    pub uri: Option<Str>,
    /// Replaces the matched prefix of the path; not together with `uri`.
    pub prefix: Option<Str>,
    /// New authority.
    pub authority: Option<Str>,
    /// New scheme.
    pub scheme: Option<Str>,
    /// New port.
    pub port: RedirectPort,
    /// Status code; Istio's default is 301.
    pub status: u16,
}

/// The port of a redirect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub enum RedirectPort {
    /// As the client wrote it, unless it was the default one of a scheme that changes.
    #[default]
    Kept,
    /// This.
    Number(u16),
    /// The port that the request came in at (Istio: `FROM_REQUEST_PORT`).
    Request,
}

/// A fixed answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DirectResponse {
    /// Status code.
    pub status: u16,
    /// Body; may be empty.
    pub body: Vec<u8>,
}

/// When and how often a request is tried again.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RetryPolicy {
    /// Further tries after the first; 0 switches retries off.
    pub attempts: u32,
    /// Bound on each try; absent: the rule's timeout.
    pub per_try_timeout: Option<Duration>,
    /// Conditions, in Envoy's words (`connect-failure`, `5xx`, `reset`, …) or status codes.
    pub retry_on: Vec<Str>,
    /// First pause between tries, which doubles up to ten times it, each drawn from 0 on; absent: 25 ms.
    pub backoff: Option<Duration>,
    /// Whether tries avoid endpoints that were tried before (Istio's default).
    pub ignore_previous_hosts: bool,
    /// Whether tries go to other localities than those before.
    pub remote_localities: bool,
    /// Whether a request that is not idempotent is left alone once its body was sent, whatever `retry_on` says: so where
    /// the user named no conditions.
    pub careful: bool,
}

impl RetryPolicy {
    /// One try, and no more.
    pub fn none() -> Self {
        Self {
            attempts: 0,
            per_try_timeout: None,
            retry_on: Vec::new(),
            backoff: None,
            ignore_previous_hosts: true,
            remote_localities: false,
            careful: true,
        }
    }
}

/// Header changes: removals first, then sets, then additions.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct HeaderOperations {
    /// On the request.
    pub request: HeaderEdit,
    /// On the response.
    pub response: HeaderEdit,
}

/// Changes to one message's headers. Names are kept as written.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct HeaderEdit {
    /// Replaced or created.
    pub set: Vec<(Str, Str)>,
    /// Appended.
    pub add: Vec<(Str, Str)>,
    /// Removed.
    pub remove: Vec<Str>,
}

/// A rule for TLS passed through.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TlsRoute {
    /// Alternatives.
    pub matches: Vec<L4Match>,
    /// Weighted destinations.
    pub destinations: Vec<WeightedDestination>,
}

/// A rule for opaque TCP.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TcpRoute {
    /// Alternatives; empty matches everything.
    pub matches: Vec<L4Match>,
    /// Weighted destinations.
    pub destinations: Vec<WeightedDestination>,
}

/// One alternative of an L4 rule: every given part must match.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct L4Match {
    /// SNI names (TLS rules only): exact or `*.suffix`.
    pub sni_hosts: Vec<Str>,
    /// Destination ranges, as written (`10.0.0.0/8`).
    pub destination_subnets: Vec<Str>,
    /// The client's range, as written; absent: any.
    pub source_subnet: Option<Str>,
    /// The port that the client addressed.
    pub port: Option<u16>,
    /// The client's labels.
    pub source_labels: BTreeMap<Str, Str>,
    /// The client's namespace.
    pub source_namespace: Option<Str>,
    /// Gateways (`namespace/name` or `mesh`); empty: the table's.
    pub gateways: Vec<Str>,
}

/// A weighted destination of an L4 rule.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WeightedDestination {
    /// Where to.
    pub destination: Destination,
    /// Relative weight.
    pub weight: u32,
}
