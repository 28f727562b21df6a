//! A refusal as the client sees it: status, Envoy's body, response flag and details, and the sentence that the log says.

use crate::upstream::Failed;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{HeaderValue, Response, StatusCode};
use lateen_model::decide::plan::{Fault, FaultReason};
use lateen_net::http::Body;
use std::borrow::Cow;

/// What an exchange's record says of a refusal.
pub(crate) struct Verdict {
    pub(crate) flags: Cow<'static, str>,
    pub(crate) details: Cow<'static, str>,
    pub(crate) transport: Cow<'static, str>,
}

/// The answer to a refused request.
pub(crate) fn reply(fault: &Fault, failed: Option<&Failed>, grpc: bool) -> Response<Body> {
    let mut answer = told(fault.status(), &body(fault, failed), grpc);
    if fault.reason == FaultReason::Overflow {
        let yes = HeaderValue::from_static("true");
        answer.headers_mut().insert("x-envoy-overloaded", yes);
    }
    answer
}

/// An answer of our own with a text. gRPC clients are told in their own way, with status 200 (Envoy: local replies).
pub(crate) fn told(status: u16, text: &str, grpc: bool) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    if grpc {
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from(grpc_code(status)));
        insert_message(headers, text);
        return response;
    }
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    if !text.is_empty() {
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        *response.body_mut() = Body::full(Bytes::from(text.to_owned()));
    }
    response
}

fn insert_message(headers: &mut HeaderMap, text: &str) {
    if let Ok(message) = HeaderValue::from_str(text)
        && !text.is_empty()
    {
        headers.insert("grpc-message", message);
    }
}

// gRPC's mapping of HTTP statuses.
fn grpc_code(status: u16) -> u16 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

fn body(fault: &Fault, failed: Option<&Failed>) -> String {
    let reset = |reason: &str| {
        let retried = failed.is_some_and(|f| f.exhausted);
        let again = if retried {
            "retried and the latest reset reason"
        } else {
            "reset reason"
        };
        format!("upstream connect error or disconnect/reset before headers. {again}: {reason}")
    };
    match fault.reason {
        FaultReason::ConnectFailed => {
            let transport = failed.map(|f| f.transport.as_str()).unwrap_or_default();
            let why = if transport.is_empty() {
                String::new()
            } else {
                format!(", transport failure reason: {transport}")
            };
            reset("connection failure") + &why
        }
        FaultReason::UpstreamReset => reset("connection termination"),
        FaultReason::UpstreamProtocol => reset("protocol error"),
        FaultReason::Overflow => reset("overflow"),
        FaultReason::NoEndpoint => "no healthy upstream".to_owned(),
        FaultReason::Timeout => "upstream request timeout".to_owned(),
        FaultReason::BadRequest => "Bad Request".to_owned(),
        FaultReason::TooLarge => "Request Header Fields Too Large".to_owned(),
        FaultReason::Denied => "RBAC: access denied".to_owned(),
        FaultReason::BodyTooLarge => "Payload Too Large".to_owned(),
        FaultReason::Overloaded => "envoy overloaded".to_owned(),
        FaultReason::Misdirected => "Misdirected Request".to_owned(),
        FaultReason::Undiscovered => "no answer from the control plane".to_owned(),
        // What these say is said where they are found.
        FaultReason::Unauthenticated
        | FaultReason::AuthzRefused
        | FaultReason::AuthzUnavailable
        | FaultReason::RateLimited
        | FaultReason::RateLimitUnavailable
        // No HTTP client gets to hear of these.
        | FaultReason::NotMutualTls
        | FaultReason::HandshakeFailed
        | FaultReason::NoRoute
        | FaultReason::NoCluster
        | FaultReason::NoSubset
        | FaultReason::NotInRegistry => String::new(),
    }
}

/// The refusal in Envoy's words.
pub(crate) fn verdict(fault: &Fault, failed: Option<&Failed>) -> Verdict {
    let flag = match fault.flag() {
        "-" => "",
        flag => flag,
    };
    let flags = match failed {
        Some(failed) if failed.exhausted => format!("{flag},URX").into(),
        Some(failed) if failed.overflowed => format!("{flag},UO").into(),
        _ => Cow::Borrowed(flag),
    };
    let transport = failed.map(|f| f.transport.clone()).unwrap_or_default();
    Verdict {
        flags,
        details: details(fault.reason, &transport).into(),
        transport: transport.into(),
    }
}

fn details(reason: FaultReason, transport: &str) -> String {
    match reason {
        FaultReason::NoRoute => "route_not_found".to_owned(),
        FaultReason::NoCluster | FaultReason::NoSubset => "cluster_not_found".to_owned(),
        FaultReason::NoEndpoint => "no_healthy_upstream".to_owned(),
        FaultReason::Undiscovered => "on_demand_discovery_timeout".to_owned(),
        FaultReason::NotInRegistry => "direct_response".to_owned(),
        FaultReason::ConnectFailed if transport.is_empty() => {
            "upstream_reset_before_response_started{connection_failure}".to_owned()
        }
        FaultReason::ConnectFailed => format!(
            "upstream_reset_before_response_started{{connection_failure|{}}}",
            transport.replace(' ', "_")
        ),
        FaultReason::UpstreamReset => {
            "upstream_reset_before_response_started{connection_termination}".to_owned()
        }
        FaultReason::UpstreamProtocol => {
            "upstream_reset_before_response_started{protocol_error}".to_owned()
        }
        FaultReason::Overflow => "upstream_reset_before_response_started{overflow}".to_owned(),
        FaultReason::Timeout => "response_timeout".to_owned(),
        FaultReason::BadRequest => "http1.codec_error".to_owned(),
        FaultReason::TooLarge => "request_headers_too_large".to_owned(),
        FaultReason::BodyTooLarge => "request_payload_too_large".to_owned(),
        FaultReason::Overloaded => "overload".to_owned(),
        FaultReason::Misdirected => "misdirected_request".to_owned(),
        FaultReason::Denied => "rbac_access_denied_matched_policy[none]".to_owned(),
        FaultReason::Unauthenticated => "jwt_authn_access_denied".to_owned(),
        FaultReason::AuthzRefused => "ext_authz_denied".to_owned(),
        FaultReason::AuthzUnavailable => "ext_authz_error".to_owned(),
        FaultReason::RateLimited => "request_rate_limited".to_owned(),
        FaultReason::RateLimitUnavailable => "rate_limiter_error".to_owned(),
        FaultReason::NotMutualTls | FaultReason::HandshakeFailed => String::new(),
    }
}

/// Why nothing came back, as part of a sentence.
pub(crate) fn cause(failed: &Failed) -> String {
    match failed.reason {
        FaultReason::NoEndpoint => "it has no endpoint that is ready".to_owned(),
        FaultReason::Timeout => "it did not answer in time".to_owned(),
        FaultReason::UpstreamProtocol => "its answer is no valid one".to_owned(),
        FaultReason::Overflow => "its DestinationRule allows no more at once".to_owned(),
        FaultReason::ConnectFailed if !failed.transport.is_empty() => {
            format!("it cannot be reached: {}", failed.transport)
        }
        FaultReason::ConnectFailed => "it cannot be reached".to_owned(),
        _ => "it ended the connection before it answered".to_owned(),
    }
}

/// One sentence about the refusal that names the user's object when there is one.
pub(crate) fn sentence(fault: &Fault, failed: Option<&Failed>) -> String {
    let subject = &fault.subject;
    let what = match fault.reason {
        FaultReason::NoRoute => format!("no route matches {subject}"),
        FaultReason::NoCluster => format!("{subject} is no known service and port"),
        FaultReason::NoSubset => {
            format!("{subject} is a subset that no DestinationRule defines")
        }
        FaultReason::NoEndpoint => format!("{subject} has no endpoint that is ready"),
        FaultReason::Undiscovered => format!(
            "{subject} is not known here, and the control plane did not say in time what it is: see whether it can be \
             reached"
        ),
        FaultReason::NotInRegistry => format!(
            "{subject} is not known to the mesh, and REGISTRY_ONLY refuses unknown destinations: add a ServiceEntry"
        ),
        FaultReason::ConnectFailed => {
            let transport = failed
                .map(|f| f.transport.as_str())
                .unwrap_or("connection failed");
            let address = failed.and_then(|f| f.address);
            let address = address.map(|a| format!(" at {a}")).unwrap_or_default();
            format!("{subject}{address} cannot be reached: {transport}")
        }
        FaultReason::UpstreamReset => format!("{subject} ended the connection before it answered"),
        FaultReason::UpstreamProtocol => {
            format!("{subject} answered something that is no answer to what it was asked")
        }
        FaultReason::Overflow => {
            format!("{subject} has as much under way as its DestinationRule allows")
        }
        FaultReason::Timeout => format!("{subject} did not answer in time"),
        FaultReason::BadRequest => format!("{subject} is no valid request"),
        FaultReason::TooLarge => format!("{subject} has too large a head"),
        FaultReason::BodyTooLarge => format!("{subject} was refused"),
        FaultReason::Overloaded => format!("{subject}: the proxy has nothing to spare for it"),
        FaultReason::Misdirected => format!(
            "{subject} belongs to another server of the gateway than the connection's server name"
        ),
        FaultReason::Denied => format!("access denied to {subject}"),
        FaultReason::Unauthenticated => format!("a request's token was refused: {subject}"),
        FaultReason::AuthzRefused => format!("the provider {subject} refused a request"),
        FaultReason::AuthzUnavailable => format!("the provider {subject}"),
        FaultReason::RateLimited => format!("a request was too much for {subject}"),
        FaultReason::RateLimitUnavailable => format!("the rate-limit service {subject}"),
        FaultReason::NotMutualTls => {
            format!("{subject} is not the mesh's mutual TLS, which is required")
        }
        FaultReason::HandshakeFailed => format!("TLS failed with {subject}"),
    };
    match &fault.origin {
        Some(origin) => format!("{what} (from {origin})"),
        None => what,
    }
}
