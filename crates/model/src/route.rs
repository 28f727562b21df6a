//! Routes: what one VirtualService says, with hosts resolved to full names. Order is the user's order.

use crate::matching::StringMatch;
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
}

/// A redirect. Absent parts keep the request's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Redirect {
    /// New path (and query, when it holds `?`).
    pub uri: Option<Str>,
    /// New authority.
    pub authority: Option<Str>,
    /// New scheme.
    pub scheme: Option<Str>,
    /// New port.
    pub port: Option<u16>,
    /// Status code; Istio's default is 301.
    pub status: u16,
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
