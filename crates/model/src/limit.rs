//! Rate limits: what one RateLimitPolicy says. Which of them a request meets is `decide::limits`; nothing counts here.

use crate::name::{Origin, Visibility};
use crate::route::HttpMatch;
use lateen_base::Str;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// One RateLimitPolicy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RateLimitPolicy {
    /// The object.
    pub origin: Origin,
    /// Workloads of its namespace that it is for; empty: all. In the root namespace: of the mesh.
    pub selector: BTreeMap<Str, Str>,
    /// Which proxies get it: all when its namespace is the root namespace, else those of its namespace.
    pub visibility: Visibility,
    /// Status of refused requests.
    pub status: u16,
    /// Whether responses say what is left (Envoy: `x-ratelimit-*`, draft version 03).
    pub headers: bool,
    /// Its rules; every one that matches counts.
    pub rules: Vec<LimitRule>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LimitRule {
    /// Its name; empty when unnamed.
    pub name: Str,
    /// Alternatives, any of which suffices; empty matches every request.
    pub matches: Vec<LimitMatch>,
    /// Who counts.
    pub limiter: Limiter,
    /// What is counted apart.
    pub descriptors: Vec<Descriptor>,
}

/// One alternative of a rule.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LimitMatch {
    /// What the request must be. What is decided once per proxy is not there.
    pub http: HttpMatch,
    /// The route's name; absent: any.
    pub route: Option<Str>,
}

/// Who counts requests.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Limiter {
    /// The proxy itself; its descriptors have limits.
    Local {
        /// For all requests of the rule together; absent: its descriptors alone limit.
        bucket: Option<Bucket>,
    },
    /// A service.
    Global(Service),
}

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// Requests in an interval; 0: none ever passes.
    pub tokens: u32,
    /// The interval; never zero.
    pub interval: Duration,
    /// Most requests at once.
    pub burst: u32,
}

/// A rate-limit service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Service {
    /// Its name for a set of limits.
    pub domain: Str,
    /// Its host.
    pub host: Str,
    /// Its port.
    pub port: u16,
    /// Whether requests pass when it cannot be asked.
    pub fail_open: bool,
    /// Time for an answer.
    pub timeout: Duration,
    /// Whether several hits are taken at once.
    pub leases: bool,
}

/// What requests are told apart by.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Descriptor {
    /// Its entries. A request that lacks the value of one is not counted by it.
    pub entries: Vec<Entry>,
    /// The limit of each combination of values; there exactly when the rule is local.
    pub limit: Option<Bucket>,
}

/// A key, and where its value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The key.
    pub key: Str,
    /// The value.
    pub value: EntryValue,
}

/// Where the value of an entry comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum EntryValue {
    /// A header, by its lower-case name; lines of one name are joined by commas.
    Header(Str),
    /// The client's address as trusted proxies tell it.
    RemoteAddress,
    /// The route's name.
    Route,
    /// SPIFFE id of the peer, without `spiffe://`.
    Principal,
    /// A claim of the verified token: names from the outermost on.
    Claim(Vec<Str>),
    /// The host of the service that the request goes to.
    Destination,
    /// A fixed text.
    Literal(Str),
}
