//! Whether a request matches one alternative of an HTTP rule.

use super::authz::{Token, has_claim};
use super::plan::RequestHead;
use crate::matching::StringMatch;
use crate::route::{ClaimMatch, HttpMatch};
use http::HeaderMap;

/// Path and query of a request target.
pub(super) fn split_path(target: &str) -> (&str, Option<&str>) {
    let target = target.split('#').next().unwrap_or(target);
    match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}

/// Whether everything that depends on the request matches. Port, gateway, source labels and source
/// namespace are decided when routes are compiled.
pub(super) fn matches(wanted: &HttpMatch, head: &RequestHead<'_>) -> bool {
    let (path, query) = split_path(head.path);
    let fits = |m: &Option<StringMatch>, value: &str, ignore_case: bool| {
        m.as_ref().is_none_or(|m| m.matches(value, ignore_case))
    };
    fits(&wanted.uri, path, wanted.ignore_uri_case)
        && fits(&wanted.method, head.method.as_str(), false)
        && fits(&wanted.scheme, head.scheme, false)
        && fits(&wanted.authority, head.authority, false)
        && wanted
            .headers
            .iter()
            .all(|(name, m)| header_matches(head.headers, name, m))
        && !wanted
            .without_headers
            .iter()
            .any(|(name, m)| header_matches(head.headers, name, m))
        && wanted
            .query
            .iter()
            .all(|(name, m)| parameter(query, name).is_some_and(|value| m.matches(value, false)))
        && wanted.claims.iter().all(|m| claim_matches(head.token, m))
}

/// Without a token there is nothing that a claim could be or not be.
fn claim_matches(token: Option<&Token>, wanted: &ClaimMatch) -> bool {
    let test = |text: &str| wanted.wanted.matches(text, false);
    token.is_some_and(|token| has_claim(token, &wanted.path, test) != wanted.not)
}

// Each line by itself, not the list that they mean together (Envoy 1.39): who adds a line hides no other.
fn header_matches(headers: &HeaderMap, name: &str, wanted: &StringMatch) -> bool {
    let mut lines = headers.get_all(name).iter();
    lines.any(|line| wanted.matches(&String::from_utf8_lossy(line.as_bytes()), false))
}

/// The first value of a query parameter, as sent; a parameter without `=` has an empty value.
fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}
