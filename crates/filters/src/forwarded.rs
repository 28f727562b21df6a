//! Who the client is, and the request's id.

use crate::Context;
use http::{HeaderMap, HeaderName, HeaderValue};
use lateen_model::decide::plan::Direction;
use std::net::IpAddr;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
const EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");

/// What only proxies may say to each other; a client at the edge could otherwise steer retries or forge labels.
const PRIVATE: [&str; 12] = [
    "x-envoy-attempt-count",
    "x-envoy-decorator-operation",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-max-retries",
    "x-envoy-original-path",
    "x-envoy-peer-metadata",
    "x-envoy-peer-metadata-id",
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-forwarded-client-cert",
];

pub(super) fn edge(cx: &Context, headers: &mut HeaderMap) {
    for name in PRIVATE {
        headers.remove(name);
    }
    headers.remove(INTERNAL);
    headers.remove(EXTERNAL_ADDRESS);
    let ip = cx.source.ip();
    let address = ip.to_string();
    let earlier: Vec<&str> = headers
        .get_all(&FORWARDED_FOR)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .collect();
    let all = if earlier.is_empty() {
        address.clone()
    } else {
        format!("{},{address}", earlier.join(","))
    };
    insert(headers, FORWARDED_FOR, &all);
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    if is_inside(ip) {
        headers.insert(INTERNAL, HeaderValue::from_static("true"));
    } else {
        insert(headers, EXTERNAL_ADDRESS, &address);
    }
}

pub(super) fn scheme(headers: &mut HeaderMap) {
    headers
        .entry(FORWARDED_PROTO)
        .or_insert(HeaderValue::from_static("http"));
}

pub(super) fn request_id(cx: &Context, headers: &mut HeaderMap) {
    let outsider = cx.direction == Direction::Gateway && !is_inside(cx.source.ip());
    if outsider || !headers.contains_key(&REQUEST_ID) {
        let mut text = uuid::Uuid::encode_buffer();
        let id = uuid::Uuid::new_v4().hyphenated().encode_lower(&mut text);
        insert(headers, REQUEST_ID, id);
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

// Envoy's idea of an internal address: private (RFC 1918), loopback, unique local (RFC 4193).
fn is_inside(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local(),
    }
}
