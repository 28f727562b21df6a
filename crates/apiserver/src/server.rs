//! Listening: TLS connections in, HTTP/1.1 and HTTP/2 on them, and the server's life from start to stop.

use crate::admission::Webhooks;
use crate::api::Api;
use crate::auth::Authenticator;
use crate::builtin::addresses::ServiceRange;
use crate::error::ApiError;
use crate::kinds::Registry;
use crate::lookup::Lookup;
use crate::pods::PodAccess;
use crate::store::{OpenError, Store};
use crate::tls::{Authority, Credential, TlsError};
use crate::token::Tokens;
use crate::{bootstrap, collect, router};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Connections at a time over all listeners.
const MAX_CONNECTIONS: usize = 4096;
/// Time for a TLS handshake and for the head of a request.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Time that open requests get when the server stops.
const DRAIN: Duration = Duration::from_secs(2);

/// How to run a server.
pub struct Options {
    /// Bound sockets to serve on; TLS on all of them.
    pub listeners: Vec<std::net::TcpListener>,
    /// Where objects, keys and certificates are kept; absent: in memory only.
    pub dir: Option<PathBuf>,
    /// Further DNS names and addresses of the server's certificate.
    pub names: Vec<String>,
    /// Access to running pods.
    pub pods: Arc<dyn PodAccess>,
    /// IPv4 network of Service addresses, such as `10.96.0.0/16`.
    pub service_cidr: String,
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// Keys or certificates cannot be made or read.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An option makes no sense.
    #[error("{0}")]
    Option(String),
    /// A listening socket cannot be used.
    #[error("cannot use a listening socket of the API server: {0}")]
    Listen(#[from] std::io::Error),
    /// The first objects cannot be written.
    #[error("cannot create the first objects: {0}")]
    Bootstrap(#[from] ApiError),
}

/// A running server. Dropping it stops it at once; [`Server::stop`] lets open requests end.
pub struct Server {
    pub(crate) api: Arc<Api>,
    authority: Authority,
    tasks: JoinSet<()>,
}

impl Server {
    /// Opens the store, makes what a cluster has from the start, and serves. Call inside a tokio runtime.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let store = Arc::new(match &options.dir {
            Some(dir) => Store::open(&dir.join("objects.redb"))?,
            None => Store::in_memory(),
        });
        let authority = Authority::open(options.dir.as_deref())?;
        let tokens = Arc::new(Tokens::open(options.dir.as_deref())?);
        let services = ServiceRange::parse(&options.service_cidr).map_err(StartError::Option)?;
        let mut names = options.names;
        names.push(services.first().to_string());
        let acceptor = TlsAcceptor::from(authority.server_config(&names)?);
        let api = Arc::new(Api {
            authenticator: Authenticator::new(store.clone(), tokens.clone()),
            webhooks: Webhooks::new(store.clone()),
            registry: Registry::new(),
            tokens,
            pods: options.pods,
            services,
            allocation: Mutex::new(()),
            collect: Notify::new(),
            stopping: watch::Sender::new(false),
            requests: AtomicU64::new(0),
            store,
        });
        bootstrap::prepare(&api).await?;
        for namespace in api.store.list("", "namespaces", None) {
            bootstrap::furnish(&api, &namespace, authority.pem()).await?;
        }
        let mut tasks = JoinSet::new();
        tasks.spawn(collect::run(api.clone()));
        tasks.spawn(bootstrap::furnish_namespaces(
            api.clone(),
            authority.pem().to_owned(),
        ));
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        for listener in options.listeners {
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            tasks.spawn(accept(
                api.clone(),
                listener,
                acceptor.clone(),
                permits.clone(),
            ));
        }
        Ok(Self {
            api,
            authority,
            tasks,
        })
    }

    /// A kubeconfig for the administrator (client certificate) of the server at `url`.
    ///
    /// # Errors
    /// The certificate cannot be made.
    pub fn kubeconfig(&self, url: &str) -> Result<String, TlsError> {
        let identity = self.authority.admin()?;
        Ok(self
            .authority
            .kubeconfig(url, "lateen", Credential::Certificate(&identity)))
    }

    /// A kubeconfig for any user, by a client certificate.
    ///
    /// # Errors
    /// The certificate cannot be made.
    pub fn kubeconfig_for(
        &self,
        url: &str,
        user: &str,
        group: Option<&str>,
    ) -> Result<String, TlsError> {
        let identity = self.authority.client(user, group)?;
        Ok(self
            .authority
            .kubeconfig(url, "lateen", Credential::Certificate(&identity)))
    }

    /// The authority's certificate (PEM), by which clients know the server.
    pub fn certificate(&self) -> &str {
        self.authority.pem()
    }

    /// The tokens that this server signs, for projected token volumes.
    pub fn tokens(&self) -> &Arc<Tokens> {
        &self.api.tokens
    }

    /// Read access to the stored objects.
    pub fn lookup(&self) -> Arc<dyn Lookup> {
        self.api.store.clone()
    }

    /// Ends watches and connections, then the server.
    pub async fn stop(mut self) {
        self.api.stopping.send_replace(true);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(DRAIN * 2, all).await;
    }
}

async fn accept(
    api: Arc<Api>,
    listener: TcpListener,
    acceptor: TlsAcceptor,
    permits: Arc<Semaphore>,
) {
    let mut stopping = api.stopping.subscribe();
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.changed() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let (api, acceptor) = (api.clone(), acceptor.clone());
                connections.spawn(async move {
                    connection(api, stream, acceptor).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Too many open files, usually: pause instead of spinning.
                tracing::warn!(%error, "a connection to the API server could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(DRAIN, all).await;
}

async fn connection(api: Arc<Api>, stream: TcpStream, acceptor: TlsAcceptor) {
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake took too long"),
    };
    let peer = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first);
    let peer: Option<Arc<[u8]>> = peer.map(|certificate| Arc::from(certificate.as_ref()));
    let mut stopping = api.stopping.subscribe();
    let service = service_fn(move |request| {
        let (api, peer) = (api.clone(), peer.clone());
        async move { Ok::<_, Infallible>(router::answer(api, request, peer).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE)
        .max_buf_size(64 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(64 * 1024)
        .max_concurrent_streams(1000)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(serving);
    tokio::select! {
        result = serving.as_mut() => {
            if let Err(error) = result {
                tracing::debug!(%error, "connection ended");
            }
            return;
        }
        _ = stopping.changed() => serving.as_mut().graceful_shutdown(),
    }
    let _ = tokio::time::timeout(DRAIN, serving).await;
}
