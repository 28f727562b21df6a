//! Ext-authz: an external authorizer as Istio's sample of that name. A request with `x-ext-authz: allow` passes, any
//! other is refused. It answers over HTTP (any path, any method) and over gRPC (`envoy.service.auth.v3`).

mod message;

use crate::http::{answer, read, serve};
use anyhow::Result;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use message::{Check, Header};
use std::convert::Infallible;

/// Header that decides, and the value that allows.
const ASKED: &str = "x-ext-authz";
const ALLOW: &str = "allow";
/// Says `allowed` or `denied`.
const RESULT: &str = "x-ext-authz-check-result";
/// What the authorizer was told of the request.
const RECEIVED: &str = "x-ext-authz-check-received";
/// Set by the authorizer whatever the client sent.
const OVERRIDE: &str = "x-ext-authz-additional-header-override";
/// Most bytes of a request that come back in [`RECEIVED`].
const RECEIVED_LIMIT: usize = 2048;

type GrpcBody = UnsyncBoxBody<Bytes, Infallible>;

/// Answers over HTTP on one port and over gRPC on the other.
///
/// # Errors
/// A port cannot be bound.
pub async fn run(http_port: u16, grpc_port: u16) -> Result<()> {
    tokio::try_join!(serve(http_port, over_http), serve(grpc_port, over_grpc)).map(drop)
}

async fn over_http(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = read(body).await.unwrap_or_default();
    let headers: Vec<String> = head
        .headers
        .iter()
        .map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value.as_bytes())))
        .collect();
    let received = format!(
        "{} {}, headers: [{}], body: [{}]",
        head.method,
        head.uri,
        headers.join(", "),
        String::from_utf8_lossy(&body)
    );
    let own = head.headers.get(OVERRIDE).cloned();
    let allowed = head.headers.get(ASKED).is_some_and(|v| v == ALLOW);
    println!("[HTTP] {} {received}", verdict(allowed));
    let mut response = match allowed {
        true => answer(StatusCode::OK, "text/plain", ""),
        false => answer(StatusCode::FORBIDDEN, "text/plain", refusal()),
    };
    let set = response.headers_mut();
    set.insert(RESULT, HeaderValue::from_static(verdict(allowed)));
    set.insert(RECEIVED, printable(&received));
    set.insert(
        OVERRIDE,
        own.unwrap_or(HeaderValue::from_static(
            "http-additional-header-override-value",
        )),
    );
    response
}

async fn over_grpc(request: Request<Incoming>) -> Response<GrpcBody> {
    let path = request.uri().path().to_owned();
    if path != "/envoy.service.auth.v3.Authorization/Check" {
        return grpc_error("12", "no such method: this is envoy.service.auth.v3");
    }
    let Ok(frame) = read(request.into_body()).await else {
        return grpc_error("13", "the request breaks off");
    };
    let Some(check) = message::frame(&frame).and_then(Check::decode) else {
        return grpc_error("3", "not a CheckRequest");
    };
    let header = |name: &str| check.headers.get(name).map(String::as_str);
    let allowed = header(ASKED) == Some(ALLOW);
    let received = format!(
        "{} {}{}, headers: {:?}",
        check.method, check.host, check.path, check.headers
    );
    println!("[gRPC] {} {received}", verdict(allowed));
    let received = printable(&received);
    let set: [Header<'_>; 3] = [
        (RESULT, verdict(allowed)),
        (RECEIVED, received.to_str().unwrap_or_default()),
        (OVERRIDE, "grpc-additional-header-override-value"),
    ];
    let refusal = refusal();
    grpc(message::answer(
        (!allowed).then_some(refusal.as_str()),
        &set,
    ))
}

fn verdict(allowed: bool) -> &'static str {
    if allowed { "allowed" } else { "denied" }
}

fn refusal() -> String {
    format!("denied by ext_authz for not found header `{ASKED}: {ALLOW}` in the request")
}

/// A text as a header's value: cut, and without what a header cannot hold.
fn printable(text: &str) -> HeaderValue {
    let plain = text.chars().filter(|c| matches!(c, ' '..='~'));
    let plain: String = plain.take(RECEIVED_LIMIT).collect();
    HeaderValue::try_from(plain).unwrap_or(HeaderValue::from_static(""))
}

fn grpc(message: Bytes) -> Response<GrpcBody> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(message).with_trailers(async move { Some(Ok(trailers)) });
    let mut response = Response::new(body.boxed_unsync());
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn grpc_error(code: &'static str, sentence: &'static str) -> Response<GrpcBody> {
    let mut response = Response::new(Full::new(Bytes::new()).boxed_unsync());
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("application/grpc");
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert("grpc-status", HeaderValue::from_static(code));
    headers.insert("grpc-message", HeaderValue::from_static(sentence));
    response
}
