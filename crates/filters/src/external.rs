//! External authorization without the asking: what a provider is sent over HTTP, what its answer means, and answers
//! that may be used again.

mod decisions;

pub use decisions::{Decisions, Fingerprint, lifetime};

use http::header::{AUTHORIZATION, CONTENT_LENGTH, DATE, HOST, LOCATION, SERVER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, request};
use lateen_base::Str;

/// Says whether the check carries only a part of the body (Envoy).
pub const PARTIAL_BODY: HeaderName = HeaderName::from_static("x-envoy-auth-partial-body");

/// Names headers that the upstream shall not get (Envoy).
const TO_REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");

/// Headers that frame, address or concern one connection: no provider changes them, and none is told of them.
const OURS: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What an HTTP provider is sent beside the request's target: lists of the mesh's settings.
#[derive(Debug, Clone, Copy)]
pub struct HttpProvider<'p> {
    /// Goes before the path.
    pub path_prefix: &'p str,
    /// Headers of the request that are sent.
    pub request_headers: &'p [Str],
    /// Headers that are added to the check.
    pub additional_headers: &'p [(Str, Str)],
    /// Headers of a yes that are added to the request.
    pub upstream_on_allow: &'p [Str],
    /// Headers of a no that the client gets; empty: all.
    pub downstream_on_deny: &'p [Str],
    /// Headers of a yes that are added to the client's response.
    pub downstream_on_allow: &'p [Str],
}

/// The beginning of a request's body, where a provider wants it.
#[derive(Debug, Clone)]
pub struct Excerpt<B> {
    /// The bytes.
    pub bytes: B,
    /// Whether they are all.
    pub whole: bool,
}

/// What a provider says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Yes.
    Allow(Allowance),
    /// No.
    Deny(Refusal),
}

/// What changes with a yes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Headers that replace the request's.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Headers that are added to the request's.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Headers that the request gets where it has none of their name.
    pub if_absent: Vec<(HeaderName, HeaderValue)>,
    /// Headers that replace the request's where it has some of their name.
    pub if_present: Vec<(HeaderName, HeaderValue)>,
    /// Headers that the upstream does not get.
    pub remove: Vec<HeaderName>,
    /// Headers that are added to the client's response.
    pub downstream: Vec<(HeaderName, HeaderValue)>,
}

/// How a header joins those that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// Beside them.
    Append,
    /// Instead of them, or alone.
    Replace,
    /// Only where there is none.
    IfAbsent,
    /// Instead of them, and only where there are some.
    IfPresent,
}

/// The provider's own answer to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Allowance {
    /// Adds a change of the request.
    pub fn put(&mut self, how: Put, name: HeaderName, value: HeaderValue) {
        let list = match how {
            Put::Append => &mut self.add,
            Put::Replace => &mut self.set,
            Put::IfAbsent => &mut self.if_absent,
            Put::IfPresent => &mut self.if_present,
        };
        list.push((name, value));
    }

    /// Changes a request. Headers that frame or address it stay as they are.
    pub fn apply(&self, headers: &mut HeaderMap) {
        let was_there: Vec<bool> = [&self.if_absent, &self.if_present]
            .into_iter()
            .flatten()
            .map(|(name, _)| headers.contains_key(name))
            .collect();
        for name in self.remove.iter().filter(|n| may_change(n)) {
            headers.remove(name);
        }
        let mut replaced: Vec<&HeaderName> = Vec::new();
        let (absent, present) = was_there.split_at(self.if_absent.len());
        let conditional = self.if_absent.iter().zip(absent.iter().map(|was| !was));
        let conditional = conditional.chain(self.if_present.iter().zip(present.iter().copied()));
        let conditional = conditional.filter_map(|(header, wanted)| wanted.then_some(header));
        let all = self.set.iter().chain(conditional);
        for (name, value) in all.filter(|(n, _)| may_change(n)) {
            if replaced.contains(&name) {
                headers.append(name, value.clone());
            } else {
                replaced.push(name);
                headers.insert(name, value.clone());
            }
        }
        for (name, value) in self.add.iter().filter(|(n, _)| may_change(n)) {
            headers.append(name, value.clone());
        }
    }

    /// Whether it changes what routes may look at.
    pub fn changes_request(&self) -> bool {
        let lists = [&self.set, &self.add, &self.if_absent, &self.if_present];
        lists.iter().any(|list| !list.is_empty()) || !self.remove.is_empty()
    }
}

/// Whether a provider may change a header.
pub fn may_change(name: &HeaderName) -> bool {
    !OURS.contains(&name.as_str())
}

impl HttpProvider<'_> {
    /// The head of a check: method, host and path of the request, the headers that the provider wants, and
    /// `authorization`. `authority` is the request's host, `path` its canonical path with query.
    /// Absent: the path prefix makes no path of it.
    pub fn check<B: AsRef<[u8]>>(
        &self,
        head: &request::Parts,
        authority: &str,
        path: &str,
        body: Option<&Excerpt<B>>,
    ) -> Option<request::Parts> {
        let (mut check, ()) = http::Request::new(()).into_parts();
        let is_connect = head.method == Method::CONNECT;
        check.method = if is_connect {
            Method::GET
        } else {
            head.method.clone()
        };
        check.uri = format!("{}{path}", self.path_prefix).parse::<Uri>().ok()?;
        for (name, value) in &head.headers {
            let wanted = *name == AUTHORIZATION || listed(self.request_headers, name.as_str());
            if wanted && may_change(name) {
                check.headers.append(name, value.clone());
            }
        }
        for (name, value) in self.additional_headers {
            if let (Ok(name), Ok(value)) =
                (name.parse::<HeaderName>(), HeaderValue::from_str(value))
                && may_change(&name)
            {
                check.headers.insert(name, value);
            }
        }
        check
            .headers
            .insert(HOST, HeaderValue::from_str(authority).ok()?);
        let length = body.map_or(0, |b| b.bytes.as_ref().len());
        check
            .headers
            .insert(CONTENT_LENGTH, HeaderValue::from(length));
        if let Some(body) = body {
            let partial = HeaderValue::from_static(if body.whole { "false" } else { "true" });
            check.headers.insert(PARTIAL_BODY, partial);
        }
        Some(check)
    }

    /// What an answer means: 200 is yes, another status no. Absent: it is no answer (5xx).
    pub fn answer(&self, status: u16, headers: &HeaderMap, body: Vec<u8>) -> Option<Answer> {
        match status {
            200 => Some(Answer::Allow(Allowance {
                set: pick(headers, |n| listed(self.upstream_on_allow, n.as_str())),
                remove: removals(headers),
                downstream: pick(headers, |n| listed(self.downstream_on_allow, n.as_str())),
                ..Allowance::default()
            })),
            500.. => None,
            _ => {
                let all = self.downstream_on_deny.is_empty();
                let shown = |n: &HeaderName| {
                    all && ![SERVER, DATE].contains(n)
                        || [WWW_AUTHENTICATE, LOCATION].contains(n)
                        || listed(self.downstream_on_deny, n.as_str())
                };
                Some(Answer::Deny(Refusal {
                    status,
                    headers: pick(headers, shown),
                    body,
                }))
            }
        }
    }
}

fn pick(
    headers: &HeaderMap,
    wanted: impl Fn(&HeaderName) -> bool,
) -> Vec<(HeaderName, HeaderValue)> {
    let picked = headers.iter().filter(|(n, _)| may_change(n) && wanted(n));
    picked.map(|(n, v)| (n.clone(), v.clone())).collect()
}

fn removals(headers: &HeaderMap) -> Vec<HeaderName> {
    let lists = headers.get_all(TO_REMOVE).iter();
    let names = lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','));
    names.filter_map(|name| name.trim().parse().ok()).collect()
}

/// Whether a lower-case name is in a list of names, `prefix*` and `*suffix`.
fn listed(list: &[Str], name: &str) -> bool {
    list.iter().any(|pattern| {
        if let Some(prefix) = pattern.strip_suffix('*') {
            name.starts_with(prefix)
        } else if let Some(suffix) = pattern.strip_prefix('*') {
            name.ends_with(suffix)
        } else {
            **pattern == *name
        }
    })
}

#[cfg(test)]
mod tests;
