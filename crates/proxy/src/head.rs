//! A request's head in the one form that every later step sees, and in which it travels on.

use http::header::{CONTENT_LENGTH, HOST, HeaderMap};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Uri, Version, request};
use lateen_base::Str;
use lateen_model::decide::canonical;
use lateen_model::decide::plan::RequestHead;
use lateen_model::mesh::PathNormalization;
use std::borrow::Cow;
use std::net::SocketAddr;

/// Longest host and port (RFC 1035: 255 bytes for a name).
const LONGEST_HOST: usize = 255;

/// Gives the request its form: exactly one `Host`, which is the authority, and the canonical path. Returns the authority.
/// HTTP/1.0 knows no `Host`: there the address that was called stands for it. Fails with what is wrong.
pub(crate) fn settle(
    head: &mut request::Parts,
    called: SocketAddr,
    mode: PathNormalization,
) -> Result<Str, String> {
    let authority = authority(head, called)?;
    if authority.len() > LONGEST_HOST {
        return Err("a Host of more than 255 bytes".to_owned());
    }
    canonical::host(&authority)?;
    lengths(&head.headers)?;
    let told = head.headers.get(HOST).map(HeaderValue::as_bytes);
    if told != Some(authority.as_bytes()) {
        let host = HeaderValue::from_str(&authority);
        let host = host.map_err(|_| "an authority that is no text")?;
        head.headers.insert(HOST, host);
    }
    let Some(target) = head.uri.path_and_query() else {
        // Only CONNECT names a host and no path (RFC 9112 §3.2.3).
        let is_connect = head.method == Method::CONNECT;
        return is_connect
            .then_some(authority)
            .ok_or_else(|| "a target that is no path".to_owned());
    };
    if let Cow::Owned(path) = canonical::path(mode, target.as_str())? {
        let path: PathAndQuery = path.parse().map_err(|_| "a path that is none")?;
        let mut parts = head.uri.clone().into_parts();
        parts.path_and_query = Some(path);
        head.uri = Uri::from_parts(parts).map_err(|_| "a target that is none")?;
    }
    Ok(authority)
}

// HTTP/2 has no use for the length, but what comes after us may be HTTP/1, where two readings of it are two requests.
fn lengths(headers: &HeaderMap) -> Result<(), String> {
    let mut all = headers.get_all(CONTENT_LENGTH).iter();
    let Some(length) = all.next() else {
        return Ok(());
    };
    let is_number =
        |text: &[u8]| (1..19).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    if all.next().is_some() || !is_number(length.as_bytes()) {
        return Err("a request whose Content-Length is not one number".to_owned());
    }
    Ok(())
}

fn authority(head: &request::Parts, called: SocketAddr) -> Result<Str, String> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err("a request with more than one Host".to_owned());
    }
    let host = match host.map(HeaderValue::to_str) {
        Some(Ok(host)) => Some(host.trim()),
        Some(Err(_)) => return Err("a Host header that is no text".to_owned()),
        None => None,
    };
    match (head.uri.authority(), host) {
        // Which of two names is meant is nobody's guess (RFC 9113 §8.3.1).
        (Some(authority), Some(host))
            if head.version == Version::HTTP_2
                && !authority.as_str().eq_ignore_ascii_case(host) =>
        {
            Err("a request whose Host is not its :authority".to_owned())
        }
        // An authority in the request line is the one that counts (RFC 9112 §3.2.2).
        (Some(authority), _) => Ok(authority.as_str().into()),
        (None, Some(host)) => Ok(host.into()),
        (None, None) if head.version == Version::HTTP_10 => Ok(called.to_string().into()),
        (None, None) => Err("a request without Host".to_owned()),
    }
}

/// The head as decisions see it.
pub(crate) fn seen<'a>(
    head: &'a request::Parts,
    authority: &'a str,
    scheme: &'a str,
) -> RequestHead<'a> {
    RequestHead {
        method: &head.method,
        authority,
        path: path(head),
        scheme,
        headers: &head.headers,
        token: None,
    }
}

/// Path with query.
pub(crate) fn path(head: &request::Parts) -> &str {
    head.uri.path_and_query().map_or("/", |p| p.as_str())
}
