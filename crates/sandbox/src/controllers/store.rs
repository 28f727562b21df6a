//! All objects of one kind: read from memory, written through to the API server.
//!
//! ```text
//! watch ──▶ Store ──▶ listeners (queues, service proxy, DNS)
//!             ▲ │
//!   own write ┘ └──▶ get, all, within
//! ```
//! A store takes the answer to each of its own writes into memory at once, so that a controller
//! sees what it has just done and never does it twice. It holds no lock while it calls anybody.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource, ResourceExt};
use lateen_base::backoff::Backoff;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Where an object lives. Cluster-wide objects have an empty namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// The key of a name in a namespace.
    pub fn new(namespace: &str, name: &str) -> Key {
        Key {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// The key of an object.
    pub fn of<K: Resource>(object: &K) -> Key {
        let meta = object.meta();
        Key {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        }
    }
}

/// What a store can hold.
pub trait Object:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize + Send + Sync + 'static
{
}
impl<K> Object for K where
    K: Resource<DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize
        + Send
        + Sync
        + 'static
{
}

/// Called with the old and the new state of an object; at least one of them is present.
type Listener<K> = Arc<dyn Fn(Option<&Arc<K>>, Option<&Arc<K>>) + Send + Sync>;

/// A change that listeners have yet to hear of.
type Change<K> = (Option<Arc<K>>, Option<Arc<K>>);

/// All objects of one kind. Clones share the same memory.
pub struct Store<K> {
    client: Client,
    inner: Arc<Mutex<Inner<K>>>,
    ready: Arc<tokio::sync::watch::Sender<bool>>,
}

impl<K> Clone for Store<K> {
    fn clone(&self) -> Self {
        Store {
            client: self.client.clone(),
            inner: self.inner.clone(),
            ready: self.ready.clone(),
        }
    }
}

struct Inner<K> {
    objects: BTreeMap<Key, Arc<K>>,
    listeners: Vec<Listener<K>>,
    /// Uids of objects that are gone, lest the late answer to a write brings one back.
    gone: VecDeque<String>,
    /// Whether a watch keeps the memory fresh; otherwise nothing is remembered.
    live: bool,
    /// The list that is being received, until it is complete.
    incoming: Option<BTreeMap<Key, Arc<K>>>,
}

impl<K: Object> Store<K> {
    /// Starts to watch a kind in the whole cluster, until `shutdown`.
    pub(super) fn watch(client: Client, shutdown: CancellationToken) -> Store<K> {
        let store = Store::detached(client.clone());
        store.inner.lock().live = true;
        let follower = store.clone();
        tokio::spawn(async move { follower.follow(Api::all(client), shutdown).await });
        store
    }

    /// A store for writing only: nothing fills it.
    pub(crate) fn detached(client: Client) -> Store<K> {
        let inner = Inner {
            objects: BTreeMap::new(),
            listeners: Vec::new(),
            gone: VecDeque::new(),
            live: false,
            incoming: None,
        };
        Store {
            client,
            inner: Arc::new(Mutex::new(inner)),
            ready: Arc::new(tokio::sync::watch::Sender::new(false)),
        }
    }

    /// One object; absent when there is none (or it is not known yet).
    pub fn find(&self, key: &Key) -> Option<Arc<K>> {
        self.inner.lock().objects.get(key).cloned()
    }

    /// Every object, ordered by namespace and name.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.inner.lock().objects.values().cloned().collect()
    }

    /// The objects of a namespace, ordered by name.
    pub fn within(&self, namespace: &str) -> Vec<Arc<K>> {
        let inner = self.inner.lock();
        inner
            .objects
            .range(Key::new(namespace, "")..)
            .take_while(|(key, _)| key.namespace == namespace)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// The objects of a namespace that a controller owns, by the owner's uid.
    pub fn owned_by(&self, namespace: &str, uid: &str) -> Vec<Arc<K>> {
        let mut objects = self.within(namespace);
        objects.retain(|object| {
            super::objects::controller_of(object.meta()).is_some_and(|owner| owner.uid == uid)
        });
        objects
    }

    /// Calls `listener` for every object now and for every change from now on, with the old and
    /// the new state. It must not block.
    pub fn on_change(
        &self,
        listener: impl Fn(Option<&Arc<K>>, Option<&Arc<K>>) + Send + Sync + 'static,
    ) {
        let listener: Listener<K> = Arc::new(listener);
        let existing = {
            let mut inner = self.inner.lock();
            inner.listeners.push(listener.clone());
            inner.objects.values().cloned().collect::<Vec<_>>()
        };
        existing
            .iter()
            .for_each(|object| listener(None, Some(object)));
    }

    /// Waits until the first full list has arrived.
    pub async fn ready(&self) {
        // The sender lives as long as this store, so that waiting cannot fail.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// Takes in a newer state of an object; older ones, and objects known to be gone, are ignored.
    pub(crate) fn note(&self, object: K) {
        let change = self.inner.lock().put(Arc::new(object));
        self.tell(change.into_iter().collect());
    }

    fn tell(&self, changes: Vec<Change<K>>) {
        let listeners = self.inner.lock().listeners.clone();
        for (old, new) in &changes {
            listeners
                .iter()
                .for_each(|listener| listener(old.as_ref(), new.as_ref()));
        }
    }

    async fn follow(&self, api: Api<K>, shutdown: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        let mut stream = std::pin::pin!(kube::runtime::watcher(api, watcher::Config::default()));
        loop {
            let event = tokio::select! {
                () = shutdown.cancelled() => return,
                event = stream.next() => event,
            };
            match event {
                Some(Ok(event)) => {
                    backoff.reset();
                    self.take(event);
                }
                Some(Err(error)) => {
                    tracing::debug!(kind = %K::kind(&()), %error, "watch interrupted");
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        () = tokio::time::sleep(backoff.next_delay()) => {}
                    }
                }
                None => return,
            }
        }
    }

    fn take(&self, event: Event<K>) {
        let changes = {
            let mut inner = self.inner.lock();
            match event {
                Event::Apply(object) => inner.put(Arc::new(object)).into_iter().collect(),
                Event::Delete(object) => inner.remove(&object).into_iter().collect(),
                Event::Init => {
                    inner.incoming = Some(BTreeMap::new());
                    Vec::new()
                }
                Event::InitApply(object) => {
                    let entry = (Key::of(&object), Arc::new(object));
                    inner.incoming.get_or_insert_default().extend([entry]);
                    Vec::new()
                }
                Event::InitDone => {
                    let changes = inner.replace();
                    drop(inner);
                    self.tell(changes);
                    self.ready.send_replace(true);
                    return;
                }
            }
        };
        self.tell(changes);
    }
}

impl<K: Object> Inner<K> {
    fn put(&mut self, object: Arc<K>) -> Option<Change<K>> {
        let uid = object.meta().uid.clone().unwrap_or_default();
        if !self.live || self.gone.contains(&uid) {
            return None;
        }
        let key = Key::of(&*object);
        if let Some(known) = self.objects.get(&key) {
            let same = known.meta().uid == object.meta().uid;
            if same && version(&**known) >= version(&*object) && version(&*object) != 0 {
                return None;
            }
        }
        let old = self.objects.insert(key, object.clone());
        Some((old, Some(object)))
    }

    fn remove(&mut self, object: &K) -> Option<Change<K>> {
        const REMEMBERED: usize = 4096;
        self.gone.extend(object.meta().uid.clone());
        while self.gone.len() > REMEMBERED {
            self.gone.pop_front();
        }
        let key = Key::of(object);
        let known = self.objects.get(&key)?;
        if known.meta().uid != object.meta().uid {
            return None;
        }
        let old = self.objects.remove(&key);
        Some((old, None))
    }

    fn replace(&mut self) -> Vec<Change<K>> {
        let incoming = self.incoming.take().unwrap_or_default();
        let mut old = std::mem::take(&mut self.objects);
        let mut changes = Vec::new();
        for (key, object) in incoming {
            let before = old.remove(&key);
            let unchanged = before.as_ref().is_some_and(|before| {
                before.meta().uid == object.meta().uid
                    && before.meta().resource_version == object.meta().resource_version
            });
            if !unchanged {
                changes.push((before, Some(object.clone())));
            }
            self.objects.insert(key, object);
        }
        changes.extend(old.into_values().map(|before| (Some(before), None)));
        changes
    }
}

/// The API server's versions are numbers that grow; anything else counts as unknown.
fn version<K: Resource>(object: &K) -> u64 {
    let version = object.meta().resource_version.as_deref();
    version
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}

/// Writing. Every answer goes to memory before the call returns.
impl<K: Object + Resource<Scope = NamespaceResourceScope>> Store<K> {
    fn api(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Creates an object in a namespace.
    pub(crate) async fn create(&self, namespace: &str, object: &K) -> kube::Result<K> {
        let created = self
            .api(namespace)
            .create(&PostParams::default(), object)
            .await?;
        self.note(created.clone());
        Ok(created)
    }

    /// Replaces an object; refused with a conflict when it has changed meanwhile.
    pub(crate) async fn replace(&self, object: &K) -> kube::Result<()> {
        let key = Key::of(object);
        let api = self.api(&key.namespace);
        self.note(
            api.replace(&key.name, &PostParams::default(), object)
                .await?,
        );
        Ok(())
    }

    /// Merges `patch` into an object (RFC 7386).
    pub(crate) async fn patch(&self, key: &Key, patch: Value) -> kube::Result<()> {
        let api = self.api(&key.namespace);
        let params = PatchParams::default();
        self.note(api.patch(&key.name, &params, &Patch::Merge(patch)).await?);
        Ok(())
    }

    /// Makes the status of an object this one. Does nothing when it already is; an object that is
    /// gone is no error.
    pub(crate) async fn set_status(
        &self,
        key: &Key,
        old: &impl Serialize,
        new: &impl Serialize,
    ) -> kube::Result<()> {
        let Some(status) = status_patch(&as_json(old), as_json(new)) else {
            return Ok(());
        };
        let api = self.api(&key.namespace);
        let params = PatchParams::default();
        let patch = Patch::Merge(json!({ "status": status }));
        match api.patch_status(&key.name, &params, &patch).await {
            Ok(object) => self.note(object),
            Err(error) if is(&error, 404) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Deletes an object, unless another one has taken its name. That it is gone is no error.
    pub(crate) async fn delete(&self, object: &K) -> kube::Result<()> {
        let key = Key::of(object);
        let uid = object.uid();
        let preconditions = Some(Preconditions {
            uid,
            resource_version: None,
        });
        let params = DeleteParams {
            preconditions,
            ..DeleteParams::background()
        };
        match self.api(&key.namespace).delete(&key.name, &params).await {
            Ok(either) => {
                if let Some(object) = either.left()
                    && object.meta().deletion_timestamp.is_some()
                {
                    self.note(object);
                }
                Ok(())
            }
            Err(error) if is(&error, 404) || is(&error, 409) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Whether the API server answered with this HTTP code.
pub(crate) fn is(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

/// What the API server said, without the wrapping.
pub(crate) fn sentence(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        other => other.to_string(),
    }
}

fn as_json(value: &impl Serialize) -> Value {
    // The types of k8s-openapi have string keys only, so that this cannot fail.
    serde_json::to_value(value).unwrap_or_default()
}

/// A merge patch from one status to another: fields that are no longer there become null.
fn status_patch(old: &Value, new: Value) -> Option<Value> {
    if *old == new {
        return None;
    }
    let (Value::Object(old), Value::Object(new)) = (old, &new) else {
        return Some(new);
    };
    let removed = old.keys().filter(|name| !new.contains_key(*name));
    let mut patch: serde_json::Map<_, _> =
        removed.map(|name| (name.clone(), Value::Null)).collect();
    for (name, value) in new {
        match (old.get(name), value) {
            (Some(before), after) if before == after => {}
            (Some(before @ Value::Object(_)), after @ Value::Object(_)) => {
                patch.extend(status_patch(before, after.clone()).map(|p| (name.clone(), p)));
            }
            (_, after) => {
                patch.insert(name.clone(), after.clone());
            }
        }
    }
    Some(Value::Object(patch))
}
