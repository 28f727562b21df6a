//! Puts the control plane together and runs it until it is told to stop.

#[cfg(test)]
mod tests;

use crate::bundle::{self, Target};
use crate::certificate::{self, CertificateError, Serving};
use crate::config::Config;
use crate::engine::{Engine, Parts, Views};
use crate::http::{self, TlsSettings};
use crate::metrics::Metrics;
use crate::pages::Pages;
use crate::source;
use crate::status::{self, Wishes};
use crate::webhook::{NamespaceLabels, Webhooks};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use lateen_base::backoff::Backoff;
use lateen_xds::server::Store;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often it is looked whether the webhook certificate is due.
const CERTIFICATE_CHECK: Duration = Duration::from_secs(3600);

/// How long readiness waits for the webhook configurations.
const TRUST_TIME: Duration = Duration::from_secs(5);

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
    xds: TcpListener,
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
            xds: open(ports.xds, "xDS").await?,
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

async fn run_with(
    config: Config,
    client: Client,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> Result<(), ControlError> {
    let store = Store::new();
    let metrics = Arc::new(Metrics::default());
    let wishes = Wishes::default();
    let namespaces = NamespaceLabels::default();
    let events = source::start(
        &client,
        &config.root_namespace,
        &config.mesh_config_map,
        &shutdown,
    );
    let (engine, views) = Engine::new(Parts {
        store: store.clone(),
        metrics: Arc::clone(&metrics),
        wishes: wishes.clone(),
        namespaces: Arc::clone(&namespaces),
        injection: config.injection.clone(),
        debounce_quiet: config.debounce_quiet,
        debounce_most: config.debounce_most,
    });
    let Views {
        ask,
        synced,
        counts,
        settings,
    } = views;
    let ready = watch::Sender::new(false);
    let pages = Pages {
        store: store.clone(),
        metrics: Arc::clone(&metrics),
        ready: ready.subscribe(),
        counts,
        ask,
        version: config.version.as_str().into(),
    };
    let tasks = TaskTracker::new();
    tasks.spawn(engine.run(events, shutdown.clone()));
    for listener in [listeners.http, listeners.monitoring] {
        let pages = pages.clone();
        let handle = move |request| pages.clone().handle(request);
        tasks.spawn(http::serve(listener, None, handle, shutdown.clone()));
    }
    tasks.spawn(serve_xds(listeners.xds, store, shutdown.clone()));
    tasks.spawn(status::run(
        client.clone(),
        wishes,
        Arc::clone(&metrics),
        shutdown.clone(),
    ));
    let webhooks = Webhooks {
        client: client.clone(),
        namespaces,
        settings,
        metrics,
    };
    tasks.spawn(serve_webhooks(
        config,
        webhooks,
        (listeners.webhooks, tasks.clone()),
        Readiness { synced, ready },
        shutdown.clone(),
    ));
    shutdown.cancelled().await;
    tasks.close();
    let _ = tokio::time::timeout(Duration::from_secs(10), tasks.wait()).await;
    Ok(())
}

/// What readiness depends on, and who is told.
struct Readiness {
    synced: watch::Receiver<bool>,
    ready: watch::Sender<bool>,
}

/// Serves delta ADS.
async fn serve_xds(listener: TcpListener, store: Store, shutdown: CancellationToken) {
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let served = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .max_concurrent_streams(Some(16))
        .tcp_nodelay(true)
        .add_service(lateen_xds::server::service(store))
        .serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned())
        .await;
    if let Err(e) = served {
        tracing::error!("the xDS server ended: {e}");
    }
}

/// Gets a certificate, serves the webhooks, keeps the certificate's root where the API server looks for it.
/// The control plane is ready once the webhooks are open and the mesh is known.
async fn serve_webhooks(
    config: Config,
    webhooks: Webhooks,
    (listener, tasks): (TcpListener, TaskTracker),
    readiness: Readiness,
    shutdown: CancellationToken,
) {
    let client = webhooks.client.clone();
    let names = names(&config);
    let Some((serving, tls)) = certificate(&client, &config, &names, &shutdown).await else {
        return;
    };
    let (tls, tls_seen) = watch::channel(tls);
    let (root, root_seen) = watch::channel(serving.root.clone());
    let handle = move |request| webhooks.clone().handle(request);
    let tls_seen: TlsSettings = tls_seen;
    tasks.spawn(http::serve(
        listener,
        Some(tls_seen),
        handle,
        shutdown.clone(),
    ));
    let target = Target {
        namespace: config.root_namespace.clone(),
        service: config.service.clone(),
    };
    let (mutating, mutating_passed) = oneshot::channel();
    let (validating, validating_passed) = oneshot::channel();
    tasks.spawn(bundle::keep::<MutatingWebhookConfiguration>(
        client.clone(),
        target.clone(),
        root_seen.clone(),
        mutating,
        shutdown.clone(),
    ));
    tasks.spawn(bundle::keep::<ValidatingWebhookConfiguration>(
        client.clone(),
        target,
        root_seen,
        validating,
        shutdown.clone(),
    ));
    // Whoever waits for readiness creates pods next: their webhook must be trusted by then.
    let trusted = async { tokio::join!(mutating_passed, validating_passed) };
    if tokio::time::timeout(TRUST_TIME, trusted).await.is_err() {
        tracing::warn!("the webhook configurations cannot be brought up to date; going on without");
    }
    let Readiness { mut synced, ready } = readiness;
    let known = tokio::select! {
        () = shutdown.cancelled() => return,
        known = synced.wait_for(|synced| *synced) => known.is_ok(),
    };
    ready.send_replace(known);
    let mut serving = serving;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(CERTIFICATE_CHECK) => {}
        }
        if !serving.is_due(SystemTime::now()) {
            continue;
        }
        if let Some((renewed, settings)) = certificate(&client, &config, &names, &shutdown).await {
            tls.send_replace(settings);
            root.send_replace(renewed.root.clone());
            serving = renewed;
        }
    }
}

/// Names under which the API server may call the webhooks.
fn names(config: &Config) -> Vec<String> {
    let (service, namespace) = (&config.service, &config.root_namespace);
    let domain = &config.injection.domain;
    vec![
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}.svc.{domain}"),
        format!("{service}.{namespace}"),
    ]
}

/// The certificate, asked for until there is one or it is time to stop.
async fn certificate(
    client: &Client,
    config: &Config,
    names: &[String],
    shutdown: &CancellationToken,
) -> Option<(Serving, Arc<rustls::ServerConfig>)> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        let loaded = certificate::load(client.clone(), &config.root_namespace, names).await;
        match loaded.and_then(|serving| serving.tls().map(|tls| (serving, tls))) {
            Ok(both) => return Some(both),
            Err(e) => tracing::warn!("{e}; trying again"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return None,
            () = tokio::time::sleep(backoff.next_delay()) => {}
        }
    }
}
