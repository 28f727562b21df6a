//! The control plane's end: an encoded-once store and the streams that follow it.

use crate::codec::{decode, type_url};
pub use crate::session::{KindStatus, ProxyStatus};
use crate::session::{Refused, Session};
pub use crate::table::Applied;
use crate::table::{SlotId, Table, version_text};
use lateen_base::Str;
use lateen_model::resource::{Key, Kind, Resource};
use lateen_proto::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use lateen_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Response, Status, Streaming};

/// A client that does not answer for so long is cut off; it will resume where it was.
const ACK_TIMEOUT: Duration = Duration::from_secs(60);

/// Largest request taken. Versions of what a client holds are the largest part of any request.
const REQUEST_BYTES: usize = 4 << 20;

/// Streams that one proxy (by identity and node id) may have: one, and those that it has lost and that have not been
/// noticed to be gone.
const STREAMS_OF_ONE: usize = 16;

/// Streams of one identity: pods may share a service account.
const STREAMS_OF_IDENTITY: usize = 4096;

/// The resources that proxies are sent. A cheap handle: clones share one store.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    table: RwLock<Table>,
    /// Generation of the table, or readiness, changed.
    changed: watch::Sender<u64>,
    streams: Mutex<HashMap<u64, StreamState>>,
    next_stream: AtomicU64,
    converged: watch::Sender<u64>,
}

/// What the store knows of one stream.
#[derive(Debug, Default)]
struct StreamState {
    status: Option<ProxyStatus>,
    acked: Option<u64>,
    settled: u64,
    /// Who proved to have opened it; absent on a plaintext connection.
    identity: Option<Identity>,
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
            inner: Arc::new(Inner {
                table: RwLock::default(),
                changed: watch::Sender::new(0),
                streams: Mutex::default(),
                next_stream: AtomicU64::new(0),
                converged: watch::Sender::new(0),
            }),
        }
    }

    /// Puts resources in and takes others out; encodes each changed one once and wakes every stream
    /// that it concerns. What is equal to the stored value changes nothing.
    pub fn apply(&self, changed: Vec<Resource>, removed: Vec<Key>) -> Applied {
        let settled = {
            let streams = self.inner.streams.lock();
            let subscribed = streams.values().filter(|s| s.acked.is_some());
            subscribed.map(|s| s.settled).min().unwrap_or(u64::MAX)
        };
        let applied = {
            let mut table = self.inner.table.write();
            let applied = table.apply(changed, removed);
            table.forget_removed(settled.min(applied.generation.saturating_sub(1)));
            applied
        };
        if applied.changed + applied.removed > 0 {
            self.inner.changed.send_replace(applied.generation);
            self.inner.note_convergence();
        }
        applied
    }

    /// Says that the first full synchronisation is done: streams get answers from now on.
    pub fn mark_ready(&self) {
        let generation = {
            let mut table = self.inner.table.write();
            table.mark_ready();
            table.generation()
        };
        self.inner.changed.send_replace(generation);
    }

    /// Connected proxies, in order of node id. Streams that have not said who they are are left out.
    pub fn proxies(&self) -> Vec<ProxyStatus> {
        let streams = self.inner.streams.lock();
        let mut all: Vec<_> = streams.values().filter_map(|s| s.status.clone()).collect();
        all.sort_by(|a, b| (&a.node_id, a.connected_at).cmp(&(&b.node_id, b.connected_at)));
        all
    }

    /// Stored resources of one kind, in order of name, decoded from the very bytes that are sent.
    pub fn debug_dump(&self, kind: Kind) -> Vec<DumpEntry> {
        self.dump(kind, |_, _| true)
    }

    /// As [`Self::debug_dump`]: what a proxy is sent when it asks for the kind.
    pub fn dump_for(&self, proxy: &ProxyStatus, kind: Kind) -> Vec<DumpEntry> {
        self.dump(kind, |table, id| proxy.is_sent(table, id))
    }

    fn dump(&self, kind: Kind, wanted: impl Fn(&Table, SlotId) -> bool) -> Vec<DumpEntry> {
        let table = self.inner.table.read();
        let entry = |id| {
            let slot = table.slot(id);
            let wanted = slot.alive && wanted(&table, id);
            let resource = wanted.then(|| decode(type_url(kind), &slot.bytes).ok())??;
            Some(DumpEntry {
                key: slot.key.clone(),
                version: version_text(slot.version),
                size: slot.bytes.len(),
                resource,
            })
        };
        let mut all: Vec<_> = table.ids_of(kind).filter_map(entry).collect();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all
    }

    /// One resource, decoded from the bytes that are sent.
    pub fn resource(&self, key: &Key) -> Option<Resource> {
        let table = self.inner.table.read();
        let slot = table.slot(table.find(key.kind, &key.name)?);
        let alive = slot.alive.then_some(&slot.bytes)?;
        decode(type_url(key.kind), alive).ok()
    }

    /// The store's generation as it grows; it also wakes when the store becomes ready.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }

    /// The newest generation that every subscribed proxy has acknowledged (accepted or refused); that
    /// of the store when nobody is connected. It only grows.
    pub fn converged(&self) -> watch::Receiver<u64> {
        self.inner.converged.subscribe()
    }

    /// The store's generation.
    pub fn generation(&self) -> u64 {
        self.inner.table.read().generation()
    }
}

impl Inner {
    fn note_convergence(&self) {
        let generation = self.table.read().generation();
        let streams = self.streams.lock();
        let acked = streams.values().filter_map(|s| s.acked).min();
        let lowest = acked.unwrap_or(generation);
        self.converged.send_if_modified(|value| {
            let grows = lowest > *value;
            *value = lowest.max(*value);
            grows
        });
    }
}

/// Who a proxy proved to be: a service account of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its namespace.
    pub namespace: Str,
    /// Its name.
    pub service_account: Str,
}

/// Decides who may open a stream. It is asked once for each.
#[tonic::async_trait]
pub trait Gate: Send + Sync + 'static {
    /// Who the peer is, by the stream's metadata (a token) or the connection's extensions (a certificate).
    /// None: served without proof; such a proxy is never sent what is for single service accounts.
    ///
    /// # Errors
    /// The status that the peer gets instead of a stream.
    async fn admit(
        &self,
        metadata: &MetadataMap,
        extensions: &Extensions,
    ) -> Result<Option<Identity>, Status>;
}

/// The gate of a plaintext port: everybody may enter, and nobody is known.
#[derive(Debug, Clone, Copy)]
pub struct Unguarded;

#[tonic::async_trait]
impl Gate for Unguarded {
    async fn admit(&self, _: &MetadataMap, _: &Extensions) -> Result<Option<Identity>, Status> {
        Ok(None)
    }
}

/// The gRPC service that serves `store`'s resources to whom `gate` admits. A proxy whose node says it is in another
/// namespace or has another service account than it proved is refused.
pub fn service(store: Store, gate: Arc<dyn Gate>) -> AggregatedDiscoveryServiceServer<Streams> {
    AggregatedDiscoveryServiceServer::new(Streams { store, gate })
        .max_decoding_message_size(REQUEST_BYTES)
}

/// The discovery service: one task for each stream.
#[derive(Clone)]
pub struct Streams {
    store: Store,
    gate: Arc<dyn Gate>,
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams").finish_non_exhaustive()
    }
}

type Answer = Result<DeltaDiscoveryResponse, Status>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Streams {
    type DeltaAggregatedResourcesStream = ReceiverStream<Answer>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let admitted = self.gate.admit(request.metadata(), request.extensions());
        let identity = admitted.await?;
        let full = |_| {
            Status::resource_exhausted(format!(
                "this service account has {STREAMS_OF_IDENTITY} streams open already"
            ))
        };
        // A response of each kind and one to lookups fit: sending never waits for a client that follows the protocol.
        let (answers, receiver) = mpsc::channel(Kind::ALL.len() + 2);
        let stream = Stream::open(self.store.inner.clone(), identity, answers).map_err(full)?;
        tokio::spawn(stream.run(request.into_inner()));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// An identity has as many streams as it may.
struct TooMany;

/// One stream on its socket. Leaves the store's list when dropped.
struct Stream {
    id: u64,
    inner: Arc<Inner>,
    session: Session,
    answers: mpsc::Sender<Answer>,
    /// When the client must have answered; absent while nothing waits.
    deadline: Option<Instant>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.inner.streams.lock().remove(&self.id);
        self.inner.note_convergence();
    }
}

impl Stream {
    /// Opens a stream, unless its owner has too many.
    fn open(
        inner: Arc<Inner>,
        identity: Option<Identity>,
        answers: mpsc::Sender<Answer>,
    ) -> Result<Self, TooMany> {
        let id = inner.next_stream.fetch_add(1, Ordering::Relaxed);
        {
            let mut streams = inner.streams.lock();
            let same = streams.values().filter(|state| state.identity == identity);
            if identity.is_some() && same.count() >= STREAMS_OF_IDENTITY {
                return Err(TooMany);
            }
            let state = StreamState {
                identity: identity.clone(),
                ..StreamState::default()
            };
            streams.insert(id, state);
        }
        Ok(Self {
            id,
            inner,
            session: Session::new(identity, SystemTime::now()),
            answers,
            deadline: None,
        })
    }

    /// Whether the proxy of this stream has more streams than it may, this one not counted.
    fn is_one_too_many(&self) -> bool {
        let Some(own) = self.session.node_id() else {
            return false;
        };
        let streams = self.inner.streams.lock();
        let Some(state) = streams.get(&self.id) else {
            return false;
        };
        let same = streams.iter().filter(|(id, other)| {
            let node = other.status.as_ref().map(|status| &*status.node_id);
            **id != self.id && other.identity == state.identity && node == Some(own)
        });
        same.count() >= STREAMS_OF_ONE
    }

    async fn run(mut self, mut requests: Streaming<DeltaDiscoveryRequest>) {
        let mut changed = self.inner.changed.subscribe();
        loop {
            let deadline = self.deadline;
            let late = async move {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let end = tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => self.on_request(request),
                    Ok(None) => return,
                    Err(status) => {
                        tracing::debug!(%status, "a proxy's stream ended");
                        return;
                    }
                },
                news = changed.changed() => match news {
                    Ok(()) => Ok(()),
                    Err(_) => return,
                },
                () = late => Err(Status::deadline_exceeded(format!(
                    "no acknowledgement within {} s: connect again",
                    ACK_TIMEOUT.as_secs()
                ))),
            };
            let end = match end {
                Ok(()) => self.send().await,
                Err(status) => {
                    // The client may be gone or stuck: it is cut off either way.
                    let _ = self.answers.try_send(Err(status));
                    return;
                }
            };
            if end.is_err() {
                return;
            }
        }
    }

    fn on_request(&mut self, request: DeltaDiscoveryRequest) -> Result<(), Status> {
        let refusal = request.error_detail.as_ref().map(|e| e.message.clone());
        let is_first = self.session.acked().is_none();
        let table = self.inner.table.read();
        let taken = self
            .session
            .on_request(&table, request, SystemTime::now())
            .map_err(|refused| match refused {
                Refused::Impostor { .. } => Status::permission_denied(refused.to_string()),
                Refused::TooManyNames => Status::resource_exhausted(refused.to_string()),
                _ => Status::invalid_argument(refused.to_string()),
            });
        let taken = match is_first && taken.is_ok() && self.is_one_too_many() {
            true => Err(Status::resource_exhausted(format!(
                "this proxy has {STREAMS_OF_ONE} streams open already"
            ))),
            false => taken,
        };
        if let Err(refused) = &taken {
            tracing::warn!("a proxy's stream is refused: {}", refused.message());
        }
        if let Some(reason) = refusal {
            tracing::warn!(
                node = self.session.node_id().unwrap_or("?"),
                "a proxy refuses: {reason}"
            );
        }
        taken
    }

    /// Sees to it that the table knows who refers to whom, where it has to.
    fn make_directory(&self) {
        let is_missing = || self.inner.table.read().directory().is_none();
        if self.session.needs_directory() && is_missing() {
            self.inner.table.write().make_directory();
        }
    }

    /// Sends what can go out; an error says that the client is gone.
    async fn send(&mut self) -> Result<(), mpsc::error::SendError<Answer>> {
        self.make_directory();
        let responses = {
            let table = self.inner.table.read();
            self.session.pump(&table, SystemTime::now())
        };
        // Known before the client hears of it: what it does next counts with it.
        if let Some(state) = self.inner.streams.lock().get_mut(&self.id) {
            state.status = self.session.status();
            state.acked = self.session.acked();
            state.settled = self.session.settled();
        }
        let sent = !responses.is_empty();
        for response in responses {
            self.answers.send(Ok(response)).await?;
        }
        self.deadline = match (self.session.is_waiting(), self.deadline) {
            (false, _) => None,
            (true, Some(at)) if !sent => Some(at),
            (true, _) => Some(Instant::now() + ACK_TIMEOUT),
        };
        self.inner.note_convergence();
        Ok(())
    }
}
