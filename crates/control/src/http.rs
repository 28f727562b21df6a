//! A small HTTP server for the control plane's own pages and webhooks: bounded in connections (also of one address),
//! heads, bodies (also all together) and time. Routing is the caller's.

#[cfg(test)]
mod tests;

use crate::pages::guard::Peer;
use crate::places::{Bounds, Place, Places};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Connections served at once by one server. The API server calls webhooks over few connections.
const CONNECTIONS: Bounds = Bounds {
    all: 512,
    of_one: 128,
    idle: Duration::from_secs(1),
    busy: Duration::from_secs(30),
};
/// Time for a TLS handshake or a request's head.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Time that a connection may have nothing to do between requests.
const IDLE_TIME: Duration = Duration::from_secs(300);
/// Bytes of bodies that are read and worked on at once by one server.
const MOST_BODIES: usize = 64 << 20;
/// HTTP/2 windows: bytes that a client may send before a body is asked for.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 256 << 10;
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
    let places = Places::new(CONNECTIONS);
    let bodies = Bodies(Arc::new(Semaphore::new(MOST_BODIES)));
    let connections = tokio_util::task::TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                tracing::warn!("accepting a connection failed: {e}");
                // Out of file descriptors: give others time to close theirs.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let place = tokio::select! {
            () = shutdown.cancelled() => break,
            place = places.enter(address.ip()) => place,
        };
        let Some(place) = place else {
            tracing::debug!(
                "{} has too many connections: one more is closed",
                address.ip()
            );
            continue;
        };
        let _ = stream.set_nodelay(true);
        let acceptor = tls
            .as_ref()
            .map(|tls| TlsAcceptor::from(Arc::clone(&tls.borrow())));
        let guest = Guest {
            peer: Peer(address),
            place: Arc::new(place),
            bodies: bodies.clone(),
        };
        let (handle, shutdown) = (handle.clone(), shutdown.clone());
        connections.spawn(async move {
            let cut = guest.place.cut().clone();
            let served = async {
                match acceptor {
                    None => connection(stream, guest, handle, shutdown).await,
                    Some(acceptor) => {
                        let shaken = tokio::time::timeout(HEAD_TIME, acceptor.accept(stream)).await;
                        if let Ok(Ok(stream)) = shaken {
                            connection(stream, guest, handle, shutdown).await;
                        }
                    }
                }
            };
            cut.run_until_cancelled(served).await;
        });
    }
    connections.close();
    connections.wait().await;
}

/// A connection as the server knows it.
struct Guest {
    peer: Peer,
    place: Arc<Place>,
    bodies: Bodies,
}

/// Bytes of bodies that may still be read, in a request's extensions.
#[derive(Debug, Clone)]
struct Bodies(Arc<Semaphore>);

async fn connection<S, H, F>(stream: S, guest: Guest, handle: H, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let Guest {
        peer,
        place,
        bodies,
    } = guest;
    let spoke = Arc::new(AtomicBool::new(false));
    let (worker, first) = (Arc::clone(&place), Arc::clone(&spoke));
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        let work = worker.work();
        first.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(bodies.clone());
        let answer = handle(request);
        async move {
            let answer = answer.await;
            drop(work);
            Ok::<_, Infallible>(answer)
        }
    });
    let mut server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(MOST_HEAD)
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(10))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(64)
        .max_header_list_size(MOST_HEAD as u32);
    let serving = server.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    tokio::select! {
        _ = serving.as_mut() => return,
        // The server's own bounds begin with the first byte; this one begins with the connection.
        () = idle(&place, &spoke) => serving.as_mut().graceful_shutdown(),
        () = shutdown.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    let _ = tokio::time::timeout(Duration::from_secs(5), serving).await;
}

/// Ends when the connection has had nothing to do for too long.
async fn idle(place: &Place, spoke: &AtomicBool) {
    loop {
        let most = match spoke.load(Ordering::Relaxed) {
            true => IDLE_TIME,
            false => HEAD_TIME,
        };
        let until = match place.idle_since() {
            Some(since) if since.elapsed() >= most => return,
            Some(since) => since + most,
            None => tokio::time::Instant::now() + HEAD_TIME,
        };
        tokio::time::sleep_until(until).await;
    }
}

/// A request's body; its bytes count as in flight until it is dropped.
#[derive(Debug)]
pub(crate) struct Body {
    bytes: Vec<u8>,
    _counted: Option<OwnedSemaphorePermit>,
}

impl std::ops::Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads a body within [`MOST_BODY`] and [`BODY_TIME`], as soon as those of others leave room for it.
///
/// # Errors
/// The answer to send instead.
pub(crate) async fn body(request: Request<Incoming>) -> Result<Body, Answer> {
    let bodies = request.extensions().get::<Bodies>().cloned();
    let read = collect(request.into_body(), bodies);
    match tokio::time::timeout(BODY_TIME, read).await {
        Ok(read) => read,
        Err(_) => Err(text(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not arrive in time, or too many others are being read\n",
        )),
    }
}

async fn collect(mut incoming: Incoming, bodies: Option<Bodies>) -> Result<Body, Answer> {
    let refused = |why: &dyn std::fmt::Display| {
        text(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body cannot be read or is larger than {MOST_BODY} bytes: {why}\n"),
        )
    };
    let (mut bytes, mut counted) = (Vec::new(), None::<OwnedSemaphorePermit>);
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|e| refused(&e))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > MOST_BODY {
            return Err(refused(&"it is too long"));
        }
        if let Some(bodies) = &bodies {
            // A frame is far smaller than 4 GiB.
            let more = Arc::clone(&bodies.0).acquire_many_owned(data.len() as u32);
            match (more.await, &mut counted) {
                (Ok(more), Some(counted)) => counted.merge(more),
                (Ok(more), none) => *none = Some(more),
                // It is never closed.
                (Err(_), _) => {}
            }
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Body {
        bytes,
        _counted: counted,
    })
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
