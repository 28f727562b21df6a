//! One call to the application, by HTTP, TCP or gRPC.

use super::{Action, HttpGet, Outcome, Probe, failed};
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{ACCEPT, HOST, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use lateen_net::capture::{PASSTHROUGH_SOURCE, PASSTHROUGH_SOURCE_V6};
use lateen_net::dial::{Dial, DialError, dial};
use lateen_net::http::{Body, Limits, Version, open};
use lateen_net::stream::Stream;
use rustls::pki_types::ServerName;
use std::net::{IpAddr, SocketAddr};

/// Redirects followed on the application itself, as kubelets do.
const MOST_REDIRECTS: usize = 10;
/// Most bytes of an answer that are looked at.
const MOST_BODY: usize = 10 << 10;

/// The application could not be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("TLS: {0}")]
    Tls(String),
    #[error("{0}")]
    Http(String),
}

/// Makes a probe. The caller bounds its time.
pub(super) async fn call(probe: &Probe, application: IpAddr) -> Result<Outcome, CallError> {
    let to = SocketAddr::new(application, probe.port);
    match &probe.action {
        Action::Http(get) => http(probe, get, to).await,
        Action::Tcp => {
            connect(probe, to).await?;
            Ok(good("connected"))
        }
        Action::Grpc(service) => grpc(probe, service, to).await,
    }
}

fn good(text: &str) -> Outcome {
    Outcome {
        status: StatusCode::OK,
        text: text.to_owned(),
    }
}

async fn connect(probe: &Probe, to: SocketAddr) -> Result<Stream, CallError> {
    // From another address capture would bring the call back to the inbound side, as a stranger's.
    let source = match to.ip() {
        ip if ip.is_loopback() => None,
        IpAddr::V4(_) => Some(IpAddr::V4(PASSTHROUGH_SOURCE)),
        IpAddr::V6(_) => Some(IpAddr::V6(PASSTHROUGH_SOURCE_V6)),
    };
    let how = Dial {
        timeout: probe.timeout,
        source,
        keepalive: None,
    };
    Ok(Stream::new(dial(to, &how).await?, Bytes::new()))
}

async fn http(probe: &Probe, get: &HttpGet, to: SocketAddr) -> Result<Outcome, CallError> {
    let mut path = get.path.clone();
    for _ in 0..MOST_REDIRECTS {
        let (status, location) = http_once(probe, get, &path, to).await?;
        if !status.is_redirection() {
            let text = status.canonical_reason().unwrap_or_default().to_owned();
            return Ok(Outcome { status, text });
        }
        // Kubernetes: a redirect to elsewhere is a success; nothing but the application itself is called.
        match location {
            Some(next) if next.starts_with('/') && !next.starts_with("//") => path = next,
            _ => return Ok(good("it redirects elsewhere")),
        }
    }
    Ok(failed(&format!("more than {MOST_REDIRECTS} redirects")))
}

async fn http_once(
    probe: &Probe,
    get: &HttpGet,
    path: &str,
    to: SocketAddr,
) -> Result<(StatusCode, Option<String>), CallError> {
    let broken = |e: &dyn std::fmt::Display| CallError::Http(e.to_string());
    let mut stream = connect(probe, to).await?;
    if get.secure {
        // Kubernetes: probes over HTTPS do not verify certificates.
        let config = super::any_server::config();
        let name = ServerName::from(to.ip());
        let secured = lateen_net::tls::connect(stream, name, config, probe.timeout).await;
        stream = secured.map_err(|e| CallError::Tls(e.to_string()))?.0;
    }
    let mut request = Request::get(path)
        .header(HOST, to.to_string())
        .header(USER_AGENT, "kube-probe/1")
        .header(ACCEPT, "*/*")
        .body(Body::Empty)
        .map_err(|e| broken(&e))?;
    for (name, value) in &get.headers {
        let name = HeaderName::try_from(name.as_str()).map_err(|e| broken(&e))?;
        let value = HeaderValue::try_from(value.as_str()).map_err(|e| broken(&e))?;
        // The probe's own Host, User-Agent and Accept replace ours.
        request.headers_mut().insert(name, value);
    }
    let mut sender = open(stream, Version::Http1, &Limits::default())
        .await
        .map_err(|e| broken(&e))?;
    let response = sender
        .request(request)
        .await
        .map_err(|f| broken(&f.error))?;
    let location = response.headers().get(LOCATION);
    let location = location.and_then(|value| Some(value.to_str().ok()?.to_owned()));
    Ok((response.status(), location))
}

/// `grpc.health.v1.Health/Check`. Its two messages have one field each and are written by hand.
async fn grpc(probe: &Probe, service: &str, to: SocketAddr) -> Result<Outcome, CallError> {
    let broken = |e: &dyn std::fmt::Display| CallError::Http(e.to_string());
    let stream = connect(probe, to).await?;
    let mut sender = open(stream, Version::Http2, &Limits::default())
        .await
        .map_err(|e| broken(&e))?;
    let request = Request::post(format!("http://{to}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::full(question(service)))
        .map_err(|e| broken(&e))?;
    let response = sender
        .request(request)
        .await
        .map_err(|f| broken(&f.error))?;
    let early = response.headers().get("grpc-status").cloned();
    let body = Limited::new(response.into_body(), MOST_BODY)
        .collect()
        .await
        .map_err(|e| broken(&e))?;
    let status = early.or_else(|| body.trailers()?.get("grpc-status").cloned());
    if status.is_none_or(|code| code != "0") {
        return Ok(failed("the health service answered with an error"));
    }
    // Field 1 of the answer as a varint: 1 is SERVING; without the field it is UNKNOWN.
    match body.to_bytes().get(5..) {
        Some([0x08, 1, ..]) => Ok(good("SERVING")),
        _ => Ok(failed("the service is not SERVING")),
    }
}

/// A gRPC frame around a message whose field 1 is a text.
fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length > 0x7f {
            message.put_u8((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(&message);
    frame.freeze()
}
