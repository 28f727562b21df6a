//! Header edits of routes, and the rewrite of a request's target.

use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, request};
use lateen_model::route::HeaderEdit;
use lateen_telemetry::access_log::Format;
use lateen_telemetry::record::Record;

/// Headers that frame a message: an edit of them would break it, so such edits are ignored.
const FRAMING: [&str; 4] = [
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
];

/// Applies `edits` in order: of each, removals, then sets, then additions. Values may hold Envoy's command operators
/// (`%REQ(name)%`, `%DOWNSTREAM_REMOTE_ADDRESS%`, …), filled in from `record`, which is only asked
/// for when needed and gets the headers as they are then.
/// What is no valid header, and what comes to nothing, is left out.
pub fn apply(edits: &[HeaderEdit], headers: &mut HeaderMap, record: impl Fn(&HeaderMap) -> Record) {
    for edit in edits {
        for name in &edit.remove {
            if let Some(name) = editable(name) {
                headers.remove(name);
            }
        }
        for (name, value) in &edit.set {
            if let (Some(name), Some(value)) = (editable(name), fill(value, || record(headers))) {
                headers.insert(name, value);
            }
        }
        for (name, value) in &edit.add {
            if let (Some(name), Some(value)) = (editable(name), fill(value, || record(headers))) {
                headers.append(name, value);
            }
        }
    }
}

fn editable(name: &str) -> Option<HeaderName> {
    let name: HeaderName = name.parse().ok()?;
    (!FRAMING.contains(&name.as_str())).then_some(name)
}

fn fill(value: &str, record: impl Fn() -> Record) -> Option<HeaderValue> {
    let there = |value: &HeaderValue| !value.is_empty();
    if !value.contains('%') {
        return HeaderValue::from_str(value).ok().filter(there);
    }
    let mut out = Vec::new();
    match Format::parse(value) {
        Ok(format) => format.write_header(&record(), &mut out),
        // No format: the text means itself.
        Err(_) => out.extend_from_slice(value.as_bytes()),
    }
    HeaderValue::from_bytes(&out).ok().filter(there)
}

/// Whether a value of `edits` may quote the request's headers.
pub fn quote_request(edits: &[HeaderEdit]) -> bool {
    let mut values = edits
        .iter()
        .flat_map(|edit| edit.set.iter().chain(&edit.add));
    values.any(|(_, value)| value.contains("%REQ"))
}

/// Replaces a request's path (with query) and authority; absent parts stay. Returns whether the new values are valid;
/// if not, the request is unchanged.
pub fn rewrite(head: &mut request::Parts, path: Option<&str>, authority: Option<&str>) -> bool {
    let mut parts = head.uri.clone().into_parts();
    if let Some(path) = path {
        match path.parse::<PathAndQuery>() {
            Ok(path) => parts.path_and_query = Some(path),
            Err(_) => return false,
        }
    }
    let mut host = None;
    if let Some(authority) = authority {
        let (Ok(parsed), Ok(value)) = (
            authority.parse::<Authority>(),
            HeaderValue::from_str(authority),
        ) else {
            return false;
        };
        if parts.authority.is_some() {
            parts.authority = Some(parsed);
        }
        host = Some(value);
    }
    match Uri::from_parts(parts) {
        Ok(uri) => head.uri = uri,
        Err(_) => return false,
    }
    if let Some(host) = host {
        head.headers.insert(http::header::HOST, host);
    }
    true
}
