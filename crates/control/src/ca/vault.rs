//! The Secrets of the CA at the API server: watched one by one, written with care for other writers.

use crate::ca::secret::{PLUGGED, RECORD, SELF_SIGNED};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use kube::runtime::watcher::{self, Event};
use lateen_base::backoff::Backoff;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A Secret as it is now; none: there is no such Secret.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) name: &'static str,
    pub(crate) secret: Option<Secret>,
}

/// Where Secrets are written.
#[tonic::async_trait]
pub(crate) trait Vault: Send + Sync + 'static {
    /// Creates a Secret; false: there is one of that name already.
    async fn create(&self, secret: &Secret) -> Result<bool, String>;

    /// Replaces a Secret whose version is the given one's; false: it is not there any more, or another writer was
    /// faster.
    async fn replace(&self, secret: &Secret) -> Result<bool, String>;
}

/// The Secrets of one namespace.
pub(crate) struct Cluster(Api<Secret>);

impl Cluster {
    pub(crate) fn new(client: kube::Client, namespace: &str) -> Self {
        Self(Api::namespaced(client, namespace))
    }

    /// Follows the Secrets of the CA until `shutdown`; each is told once at the start, also when it is not there.
    pub(crate) fn watch(&self, shutdown: &CancellationToken) -> mpsc::Receiver<Stored> {
        let (sender, receiver) = mpsc::channel(16);
        for name in [PLUGGED, SELF_SIGNED, RECORD] {
            let (api, sender, shutdown) = (self.0.clone(), sender.clone(), shutdown.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = follow(api, name, sender) => {}
                }
            });
        }
        receiver
    }
}

async fn follow(api: Api<Secret>, name: &'static str, out: mpsc::Sender<Stored>) {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = watcher::watcher(api, config).boxed();
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    let mut listed = None;
    while let Some(event) = events.next().await {
        let secret = match event {
            Ok(Event::Init) => {
                listed = None;
                continue;
            }
            Ok(Event::InitApply(secret)) => {
                listed = Some(secret);
                continue;
            }
            Ok(Event::InitDone) => {
                backoff.reset();
                listed.take()
            }
            Ok(Event::Apply(secret)) => Some(secret),
            Ok(Event::Delete(_)) => None,
            Err(e) => {
                let delay = backoff.next_delay();
                tracing::warn!("watching the secret {name}: {e}; trying again in {delay:?}");
                tokio::time::sleep(delay).await;
                continue;
            }
        };
        if out.send(Stored { name, secret }).await.is_err() {
            return;
        }
    }
}

#[tonic::async_trait]
impl Vault for Cluster {
    async fn create(&self, secret: &Secret) -> Result<bool, String> {
        match self.0.create(&PostParams::default(), secret).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(e) => Err(e.to_string()),
        }
    }

    async fn replace(&self, secret: &Secret) -> Result<bool, String> {
        let name = secret.metadata.name.as_deref().unwrap_or_default();
        match self.0.replace(name, &PostParams::default(), secret).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
            Err(e) => Err(e.to_string()),
        }
    }
}
