//! Keys of consistent hashing: what of a request or connection they come from, and the cookie that keeps one.
//! Hashes are Envoy's (xxHash64), so that they agree wherever the same settings hold.

mod xxh64;

pub(super) use xxh64::xxh64;

use super::retry::Trouble;
use http::header::{COOKIE, HeaderMap, HeaderValue};
use http::request;
use lateen_model::decide::plan::ConnectionFacts;
use lateen_model::traffic::{Balancer, HashCookie, HashKey};

/// The hash of a request's key, and the cookie that its client should get; none without key.
pub(super) fn of_request(
    balancer: &Balancer,
    head: &request::Parts,
    facts: &ConnectionFacts,
) -> (Option<u64>, Option<HeaderValue>) {
    let Balancer::ConsistentHash(settings) = balancer else {
        return (None, None);
    };
    match &settings.key {
        HashKey::SourceIp => (Some(of_source(facts)), None),
        HashKey::Header(name) => (of_header(&head.headers, name), None),
        HashKey::QueryParameter(name) => {
            let value = head.uri.query().and_then(|query| parameter(query, name));
            (value.map(|value| xxh64(value.as_bytes(), 0)), None)
        }
        HashKey::Cookie(cookie) => match value_of(&head.headers, &cookie.name) {
            Some(value) => (Some(xxh64(value, 0)), None),
            None => made(cookie, facts),
        },
    }
}

/// The hash of a connection's key: only the client's address is one.
pub(super) fn of_connection(balancer: &Balancer, facts: &ConnectionFacts) -> Option<u64> {
    match balancer {
        Balancer::ConsistentHash(settings) if settings.key == HashKey::SourceIp => {
            Some(of_source(facts))
        }
        _ => None,
    }
}

/// Whether the next try goes to where the key leads once more (Istio: with consistent hashing, retries do not avoid hosts
/// that were tried). Where nothing could be sent, the key leads to the next endpoint.
pub(super) fn sticks(balancer: &Balancer, trouble: &Trouble) -> bool {
    let sent = matches!(
        trouble,
        Trouble::Ended { .. } | Trouble::SlowTry | Trouble::Status
    );
    sent && matches!(balancer, Balancer::ConsistentHash(_))
}

fn of_source(facts: &ConnectionFacts) -> u64 {
    xxh64(facts.source.ip().to_string().as_bytes(), 0)
}

// Several headers of one name count in whatever order they came (Envoy).
fn of_header(headers: &HeaderMap, name: &str) -> Option<u64> {
    let mut values: Vec<_> = headers.get_all(name).iter().map(|v| v.as_bytes()).collect();
    values.sort_unstable();
    match values.as_slice() {
        [] => None,
        [one] => Some(xxh64(one, 0)),
        many => Some(many.iter().fold(0, |seed, value| xxh64(value, seed))),
    }
}

fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    let pairs = query.split('&');
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find_map(|(key, value)| (key == name).then_some(value))
}

fn value_of<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let all = headers.get_all(COOKIE).iter();
    let pairs = all.flat_map(|header| header.as_bytes().split(|b| *b == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| {
        let at = pair.iter().position(|b| *b == b'=')?;
        let value = pair[at + 1..].trim_ascii();
        let bare = value
            .strip_prefix(b"\"")
            .and_then(|v| v.strip_suffix(b"\""));
        (&pair[..at] == name.as_bytes()).then_some(bare.unwrap_or(value))
    })
}

// The value is the same for all requests of a connection: those that race get the same cookie (Envoy).
fn made(cookie: &HashCookie, facts: &ConnectionFacts) -> (Option<u64>, Option<HeaderValue>) {
    let Some(ttl) = cookie.ttl else {
        return (None, None);
    };
    let ends = format!("{}{}", facts.source, facts.destination);
    let value = format!("{:016x}", xxh64(ends.as_bytes(), 0));
    let mut text = format!("{}=\"{value}\"", cookie.name);
    if ttl.as_secs() > 0 {
        text.push_str(&format!("; Max-Age={}", ttl.as_secs()));
    }
    if !cookie.path.is_empty() {
        text.push_str(&format!("; Path={}", cookie.path));
    }
    for (name, value) in &cookie.attributes {
        text.push_str("; ");
        text.push_str(name);
        if !value.is_empty() {
            text.push_str(&format!("={value}"));
        }
    }
    text.push_str("; HttpOnly");
    let hash = xxh64(value.as_bytes(), 0);
    (Some(hash), HeaderValue::from_str(&text).ok())
}

#[cfg(test)]
mod tests;
