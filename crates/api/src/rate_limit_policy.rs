//! RateLimitPolicy as users write it (networking.lateen.dev, Lateen's own kind: in Istio an EnvoyFilter does this).

use crate::fields::{DurationText, MatchLabels, StringMatch};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How many requests workloads and gateways take. Every rule that matches a request counts it; the first that is used
/// up refuses it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RateLimitPolicy {
    /// Workloads of this namespace; all of them when absent, and all of the mesh in the root namespace.
    pub selector: Option<MatchLabels>,
    /// Status of refused requests, 400 to 599; 429 when absent.
    #[schemars(range(min = 0, max = 599))]
    pub status: Option<u32>,
    /// Whether responses say what is left, in the headers x-ratelimit-limit, -remaining and -reset; false when absent.
    pub response_headers: Option<bool>,
    /// Limits; every one that matches counts.
    #[schemars(length(max = 256))]
    pub rules: Vec<RateLimitRule>,
}

/// One limit: at each proxy (local), or together with others (global).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": "has(self.local) != has(self.global)",
      "message": "needs local or global, and not both" }
]))]
pub struct RateLimitRule {
    /// A name for logs.
    #[schemars(length(max = 253))]
    pub name: Option<String>,
    /// Conditions, any of which suffices; every request when empty.
    #[serde(rename = "match")]
    #[schemars(length(max = 64))]
    pub matches: Vec<RateLimitMatch>,
    /// Counts at each proxy by itself.
    pub local: Option<LocalRateLimit>,
    /// Asks a rate-limit service, which counts for all proxies.
    pub global: Option<GlobalRateLimit>,
    /// What is counted apart. Local: each has a limit of its own for each of its values. Global: what the service is asked about.
    #[schemars(length(max = 32))]
    pub descriptors: Vec<RateLimitDescriptor>,
}

/// One condition: every given part must match.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RateLimitMatch {
    /// Path without query.
    pub uri: Option<StringMatch>,
    /// Whether exact and prefix matches of the path ignore case.
    pub ignore_uri_case: Option<bool>,
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
    /// Name of the route, as in access logs.
    #[schemars(length(max = 253))]
    pub route: Option<String>,
}

/// A token bucket at each proxy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalRateLimit {
    /// Requests in an interval; with descriptors only, it may be left out.
    #[schemars(range(min = 0))]
    pub tokens: Option<u32>,
    /// The interval; 1s when absent.
    pub interval: Option<DurationText>,
    /// Requests that may come at once after a pause; as many as tokens when absent.
    #[schemars(range(min = 0))]
    pub burst: Option<u32>,
}

/// A limit of a rate-limit service (envoy.service.ratelimit.v3).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["domain"]))]
pub struct GlobalRateLimit {
    /// The service's name for a set of limits.
    #[schemars(length(min = 1, max = 253))]
    pub domain: String,
    /// The service; ratelimit in the root namespace, port 8081, when absent.
    pub provider: Option<RateLimitProvider>,
    /// Whether requests pass when the service cannot be asked; true when absent.
    pub fail_open: Option<bool>,
    /// Bound on asking; 20ms when absent.
    pub timeout: Option<DurationText>,
    /// Whether the proxy takes several hits at once and answers from them; true when absent.
    pub leases: Option<bool>,
}

/// A rate-limit service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["host"]))]
pub struct RateLimitProvider {
    /// Its host. A short name is looked for in the policy's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub host: String,
    /// Its port for gRPC; 8081 when absent.
    #[schemars(range(min = 0, max = 65535))]
    pub port: Option<u32>,
}

/// What requests are told apart by: one counter for each combination of its entries' values. A request that lacks one of
/// them is not counted by it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RateLimitDescriptor {
    /// The entries, in the order of the service's configuration.
    #[schemars(length(max = 16))]
    pub entries: Vec<RateLimitEntry>,
    /// Local rules: the limit of each combination of values.
    pub limit: Option<RequestLimit>,
}

/// A limit in requests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["requests", "per"]))]
pub struct RequestLimit {
    /// How many.
    #[schemars(range(min = 0))]
    pub requests: u32,
    /// In how long.
    pub per: Option<Per>,
}

/// A span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// A second.
    Second,
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A day.
    Day,
}

/// One key and value of a descriptor: exactly one of the fields.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RateLimitEntry {
    /// A request header.
    pub header: Option<NamedEntry>,
    /// The client's address as trusted proxies tell it; its key is remote_address.
    pub remote_address: Option<PlainEntry>,
    /// The route's name; its key is route.
    pub route: Option<PlainEntry>,
    /// Who calls, by the certificate of mutual TLS (without spiffe://); its key is principal.
    pub principal: Option<PlainEntry>,
    /// A claim of the verified token; nested ones are separated by dots.
    pub claim: Option<NamedEntry>,
    /// The host of the service that the request goes to; its key is destination.
    pub destination: Option<PlainEntry>,
    /// A fixed key and value.
    pub literal: Option<LiteralEntry>,
}

/// An entry whose key may be another.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PlainEntry {
    /// Key to use instead.
    #[schemars(length(max = 253))]
    pub key: Option<String>,
}

/// An entry about something with a name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name"]))]
pub struct NamedEntry {
    /// The name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key of the entry; the name when absent.
    #[schemars(length(max = 253))]
    pub key: Option<String>,
}

/// A fixed entry.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["value"]))]
pub struct LiteralEntry {
    /// Its key; generic_key when absent.
    #[schemars(length(max = 253))]
    pub key: Option<String>,
    /// Its value.
    #[schemars(length(min = 1, max = 253))]
    pub value: String,
}
