//! The proxy's end: keeps a stream to the control plane and turns it into updates.

use crate::cache::{Cache, Loaded};
pub use crate::node::id as node_id;
use crate::subscription::Subscription;
use crate::{connect, node};
use lateen_base::backoff::Backoff;
use lateen_model::lookup::Lookup;
use lateen_model::mesh::Scope;
use lateen_model::resource::{Key, Resource};
use lateen_proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use lateen_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};

/// Quiet time before the cache is written, so that a burst of changes is written once.
const CACHE_DELAY: Duration = Duration::from_secs(1);

/// Largest response taken; the server keeps to 1 MiB unless one resource alone is larger.
const RESPONSE_BYTES: usize = 16 << 20;

/// Largest token taken from its file, in bytes. Tokens of Kubernetes have about 1 KiB.
const TOKEN_BYTES: usize = 16 << 10;

/// A connection to the control plane: plain TCP or TLS.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection that is being opened.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send>>;

/// Opens one connection to the control plane; called for each attempt. An error says what went wrong.
pub type Connect = Arc<dyn Fn() -> Connecting + Send + Sync>;

/// What the client connects to and who it says it is.
#[derive(Clone)]
pub struct Options {
    /// `host:port` of the control plane, as requests and messages name it.
    pub address: String,
    /// How connections to it are opened: [`plain`], or with TLS.
    pub connect: Connect,
    /// File with the service account's token, read anew for each stream; absent, or no such file: none is shown.
    pub token: Option<PathBuf>,
    /// What this proxy is; travels in the node metadata and filters what it is sent.
    pub scope: Scope,
    /// `<type>~<ip>~<name>.<ns>~<ns>.svc.<domain>`; [`node_id`] makes it.
    pub node_id: String,
    /// Version of this proxy, for status.
    pub version: String,
    /// File that keeps the last good configuration; absent: none is kept.
    pub cache: Option<PathBuf>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("address", &self.address)
            .field("token", &self.token)
            .field("node_id", &self.node_id)
            .field("version", &self.version)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

/// Connections in plain text to `address`, with `prepare` called on each socket before it connects. The control
/// plane serves them only when it was asked to, and sends no credentials over them.
pub fn plain(address: &str, prepare: Prepare) -> Connect {
    let address = address.to_owned();
    Arc::new(move || {
        let address = address.clone();
        Box::pin(async move {
            let stream = connect::dial(&address, prepare).await?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    })
}

/// What the client tells its owner.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// Resources changed.
    Changed {
        /// New or replaced.
        changed: Vec<Resource>,
        /// Gone.
        removed: Vec<Key>,
    },
    /// What came so far is a whole configuration: every kind had its first answer, or the cache was
    /// loaded. Sent at most once after the cache and once after each connection's first full answer.
    Synced,
    /// Lookups that are answered: everything that they bring came before, and changes of it come from now on.
    Found(Vec<Lookup>),
    /// Lookups that were given up for newer ones: what they brought may be taken away. Who needs it asks again.
    Forgotten(Vec<Lookup>),
}

/// Sets options of a socket before it connects, such as the mark that exempts it from capture.
pub type Prepare = fn(&TcpSocket) -> io::Result<()>;

/// Loads the cache, connects, and sends what changes until `updates` is closed. Reconnects for ever,
/// with growing delays; what was received stays in force meanwhile. What comes in by `lookups` is asked for.
pub async fn run(options: Options, lookups: mpsc::Receiver<Lookup>, updates: mpsc::Sender<Update>) {
    let cache = options.cache.clone();
    let client = Client {
        cache: cache.map(|path| Cache::new(path, options.node_id.clone())),
        cache_due: None,
        complete: false,
        subscription: Subscription::default(),
        options,
        lookups,
        updates,
    };
    // It ends when nobody listens to updates any more.
    let _ = client.run().await;
}

struct Client {
    options: Options,
    lookups: mpsc::Receiver<Lookup>,
    updates: mpsc::Sender<Update>,
    subscription: Subscription,
    cache: Option<Cache>,
    cache_due: Option<Instant>,
    /// Whether what is held is a whole configuration: only such is written to the cache.
    complete: bool,
}

/// Nobody listens to updates any more.
struct Closed;

/// Why a stream ended.
enum End {
    Closed,
    Lost(String),
}

impl From<Closed> for End {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

impl Client {
    async fn run(mut self) -> Result<(), Closed> {
        self.load_cache().await?;
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        loop {
            let started = Instant::now();
            let reason = match self.stream().await {
                Err(End::Closed) => return Err(Closed),
                Err(End::Lost(reason)) => reason,
                Ok(()) => "the control plane closed the stream".to_owned(),
            };
            // A stream that lived was a success.
            if started.elapsed() > Duration::from_secs(10) {
                backoff.reset();
            }
            let delay = backoff.next_delay();
            tracing::info!(
                "no control plane at {}: {reason}; the last configuration stays in force, next try in {} ms",
                self.options.address,
                delay.as_millis()
            );
            self.pause(delay).await?;
        }
    }

    async fn load_cache(&mut self) -> Result<(), Closed> {
        let Some(cache) = &self.cache else {
            return Ok(());
        };
        let loaded = cache.load().unwrap_or_else(|error| {
            tracing::warn!("{error}");
            Loaded::default()
        });
        if loaded.resources.is_empty() {
            return Ok(());
        }
        let count = loaded.resources.len();
        tracing::info!("starting from {count} cached resources");
        self.complete = true;
        let mut changed = Vec::with_capacity(count);
        for (resource, version) in loaded.resources {
            self.subscription.remember(&resource.key(), &version);
            changed.push(resource);
        }
        self.send(Update::Changed {
            changed,
            removed: Vec::new(),
        })
        .await?;
        for lookup in &loaded.lookups {
            self.subscription.remember_lookup(lookup.clone());
        }
        if !loaded.lookups.is_empty() {
            self.send(Update::Found(loaded.lookups)).await?;
        }
        self.send(Update::Synced).await
    }

    /// Waits between two streams; the cache is written in between when it is due.
    async fn pause(&mut self, delay: Duration) -> Result<(), Closed> {
        let until = Instant::now() + delay;
        loop {
            let cache_due = self.cache_due;
            tokio::select! {
                () = tokio::time::sleep_until(until) => return Ok(()),
                () = due(cache_due) => self.flush_cache().await,
                () = self.updates.closed() => return Err(Closed),
            }
        }
    }

    /// One stream, from connecting to its end.
    async fn stream(&mut self) -> Result<(), End> {
        let lost = |reason: String| End::Lost(reason);
        let connecting = connect::channel(&self.options.address, Arc::clone(&self.options.connect));
        let channel = tokio::select! {
            channel = connecting => channel.map_err(|e| lost(e.to_string()))?,
            () = self.updates.closed() => return Err(End::Closed),
        };
        let mut service = AggregatedDiscoveryServiceClient::new(channel)
            .max_decoding_message_size(RESPONSE_BYTES);
        let (scope, version) = (&self.options.scope, &self.options.version);
        let opening = self
            .subscription
            .open(node::encode(scope, &self.options.node_id, version));
        // Requests are the opening ones, then one for each response: the channel never fills up.
        let (requests, receiver) = mpsc::channel(opening.len() + 16);
        for request in opening {
            let _ = requests.try_send(request);
        }
        let mut request = tonic::Request::new(ReceiverStream::new(receiver));
        if let Some(token) = token(self.options.token.as_deref()).await {
            request.metadata_mut().insert("authorization", token);
        }
        let response = service
            .delta_aggregated_resources(request)
            .await
            .map_err(|status| lost(status.message().to_owned()))?;
        let mut responses = response.into_inner();
        loop {
            let cache_due = self.cache_due;
            let response = tokio::select! {
                response = responses.message() => response,
                Some(lookup) = self.lookups.recv() => {
                    if let Some(request) = self.ask(lookup).await?
                        && requests.send(request).await.is_err()
                    {
                        return Err(lost("the stream ended".to_owned()));
                    }
                    continue;
                }
                () = due(cache_due) => {
                    self.flush_cache().await;
                    continue;
                }
                () = self.updates.closed() => return Err(End::Closed),
            };
            match response.map_err(|status| lost(status.message().to_owned()))? {
                None => return Ok(()),
                Some(response) => {
                    let reply = self.take(response).await?;
                    if requests.send(reply).await.is_err() {
                        return Err(lost("the stream ended".to_owned()));
                    }
                }
            }
        }
    }

    /// The request for one more lookup; absent: it was asked already.
    async fn ask(&mut self, lookup: Lookup) -> Result<Option<DeltaDiscoveryRequest>, Closed> {
        let Some(asking) = self.subscription.ask(lookup) else {
            return Ok(None);
        };
        if !asking.forgotten.is_empty() {
            self.send(Update::Forgotten(asking.forgotten)).await?;
        }
        Ok(Some(asking.request))
    }

    /// Hands on what a response brought; the acknowledgement comes after, so that what is acknowledged
    /// is in the owner's hands.
    async fn take(
        &mut self,
        response: DeltaDiscoveryResponse,
    ) -> Result<DeltaDiscoveryRequest, Closed> {
        let outcome = self.subscription.on_response(response);
        for refusal in &outcome.refused {
            tracing::warn!("refused what the control plane sent, the old value stays: {refusal}");
        }
        if let Some(cache) = &mut self.cache {
            for (key, raw) in outcome.raw {
                cache.note(key, raw);
            }
        }
        if !outcome.changed.is_empty() || !outcome.removed.is_empty() {
            let (changed, removed) = (outcome.changed, outcome.removed);
            self.send(Update::Changed { changed, removed }).await?;
        }
        if !outcome.found.is_empty() {
            if let Some(cache) = &mut self.cache {
                cache.note_lookups(self.subscription.lookups());
            }
            self.send(Update::Found(outcome.found)).await?;
        }
        if outcome.synced {
            self.complete = true;
            self.send(Update::Synced).await?;
        }
        let dirty = self.cache.as_ref().is_some_and(Cache::is_dirty);
        if self.complete && dirty && self.cache_due.is_none() {
            self.cache_due = Some(Instant::now() + CACHE_DELAY);
        }
        Ok(outcome.reply)
    }

    async fn send(&self, update: Update) -> Result<(), Closed> {
        self.updates.send(update).await.map_err(|_| Closed)
    }

    /// Writes the cache on a thread that may wait for the disk.
    async fn flush_cache(&mut self) {
        self.cache_due = None;
        let Some(mut cache) = self.cache.take() else {
            return;
        };
        let written = tokio::task::spawn_blocking(move || {
            let result = cache.flush();
            (cache, result)
        });
        if let Ok((cache, result)) = written.await {
            if let Err(error) = result {
                tracing::warn!("{error}");
            }
            self.cache = Some(cache);
        }
    }
}

/// The header that shows the token of a file; absent without a usable one.
async fn token(path: Option<&Path>) -> Option<MetadataValue<Ascii>> {
    let path = path?;
    let unusable = |why: &dyn fmt::Display| {
        tracing::warn!("token {}: {why}; connecting without it", path.display());
    };
    let text = match tokio::fs::read_to_string(path).await {
        Ok(text) => text,
        // The certificate may do.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            unusable(&error);
            return None;
        }
    };
    let token = text.trim();
    if token.is_empty() || token.len() > TOKEN_BYTES {
        unusable(&"it is empty or longer than 16 KiB");
        return None;
    }
    match format!("Bearer {token}").parse::<MetadataValue<Ascii>>() {
        Ok(mut header) => {
            header.set_sensitive(true);
            Some(header)
        }
        Err(_) => {
            unusable(&"it has characters that no token has");
            None
        }
    }
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
