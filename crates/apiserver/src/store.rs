//! The stored objects: one revision counter, optimistic concurrency, an event log per resource for watches,
//! and an optional journal on disk. It knows names and `resourceVersion`, nothing else about objects.
//!
//! A write becomes visible to readers at once and to watchers when it is durable; its [`Committed::durable`]
//! resolves when it is on disk. A failed disk write takes everything back that was not durable.

mod collection;
mod journal;

pub use collection::Event;

use crate::error::ApiError;
use crate::lookup::Lookup;
use collection::Collection;
use journal::{Entry, Journal};
use parking_lot::RwLock;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{oneshot, watch};

/// A resource as storage knows it: versions share their objects.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource {
    /// API group; empty for core.
    pub group: Arc<str>,
    /// Plural name.
    pub plural: Arc<str>,
}

impl Resource {
    /// A resource from its two names.
    pub fn new(group: &str, plural: &str) -> Self {
        Self {
            group: group.into(),
            plural: plural.into(),
        }
    }
}

/// Where an object is stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// Its resource.
    pub resource: Resource,
    /// Namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// What must hold for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// No object has the key.
    Absent,
    /// The object has this `resourceVersion`.
    Revision(u64),
}

/// Why a write did not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The key is taken.
    Exists,
    /// The key is free.
    Missing,
    /// Somebody wrote in between.
    Changed,
}

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot open the object store {path}: {why}; if another program has it open, end that; if there is no room, free some; if it is damaged, remove it to start empty"
)]
pub struct OpenError {
    /// The file.
    pub path: String,
    /// What went wrong.
    pub why: String,
}

/// Objects of all resources.
pub struct Store {
    inner: Arc<RwLock<Inner>>,
    journal: Option<Journal>,
}

#[derive(Default)]
struct Inner {
    revision: u64,
    base: u64,
    collections: HashMap<Resource, Collection>,
}

impl Inner {
    fn collection(&mut self, resource: &Resource) -> &mut Collection {
        let base = self.base;
        self.collections
            .entry(resource.clone())
            .or_insert_with(|| Collection::new(base))
    }
}

/// A write that happened in memory; await [`Committed::durable`] before telling anybody.
#[must_use]
pub struct Committed {
    object: Arc<Value>,
    receipt: Option<oneshot::Receiver<Result<(), String>>>,
}

impl Committed {
    /// The written object once it is on disk (at once without a disk).
    ///
    /// # Errors
    /// 500 when the disk refused; the write is taken back.
    pub async fn durable(self) -> Result<Arc<Value>, ApiError> {
        let Some(receipt) = self.receipt else {
            return Ok(self.object);
        };
        match receipt.await {
            Ok(Ok(())) => Ok(self.object),
            Ok(Err(why)) => Err(ApiError::internal(format!(
                "the object store could not be written, so nothing was changed: {why}; check the disk that keeps it"
            ))),
            Err(_) => Err(ApiError::unavailable("the API server is shutting down")),
        }
    }
}

impl Store {
    /// An empty store that forgets everything at its end.
    pub fn in_memory() -> Self {
        // Kubernetes never hands out revision 0, which means "any" in requests.
        let inner = Inner {
            revision: 1,
            base: 1,
            ..Inner::default()
        };
        Self {
            inner: Arc::new(RwLock::new(inner)),
            journal: None,
        }
    }

    /// A store kept in a file, with what is already there.
    ///
    /// # Errors
    /// The file cannot be opened, is locked by another process, or holds something else.
    pub fn open(file: &Path) -> Result<Self, OpenError> {
        Self::open_with(journal::opener(file)).map_err(|why| OpenError {
            path: file.display().to_string(),
            why,
        })
    }

    fn open_with(opener: journal::Opener) -> Result<Self, String> {
        let (database, saved) = journal::open(&opener)?;
        let revision = saved.revision.max(1);
        let mut inner = Inner {
            revision,
            base: revision,
            ..Inner::default()
        };
        for (key, object) in saved.objects {
            inner
                .collection(&key.resource)
                .objects
                .insert((key.namespace, key.name), Arc::new(object));
        }
        let inner = Arc::new(RwLock::new(inner));
        let journal = Journal::start(database, opener, inner.clone())?;
        Ok(Self {
            inner,
            journal: Some(journal),
        })
    }

    /// Newest revision.
    pub fn revision(&self) -> u64 {
        self.inner.read().revision
    }

    /// One object.
    pub fn object(&self, key: &Key) -> Option<Arc<Value>> {
        let inner = self.inner.read();
        inner
            .collections
            .get(&key.resource)?
            .objects
            .get(&(key.namespace.clone(), key.name.clone()))
            .cloned()
    }

    /// All objects of a resource (in one namespace when given) and the revision of this view.
    pub fn all(&self, resource: &Resource, namespace: Option<&str>) -> (Vec<Arc<Value>>, u64) {
        let inner = self.inner.read();
        let objects = inner
            .collections
            .get(resource)
            .map(|collection| collection.list(namespace))
            .unwrap_or_default();
        (objects, inner.revision)
    }

    /// Writes an object, giving it its `resourceVersion`.
    ///
    /// # Errors
    /// The expectation does not hold.
    pub fn put(&self, key: &Key, expect: Expect, mut object: Value) -> Result<Committed, Refused> {
        let mut inner = self.inner.write();
        let place = (key.namespace.clone(), key.name.clone());
        let previous = inner.collection(&key.resource).objects.get(&place).cloned();
        check(previous.as_deref(), expect)?;
        inner.revision += 1;
        let revision = inner.revision;
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
        let object = Arc::new(object);
        let collection = inner.collection(&key.resource);
        collection.objects.insert(place, object.clone());
        collection.record(Event {
            revision,
            object: object.clone(),
            previous,
            deleted: false,
        });
        let receipt = self.log(&mut inner, key, revision, Some(object.clone()));
        Ok(Committed { object, receipt })
    }

    /// Removes an object. The final state carries the revision of the removal, as watchers expect.
    ///
    /// # Errors
    /// The expectation does not hold.
    pub fn remove(&self, key: &Key, expect: Expect) -> Result<Committed, Refused> {
        let mut inner = self.inner.write();
        let place = (key.namespace.clone(), key.name.clone());
        let previous = inner.collection(&key.resource).objects.get(&place).cloned();
        check(previous.as_deref(), expect)?;
        let previous = previous.ok_or(Refused::Missing)?;
        inner.revision += 1;
        let revision = inner.revision;
        let mut last = (*previous).clone();
        last["metadata"]["resourceVersion"] = json!(revision.to_string());
        let object = Arc::new(last);
        let collection = inner.collection(&key.resource);
        collection.objects.remove(&place);
        collection.record(Event {
            revision,
            object: object.clone(),
            previous: Some(previous),
            deleted: true,
        });
        let receipt = self.log(&mut inner, key, revision, None);
        Ok(Committed { object, receipt })
    }

    /// Events of a resource after a revision, oldest first, at most `limit`; absent when some of them are forgotten.
    /// Only durable ones.
    pub fn events(&self, resource: &Resource, after: u64, limit: usize) -> Option<Vec<Event>> {
        let inner = self.inner.read();
        match inner.collections.get(resource) {
            Some(collection) => collection.after(after, limit),
            None if after < inner.base => None,
            None => Some(Vec::new()),
        }
    }

    /// Tells the newest durable revision of a resource whenever it changes.
    pub fn subscribe(&self, resource: &Resource) -> watch::Receiver<u64> {
        self.inner.write().collection(resource).newest.subscribe()
    }

    /// A revision up to which a watcher that has seen all durable events of a resource is up to date.
    /// Ask before [`Store::events`], not after.
    pub fn settled(&self, resource: &Resource) -> u64 {
        let inner = self.inner.read();
        match inner.collections.get(resource) {
            Some(collection) if collection.is_pending() => *collection.newest.borrow(),
            _ => inner.revision,
        }
    }

    /// Every stored object in one consistent view.
    pub fn everything(&self) -> Vec<(Resource, Arc<Value>)> {
        let inner = self.inner.read();
        let mut all = Vec::new();
        for (resource, collection) in &inner.collections {
            all.extend(
                collection
                    .objects
                    .values()
                    .map(|object| (resource.clone(), object.clone())),
            );
        }
        all
    }

    fn log(
        &self,
        inner: &mut Inner,
        key: &Key,
        revision: u64,
        object: Option<Arc<Value>>,
    ) -> Option<oneshot::Receiver<Result<(), String>>> {
        match &self.journal {
            Some(journal) => Some(journal.append(Entry {
                key: key.clone(),
                revision,
                object,
            })),
            None => {
                inner.collection(&key.resource).publish(revision);
                None
            }
        }
    }
}

impl Lookup for Store {
    fn list(&self, group: &str, resource: &str, namespace: Option<&str>) -> Vec<Arc<Value>> {
        self.all(&Resource::new(group, resource), namespace).0
    }

    fn find(
        &self,
        group: &str,
        resource: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Option<Arc<Value>> {
        let namespace = namespace.unwrap_or_default().to_owned();
        self.object(&Key {
            resource: Resource::new(group, resource),
            namespace,
            name: name.to_owned(),
        })
    }
}

/// The `resourceVersion` of a stored object as a number.
pub fn revision_of(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

fn check(previous: Option<&Value>, expect: Expect) -> Result<(), Refused> {
    match (previous, expect) {
        (None, Expect::Absent) => Ok(()),
        (Some(_), Expect::Absent) => Err(Refused::Exists),
        (None, Expect::Revision(_)) => Err(Refused::Missing),
        (Some(object), Expect::Revision(revision)) if revision_of(object) == revision => Ok(()),
        (Some(_), Expect::Revision(_)) => Err(Refused::Changed),
    }
}

#[cfg(test)]
mod tests;
