//! What pods refer to: ConfigMaps, Secrets and Services, kept by watches, with a direct read for objects
//! that the watch has not brought yet.

use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// Objects that pods refer to.
#[derive(Clone)]
pub(crate) struct Cache {
    client: Client,
    config_maps: Store<ConfigMap>,
    secrets: Store<Secret>,
    services: Store<Service>,
    changes: Arc<watch::Sender<u64>>,
}

impl Cache {
    /// Starts the watches; they end with the runtime.
    pub(crate) fn start(client: Client) -> Self {
        let changes = Arc::new(watch::channel(0).0);
        Self {
            config_maps: keep(&client, &changes),
            secrets: keep(&client, &changes),
            services: keep(&client, &Arc::new(watch::channel(0).0)),
            changes,
            client,
        }
    }

    /// The client behind it.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Changes with every change of a ConfigMap or Secret.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// A ConfigMap, or nothing when there is none.
    ///
    /// # Errors
    /// The API server does not answer.
    pub(crate) async fn config_map(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<ConfigMap>>, String> {
        self.find(&self.config_maps, namespace, name).await
    }

    /// A Secret, or nothing when there is none.
    ///
    /// # Errors
    /// The API server does not answer.
    pub(crate) async fn secret(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Secret>>, String> {
        self.find(&self.secrets, namespace, name).await
    }

    /// All services known so far.
    pub(crate) fn services(&self) -> Vec<Arc<Service>> {
        self.services.state()
    }

    /// A service known so far.
    pub(crate) fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.services.get(&ObjectRef::new(name).within(namespace))
    }

    async fn find<K>(
        &self,
        store: &Store<K>,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<K>>, String>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        if let Some(found) = store.get(&ObjectRef::new(name).within(namespace)) {
            return Ok(Some(found));
        }
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        api.get_opt(name)
            .await
            .map(|found| found.map(Arc::new))
            .map_err(|e| format!("cannot read {name}: {e}"))
    }
}

fn keep<K>(client: &Client, changes: &Arc<watch::Sender<u64>>) -> Store<K>
where
    K: Resource<DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let (store, writer) = reflector::store();
    let events = watcher(Api::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .modify(|object: &mut K| object.meta_mut().managed_fields = None);
    let changes = changes.clone();
    tokio::spawn(async move {
        let mut events = std::pin::pin!(reflector::reflector(writer, events));
        while let Some(event) = events.next().await {
            match event {
                Ok(_) => changes.send_modify(|n| *n += 1),
                Err(error) => tracing::debug!(%error, "a watch was interrupted"),
            }
        }
    });
    store
}
