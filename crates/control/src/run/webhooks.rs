//! The webhooks' server with its certificate, and when the control plane is ready.

use super::{Readiness, names};
use crate::bundle::{self, Target};
use crate::certificate::{self, Serving};
use crate::config::Config;
use crate::http::{self, TlsSettings};
use crate::webhook::Webhooks;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use kube::Client;
use lateen_base::backoff::Backoff;
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

/// Gets a certificate, serves the webhooks, keeps the certificate's root where the API server looks for it.
/// The control plane is ready once the webhooks are open and the mesh is known.
pub(super) async fn serve(
    config: Config,
    webhooks: Webhooks,
    (listener, tasks): (TcpListener, TaskTracker),
    mut readiness: Readiness,
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
    let known = tokio::select! {
        () = shutdown.cancelled() => return,
        known = readiness.wait() => known,
    };
    readiness.ready.send_replace(known);
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
