//! Who the client is, what it may not tell us, and the request's id.

use crate::Context;
use http::{HeaderMap, HeaderName, HeaderValue};
use lateen_model::decide::plan::Direction;
use std::net::IpAddr;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
const EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");

/// Beginnings of headers that only proxies of the mesh may say to each other: a stranger could otherwise steer retries,
/// forge labels or tell of checks that nobody made.
const PRIVATE: [&str; 2] = ["x-envoy-", "x-lateen-"];

/// Removes what only members of the mesh may tell. A private source address makes nobody a member.
pub(super) fn strangers(cx: &Context, headers: &mut HeaderMap) {
    if cx.client.is_member {
        return;
    }
    let is_private = |name: &&HeaderName| PRIVATE.iter().any(|p| name.as_str().starts_with(p));
    let private: Vec<HeaderName> = headers.keys().filter(is_private).cloned().collect();
    for name in private {
        headers.remove(name);
    }
}

/// Notes the client's address and scheme (Envoy: `use_remote_address`).
pub(super) fn edge(cx: &Context, headers: &mut HeaderMap) {
    headers.remove(INTERNAL);
    headers.remove(EXTERNAL_ADDRESS);
    let client = client_address(cx, headers);
    let earlier: Vec<&[u8]> = lines(headers).collect();
    let came_directly = earlier.is_empty();
    let peer = cx.source.ip().to_string();
    let all = match earlier.is_empty() {
        true => peer.into_bytes(),
        false => [&earlier.join(&b","[..]), &b","[..], peer.as_bytes()].concat(),
    };
    if let Ok(all) = HeaderValue::from_bytes(&all) {
        headers.insert(FORWARDED_FOR, all);
    }
    // Proxies in front of us that are trusted with addresses are trusted with the scheme, too (Envoy).
    if cx.edge.trusted_proxies == 0 || !headers.contains_key(&FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, own_scheme(cx));
    }
    // What came through a proxy came from elsewhere (Envoy).
    if came_directly && is_inside(client) {
        headers.insert(INTERNAL, HeaderValue::from_static("true"));
    } else if let Ok(value) = HeaderValue::from_str(&client.to_string()) {
        headers.insert(EXTERNAL_ADDRESS, value);
    }
}

fn own_scheme(cx: &Context) -> HeaderValue {
    HeaderValue::from_static(if cx.client.is_encrypted {
        "https"
    } else {
        "http"
    })
}

/// The client's address as trusted proxies tell it (Envoy: trusted client address). `headers` are as they came.
pub(super) fn client_address(cx: &Context, headers: &HeaderMap) -> IpAddr {
    let from_right = match cx.direction {
        // Our own address list is not extended yet: the last entry is from the nearest trusted proxy.
        Direction::Gateway => cx.edge.trusted_proxies as usize,
        // Another proxy of the mesh has told whom it serves.
        Direction::Inbound if cx.client.is_member => 1,
        Direction::Inbound | Direction::Outbound => 0,
    };
    let told = from_right
        .checked_sub(1)
        .and_then(|skip| last_but(headers, skip));
    told.unwrap_or(cx.source.ip())
}

fn lines(headers: &HeaderMap) -> impl DoubleEndedIterator<Item = &[u8]> {
    let values = headers.get_all(&FORWARDED_FOR).iter();
    values.map(HeaderValue::as_bytes)
}

fn last_but(headers: &HeaderMap, skip: usize) -> Option<IpAddr> {
    let mut from_right = lines(headers)
        .rev()
        .flat_map(|line| line.rsplit(|b| *b == b','));
    let text = std::str::from_utf8(from_right.nth(skip)?).ok()?;
    let address: IpAddr = text.trim().parse().ok()?;
    Some(address.to_canonical())
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
        if let Ok(id) = HeaderValue::from_str(id) {
            headers.insert(REQUEST_ID, id);
        }
    }
}

// Envoy's idea of an internal address: private (RFC 1918), loopback, unique local (RFC 4193). It says where a client
// is, not that it may be believed.
fn is_inside(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local(),
    }
}
