//! Keeps the mesh's roots in every namespace, where pods mount them: ConfigMap `istio-ca-root-cert`, and
//! `istio-ca-crl` while there are revocation lists.
//!
//! ```text
//! Namespaces --watch--.
//! ConfigMaps --watch--+--> Books: what is missing or wrong --write--> API server
//! CA --watch----------'
//! ```

#[cfg(test)]
mod tests;

use crate::ca::Trusted;
use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt};
use lateen_base::backoff::Backoff;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Namespaces without workloads of users (Istio leaves them out too).
const LEFT_OUT: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];
/// Writes at once.
const MOST_WRITES: usize = 8;
/// Wait after a write that failed.
const AGAIN: Duration = Duration::from_secs(2);
/// Wait after a write that the API server forbids: only an operator mends that.
const FORBIDDEN: Duration = Duration::from_secs(60);
/// Another replica may just be about to write the same.
const CALM: Duration = Duration::from_millis(200);

/// One of the two ConfigMaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Which {
    Roots,
    Crl,
}

impl Which {
    const BOTH: [Self; 2] = [Self::Roots, Self::Crl];

    fn name(self) -> &'static str {
        match self {
            Self::Roots => "istio-ca-root-cert",
            Self::Crl => "istio-ca-crl",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::Roots => "root-cert.pem",
            Self::Crl => "ca-crl.pem",
        }
    }
}

/// What is to be done in one namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Act {
    Create(String),
    Change(String),
    Delete,
}

/// Why a ConfigMap could not be written.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fault {
    /// The control plane lacks the right to.
    Forbidden(String),
    /// Something that may pass.
    Other(String),
}

/// What is known of the cluster and what it should be.
#[derive(Debug, Default)]
struct Books {
    trusted: Trusted,
    /// Whether the ConfigMaps were listed: before, every one would seem to be missing.
    listed: BTreeSet<Which>,
    namespaces: BTreeSet<String>,
    /// Contents by ConfigMap and namespace; none: there, but without the key.
    found: BTreeMap<(Which, String), Option<String>>,
    /// To be looked at, not before.
    due: BTreeMap<(Which, String), Instant>,
    /// Being written.
    busy: BTreeSet<(Which, String)>,
    /// Namespaces whose refusal was told.
    told: BTreeSet<String>,
}

impl Books {
    /// What is to be done for one ConfigMap; none: nothing.
    fn act(&self, which: Which, namespace: &str) -> Option<Act> {
        if !self.listed.contains(&which) || !self.namespaces.contains(namespace) {
            return None;
        }
        let want = match which {
            Which::Roots => &self.trusted.roots,
            Which::Crl => &self.trusted.crl,
        };
        let found = self.found.get(&(which, namespace.to_owned()));
        match (found, want.is_empty()) {
            (None, true) => None,
            (None, false) => Some(Act::Create(want.to_string())),
            // Roots are known from the start on and never vanish.
            (Some(_), true) => (which == Which::Crl).then_some(Act::Delete),
            (Some(found), false) if found.as_deref() == Some(want) => None,
            (Some(_), false) => Some(Act::Change(want.to_string())),
        }
    }

    fn look_at(&mut self, which: Which, namespace: &str, at: Instant) {
        if self.act(which, namespace).is_some() {
            let key = (which, namespace.to_owned());
            self.due.entry(key).or_insert(at);
        }
    }

    fn look_at_all(&mut self) {
        let now = Instant::now();
        for namespace in self.namespaces.clone() {
            for which in Which::BOTH {
                self.look_at(which, &namespace, now);
            }
        }
    }

    fn on_namespace(&mut self, event: Event<Namespace>) {
        match event {
            Event::Apply(namespace) | Event::InitApply(namespace) => {
                let name = namespace.name_any();
                let ends = namespace.metadata.deletion_timestamp.is_some();
                if ends || LEFT_OUT.contains(&name.as_str()) {
                    self.namespaces.remove(&name);
                    return;
                }
                self.namespaces.insert(name.clone());
                for which in Which::BOTH {
                    self.look_at(which, &name, Instant::now());
                }
            }
            Event::Delete(namespace) => {
                self.namespaces.remove(&namespace.name_any());
            }
            Event::Init => self.namespaces.clear(),
            Event::InitDone => {}
        }
    }

    fn on_map(&mut self, which: Which, event: Event<ConfigMap>) {
        match event {
            Event::Apply(map) | Event::InitApply(map) => {
                let namespace = map.namespace().unwrap_or_default();
                let text = map.data.and_then(|mut data| data.remove(which.key()));
                self.found.insert((which, namespace.clone()), text);
                self.look_at(which, &namespace, Instant::now() + CALM);
            }
            Event::Delete(map) => {
                let namespace = map.namespace().unwrap_or_default();
                self.found.remove(&(which, namespace.clone()));
                self.look_at(which, &namespace, Instant::now() + CALM);
            }
            Event::Init => self.found.retain(|(of, _), _| *of != which),
            Event::InitDone => {
                self.listed.insert(which);
                self.look_at_all();
            }
        }
    }

    /// The next thing to do that is due.
    fn next(&mut self) -> Option<(Which, String, Act)> {
        let now = Instant::now();
        loop {
            let due = self.due.iter();
            let ready =
                |(key, at): &(&(Which, String), &Instant)| **at <= now && !self.busy.contains(*key);
            let (which, namespace) = due.clone().find(ready)?.0.clone();
            let key = (which, namespace.clone());
            self.due.remove(&key);
            if let Some(act) = self.act(which, &namespace) {
                self.busy.insert(key);
                return Some((which, namespace, act));
            }
        }
    }

    fn done(&mut self, which: Which, namespace: String, written: Result<(), Fault>) {
        let key = (which, namespace);
        self.busy.remove(&key);
        match written {
            Ok(()) => {
                self.told.remove(&key.1);
                // The watch tells what is there now; without its word the write is repeated.
                let at = Instant::now() + AGAIN;
                if self.act(key.0, &key.1).is_some() {
                    self.due.entry(key).or_insert(at);
                }
            }
            Err(Fault::Forbidden(e)) => {
                let (name, namespace) = (key.0.name(), &key.1);
                if self.told.insert(namespace.clone()) {
                    tracing::error!(
                        "configmap {namespace}/{name} cannot be written, so pods there do not start: {e}; grant the \
                         control plane create, patch and delete on configmaps"
                    );
                }
                self.due.insert(key, Instant::now() + FORBIDDEN);
            }
            Err(Fault::Other(e)) => {
                let (name, namespace) = (key.0.name(), &key.1);
                tracing::warn!("configmap {namespace}/{name}: {e}; trying again");
                self.due.insert(key, Instant::now() + AGAIN);
            }
        }
    }

    fn wake(&self) -> Option<Instant> {
        let idle = self.due.iter().filter(|(key, _)| !self.busy.contains(*key));
        idle.map(|(_, at)| *at).min()
    }
}

type Writing = Pin<Box<dyn Future<Output = (Which, String, Result<(), Fault>)> + Send>>;

/// Keeps the ConfigMaps until `shutdown`.
pub(crate) async fn keep(
    client: Client,
    mut trusted: watch::Receiver<Trusted>,
    shutdown: CancellationToken,
) {
    let all = watcher::Config::default();
    let maps = |which: Which| {
        let named = all
            .clone()
            .fields(&format!("metadata.name={}", which.name()));
        events(Api::<ConfigMap>::all(client.clone()), named)
    };
    let mut namespaces = events(Api::<Namespace>::all(client.clone()), all.clone());
    let (mut roots, mut crls) = (maps(Which::Roots), maps(Which::Crl));
    let mut books = Books::default();
    let mut writes: FuturesUnordered<Writing> = FuturesUnordered::new();
    loop {
        books.trusted = trusted.borrow_and_update().clone();
        while writes.len() < MOST_WRITES {
            let Some((which, namespace, act)) = books.next() else {
                break;
            };
            writes.push(Box::pin(write(client.clone(), which, namespace, act)));
        }
        let full = writes.len() >= MOST_WRITES;
        let wake = books.wake().filter(|_| !full);
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = trusted.changed() => match changed {
                Ok(()) => {
                    books.trusted = trusted.borrow_and_update().clone();
                    books.look_at_all();
                }
                Err(_) => return,
            },
            Some(event) = namespaces.next() => books.on_namespace(event),
            Some(event) = roots.next() => books.on_map(Which::Roots, event),
            Some(event) = crls.next() => books.on_map(Which::Crl, event),
            Some((which, namespace, written)) = writes.next() => {
                books.done(which, namespace, written);
            }
            () = sleep(wake) => {}
        }
    }
}

async fn sleep(until: Option<Instant>) {
    match until {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// A watch that starts again after errors.
fn events<K>(api: Api<K>, config: watcher::Config) -> Pin<Box<dyn Stream<Item = Event<K>> + Send>>
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let path = api.resource_url().to_owned();
    let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    let watched = watcher::watcher(api, config).boxed();
    let state = (watched, backoff, path);
    Box::pin(futures::stream::unfold(
        state,
        |(mut watched, mut backoff, path)| async {
            loop {
                match watched.next().await? {
                    Ok(event) => {
                        backoff.reset();
                        return Some((event, (watched, backoff, path)));
                    }
                    Err(e) => {
                        let delay = backoff.next_delay();
                        tracing::warn!("watching {path}: {e}; trying again in {delay:?}");
                        tokio::time::sleep(delay).await;
                    }
                }
            }
        },
    ))
}

async fn write(
    client: Client,
    which: Which,
    namespace: String,
    act: Act,
) -> (Which, String, Result<(), Fault>) {
    let api: Api<ConfigMap> = Api::namespaced(client, &namespace);
    let body = |text: String| {
        json!({
            "metadata": { "name": which.name(), "labels": { "istio.io/config": "true" } },
            "data": { (which.key()): text },
        })
    };
    let written = match act {
        Act::Create(text) => match serde_json::from_value(body(text)) {
            Ok(map) => api.create(&PostParams::default(), &map).await.map(drop),
            Err(e) => return (which, namespace, Err(Fault::Other(e.to_string()))),
        },
        Act::Change(text) => {
            let patch = Patch::Merge(body(text));
            let how = PatchParams::default();
            api.patch(which.name(), &how, &patch).await.map(drop)
        }
        Act::Delete => {
            let how = DeleteParams::default();
            api.delete(which.name(), &how).await.map(drop)
        }
    };
    let written = match written {
        Ok(()) => Ok(()),
        Err(kube::Error::Api(status)) => match status.code {
            // Somebody was faster, or the namespace is going: the watches tell.
            404 | 409 => Ok(()),
            403 if is_ending(&status.message) => Ok(()),
            403 => Err(Fault::Forbidden(status.message.clone())),
            _ => Err(Fault::Other(status.to_string())),
        },
        Err(e) => Err(Fault::Other(e.to_string())),
    };
    (which, namespace, written)
}

/// Whether a refusal says that the namespace is being deleted (Kubernetes: cause `NamespaceTerminating`).
fn is_ending(message: &str) -> bool {
    message.contains("because it is being terminated")
}
