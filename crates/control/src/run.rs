//! Puts the control plane together and runs it until it is told to stop.

mod webhooks;

#[cfg(test)]
mod tests;

use crate::ca::{self, Domains};
use crate::certificate::CertificateError;
use crate::config::Config;
use crate::credentials;
use crate::engine::{Engine, Parts, Views};
use crate::http;
use crate::jwks;
use crate::metrics::Metrics;
use crate::pages::Pages;
use crate::pages::guard::Guard;
use crate::places::Bounds;
use crate::roots;
use crate::source;
use crate::status::{self, Wishes};
use crate::webhook::{NamespaceLabels, Webhooks};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use lateen_model::resource::{Key, Kind, Resource};
use lateen_xds::server::{Store, Unguarded};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Reports about keys and credentials that may wait for the engine.
const FOUND: usize = 64;

/// Connections to the port without credentials.
const PLAIN: Bounds = Bounds {
    all: 4096,
    of_one: 512,
    idle: Duration::from_secs(3600),
    busy: Duration::from_secs(3600),
};

/// The control plane cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No API server is known.
    #[error(
        "no Kubernetes API server is configured: {0}; run in a pod with a service account, or set KUBECONFIG"
    )]
    Client(String),
    /// A port is taken.
    #[error(
        "cannot listen on {address} ({what}): {source}; stop what uses the port (ss -ltnp shows it) or choose another"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What would be served there.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The webhooks have no certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// Runs until `shutdown`. Returns early only when something that it cannot do without is missing at the start;
/// an API server that does not answer is waited for.
///
/// # Errors
/// A port is taken or no API server is configured.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), ControlError> {
    let listeners = Listeners::open(&config).await?;
    let client = client(&config).await?;
    run_with(config, client, listeners, shutdown).await
}

/// The open sockets of the servers.
struct Listeners {
    http: TcpListener,
    secured: TcpListener,
    plaintext: Option<TcpListener>,
    monitoring: TcpListener,
    webhooks: TcpListener,
}

impl Listeners {
    async fn open(config: &Config) -> Result<Self, ControlError> {
        let ports = config.ports;
        let open = async |port: u16, what: &'static str| {
            let address = SocketAddr::new(config.bind, port);
            TcpListener::bind(address)
                .await
                .map_err(|source| ControlError::Bind {
                    address,
                    what,
                    source,
                })
        };
        Ok(Self {
            http: open(ports.http, "readiness and debug pages").await?,
            secured: open(ports.secured, "xDS and certificates").await?,
            plaintext: match ports.plaintext {
                Some(port) => Some(open(port, "xDS in plain text").await?),
                None => None,
            },
            monitoring: open(ports.monitoring, "monitoring").await?,
            webhooks: open(ports.webhooks, "webhooks").await?,
        })
    }
}

async fn client(config: &Config) -> Result<Client, ControlError> {
    let failed = |e: &dyn std::fmt::Display| ControlError::Client(e.to_string());
    let mut kube = match &config.kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).map_err(|e| failed(&e))?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .map_err(|e| failed(&e))?
        }
        None => kube::Config::infer().await.map_err(|e| failed(&e))?,
    };
    kube.connect_timeout = Some(Duration::from_secs(5));
    Client::try_from(kube).map_err(|e| failed(&e))
}

/// What the parts of a control plane share.
struct Desk {
    config: Config,
    client: Client,
    store: Store,
    metrics: Arc<Metrics>,
    wishes: Wishes,
    namespaces: NamespaceLabels,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

async fn run_with(
    config: Config,
    client: Client,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> Result<(), ControlError> {
    let desk = Desk {
        config,
        client,
        store: Store::new(),
        metrics: Arc::default(),
        wishes: Wishes::default(),
        namespaces: NamespaceLabels::default(),
        tasks: TaskTracker::new(),
        shutdown: shutdown.clone(),
    };
    let views = desk.engine();
    let authority = desk.authority(&views);
    let tasks = desk.tasks.clone();
    desk.serve(views, authority, listeners);
    shutdown.cancelled().await;
    tasks.close();
    let _ = tokio::time::timeout(Duration::from_secs(10), tasks.wait()).await;
    Ok(())
}

impl Desk {
    /// Starts what turns the cluster's objects into resources, and what fetches keys and credentials for it.
    fn engine(&self) -> Views {
        let config = &self.config;
        let (keys, key_reports) = mpsc::channel(FOUND);
        let (found, credential_reports) = mpsc::channel(FOUND);
        let events = source::start(
            &self.client,
            &config.root_namespace,
            &config.mesh_config_map,
            &self.shutdown,
        );
        let (engine, views) = Engine::new(Parts {
            store: self.store.clone(),
            metrics: Arc::clone(&self.metrics),
            wishes: self.wishes.clone(),
            namespaces: Arc::clone(&self.namespaces),
            injection: config.injection.clone(),
            debounce_quiet: config.debounce_quiet,
            debounce_most: config.debounce_most,
            keys: key_reports,
            credentials: credential_reports,
        });
        self.tasks.spawn(engine.run(events, self.shutdown.clone()));
        let jwks = jwks::run(config.jwks.clone(), views.wanted_keys.clone(), keys);
        tokio::spawn(jwks);
        let needs = views.needs.clone();
        tokio::spawn(credentials::run(self.client.clone(), needs, found));
        views
    }

    /// Starts the CA.
    fn authority(&self, views: &Views) -> ca::Views {
        let config = &self.config;
        let domains = domains(
            &self.store,
            views.synced.clone(),
            config.injection.trust_domain.as_str().into(),
            &self.shutdown,
        );
        let (vault, stored, reviewer) =
            ca::cluster(&self.client, &config.root_namespace, &self.shutdown);
        ca::start(
            ca::Parts {
                settings: config.ca.clone(),
                namespace: config.root_namespace.clone(),
                store: self.store.clone(),
                metrics: Arc::clone(&self.metrics),
                domains,
                names: names(config),
                vault,
                stored,
                reviewer,
            },
            &self.shutdown,
        )
    }

    /// Starts every server, and whoever writes to the cluster.
    fn serve(self, views: Views, authority: ca::Views, listeners: Listeners) {
        let ready = watch::Sender::new(false);
        let pages = Pages {
            store: self.store.clone(),
            metrics: Arc::clone(&self.metrics),
            ready: ready.subscribe(),
            counts: views.counts,
            ask: views.ask,
            ca: authority.page,
            version: self.config.version.as_str().into(),
            guard: Guard::new(self.client.clone(), &self.config.root_namespace),
        };
        let (tasks, shutdown) = (&self.tasks, &self.shutdown);
        for listener in [listeners.http, listeners.monitoring] {
            let pages = pages.clone();
            let handle = move |request| pages.clone().handle(request);
            tasks.spawn(http::serve(listener, None, handle, shutdown.clone()));
        }
        let secured = authority.port.tls.clone();
        let (store, port) = (self.store.clone(), authority.port);
        tasks.spawn(port.serve(listeners.secured, store.clone(), shutdown.clone()));
        if let Some(listener) = listeners.plaintext {
            tracing::warn!(
                "xDS is served in plain text to everybody: what proxies are told can be read and altered on the way"
            );
            tasks.spawn(serve_plaintext(listener, store, shutdown.clone()));
        }
        let (client, trusted) = (self.client.clone(), authority.trusted);
        tasks.spawn(roots::keep(client.clone(), trusted, shutdown.clone()));
        let metrics = Arc::clone(&self.metrics);
        tasks.spawn(status::run(client, self.wishes, metrics, shutdown.clone()));
        let webhooks = Webhooks {
            client: self.client,
            namespaces: self.namespaces,
            settings: views.settings,
            metrics: self.metrics,
        };
        tasks.spawn(webhooks::serve(
            self.config,
            webhooks,
            (listeners.webhooks, tasks.clone()),
            Readiness {
                synced: views.synced,
                secured,
                ready,
            },
            shutdown.clone(),
        ));
    }
}

/// What readiness depends on, and who is told.
struct Readiness {
    synced: watch::Receiver<bool>,
    /// There are TLS settings once there is a CA.
    secured: ca::TlsSettings,
    ready: watch::Sender<bool>,
}

impl Readiness {
    /// Waits until the mesh and the CA are known; false: the control plane ends before.
    async fn wait(&mut self) -> bool {
        let synced = self.synced.wait_for(|synced| *synced).await.is_ok();
        synced && self.secured.wait_for(Option::is_some).await.is_ok()
    }
}

/// The trust domain and its aliases as the mesh's settings say, once they are known; `fallback` when they say nothing.
fn domains(
    store: &Store,
    mut synced: watch::Receiver<bool>,
    fallback: lateen_base::Str,
    shutdown: &CancellationToken,
) -> watch::Receiver<Option<Domains>> {
    let (sender, receiver) = watch::channel(None);
    let (store, shutdown) = (store.clone(), shutdown.clone());
    let follow = async move {
        if synced.wait_for(|synced| *synced).await.is_err() {
            return;
        }
        let mut changes = store.changes();
        loop {
            changes.borrow_and_update();
            let key = Key {
                kind: Kind::MeshSettings,
                name: "default".into(),
            };
            let fresh = match store.resource(&key) {
                Some(Resource::MeshSettings(mesh)) => Domains {
                    own: mesh.trust_domain,
                    aliases: mesh.trust_domain_aliases,
                },
                _ => Domains {
                    own: fallback.clone(),
                    aliases: Vec::new(),
                },
            };
            sender.send_if_modified(|known| {
                let differs = known.as_ref() != Some(&fresh);
                *known = Some(fresh);
                differs
            });
            if changes.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::spawn(async move { shutdown.run_until_cancelled(follow).await });
    receiver
}

/// Serves delta ADS without asking who calls.
async fn serve_plaintext(listener: TcpListener, store: Store, shutdown: CancellationToken) {
    let incoming = crate::places::limited(listener, PLAIN);
    let served = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .max_concurrent_streams(Some(16))
        .add_service(lateen_xds::server::service(store, Arc::new(Unguarded)))
        .serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned())
        .await;
    if let Err(e) = served {
        tracing::error!("the plaintext xDS server ended: {e}");
    }
}

/// Names under which the API server calls the webhooks, and proxies the secured port.
fn names(config: &Config) -> Vec<String> {
    let (service, namespace) = (&config.service, &config.root_namespace);
    let domain = &config.injection.domain;
    let mut all = vec![
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}.svc.{domain}"),
        format!("{service}.{namespace}"),
    ];
    // Names of old installations of Istio.
    for service in ["istio-pilot", "istiod-remote"] {
        all.push(format!("{service}.{namespace}.svc"));
    }
    all
}
