//! Websocket: a page that stays connected. Whatever one visitor sends over `/ws`, or anyone puts into
//! `/api?id=…&value=…`, reaches every open page. It keeps nothing.

use crate::http::{answer, serve};
use anyhow::Result;
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::sync::broadcast;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

/// Largest message a visitor may send, in bytes.
const MESSAGE_LIMIT: usize = 64 << 10;
/// Messages a slow page may lag behind before it misses some.
const BACKLOG: usize = 64;

const PAGE: &str = "<!DOCTYPE html>
<title>WebSocket sample</title>
<h1>WebSocket sample</h1>
<ul id=\"seen\"></ul>
<script>
  const socket = new WebSocket(`ws://${location.host}/ws`);
  socket.onmessage = (event) => {
    const line = document.createElement('li');
    line.textContent = event.data;
    document.getElementById('seen').append(line);
  };
</script>
";

/// Serves the page, `/ws` and `/api`.
///
/// # Errors
/// The port cannot be bound.
pub async fn run(port: u16) -> Result<()> {
    let room = broadcast::Sender::new(BACKLOG);
    serve(port, move |request| {
        let answer = route(request, &room);
        async move { answer }
    })
    .await
}

fn route(request: Request<Incoming>, room: &broadcast::Sender<String>) -> Response<Full<Bytes>> {
    match request.uri().path() {
        "/" => answer(StatusCode::OK, "text/html; charset=utf-8", PAGE),
        "/ws" => join(request, room),
        "/api" => {
            let said = request.uri().query().unwrap_or_default();
            // Nobody may be listening; that is no error.
            let _ = room.send(said.to_owned());
            answer(StatusCode::OK, "text/plain", "sent\n")
        }
        _ => answer(StatusCode::NOT_FOUND, "text/plain", "no such page: try /\n"),
    }
}

/// Answers a WebSocket handshake (RFC 6455 §4.2.2) and lets the visitor into the room.
fn join(mut request: Request<Incoming>, room: &broadcast::Sender<String>) -> Response<Full<Bytes>> {
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY) else {
        let sentence = "this path speaks WebSocket only\n";
        return answer(StatusCode::UPGRADE_REQUIRED, "text/plain", sentence);
    };
    let accept = derive_accept_key(key.as_bytes());
    let Ok(accept) = HeaderValue::from_str(&accept) else {
        return answer(StatusCode::BAD_REQUEST, "text/plain", "bad key\n");
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let room = room.clone();
    tokio::task::spawn_local(async move {
        if let Ok(stream) = upgrade.await {
            // A visitor who breaks off has merely left.
            let _ = attend(stream, &room).await;
        }
    });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    response
}

async fn attend(stream: Upgraded, room: &broadcast::Sender<String>) -> Result<(), Error> {
    let limits = WebSocketConfig::default().max_message_size(Some(MESSAGE_LIMIT));
    let mut visitor =
        WebSocketStream::from_raw_socket(TokioIo::new(stream), Role::Server, Some(limits)).await;
    let mut said = room.subscribe();
    loop {
        tokio::select! {
            heard = said.recv() => match heard {
                Ok(text) => visitor.send(Message::text(text)).await?,
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return visitor.close(None).await,
            },
            message = visitor.next() => match message.transpose()? {
                Some(Message::Text(text)) => {
                    let _ = room.send(text.as_str().to_owned());
                }
                Some(Message::Close(_)) | None => return Ok(()),
                Some(_) => {}
            },
        }
    }
}
