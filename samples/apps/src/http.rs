//! A small HTTP server loop and client for the samples. No routing, no TLS.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// Largest request or response body a sample reads, in bytes.
const BODY_LIMIT: usize = 16 << 20;

/// Serves HTTP/1.1 and h2c on every address until a stop signal, then finishes what is running.
///
/// # Errors
/// The port cannot be bound, or signals cannot be handled.
pub async fn serve<H, F, B>(port: u16, handler: H) -> Result<()>
where
    H: Fn(Request<Incoming>) -> F + Clone + 'static,
    F: Future<Output = Response<B>> + 'static,
    B: Body<Data = Bytes, Error = Infallible> + 'static,
{
    let listener = match TcpListener::bind(("::", port)).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind(("0.0.0.0", port))
            .await
            .with_context(|| {
                format!("cannot listen on port {port}: is another process using it?")
            })?,
    };
    println!("listening on port {port}");
    let stop = crate::stop_signal()?;
    tokio::pin!(stop);
    let graceful = tokio_graceful::Graceful::default();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    eprintln!("accept: {error}");
                    continue;
                }
            },
            () = &mut stop => break,
        };
        let _ = stream.set_nodelay(true);
        let handler = handler.clone();
        let service = hyper::service::service_fn(move |request| {
            let answer = handler(request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        graceful.serve(stream, service);
    }
    drop(listener);
    graceful.finish(Duration::from_secs(20)).await;
    Ok(())
}

/// Connections that are told to finish at shutdown.
mod tokio_graceful {
    use super::*;
    use tokio::sync::watch;

    /// Serves connections on the local task set and waits for them at the end.
    pub(super) struct Graceful {
        stop: watch::Sender<bool>,
        open: watch::Sender<usize>,
    }

    impl Default for Graceful {
        fn default() -> Self {
            Self {
                stop: watch::channel(false).0,
                open: watch::channel(0).0,
            }
        }
    }

    impl Graceful {
        /// Starts serving one connection.
        pub(super) fn serve<S, F, B>(&self, stream: TcpStream, service: S)
        where
            B: Body<Data = Bytes, Error = Infallible> + 'static,
            S: hyper::service::Service<
                    Request<Incoming>,
                    Response = Response<B>,
                    Error = Infallible,
                    Future = F,
                > + 'static,
            F: Future<Output = Result<Response<B>, Infallible>> + 'static,
        {
            let (mut stop, open) = (self.stop.subscribe(), self.open.clone());
            open.send_modify(|open| *open += 1);
            tokio::task::spawn_local(async move {
                let builder = hyper_util::server::conn::auto::Builder::new(LocalExecutor);
                let connection =
                    builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
                tokio::pin!(connection);
                tokio::select! {
                    _ = connection.as_mut() => {}
                    _ = stop.wait_for(|stop| *stop) => {
                        connection.as_mut().graceful_shutdown();
                        let _ = connection.await;
                    }
                }
                open.send_modify(|open| *open -= 1);
            });
        }

        /// Asks every connection to finish and waits for at most `limit`.
        pub(super) async fn finish(self, limit: Duration) {
            self.stop.send_replace(true);
            let mut open = self.open.subscribe();
            let _ = tokio::time::timeout(limit, open.wait_for(|open| *open == 0)).await;
        }
    }

    /// Runs hyper's HTTP/2 tasks on the local task set.
    #[derive(Clone)]
    struct LocalExecutor;

    impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
        fn execute(&self, future: F) {
            tokio::task::spawn_local(async move {
                future.await;
            });
        }
    }
}

/// Reads a whole request body, up to 16 MiB.
///
/// # Errors
/// The body is too large or breaks off.
pub async fn read(body: Incoming) -> Result<Bytes> {
    Limited::new(body, BODY_LIMIT)
        .collect()
        .await
        .map(|body| body.to_bytes())
        .map_err(|error| anyhow::anyhow!("cannot read the body: {error}"))
}

/// Sends a GET to `http://authority/path` with `headers` and returns status and body.
///
/// # Errors
/// The host does not resolve or connect, or there is no answer within `limit`.
pub async fn fetch(
    authority: &str,
    path: &str,
    headers: &HeaderMap,
    limit: Duration,
) -> Result<(StatusCode, Bytes)> {
    let exchange = async {
        let stream = TcpStream::connect(authority)
            .await
            .with_context(|| format!("connect {authority}"))?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await?;
        tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        let mut request = Request::builder()
            .method(Method::GET)
            .uri(path)
            .header(header::HOST, authority)
            .body(Full::default())?;
        request
            .headers_mut()
            .extend(headers.iter().map(|(k, v)| (k.clone(), v.clone())));
        let response = sender.send_request(request).await?;
        let status = response.status();
        Ok::<_, anyhow::Error>((status, read(response.into_body()).await?))
    };
    tokio::time::timeout(limit, exchange)
        .await
        .with_context(|| format!("no answer from http://{authority}{path} within {limit:?}"))?
}

/// An answer with a content type.
pub fn answer(
    status: StatusCode,
    content_type: &str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    if let Ok(value) = content_type.parse() {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    response
}

/// A JSON answer.
pub fn json(status: StatusCode, value: &serde_json::Value) -> Response<Full<Bytes>> {
    answer(status, "application/json", format!("{value:#}\n"))
}

/// Runs one sample on a single-threaded runtime.
///
/// # Errors
/// The runtime cannot start, or the sample fails.
pub fn run(sample: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio::task::LocalSet::new().block_on(&runtime, sample)
}
