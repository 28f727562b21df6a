//! The control plane's end: an encoded-once store and the streams that follow it.

use lateen_model::mesh::Scope;
use lateen_model::resource::{Key, Kind, Resource};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::watch;

/// The resources that proxies are sent. A cheap handle: clones share one store.
#[derive(Debug, Clone)]
pub struct Store {
    converged: Arc<watch::Sender<u64>>,
}

/// What one [`Store::apply`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    /// The store's generation afterwards; it grows with each call that changed something.
    pub generation: u64,
    /// Resources whose bytes are new.
    pub changed: usize,
    /// Resources taken out.
    pub removed: usize,
    /// Encoded size of the changed ones.
    pub bytes: usize,
}

/// One connected proxy.
#[derive(Debug, Clone)]
pub struct ProxyStatus {
    /// Node id.
    pub node_id: String,
    /// The proxy's version.
    pub version: String,
    /// What it says it is: pod, namespace, labels.
    pub scope: Scope,
    /// When its stream was opened.
    pub connected_at: SystemTime,
    /// State of each kind that it subscribed to.
    pub kinds: BTreeMap<Kind, KindStatus>,
}

/// One kind on one stream.
#[derive(Debug, Clone, Default)]
pub struct KindStatus {
    /// Resources that the proxy has been told of and not told to remove.
    pub resources: usize,
    /// Nonce of the last answer.
    pub sent: Option<String>,
    /// Nonce of the last answer that it accepted or refused.
    pub acked: Option<String>,
    /// The refusal, when the last answer was refused.
    pub nack: Option<String>,
    /// When the last answer was sent.
    pub sent_at: Option<SystemTime>,
    /// When it was acknowledged.
    pub acked_at: Option<SystemTime>,
    /// Answers sent on this stream.
    pub pushes: u64,
    /// Answers refused on this stream.
    pub rejects: u64,
}

/// One stored resource, for debug pages.
#[derive(Debug, Clone)]
pub struct DumpEntry {
    /// Its key.
    pub key: Key,
    /// Content hash, as sent on the wire.
    pub version: String,
    /// Encoded size in bytes.
    pub size: usize,
    /// The value.
    pub resource: Resource,
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl Store {
    /// An empty store: streams wait until [`Self::mark_ready`].
    pub fn new() -> Self {
        Self {
            converged: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Puts resources in and takes others out; encodes each changed one once and wakes every stream
    /// that it concerns. What is equal to the stored value changes nothing.
    pub fn apply(&self, changed: Vec<Resource>, removed: Vec<Key>) -> Applied {
        let _ = (changed, removed);
        Applied::default()
    }

    /// Says that the first full synchronisation is done: streams get answers from now on.
    pub fn mark_ready(&self) {}

    /// Connected proxies, in order of node id.
    pub fn proxies(&self) -> Vec<ProxyStatus> {
        Vec::new()
    }

    /// Stored resources of one kind, in order of name.
    pub fn debug_dump(&self, kind: Kind) -> Vec<DumpEntry> {
        let _ = kind;
        Vec::new()
    }

    /// The generation that every connected proxy has acknowledged (accepted or refused); equals
    /// [`Self::generation`] when nothing is under way or nobody is connected.
    pub fn converged(&self) -> watch::Receiver<u64> {
        self.converged.subscribe()
    }

    /// The store's generation.
    pub fn generation(&self) -> u64 {
        0
    }
}
