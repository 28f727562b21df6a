//! Leaving HTTP: the WebSocket handshake (RFC 6455 §4.2) and the SPDY/3.1 upgrade of older clients.

use crate::error::ApiError;
use crate::wire::{Body, full};
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::future::Future;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// Largest message taken; clients send 32 KiB.
const MOST_MESSAGE: usize = 2 * 1024 * 1024;

/// An upgraded connection.
pub(super) type Io = TokioIo<Upgraded>;
/// Its WebSocket halves.
pub(super) type Sink = futures::stream::SplitSink<WebSocketStream<Io>, Message>;
pub(super) type Stream = futures::stream::SplitStream<WebSocketStream<Io>>;
pub(super) use tokio_tungstenite::tungstenite::Message;

/// What a client wants to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer {
    /// WebSocket with one of our subprotocols.
    WebSocket(&'static str),
    /// SPDY/3.1 with one of our stream protocols.
    Spdy(&'static str),
}

/// Picks the first of our protocols that the client offers. `websocket` and `spdy` are in our order of preference.
pub(super) fn negotiate<B>(
    request: &Request<B>,
    websocket: &[&'static str],
    spdy: &[&'static str],
) -> Result<Offer, ApiError> {
    let headers = request.headers();
    let upgrade = headers
        .get(header::UPGRADE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let (kind, ours, name) = if upgrade.eq_ignore_ascii_case("websocket") {
        (
            Offer::WebSocket as fn(&'static str) -> Offer,
            websocket,
            "sec-websocket-protocol",
        )
    } else if upgrade.eq_ignore_ascii_case("spdy/3.1") {
        (
            Offer::Spdy as fn(&'static str) -> Offer,
            spdy,
            "x-stream-protocol-version",
        )
    } else {
        return Err(ApiError::bad_request(
            "Upgrade request required: use kubectl 1.31 or later, or a WebSocket client",
        ));
    };
    let offered = list(headers, name);
    let chosen = ours
        .iter()
        .find(|one| offered.iter().any(|offer| offer == *one));
    chosen.map(|one| kind(one)).ok_or_else(|| {
        ApiError::bad_request(format!(
            "unable to upgrade: unsupported protocol(s) requested: [{}]; use one of [{}]",
            offered.join(", "),
            ours.join(", ")
        ))
    })
}

/// The answer that ends HTTP, and the work that then begins on the connection. The work is dropped when the client
/// goes away before.
pub(super) fn switch<B, F>(
    mut request: Request<B>,
    offer: Offer,
    work: impl FnOnce(Io) -> F + Send + 'static,
) -> Result<Response<Body>, ApiError>
where
    F: Future<Output = ()> + Send,
{
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    match offer {
        Offer::WebSocket(protocol) => {
            let key = request.headers().get(header::SEC_WEBSOCKET_KEY);
            let version = request.headers().get(header::SEC_WEBSOCKET_VERSION);
            let (Some(key), true) = (key, version.is_some_and(|version| version == "13")) else {
                return Err(ApiError::bad_request(
                    "not a WebSocket handshake of version 13",
                ));
            };
            let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
                .map_err(|_| ApiError::bad_request("not a WebSocket key"))?;
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
            headers.insert(
                header::SEC_WEBSOCKET_PROTOCOL,
                HeaderValue::from_static(protocol),
            );
        }
        Offer::Spdy(protocol) => {
            headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
            headers.insert(
                "x-stream-protocol-version",
                HeaderValue::from_static(protocol),
            );
        }
    }
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgraded.await {
            Ok(connection) => work(TokioIo::new(connection)).await,
            Err(error) => tracing::debug!(%error, "the client left before the upgrade"),
        }
    });
    Ok(response)
}

/// The server's end of a WebSocket on an upgraded connection.
pub(super) async fn websocket(io: Io) -> (Sink, Stream) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MOST_MESSAGE))
        .max_frame_size(Some(MOST_MESSAGE))
        .read_buffer_size(super::CHUNK);
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config))
        .await
        .split()
}

fn list(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(|one| one.trim().to_owned())
        .filter(|one| !one.is_empty())
        .collect()
}
