//! Bookinfo: productpage calls details and reviews; reviews v2 and v3 call ratings.
//!
//! ```text
//! productpage ─┬─> details
//!              └─> reviews (v1 no stars, v2 black, v3 red) ──> ratings
//! ```
//! Every service passes on the headers that tracing and routing by user need.

pub mod details;
mod page;
pub mod productpage;
pub mod ratings;
pub mod reviews;

use http::HeaderMap;

/// Headers that an application must copy from the request it serves to the requests it makes, so that
/// traces join up and rules on `end-user` see the user (Istio: "Distributed Tracing", propagated headers).
const PASSED_ON: &[&str] = &[
    "x-request-id",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "b3",
    "traceparent",
    "tracestate",
    "baggage",
    "x-ot-span-context",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "sw8",
    "x-cloud-trace-context",
    "grpc-trace-bin",
    "authorization",
    "cookie",
    "user-agent",
    "end-user",
];

/// The headers of `incoming` that go on to the next service.
fn passed_on(incoming: &HeaderMap) -> HeaderMap {
    let mut out = HeaderMap::new();
    for name in PASSED_ON {
        for value in incoming.get_all(*name) {
            out.append(*name, value.clone());
        }
    }
    out
}

/// `host:port` of another bookinfo service: the environment's `<NAME>_HOSTNAME` and `<NAME>_SERVICE_PORT`,
/// else its name, with `SERVICES_DOMAIN` appended when given, and port 9080.
fn authority_of(name: &str) -> String {
    let upper = name.to_uppercase();
    let host = std::env::var(format!("{upper}_HOSTNAME")).unwrap_or_else(|_| name.to_owned());
    let port = std::env::var(format!("{upper}_SERVICE_PORT")).unwrap_or_else(|_| "9080".to_owned());
    match std::env::var("SERVICES_DOMAIN") {
        Ok(domain) if !domain.is_empty() => format!("{host}.{domain}:{port}"),
        _ => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_headers_and_user_go_on_and_nothing_else() {
        let mut incoming = HeaderMap::new();
        for (name, value) in [
            ("x-request-id", "1"),
            ("end-user", "jason"),
            ("accept", "text/html"),
        ] {
            incoming.insert(name, value.parse().expect("valid"));
        }
        let out = passed_on(&incoming);
        assert_eq!(out["end-user"], "jason");
        assert_eq!(out["x-request-id"], "1");
        assert!(!out.contains_key("accept"));
    }
}
