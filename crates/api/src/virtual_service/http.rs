//! The HTTP rules of a VirtualService as users write them.

use crate::fields::{Destination, DurationText, Labels, Percent, StringMatch};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One HTTP rule: conditions, then one of route, redirect, directResponse or delegate.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRoute {
    /// A name for access logs.
    pub name: Option<String>,
    /// Conditions, any of which suffices; everything when empty.
    #[serde(rename = "match")]
    pub matches: Vec<HttpMatchRequest>,
    /// Weighted destinations.
    pub route: Vec<HttpRouteDestination>,
    /// Answer with a redirect.
    pub redirect: Option<HttpRedirect>,
    /// Answer at once.
    pub direct_response: Option<HttpDirectResponse>,
    /// Go on with the rules of another VirtualService.
    pub delegate: Option<Delegate>,
    /// Changes of path and authority before sending.
    pub rewrite: Option<HttpRewrite>,
    /// Bound on the whole exchange; none when absent.
    pub timeout: Option<DurationText>,
    /// Retry policy; the mesh's default when absent.
    pub retries: Option<HttpRetry>,
    /// Faults to inject.
    pub fault: Option<HttpFaultInjection>,
    /// A destination that gets a copy of the traffic.
    pub mirror: Option<Destination>,
    /// Destinations that get a copy of the traffic.
    pub mirrors: Vec<HttpMirrorPolicy>,
    /// Deprecated: share of traffic to mirror, in whole percent.
    pub mirror_percent: Option<u32>,
    /// Share of traffic to mirror; all when absent.
    pub mirror_percentage: Option<Percent>,
    /// Cross-origin policy.
    pub cors_policy: Option<CorsPolicy>,
    /// Header changes for every destination.
    pub headers: Option<Headers>,
}

/// One condition: every given part must match.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpMatchRequest {
    /// A name for access logs.
    pub name: Option<String>,
    /// Path without query.
    pub uri: Option<StringMatch>,
    /// `http` or `https`.
    pub scheme: Option<StringMatch>,
    /// Request method.
    pub method: Option<StringMatch>,
    /// Host header or `:authority`.
    pub authority: Option<StringMatch>,
    /// Headers by lower-case name; `{}` asks only that the header is there.
    pub headers: BTreeMap<String, StringMatch>,
    /// Headers that must not match.
    pub without_headers: BTreeMap<String, StringMatch>,
    /// Query parameters by name.
    pub query_params: BTreeMap<String, StringMatch>,
    /// Port that the client addressed.
    #[schemars(range(min = 0, max = 65535))]
    pub port: Option<u32>,
    /// Labels of the client's workload.
    pub source_labels: Labels,
    /// Namespace of the client's workload.
    pub source_namespace: Option<String>,
    /// Gateways that the condition is limited to; the object's when empty.
    pub gateways: Vec<String>,
    /// Whether exact and prefix matches of the path ignore case.
    pub ignore_uri_case: Option<bool>,
    /// Prefix of statistics for this condition.
    pub stat_prefix: Option<String>,
}

/// A weighted destination.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["destination"]))]
pub struct HttpRouteDestination {
    /// Where to.
    pub destination: Destination,
    /// Share of traffic relative to the other weights. One destination alone gets everything.
    #[schemars(range(min = 0))]
    pub weight: Option<i32>,
    /// Header changes for this destination.
    pub headers: Option<Headers>,
}

/// A redirect. Parts that are absent stay as in the request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRedirect {
    /// New path.
    pub uri: Option<String>,
    /// Replacement for the matched prefix of the path.
    pub prefix_rewrite: Option<String>,
    /// New authority.
    pub authority: Option<String>,
    /// New port.
    #[schemars(range(min = 0, max = 65535))]
    pub port: Option<u32>,
    /// Where the port comes from when it is not given.
    pub derive_port: Option<RedirectPort>,
    /// New scheme.
    pub scheme: Option<String>,
    /// Status code; 301 when absent.
    #[schemars(range(min = 0, max = 399))]
    pub redirect_code: Option<u32>,
}

/// Where a redirect's port comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RedirectPort {
    /// The scheme's own: 80 or 443.
    FromProtocolDefault,
    /// The request's.
    FromRequestPort,
}

/// A fixed answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["status"]))]
pub struct HttpDirectResponse {
    /// Status code, 200 to 599.
    #[schemars(range(min = 0, max = 599))]
    pub status: u32,
    /// Body; empty when absent.
    pub body: Option<HttpBody>,
}

/// A body: text or bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpBody {
    /// Text.
    pub string: Option<String>,
    /// Bytes in base64.
    #[schemars(extend("format" = "binary"))]
    pub bytes: Option<String>,
}

/// Another VirtualService, whose rules are used here.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Delegate {
    /// Its name.
    pub name: Option<String>,
    /// Its namespace; this object's when absent.
    pub namespace: Option<String>,
}

/// Changes before the request is sent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRewrite {
    /// Replaces the matched prefix, or the whole path when the rule matched otherwise.
    pub uri: Option<String>,
    /// Replaces the authority.
    pub authority: Option<String>,
    /// Replaces what a regular expression matches in the path.
    pub uri_regex_rewrite: Option<RegexRewrite>,
}

/// A replacement by regular expression.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RegexRewrite {
    /// RE2 expression.
    #[serde(rename = "match")]
    pub pattern: Option<String>,
    /// Replacement; `\1` stands for the first group.
    pub rewrite: Option<String>,
}

/// When and how often a request is tried again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRetry {
    /// Further tries after the first; 0 switches retries off.
    #[schemars(range(min = 0))]
    pub attempts: Option<i32>,
    /// Bound on each try; the rule's timeout when absent.
    pub per_try_timeout: Option<DurationText>,
    /// Conditions, separated by commas: `5xx`, `connect-failure`, `503`, …
    pub retry_on: Option<String>,
    /// Whether tries may go to other localities.
    pub retry_remote_localities: Option<bool>,
    /// Whether tries avoid endpoints that were tried before; true when absent.
    pub retry_ignore_previous_hosts: Option<bool>,
    /// First pause between tries, which then grows; 25ms when absent.
    pub backoff: Option<DurationText>,
}

/// A destination that gets a copy of traffic; its answers are dropped.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["destination"]))]
pub struct HttpMirrorPolicy {
    /// Where to.
    pub destination: Destination,
    /// Share of the traffic; all when absent.
    pub percentage: Option<Percent>,
}

/// Header changes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Headers {
    /// On the request.
    pub request: Option<HeaderOperations>,
    /// On the response.
    pub response: Option<HeaderOperations>,
}

/// Changes of one message's headers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HeaderOperations {
    /// Replaced or created.
    pub set: BTreeMap<String, String>,
    /// Appended.
    pub add: BTreeMap<String, String>,
    /// Removed.
    pub remove: Vec<String>,
}

/// Cross-origin policy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CorsPolicy {
    /// Deprecated: exact origins.
    pub allow_origin: Vec<String>,
    /// Origins that may read answers.
    pub allow_origins: Vec<StringMatch>,
    /// Methods that may be used.
    pub allow_methods: Vec<String>,
    /// Request headers that may be used.
    pub allow_headers: Vec<String>,
    /// Response headers that scripts may read.
    pub expose_headers: Vec<String>,
    /// How long browsers keep a preflight's answer.
    pub max_age: Option<DurationText>,
    /// Whether credentials may be sent.
    pub allow_credentials: Option<bool>,
    /// What happens to preflights whose origin does not match.
    pub unmatched_preflights: Option<UnmatchedPreflights>,
}

/// What happens to preflight requests whose origin does not match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum UnmatchedPreflights {
    /// The default: forwarded.
    Unspecified,
    /// Forwarded to the application.
    Forward,
    /// Answered here, without permission.
    Ignore,
}

/// Faults to inject.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpFaultInjection {
    /// A pause before forwarding.
    pub delay: Option<FaultDelay>,
    /// An error instead of forwarding.
    pub abort: Option<FaultAbort>,
}

/// A pause before forwarding.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FaultDelay {
    /// Deprecated: share of requests, in whole percent.
    pub percent: Option<i32>,
    /// Length of the pause.
    pub fixed_delay: Option<DurationText>,
    /// Mean of pauses that follow an exponential distribution.
    pub exponential_delay: Option<DurationText>,
    /// Share of requests; none when absent.
    pub percentage: Option<Percent>,
}

/// An error instead of forwarding.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FaultAbort {
    /// HTTP status.
    pub http_status: Option<i32>,
    /// gRPC status by name, such as `UNAVAILABLE`.
    pub grpc_status: Option<String>,
    /// Not used.
    pub http2_error: Option<String>,
    /// Share of requests; none when absent.
    pub percentage: Option<Percent>,
}
