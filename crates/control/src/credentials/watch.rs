//! Secrets and ConfigMaps of the namespaces in which something is needed, followed one namespace at a time.

use super::content::Content;
use crate::source::{Delta, Id};
use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};
use lateen_base::Str;
use lateen_base::backoff::Backoff;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What of a namespace changed.
pub(super) type Change = (Str, Kind, Delta<Content>);

/// Where certificates are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Secret,
    ConfigMap,
}

/// The watches under way.
pub(super) struct Watches {
    client: Client,
    changes: mpsc::Sender<Change>,
    tasks: BTreeMap<Str, [JoinHandle<()>; 2]>,
}

impl Watches {
    pub(super) fn new(client: Client, changes: mpsc::Sender<Change>) -> Self {
        Self {
            client,
            changes,
            tasks: BTreeMap::new(),
        }
    }

    /// Watches these namespaces and no others; returns those whose watches it ended.
    pub(super) fn watch(&mut self, namespaces: BTreeSet<Str>) -> Vec<Str> {
        let closed: Vec<Str> = self
            .tasks
            .keys()
            .filter(|n| !namespaces.contains(*n))
            .cloned()
            .collect();
        for namespace in &closed {
            if let Some(tasks) = self.tasks.remove(namespace) {
                tasks.iter().for_each(JoinHandle::abort);
            }
        }
        for namespace in namespaces {
            if self.tasks.contains_key(&namespace) {
                continue;
            }
            let secrets = follow::<Secret>(
                Api::namespaced(self.client.clone(), &namespace),
                Content::of_secret,
                (Str::clone(&namespace), Kind::Secret),
                self.changes.clone(),
            );
            let maps = follow::<ConfigMap>(
                Api::namespaced(self.client.clone(), &namespace),
                Content::of_map,
                (Str::clone(&namespace), Kind::ConfigMap),
                self.changes.clone(),
            );
            let tasks = [tokio::spawn(secrets), tokio::spawn(maps)];
            self.tasks.insert(namespace, tasks);
        }
        closed
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        self.tasks.values().flatten().for_each(JoinHandle::abort);
    }
}

/// Follows one kind in one namespace. Objects without certificates are left out at once.
async fn follow<K>(
    api: Api<K>,
    read: fn(&K) -> Option<Content>,
    (namespace, kind): (Str, Kind),
    changes: mpsc::Sender<Change>,
) where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + 'static,
{
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    let mut events = watcher::watcher(api, watcher::Config::default()).boxed();
    let mut listed = Vec::new();
    let id = |object: &K| {
        Id::new(
            &namespace,
            object.meta().name.as_deref().unwrap_or_default(),
        )
    };
    while let Some(event) = events.next().await {
        let delta = match event {
            Ok(Event::Init) => {
                listed = Vec::new();
                continue;
            }
            Ok(Event::InitApply(object)) => {
                listed.extend(read(&object).map(|content| (id(&object), content)));
                continue;
            }
            Ok(Event::InitDone) => Delta::Replace(std::mem::take(&mut listed)),
            Ok(Event::Apply(object)) => match read(&object) {
                Some(content) => Delta::Set(id(&object), content),
                // Nothing of use in it is told as such by whoever needs it.
                None => Delta::Set(id(&object), Content::default()),
            },
            Ok(Event::Delete(object)) => Delta::Remove(id(&object)),
            Err(e) => {
                tracing::warn!("watching {kind:?}s of namespace {namespace}: {e}; trying again");
                tokio::time::sleep(backoff.next_delay()).await;
                continue;
            }
        };
        backoff.reset();
        if changes
            .send((Str::clone(&namespace), kind, delta))
            .await
            .is_err()
        {
            return;
        }
    }
}
