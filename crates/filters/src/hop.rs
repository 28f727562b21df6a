//! Headers that concern one connection only (RFC 9110 §7.6.1).

use crate::Context;
use http::header::{CONNECTION, EXPECT, HeaderMap, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, HeaderValue, StatusCode, request, response};

pub(super) fn on_request(cx: &mut Context, head: &mut request::Parts) {
    if !concerns_hop(&head.headers) {
        cx.upgrade = false;
        return;
    }
    cx.upgrade = wants_upgrade(&head.headers);
    let upgrade = head.headers.get(UPGRADE).filter(|_| cx.upgrade).cloned();
    let trailers = head.headers.get(TE).is_some_and(|te| lists(te, "trailers"));
    strip_named(&mut head.headers);
    strip(&mut head.headers);
    // The client gets its `100 Continue` from us, when its body is first asked for (Envoy does the same).
    head.headers.remove(EXPECT);
    head.headers.remove(TE);
    if trailers {
        head.headers
            .insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(protocol) = upgrade {
        head.headers
            .insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        head.headers.insert(UPGRADE, protocol);
    }
}

pub(super) fn on_response(head: &mut response::Parts) {
    if head.status == StatusCode::SWITCHING_PROTOCOLS || !concerns_hop(&head.headers) {
        return;
    }
    strip(&mut head.headers);
}

// Whether there is any header that the rest of this file would look at: most messages have none, and walking their
// names once costs less than looking for each of ours.
fn concerns_hop(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| {
        matches!(
            name.as_str(),
            "connection"
                | "expect"
                | "http2-settings"
                | "keep-alive"
                | "proxy-connection"
                | "te"
                | "trailer"
                | "transfer-encoding"
                | "upgrade"
        )
    })
}

// WebSocket alone (Istio's default): what another protocol carries, nobody could decide on. Who asks for something else,
// h2c above all (RFC 9113 §3.1 dropped that upgrade), gets HTTP/1, as from a server that does not know it.
fn wants_upgrade(headers: &HeaderMap) -> bool {
    let mut asked = headers.get_all(UPGRADE).iter();
    let is_websocket = |u: &HeaderValue| u.as_bytes().eq_ignore_ascii_case(b"websocket");
    headers
        .get_all(CONNECTION)
        .iter()
        .any(|c| lists(c, "upgrade"))
        && asked.next().is_some_and(is_websocket)
        && asked.next().is_none()
}

fn lists(value: &HeaderValue, token: &str) -> bool {
    value
        .to_str()
        .is_ok_and(|v| v.split(',').any(|t| t.trim().eq_ignore_ascii_case(token)))
}

/// Beginnings of headers that `connection` cannot take away: what we, or proxies before us, rely on.
const KEPT: [&str; 5] = ["x-forwarded-", "x-envoy-", "x-lateen-", "host", "content-"];

// What `connection` names is for this hop only.
fn strip_named(headers: &mut HeaderMap) {
    let values: Vec<HeaderValue> = headers.get_all(CONNECTION).iter().cloned().collect();
    let texts = values.iter().filter_map(|value| value.to_str().ok());
    let names = texts.flat_map(|text| text.split(',')).map(str::trim);
    for name in names.filter_map(|name| name.parse::<HeaderName>().ok()) {
        if !KEPT.iter().any(|kept| name.as_str().starts_with(kept)) {
            headers.remove(name);
        }
    }
}

fn strip(headers: &mut HeaderMap) {
    for name in ["keep-alive", "proxy-connection", "http2-settings"] {
        headers.remove(name);
    }
    let chunked = headers.remove(TRANSFER_ENCODING).is_some();
    headers.remove(CONNECTION);
    headers.remove(UPGRADE);
    // `trailer` announces what only a chunked or HTTP/2 body can carry: it stays with either.
    if !chunked && headers.contains_key(http::header::CONTENT_LENGTH) {
        headers.remove(TRAILER);
    }
}
