//! Which limits a request meets, and by what it is told apart from others. Counting is elsewhere.

use super::authz::RequestFacts;
use super::matcher::matches;
use super::plan::{ConnectionFacts, Direction, Peer, RequestHead, RequestPlan};
use super::resources::ResourceSet;
use super::snapshot::Snapshot;
use crate::limit::{
    Bucket, Descriptor, Entry, EntryValue, LimitMatch, LimitRule, Limiter, RateLimitPolicy, Service,
};
use crate::matching::labels_match;
use crate::mesh::Scope;
use crate::name::Origin;
use lateen_base::Str;
use serde_json::Value as Json;
use std::borrow::Cow;
use std::sync::Arc;

/// The policies of one proxy.
#[derive(Debug, Default)]
pub(super) struct Limits {
    policies: Vec<Arc<RateLimitPolicy>>,
}

impl Limits {
    /// Those that are for the proxy in `scope`, oldest object first. Policies of the root namespace are for every
    /// namespace.
    pub fn build(set: &ResourceSet, scope: &Scope, root: &Str) -> Self {
        let is_for = |policy: &&Arc<RateLimitPolicy>| {
            let namespace = &policy.origin.namespace;
            (*namespace == scope.namespace || namespace == root)
                && labels_match(&policy.selector, &scope.labels)
        };
        let mut policies: Vec<_> = set.rate_limits.values().filter(is_for).cloned().collect();
        let key = |p: &Arc<RateLimitPolicy>| {
            let origin = &p.origin;
            (
                origin.created,
                origin.namespace.clone(),
                origin.name.clone(),
            )
        };
        policies.sort_by_key(key);
        Self { policies }
    }
}

/// A request with what is decided about it.
#[derive(Debug, Clone, Copy)]
pub struct LimitFacts<'a> {
    /// The request.
    pub request: RequestFacts<'a>,
    /// Name of its route; empty: none.
    pub route: &'a str,
    /// Host of the service that it goes to, or the cluster's name; empty: it goes nowhere.
    pub destination: &'a str,
}

impl<'a> LimitFacts<'a> {
    /// The facts of a request and its plan.
    pub fn of(request: RequestFacts<'a>, plan: &'a RequestPlan) -> Self {
        let (route, destination) = match plan {
            RequestPlan::Forward(plan) => {
                let service = plan.cluster.service.as_ref();
                let host = service.map_or(&plan.cluster.name, |s| &s.key.hostname);
                (&*plan.route.name, &**host)
            }
            RequestPlan::Redirect { route, .. } | RequestPlan::Direct { route, .. } => {
                (&*route.name, "")
            }
            RequestPlan::Refuse(_) => ("", ""),
        };
        Self {
            request,
            route,
            destination,
        }
    }
}

/// A rule that counts a request.
#[derive(Debug, Clone)]
pub struct Met {
    /// The policy.
    pub policy: Arc<RateLimitPolicy>,
    /// Position of the rule in it, from 0.
    pub rule: usize,
    /// What counts. Never empty.
    pub check: Check,
}

/// What counts a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Check {
    /// Buckets of the proxy, each of which must have a token.
    Local(Vec<Counter>),
    /// A service, and the descriptors that it is asked about.
    Global(Vec<Values>),
}

/// Keys and values of a descriptor, in order.
pub type Values = Vec<(Str, String)>;

/// A bucket of the proxy.
#[derive(Debug, Clone, PartialEq)]
pub struct Counter {
    /// Its size.
    pub bucket: Bucket,
    /// The descriptor that it belongs to, by position, and its values; absent: it counts all requests of the rule.
    pub values: Option<(usize, Values)>,
}

impl Met {
    /// The rule.
    pub fn rule(&self) -> Option<&LimitRule> {
        self.policy.rules.get(self.rule)
    }

    /// The service to be asked; absent: the rule is local.
    pub fn service(&self) -> Option<&Service> {
        match &self.rule()?.limiter {
            Limiter::Global(service) => Some(service),
            Limiter::Local { .. } => None,
        }
    }

    /// The object.
    pub fn origin(&self) -> &Origin {
        &self.policy.origin
    }

    /// The rule as logs name it: `rule 2 "writes"`.
    pub fn name(&self) -> String {
        let name = self.rule().map_or("", |rule| &rule.name);
        match name {
            "" => format!("rule {}", self.rule + 1),
            name => format!("rule {} {name:?}", self.rule + 1),
        }
    }
}

/// The rules that count a request, in order: local ones before those that somebody has to be asked about. What goes out
/// is not limited.
pub fn met(
    snapshot: &Snapshot,
    facts: &ConnectionFacts,
    peer: &Peer,
    request: &LimitFacts<'_>,
) -> Vec<Met> {
    let policies = &snapshot.limits.policies;
    if facts.direction == Direction::Outbound || policies.is_empty() {
        return Vec::new();
    }
    let mut local = Vec::new();
    let mut global = Vec::new();
    for policy in policies {
        for (i, rule) in policy.rules.iter().enumerate() {
            let Some(check) = check(rule, peer, request) else {
                continue;
            };
            let list = match check {
                Check::Local(_) => &mut local,
                Check::Global(_) => &mut global,
            };
            list.push(Met {
                policy: Arc::clone(policy),
                rule: i,
                check,
            });
        }
    }
    local.append(&mut global);
    local
}

/// What counts a request of a rule; absent: the rule does not match it, or it has no descriptor of the rule.
fn check(rule: &LimitRule, peer: &Peer, request: &LimitFacts<'_>) -> Option<Check> {
    let fits = |m: &LimitMatch| {
        m.route
            .as_deref()
            .is_none_or(|route| route == request.route)
            && matches(&m.http, &request.request.head)
    };
    if !rule.matches.is_empty() && !rule.matches.iter().any(fits) {
        return None;
    }
    let values = |d: &Descriptor| values(d, peer, request);
    match &rule.limiter {
        Limiter::Local { bucket } => {
            let whole = bucket.map(|bucket| Counter {
                bucket,
                values: None,
            });
            let apart = rule.descriptors.iter().enumerate().filter_map(|(i, d)| {
                Some(Counter {
                    bucket: d.limit?,
                    values: Some((i, values(d)?)),
                })
            });
            let counters: Vec<_> = whole.into_iter().chain(apart).collect();
            (!counters.is_empty()).then_some(Check::Local(counters))
        }
        Limiter::Global(_) => {
            let descriptors: Vec<_> = rule.descriptors.iter().filter_map(values).collect();
            (!descriptors.is_empty()).then_some(Check::Global(descriptors))
        }
    }
}

/// The values of a descriptor's entries; absent: the request lacks one (Envoy: the descriptor is left out).
fn values(descriptor: &Descriptor, peer: &Peer, request: &LimitFacts<'_>) -> Option<Values> {
    let value = |entry: &Entry| {
        let value = value(&entry.value, peer, request)?;
        (!value.is_empty()).then(|| (entry.key.clone(), value.into_owned()))
    };
    descriptor.entries.iter().map(value).collect()
}

fn value<'a>(
    from: &'a EntryValue,
    peer: &'a Peer,
    request: &LimitFacts<'a>,
) -> Option<Cow<'a, str>> {
    Some(match from {
        EntryValue::Header(name) => header(&request.request.head, name)?,
        EntryValue::RemoteAddress => request.request.remote.to_string().into(),
        EntryValue::Route => request.route.into(),
        EntryValue::Principal => peer.identity.as_ref()?.principal().into(),
        EntryValue::Claim(path) => claim(request, path)?,
        EntryValue::Destination => request.destination.into(),
        EntryValue::Literal(text) => Cow::Borrowed(&**text),
    })
}

/// A header's lines, joined by commas (RFC 9110 §5.3).
fn header<'a>(head: &RequestHead<'a>, name: &str) -> Option<Cow<'a, str>> {
    if let ":authority" | "host" = name {
        return Some(head.authority.into());
    }
    let mut lines = head.headers.get_all(name).iter();
    let mut text = String::from_utf8_lossy(lines.next()?.as_bytes());
    for more in lines {
        let more = String::from_utf8_lossy(more.as_bytes());
        text = Cow::Owned(format!("{text},{more}"));
    }
    Some(text)
}

/// A claim that is a text, a number or a truth value.
fn claim<'a>(request: &LimitFacts<'a>, path: &[Str]) -> Option<Cow<'a, str>> {
    let (first, rest) = path.split_first()?;
    let mut at = request.request.token?.claims.get(&**first)?;
    for name in rest {
        at = at.as_object()?.get(&**name)?;
    }
    match at {
        Json::String(text) => Some(Cow::Borrowed(text)),
        Json::Number(_) | Json::Bool(_) => Some(at.to_string().into()),
        _ => None,
    }
}
