//! Answers that a route gives itself: redirects and fixed responses.

use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Response, StatusCode};
use lateen_model::decide::plan::RequestHead;
use lateen_model::route::{Redirect, RedirectPort};

/// The answer of a redirect; parts that it does not name keep the request's.
pub fn redirect(head: &RequestHead<'_>, redirect: &Redirect) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() =
        StatusCode::from_u16(redirect.status).unwrap_or(StatusCode::MOVED_PERMANENTLY);
    if let Ok(location) = HeaderValue::from_str(&location(head, redirect)) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

fn location(head: &RequestHead<'_>, redirect: &Redirect) -> String {
    let scheme = redirect.scheme.as_deref().unwrap_or(head.scheme);
    let authority = redirect.authority.as_deref().unwrap_or(head.authority);
    let (host, port) = split_port(authority);
    let old_default = if head.scheme == "https" { "443" } else { "80" };
    let port = match redirect.port {
        // A port that is given is written, the scheme's own too (Envoy).
        RedirectPort::Number(port) => Some(port.to_string()),
        // A default port does not survive the change of scheme that it belonged to (Envoy: https_redirect).
        RedirectPort::Kept | RedirectPort::Request => port
            .filter(|p| scheme == head.scheme || *p != old_default)
            .map(str::to_owned),
    };
    let port = port.map(|p| format!(":{p}")).unwrap_or_default();
    let (path, query) = match head.path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (head.path, None),
    };
    let path = match redirect.uri.as_deref() {
        Some(uri) if uri.contains('?') => return format!("{scheme}://{host}{port}{uri}"),
        Some(uri) => uri,
        None => path,
    };
    let query = query.map(|q| format!("?{q}")).unwrap_or_default();
    format!("{scheme}://{host}{port}{path}{query}")
}

// IPv6 literals keep their brackets.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') && port.bytes().all(|b| b.is_ascii_digit()) => {
            (host, Some(port))
        }
        _ => (authority, None),
    }
}

/// A fixed answer; `text/plain` when it has a body.
pub fn direct(status: u16, has_body: bool) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if has_body {
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    response
}
