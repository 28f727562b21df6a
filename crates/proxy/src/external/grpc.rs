//! Checks over gRPC (`envoy.service.auth.v3`).

use super::{LARGEST_ANSWER, Said, Unavailable, Way, joined};
use crate::authorize::Asked;
use crate::connection::Conn;
use crate::head;
use crate::upstream::Lease;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Collected, Limited};
use lateen_filters::client_cert::encoded_pem;
use lateen_filters::external::{
    Allowance, Answer, Excerpt, Fingerprint, PARTIAL_BODY, Put, Refusal, lifetime,
};
use lateen_model::mesh::AuthzProvider;
use lateen_proto::authorization::attribute_context::{HttpRequest, Peer, Request, TlsSession};
use lateen_proto::authorization::authorization_client::AuthorizationClient;
use lateen_proto::authorization::check_response::HttpResponse;
use lateen_proto::authorization::{
    Address, AttributeContext, CheckRequest, CheckResponse, HeaderValueOption, SocketAddress,
    Timestamp,
};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tonic::codegen::Service;

/// Headers that differ from request to request without meaning anything: answers are used again across them.
const PASSING: [&str; 8] = [
    "x-request-id",
    "traceparent",
    "tracestate",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
];

/// The check of a request.
pub(super) fn request(
    asked: &Asked<'_>,
    provider: &AuthzProvider,
    body: Option<&Excerpt<Bytes>>,
) -> CheckRequest {
    check(asked.conn, Some(http_request(asked, provider, body)))
}

/// The check of a connection that is not HTTP.
pub(super) fn about_bytes(conn: &Conn) -> CheckRequest {
    check(conn, None)
}

fn check(conn: &Conn, http: Option<HttpRequest>) -> CheckRequest {
    let own = conn.worker.shared.member.load();
    let identity = conn.peer.identity.as_ref();
    let source = Peer {
        address: Some(address(conn.facts.source)),
        principal: identity.map(ToString::to_string).unwrap_or_default(),
        certificate: conn
            .certificates
            .first()
            .map(|leaf| encoded_pem(leaf))
            .unwrap_or_default(),
        ..Peer::default()
    };
    let destination = Peer {
        address: Some(address(conn.local)),
        principal: own
            .as_ref()
            .map(|own| own.svid.id.to_string())
            .unwrap_or_default(),
        ..Peer::default()
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let time = Timestamp {
        seconds: now.as_secs() as i64,
        nanos: now.subsec_nanos() as i32,
    };
    let name = &conn.peer.server_name;
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(source),
            destination: Some(destination),
            request: Some(Request {
                time: Some(time),
                http,
            }),
            tls_session: (conn.peer.tls || !name.is_empty()).then(|| TlsSession {
                sni: name.to_string(),
            }),
            ..AttributeContext::default()
        }),
    }
}

fn address(address: SocketAddr) -> Address {
    Address {
        socket_address: Some(SocketAddress {
            address: address.ip().to_string(),
            port_value: u32::from(address.port()),
        }),
    }
}

fn http_request(
    asked: &Asked<'_>,
    provider: &AuthzProvider,
    body: Option<&Excerpt<Bytes>>,
) -> HttpRequest {
    let head = &*asked.head;
    let mut http = HttpRequest {
        id: joined(&head.headers, &HeaderName::from_static("x-request-id")),
        method: head.method.to_string(),
        path: head::path(head).to_owned(),
        host: asked.authority.to_owned(),
        scheme: asked.scheme.to_owned(),
        size: asked.body.length().map_or(-1, |l| l as i64),
        protocol: match head.version {
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_2 => "HTTP/2",
            _ => "HTTP/1.1",
        }
        .to_owned(),
        ..HttpRequest::default()
    };
    let names = head.headers.keys().filter(|n| **n != http::header::HOST);
    http.headers = names
        .map(|n| (n.to_string(), joined(&head.headers, n)))
        .collect();
    for (name, value) in [
        (":method", &http.method),
        (":path", &http.path),
        (":authority", &http.host),
        (":scheme", &http.scheme),
    ] {
        http.headers.insert(name.to_owned(), value.clone());
    }
    if let Some(body) = body {
        let partial = if body.whole { "false" } else { "true" };
        http.headers
            .insert(PARTIAL_BODY.to_string(), partial.to_owned());
        if provider.body.is_some_and(|b| b.as_bytes) {
            http.raw_body = body.bytes.to_vec();
        } else {
            http.body = String::from_utf8_lossy(&body.bytes).into_owned();
        }
    }
    http
}

/// What tells the check from others, beside `parts`: not its time, nor what only names this one request.
pub(super) fn fingerprint<'c>(check: &'c CheckRequest, mut parts: Vec<&'c [u8]>) -> Fingerprint {
    let Some(attributes) = &check.attributes else {
        return Fingerprint::of(parts);
    };
    for peer in [&attributes.source, &attributes.destination]
        .into_iter()
        .flatten()
    {
        let place = peer
            .address
            .as_ref()
            .and_then(|a| a.socket_address.as_ref());
        parts.push(place.map_or(b"", |p| p.address.as_bytes()));
        parts.extend([peer.principal.as_bytes(), peer.certificate.as_bytes()]);
    }
    let sni = attributes
        .tls_session
        .as_ref()
        .map_or("", |tls| tls.sni.as_str());
    parts.push(sni.as_bytes());
    let http = attributes.request.as_ref().and_then(|r| r.http.as_ref());
    let Some(http) = http else {
        return Fingerprint::of(parts);
    };
    parts.extend([http.protocol.as_bytes(), http.scheme.as_bytes()]);
    let mut headers: Vec<_> = http.headers.iter().collect();
    headers.sort();
    for (name, value) in headers {
        if !PASSING.contains(&name.as_str()) {
            parts.extend([name.as_bytes(), value.as_bytes()]);
        }
    }
    Fingerprint::of(parts)
}

/// Sends a check.
pub(super) async fn ask(way: &Way, check: CheckRequest) -> Result<Said, Unavailable> {
    let (wire, lease) = Wire::over(way);
    let mut client = AuthorizationClient::with_origin(wire, origin(way))
        .max_decoding_message_size(LARGEST_ANSWER);
    let response = client
        .check(tonic::Request::new(check))
        .await
        .map_err(|status| Unavailable(format!("{:?}: {}", status.code(), status.message())))?;
    if let Some(lease) = lease.borrow_mut().take() {
        Lease::finish(lease);
    }
    let (metadata, said, _) = response.into_parts();
    // As over HTTP, the answer's own headers say how long it holds, not those meant for somebody else.
    let life = lifetime(&metadata.into_headers());
    Ok(meaning(said, life))
}

/// What an answer means.
fn meaning(response: CheckResponse, life: Duration) -> Said {
    let code = response.status.map_or(0, |s| s.code);
    match (code, response.http_response) {
        (0, Some(HttpResponse::OkResponse(ok))) => {
            let mut allowance = Allowance::default();
            for option in &ok.headers {
                if let Some((name, value)) = header(option) {
                    allowance.put(how(option), name, value);
                }
            }
            let removals = ok.headers_to_remove.iter();
            allowance.remove = removals.filter_map(|n| n.parse().ok()).collect();
            let downstream = ok.response_headers_to_add.iter();
            allowance.downstream = downstream.filter_map(header).collect();
            (Answer::Allow(allowance), life)
        }
        (0, _) => (Answer::Allow(Allowance::default()), life),
        (_, Some(HttpResponse::DeniedResponse(denied))) => {
            let status = denied.status.map_or(0, |s| s.code);
            let status = u16::try_from(status).unwrap_or(0);
            let refusal = Refusal {
                status: StatusCode::from_u16(status).map_or(403, |s| s.as_u16()),
                headers: denied
                    .headers
                    .iter()
                    .filter_map(header)
                    .filter(|(name, _)| lateen_filters::external::may_change(name))
                    .collect(),
                body: denied.body.into_bytes(),
            };
            (Answer::Deny(refusal), life)
        }
        _ => {
            let refusal = Refusal {
                status: 403,
                headers: Vec::new(),
                body: Vec::new(),
            };
            (Answer::Deny(refusal), Duration::ZERO)
        }
    }
}

/// How a header joins those that are there: as `append` says, else as `append_action` does (Envoy: a header of a yes
/// without either replaces).
fn how(option: &HeaderValueOption) -> Put {
    match &option.append {
        Some(append) if append.value => Put::Append,
        Some(_) => Put::Replace,
        None => match option.append_action {
            // APPEND_IF_EXISTS_OR_ADD is also what a provider that says nothing says.
            0 => Put::Replace,
            1 => Put::IfAbsent,
            2 => Put::Replace,
            _ => Put::IfPresent,
        },
    }
}

fn header(option: &HeaderValueOption) -> Option<(HeaderName, HeaderValue)> {
    let header = option.header.as_ref()?;
    let bytes = match header.value.is_empty() {
        true => &header.raw_value[..],
        false => header.value.as_bytes(),
    };
    Some((
        header.key.parse().ok()?,
        HeaderValue::from_bytes(bytes).ok()?,
    ))
}

/// Where a service is called.
pub(super) fn origin(way: &Way) -> Uri {
    let service = way.cluster.service.as_ref();
    let origin = service.map(|s| format!("http://{}:{}", s.key.hostname, s.port));
    let origin = origin.and_then(|origin| origin.parse().ok());
    origin.unwrap_or_default()
}

/// A connection that is given back once its answer is read.
pub(super) type Held = Rc<RefCell<Option<Lease>>>;

/// The mesh's way out in the form that generated clients want.
pub(super) struct Wire<'a> {
    way: &'a Way,
    lease: Held,
}

impl<'a> Wire<'a> {
    pub(super) fn over(way: &'a Way) -> (Self, Held) {
        let lease = Held::default();
        let wire = Self {
            way,
            lease: Rc::clone(&lease),
        };
        (wire, lease)
    }
}

/// An answer, all of it: generated clients want bodies that could be sent to other threads, which those of connections
/// cannot.
type Whole = http::Response<Collected<Bytes>>;
type Sending<'a> = Pin<Box<dyn Future<Output = Result<Whole, Unavailable>> + 'a>>;

impl<'a> Service<http::Request<tonic::body::Body>> for Wire<'a> {
    type Response = Whole;
    type Error = Unavailable;
    type Future = Sending<'a>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unavailable>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let (way, held) = (self.way, Rc::clone(&self.lease));
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await;
            let body = body.map_err(|status| Unavailable(status.to_string()))?;
            let (response, lease) = way.send(head, body.to_bytes(), true).await?;
            let (head, body) = response.into_parts();
            // With its frame, and room for the client's own error about a message that is too large.
            let body = Limited::new(body, 2 * LARGEST_ANSWER).collect().await;
            let body = body.map_err(|error| Unavailable(error.to_string()))?;
            *held.borrow_mut() = Some(lease);
            Ok(http::Response::from_parts(head, body))
        })
    }
}

#[cfg(test)]
mod tests;
