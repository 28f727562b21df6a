//! Trailers say no more than they may: who reads them as if they were headers must not find there what nobody has looked
//! at. The same in both directions and for both versions of HTTP; HTTP/1's framing refuses some of these before.

use http::{HeaderMap, HeaderName};

/// Fields that frame a message, route it, say who sent it, or how to read or keep its content (RFC 9110 §6.5.1).
const NAMES: [&str; 47] = [
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "expect",
    "expires",
    "forwarded",
    "host",
    "http2-settings",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "location",
    "max-forwards",
    "origin",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "retry-after",
    "set-cookie",
    "strict-transport-security",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "via",
    "www-authenticate",
    "x-real-ip",
    "x-request-id",
    "access-control-allow-origin",
    "access-control-allow-credentials",
    "x-http-method-override",
];

/// Beginnings of names that proxies set.
const BEGINNINGS: [&str; 3] = ["x-forwarded-", "x-envoy-", "x-lateen-"];

/// Removes what may be said in headers only.
pub fn clean(trailers: &mut HeaderMap) {
    let bad = |name: &&HeaderName| {
        let name = name.as_str();
        NAMES.contains(&name) || BEGINNINGS.iter().any(|b| name.starts_with(b))
    };
    let names: Vec<HeaderName> = trailers.keys().filter(bad).cloned().collect();
    for name in names {
        trailers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_said_stays() {
        let mut trailers = HeaderMap::new();
        let good = ["grpc-status", "grpc-message", "x-sum", "digest"];
        let bad = [
            "content-length",
            "host",
            "authorization",
            "x-forwarded-for",
            "x-envoy-x",
        ];
        for name in good.into_iter().chain(bad) {
            trailers.append(HeaderName::from_static(name), "1".parse().unwrap());
            trailers.append(HeaderName::from_static(name), "2".parse().unwrap());
        }
        clean(&mut trailers);
        let left: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, good);
    }
}
