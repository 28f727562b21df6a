//! The control plane's end: an encoded-once store and the streams that follow it.
//!
//! What one change costs here grows with the streams that it concerns, and with nothing else.

mod frames;
mod stream;
mod streams;

use crate::codec::{decode, type_url};
use crate::encoded::Encoded;
pub use crate::session::{KindStatus, ProxyStatus};
pub use crate::table::Applied;
use crate::table::{SlotId, Table, version_text};
use lateen_base::Str;
use lateen_model::resource::{Key, Kind, Resource};
use lateen_proto::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use lateen_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use parking_lot::{Mutex, RwLock};
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};
use stream::{STREAMS_OF_IDENTITY, Stream};
use tokio::sync::{Semaphore, mpsc, watch};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::{Extensions, Request, Response, Status, Streaming};

/// Largest request taken. Versions of what a client holds are the largest part of any request.
const REQUEST_BYTES: usize = 4 << 20;

/// Streams that open at once. Each may hold a request of 4 MiB and a response of 1 MiB.
const OPENING: usize = 16;

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
    streams: Mutex<streams::Streams>,
    /// Streams that may take in what a client has, and send it the difference, at once.
    opening: Arc<Semaphore>,
    next_stream: AtomicU64,
    converged: watch::Sender<u64>,
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
                opening: Arc::new(Semaphore::new(OPENING)),
                next_stream: AtomicU64::new(0),
                converged: watch::Sender::new(0),
            }),
        }
    }

    /// [`Self::apply_encoded`] of resources that nobody has encoded yet.
    pub fn apply(&self, changed: Vec<Resource>, removed: Vec<Key>) -> Applied {
        let encoded: Vec<_> = changed.iter().map(|r| Arc::new(Encoded::of(r))).collect();
        self.apply_encoded(&encoded, removed)
    }

    /// Puts resources in and takes others out, and wakes the streams that this concerns. What is equal to the stored
    /// value changes nothing.
    pub fn apply_encoded(&self, changed: &[Arc<Encoded>], removed: Vec<Key>) -> Applied {
        let settled = self.inner.streams.lock().settled();
        let applied = {
            let mut table = self.inner.table.write();
            let applied = table.apply_encoded(changed, removed);
            table.forget_removed(settled.min(applied.generation.saturating_sub(1)));
            applied
        };
        if applied.changed + applied.removed > 0 {
            self.inner.changed.send_replace(applied.generation);
            self.inner.tell();
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
        let sessions = self.inner.streams.lock().sessions();
        let mut all: Vec<_> = sessions.iter().filter_map(|s| s.lock().status()).collect();
        all.sort_by(|a, b| (&a.node_id, a.connected_at).cmp(&(&b.node_id, b.connected_at)));
        all
    }

    /// Whether a proxy is connected.
    pub fn has_proxies(&self) -> bool {
        self.inner.streams.lock().slowest().is_some()
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
            let wanted = wanted(&table, id);
            let bytes = slot.bytes().filter(|_| wanted)?;
            let resource = decode(type_url(kind), bytes).ok()?;
            Some(DumpEntry {
                key: slot.key().clone(),
                version: version_text(slot.version),
                size: bytes.len(),
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
        decode(type_url(key.kind), slot.bytes()?).ok()
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
    /// Wakes the streams that may owe their clients something of what changed.
    fn tell(&self) {
        let mut streams = self.streams.lock();
        streams.tell(&self.table.read());
    }

    fn note_convergence(&self) {
        let slowest = self.streams.lock().slowest();
        let lowest = slowest.unwrap_or_else(|| self.table.read().generation());
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
pub fn service(store: Store, gate: Arc<dyn Gate>) -> Discovery {
    Discovery(AggregatedDiscoveryServiceServer::new(Streams {
        store,
        gate,
    }))
}

/// The discovery service. Messages are read and written by `frames`, the rest of gRPC is tonic's.
#[derive(Debug, Clone)]
pub struct Discovery(AggregatedDiscoveryServiceServer<Streams>);

impl NamedService for Discovery {
    const NAME: &'static str = <AggregatedDiscoveryServiceServer<Streams> as NamedService>::NAME;
}

impl Service<http::Request<Body>> for Discovery {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let requests = std::mem::take(request.body_mut());
        let requests = frames::Requests::new(requests, REQUEST_BYTES);
        request.extensions_mut().insert(Handed::new(requests));
        let answer = self.0.call(request);
        Box::pin(async move {
            let mut response = answer.await?;
            let handed = response
                .extensions_mut()
                .remove::<Handed<frames::Answers>>();
            if let Some(answers) = handed.and_then(|handed| handed.take()) {
                *response.body_mut() = Body::new(answers);
            }
            Ok(response)
        })
    }
}

/// Something that goes past tonic, once.
struct Handed<T>(Arc<Mutex<Option<T>>>);

impl<T> Handed<T> {
    fn new(value: T) -> Self {
        Self(Arc::new(Mutex::new(Some(value))))
    }

    fn take(&self) -> Option<T> {
        self.0.lock().take()
    }
}

impl<T> Clone for Handed<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// One task for each stream.
#[derive(Clone)]
struct Streams {
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
    /// Of no use: what is sent goes past it.
    type DeltaAggregatedResourcesStream = tokio_stream::Empty<Answer>;

    async fn delta_aggregated_resources(
        &self,
        mut request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let admitted = self.gate.admit(request.metadata(), request.extensions());
        let identity = admitted.await?;
        let requests = request
            .extensions_mut()
            .remove::<Handed<frames::Requests>>();
        let requests = requests.and_then(|handed| handed.take());
        let requests = requests.ok_or_else(|| Status::internal("the request has no body"))?;
        let full = |_| {
            Status::resource_exhausted(format!(
                "this service account has {STREAMS_OF_IDENTITY} streams open already"
            ))
        };
        // A response of each kind and one to lookups fit: sending never waits for a client that follows the protocol.
        let (answers, receiver) = mpsc::channel(Kind::ALL.len() + 2);
        let stream = Stream::open(self.store.inner.clone(), identity, answers).map_err(full)?;
        tokio::spawn(stream.run(requests));
        let mut response = Response::new(tokio_stream::empty());
        let answers = Handed::new(frames::Answers::new(receiver));
        response.extensions_mut().insert(answers);
        Ok(response)
    }
}
