//! The admin port: whether it is healthy, its metrics, and the names of its domains. Read only.

use crate::engine::Engine;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections at once.
const CONNECTIONS: usize = 64;
/// Time for a request's head.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// Serves for ever.
pub(crate) async fn serve(listener: TcpListener, engine: Arc<Engine>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("admin port: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let engine = Arc::clone(&engine);
        tokio::spawn(async move {
            let _place = place;
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let answer = page(request.uri().path(), &engine);
                async move { Ok::<_, Infallible>(answer) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIME)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!("admin port: {error}");
            }
        });
    }
}

fn page(path: &str, engine: &Engine) -> Response<Full<Bytes>> {
    let (status, text) = match path {
        // The second is envoyproxy/ratelimit's.
        "/healthz" | "/healthcheck" => (StatusCode::OK, "OK\n".to_owned()),
        "/metrics" => (StatusCode::OK, engine.metrics()),
        "/domains" => {
            let limits = engine.limits();
            let names = limits.domains().map(|name| format!("{name}\n"));
            (StatusCode::OK, names.collect())
        }
        _ => (
            StatusCode::NOT_FOUND,
            "pages: /healthz /metrics /domains\n".to_owned(),
        ),
    };
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, kind);
    response
}
