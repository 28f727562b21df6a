//! The proxy's own servers: readiness, metrics, and the pages that say what it is doing.

mod certs;
mod dump;
mod pages;
mod places;
mod scrape;

use crate::app_health::AppProbes;
use crate::config::{AppMetrics, Config};
use crate::drain::Stage;
use crate::shared::Shared;
use crate::start::Addresses;
use crate::worker::Entry;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use lateen_identity::source::State;
use lateen_net::http::{Body, Busy, Incoming, Version};
use lateen_net::stream::Stream;
use lateen_telemetry::logging::LogLevel;
use parking_lot::Mutex;
use places::{Place, Places};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Which of the proxy's servers a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    /// Everything, on loopback.
    Admin,
    /// Readiness, merged metrics and the end.
    Merged,
    /// Readiness.
    Ready,
    /// Own metrics.
    Metrics,
}

/// What the pages are made from.
#[derive(Clone)]
pub(crate) struct Admin {
    shared: Arc<Shared>,
    started: Instant,
    version: String,
    app_metrics: Option<AppMetrics>,
    app_probes: AppProbes,
    log_level: Option<LogLevel>,
    addresses: Addresses,
    concurrency: usize,
    synced: Arc<AtomicBool>,
    /// Whether a certificate is needed to be ready.
    certified: bool,
    /// What is known of the certificate.
    certificate: Arc<OnceLock<watch::Receiver<State>>>,
    gateway: Arc<Mutex<BTreeMap<Entry, Result<SocketAddr, String>>>>,
}

/// How long a connection to one of these servers may idle.
const IDLE: Duration = Duration::from_secs(10);
/// How long a request's head, and the taking of an answer, may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Serves one listener for the proxy's life.
pub(crate) async fn serve(admin: Rc<Admin>, server: Server, listener: TcpListener) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    let places = Places::default();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Without a place it is closed at once.
                let Some(place) = places.take() else { continue };
                let stream = Stream::new(stream, Bytes::new());
                let served =
                    Rc::clone(&admin).connection((server, Rc::clone(&place)), stream, peer);
                let task = tokio::task::spawn_local(lateen_net::panics::caught(served));
                place.belongs_to(task.abort_handle());
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

impl Admin {
    pub(crate) fn new(shared: &Arc<Shared>, config: &Config, addresses: Addresses) -> Self {
        Self {
            shared: Arc::clone(shared),
            started: Instant::now(),
            version: config.version.clone(),
            app_metrics: config.app_metrics.clone(),
            app_probes: config.app_probes.clone(),
            log_level: config.log_level.clone(),
            addresses,
            concurrency: config.workers(),
            synced: Arc::default(),
            certified: config.identity.is_some(),
            certificate: Arc::default(),
            gateway: Arc::default(),
        }
    }

    /// The first whole configuration is in force.
    pub(crate) fn synced(&self) {
        self.synced.store(true, Ordering::Relaxed);
    }

    /// A gateway's port was opened, or could not be.
    pub(crate) fn opened(&self, entry: Entry, result: Result<SocketAddr, String>) {
        self.gateway.lock().insert(entry, result);
    }

    /// A gateway's port was closed.
    pub(crate) fn closed(&self, entry: Entry) {
        self.gateway.lock().remove(&entry);
    }

    fn is_ready(&self) -> bool {
        let certified = !self.certified || self.shared.generation() > 0;
        certified
            && self.synced.load(Ordering::Relaxed)
            && self.shared.drain.stage() == Stage::Running
    }

    /// Where news of the certificate comes from.
    pub(crate) fn follow(&self, certificate: watch::Receiver<State>) {
        // It is told once.
        let _ = self.certificate.set(certificate);
    }

    async fn connection(
        self: Rc<Self>,
        (server, place): (Server, Rc<Place>),
        stream: Stream,
        peer: SocketAddr,
    ) {
        let mut limits = self.shared.limits;
        limits.idle_time = limits.idle_time.min(IDLE);
        limits.head_time = limits.head_time.min(PATIENCE);
        limits.stall_time = limits.stall_time.min(PATIENCE);
        let drain = self.shared.drain.clone();
        let ended = async move { drain.reached(Stage::Ended).await };
        let respond = move |request: Request<Incoming>, busy: Busy| {
            let admin = Rc::clone(&self);
            let working = place.work();
            async move {
                let _busy = (busy, working);
                let mut answer = admin.answer(server, &request, peer).await;
                if server == Server::Ready {
                    // Whoever probes does so once in seconds.
                    let close = HeaderValue::from_static("close");
                    answer.headers_mut().insert(CONNECTION, close);
                }
                answer
            }
        };
        let served = lateen_net::http::serve(stream, Version::Http1, &limits, ended, respond);
        if let Err(error) = served.await {
            tracing::debug!("{peer} on the {server:?} server: {error}");
        }
    }

    async fn answer(
        &self,
        server: Server,
        request: &Request<Incoming>,
        peer: SocketAddr,
    ) -> Response<Body> {
        let path = request.uri().path();
        let query = request.uri().query().unwrap_or_default();
        let local = peer.ip().to_canonical().is_loopback();
        let post = request.method() == Method::POST;
        match (server, path) {
            (Server::Ready | Server::Merged, "/healthz/ready") | (Server::Admin, "/ready") => {
                self.ready()
            }
            (Server::Metrics | Server::Admin, "/stats/prometheus") => {
                prometheus(self.own_metrics())
            }
            (Server::Merged, "/stats/prometheus" | "/metrics") => {
                prometheus(self.all_metrics().await)
            }
            (Server::Merged | Server::Admin, "/quitquitquit" | "/drain" | "/drain_listeners") => {
                match (local, post) {
                    (false, _) => text(StatusCode::FORBIDDEN, "only from this pod\n"),
                    (_, false) => text(StatusCode::METHOD_NOT_ALLOWED, "use POST\n"),
                    _ => self.leave(path),
                }
            }
            (Server::Admin, path) => self.page(path, query, post),
            (Server::Merged, path) if path.starts_with("/app-") => self.app_probe(path).await,
            _ => text(StatusCode::NOT_FOUND, "no such page\n"),
        }
    }

    /// A probe or hook of the application, on the pod's own address.
    async fn app_probe(&self, path: &str) -> Response<Body> {
        let own = self.shared.scope.addresses.first().copied();
        let application = own.unwrap_or(Ipv4Addr::LOCALHOST.into());
        match self.app_probes.check(path, application).await {
            Some(outcome) => text(outcome.status, &format!("{}\n", outcome.text)),
            None => text(StatusCode::NOT_FOUND, "no such probe\n"),
        }
    }

    fn ready(&self) -> Response<Body> {
        if self.is_ready() {
            return text(StatusCode::OK, "LIVE\n");
        }
        text(
            StatusCode::SERVICE_UNAVAILABLE,
            &format!("{}\n", self.state()),
        )
    }

    fn state(&self) -> &'static str {
        match self.shared.drain.stage() {
            Stage::Running if self.is_ready() => "LIVE",
            Stage::Running => "PRE_INITIALIZING",
            _ => "DRAINING",
        }
    }

    fn leave(&self, path: &str) -> Response<Body> {
        let stage = if path == "/quitquitquit" {
            Stage::Ending
        } else {
            Stage::Draining
        };
        tracing::info!("told to end by {path}");
        self.shared.drain.advance(stage);
        text(StatusCode::OK, "OK\n")
    }
}

fn text(status: StatusCode, body: &str) -> Response<Body> {
    let mut response = Response::new(Body::full(Bytes::copy_from_slice(body.as_bytes())));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=UTF-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn json(value: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Body::full(format!("{value:#}\n")));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn prometheus(body: String) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
