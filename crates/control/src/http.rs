//! A small HTTP server for the control plane's own pages and webhooks: bounded in connections, heads, bodies
//! and time. Routing is the caller's.

use crate::pages::guard::Peer;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Connections served at once by one server.
const MOST_CONNECTIONS: usize = 512;
/// Time for a TLS handshake or a request's head.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Time for a request's body.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Largest request head in bytes.
const MOST_HEAD: usize = 64 << 10;
/// Largest request body: an admission review holds an object twice, each at most 3 MiB (Kubernetes' limit).
pub(crate) const MOST_BODY: usize = 8 << 20;

/// An answer.
pub(crate) type Answer = Response<Full<Bytes>>;

/// The TLS settings in force; they change when the certificate is renewed.
pub(crate) type TlsSettings = watch::Receiver<Arc<rustls::ServerConfig>>;

/// Serves until `shutdown`; requests under way are finished. A request's extensions have its [`Peer`].
pub(crate) async fn serve<H, F>(
    listener: TcpListener,
    tls: Option<TlsSettings>,
    handle: H,
    shutdown: CancellationToken,
) where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let connections = tokio_util::task::TaskTracker::new();
    loop {
        let permit = tokio::select! {
            () = shutdown.cancelled() => break,
            permit = Arc::clone(&permits).acquire_owned() => permit,
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok((stream, peer)) => (stream, Peer(peer)),
            Err(e) => {
                tracing::warn!("accepting a connection failed: {e}");
                // Out of file descriptors: give others time to close theirs.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let acceptor = tls
            .as_ref()
            .map(|tls| TlsAcceptor::from(Arc::clone(&tls.borrow())));
        let (handle, shutdown) = (handle.clone(), shutdown.clone());
        connections.spawn(async move {
            let _permit = permit;
            match acceptor {
                None => connection((stream, peer), handle, shutdown).await,
                Some(acceptor) => {
                    let shaken = tokio::time::timeout(HEAD_TIME, acceptor.accept(stream)).await;
                    if let Ok(Ok(stream)) = shaken {
                        connection((stream, peer), handle, shutdown).await;
                    }
                }
            }
        });
    }
    connections.close();
    connections.wait().await;
}

async fn connection<S, H, F>((stream, peer): (S, Peer), handle: H, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        let answer = handle(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(MOST_HEAD)
        .http2()
        .max_concurrent_streams(64)
        .max_header_list_size(MOST_HEAD as u32);
    let serving = server.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    tokio::select! {
        _ = serving.as_mut() => return,
        () = shutdown.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    let _ = tokio::time::timeout(Duration::from_secs(5), serving).await;
}

/// Reads a body within [`MOST_BODY`] and [`BODY_TIME`].
///
/// # Errors
/// The answer to send instead.
pub(crate) async fn body(request: Request<Incoming>) -> Result<Bytes, Answer> {
    let read = Limited::new(request.into_body(), MOST_BODY).collect();
    match tokio::time::timeout(BODY_TIME, read).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(e)) => Err(text(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body cannot be read or is larger than {MOST_BODY} bytes: {e}\n"),
        )),
        Err(_) => Err(text(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not arrive in time\n",
        )),
    }
}

/// A plain-text answer.
pub(crate) fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    answer(status, "text/plain; charset=utf-8", body.into())
}

/// A JSON answer.
pub(crate) fn json(value: &impl serde::Serialize) -> Answer {
    match serde_json::to_vec_pretty(value) {
        Ok(body) => answer(StatusCode::OK, "application/json", body.into()),
        Err(e) => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the answer cannot be written as JSON: {e}\n"),
        ),
    }
}

/// An answer with a content type.
pub(crate) fn answer(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static(kind),
    );
    response
}
