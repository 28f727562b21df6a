//! The one task that owns the graph: takes events in, commits them in batches, hands the result on.
//!
//! ```text
//! Seen --take--> graph --(10 ms quiet, 100 ms at most)--> commit --> Store::apply, statuses, counts
//! ```
//! Nothing is pushed before every source has reported once: a half-known mesh would be a wrong one. What a commit costs
//! grows with what changed; what must look at everything is done beside it ([`together`]).

mod pages;
#[cfg(test)]
mod tests;
mod together;

use crate::allocate::Allocator;
use crate::credentials::{Found, Needs};
use crate::graph::{Changes, MeshGraph, ObjectId};
use crate::inject::Settings;
use crate::jwks::Keys;
use crate::metrics::Metrics;
use crate::pages::Counts;
use crate::source::{Books, Delta, Event, Id, IstioKind, SOURCES, Seen, Written};
use crate::status::{self, Wishes};
use crate::webhook::NamespaceLabels;
use lateen_api::notice::{Notice, Severity};
use lateen_base::Str;
use lateen_model::resource::{Key, Kind};
use lateen_xds::server::Store;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Events taken in before the engine looks at anything else.
const BATCH: usize = 256;
/// A push that is not acknowledged within this is not measured any more.
const CONVERGENCE_MOST: Duration = Duration::from_secs(60);

/// How long proxies wait at the start for keys of token issuers and for credentials.
const SUPPLY_MOST: Duration = Duration::from_secs(3);

/// A page that only the engine can make.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Page {
    Configuration,
    Resources(Kind),
    PushStatus,
    Graph,
}

/// A way to ask the engine for a page.
#[derive(Clone)]
pub(crate) struct Ask(mpsc::Sender<(Page, oneshot::Sender<Value>)>);

impl Ask {
    /// The page; none when the engine has ended.
    pub(crate) async fn page(&self, page: Page) -> Option<Value> {
        let (reply, answer) = oneshot::channel();
        self.0.send((page, reply)).await.ok()?;
        answer.await.ok()
    }
}

/// What the engine works with.
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) wishes: Wishes,
    pub(crate) namespaces: NamespaceLabels,
    /// What the control plane was told about injection; MeshConfig is laid over it.
    pub(crate) injection: Settings,
    pub(crate) debounce_quiet: Duration,
    pub(crate) debounce_most: Duration,
    /// What became of fetching keys of token issuers.
    pub(crate) keys: mpsc::Receiver<Delta<Keys>>,
    /// What became of credentials.
    pub(crate) credentials: mpsc::Receiver<Delta<Found>>,
}

/// What others see of the engine.
pub(crate) struct Views {
    pub(crate) ask: Ask,
    /// Whether every source is known and was pushed.
    pub(crate) synced: watch::Receiver<bool>,
    pub(crate) counts: watch::Receiver<Counts>,
    pub(crate) settings: watch::Receiver<Settings>,
    /// Addresses that keys are to be fetched from.
    pub(crate) wanted_keys: watch::Receiver<BTreeSet<Str>>,
    /// Credentials that proxies need.
    pub(crate) needs: watch::Receiver<Needs>,
}

/// The engine.
pub(crate) struct Engine {
    parts: Parts,
    graph: MeshGraph,
    books: BTreeMap<(IstioKind, Id), Books>,
    allocator: Allocator,
    /// Objects whose books or notices changed since the last commit.
    touched: BTreeSet<(IstioKind, Id)>,
    reported: BTreeSet<u8>,
    pending: Option<Pending>,
    last_push: Option<Push>,
    asks: mpsc::Receiver<(Page, oneshot::Sender<Value>)>,
    synced: watch::Sender<bool>,
    counts: watch::Sender<Counts>,
    settings: watch::Sender<Settings>,
    wanted_keys: watch::Sender<BTreeSet<Str>>,
    needs: watch::Sender<Needs>,
    /// What keys and credentials were reported for, before proxies are served.
    supplied: Supplied,
    look: together::Look,
}

/// What is fetched for the mesh and was reported once.
#[derive(Default)]
struct Supplied {
    keys: BTreeSet<Str>,
    credentials: BTreeSet<Id>,
    /// How long proxies wait for the rest; absent: nothing was missing.
    until: Option<Instant>,
}

/// Changes that wait for a commit.
#[derive(Clone, Copy)]
struct Pending {
    first: Instant,
    last: Instant,
}

/// The last push, for `/debug/push_status`.
struct Push {
    at: jiff::Timestamp,
    generation: u64,
    /// As many as the page lists.
    changed: Vec<Key>,
    removed: Vec<Key>,
    bytes: usize,
}

impl Engine {
    /// An engine that knows nothing yet, and the views of it.
    pub(crate) fn new(parts: Parts) -> (Self, Views) {
        let (ask, asks) = mpsc::channel(16);
        let synced = watch::Sender::new(false);
        let counts = watch::Sender::new(Counts::default());
        let settings = watch::Sender::new(parts.injection.clone());
        let wanted_keys = watch::Sender::new(BTreeSet::new());
        let needs = watch::Sender::new(Needs::new());
        let views = Views {
            ask: Ask(ask),
            synced: synced.subscribe(),
            counts: counts.subscribe(),
            settings: settings.subscribe(),
            wanted_keys: wanted_keys.subscribe(),
            needs: needs.subscribe(),
        };
        let engine = Self {
            graph: MeshGraph::new(&parts.injection.domain),
            parts,
            books: BTreeMap::new(),
            allocator: Allocator::default(),
            touched: BTreeSet::new(),
            reported: BTreeSet::new(),
            pending: None,
            last_push: None,
            asks,
            synced,
            counts,
            settings,
            wanted_keys,
            needs,
            supplied: Supplied::default(),
            look: together::Look::default(),
        };
        (engine, views)
    }

    /// Works until `shutdown` or until every source has ended.
    pub(crate) async fn run(
        mut self,
        mut events: mpsc::Receiver<Seen>,
        shutdown: CancellationToken,
    ) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let due = self.due();
            tokio::select! {
                () = shutdown.cancelled() => return,
                taken = events.recv_many(&mut batch, BATCH) => {
                    if taken == 0 {
                        return;
                    }
                    for seen in batch.drain(..) {
                        self.take(seen);
                    }
                }
                Some(delta) = self.parts.keys.recv() => self.take_keys(delta),
                Some(delta) = self.parts.credentials.recv() => self.take_credential(delta),
                Some((page, reply)) = self.asks.recv() => {
                    let _ = reply.send(self.page(page));
                }
                step = self.look.step() => self.look(step),
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.commit();
                }
            }
        }
    }

    /// When the next commit is due.
    fn due(&self) -> Option<Instant> {
        let pending = self.pending?;
        if self.reported.len() < SOURCES {
            return None;
        }
        if !*self.synced.borrow() {
            return Some(self.supplied.until.unwrap_or(pending.last));
        }
        let quiet = pending.last + self.parts.debounce_quiet;
        Some(quiet.min(pending.first + self.parts.debounce_most))
    }

    /// Notes that something changed, which was seen at this time.
    fn note(&mut self, at: Instant) {
        let first = self.pending.map_or(at, |pending| pending.first);
        let last = Instant::now();
        self.pending = Some(Pending { first, last });
    }

    fn take_keys(&mut self, delta: Delta<Keys>) {
        self.note(Instant::now());
        if let Delta::Set(id, _) = &delta {
            self.supplied.keys.insert(Str::clone(&id.name));
        }
        self.graph.take(self.graph.sources.keys, delta);
        self.look_at_supply();
    }

    fn take_credential(&mut self, delta: Delta<Found>) {
        self.note(Instant::now());
        if let Delta::Set(id, _) = &delta {
            self.supplied.credentials.insert(id.clone());
        }
        self.graph.take(self.graph.sources.credentials, delta);
        self.look_at_supply();
    }

    /// Ends the wait of proxies once nothing is missing any more.
    fn look_at_supply(&mut self) {
        if self.supplied.until.is_some() && !self.is_short() {
            self.supplied.until = None;
        }
    }

    /// Whether keys or credentials are wanted of which nothing was heard yet.
    fn is_short(&self) -> bool {
        let keys = &self.supplied.keys;
        let credentials = &self.supplied.credentials;
        let (wanted, needs) = (self.wanted_keys.borrow(), self.needs.borrow());
        wanted.iter().any(|uri| !keys.contains(uri))
            || needs.keys().any(|id| !credentials.contains(id))
    }

    /// Takes one event into the graph; it counts from the next commit.
    pub(crate) fn take(&mut self, seen: Seen) {
        self.note(seen.at);
        let graph = &mut self.graph;
        let (source, replaced) = match seen.event {
            Event::Namespace(delta) => {
                self.label(&delta);
                (0, is_replace(&delta))
            }
            Event::Service(delta) => (1, graph.take(graph.sources.services, *delta)),
            Event::EndpointSlice(delta) => (2, graph.take(graph.sources.slices, delta)),
            Event::Pod(delta) => (3, graph.take(graph.sources.pods, delta)),
            Event::MeshConfig(delta) => (4, graph.take(graph.sources.mesh_text, delta)),
            Event::Node(delta) => (5, graph.take(graph.sources.nodes, delta)),
            Event::Istio(kind, delta) => {
                let delta = self.keep_books(kind, *delta);
                let source = self.graph.sources.istio(kind);
                let events = &self.parts.metrics.config_events;
                events.add(event_name(&delta), 1);
                (6 + kind as u8, self.graph.take(source, delta))
            }
        };
        if source < 6 {
            let name = [
                "Namespace",
                "Service",
                "EndpointSlice",
                "Pod",
                "ConfigMap",
                "Node",
            ];
            let events = &self.parts.metrics.registry_events;
            events.add(name[usize::from(source)], 1);
        }
        if replaced {
            self.reported.insert(source);
        }
    }

    fn label(&self, delta: &Delta<BTreeMap<String, String>>) {
        let mut namespaces = self.parts.namespaces.write();
        match delta {
            Delta::Set(id, labels) => {
                namespaces.insert(id.name.to_string(), labels.clone());
            }
            Delta::Remove(id) => {
                namespaces.remove(&*id.name);
            }
            Delta::Replace(all) => {
                *namespaces = all
                    .iter()
                    .map(|(id, labels)| (id.name.to_string(), labels.clone()))
                    .collect();
            }
        }
    }

    /// Splits what an object says from its books.
    fn keep_books(&mut self, kind: IstioKind, delta: Delta<(Written, Books)>) -> Delta<Written> {
        let allocator = &mut self.allocator;
        let allocates = kind == IstioKind::ServiceEntry;
        let mut keep = |id: &Id, written: &Written, books: Books| {
            if allocates {
                allocator.see(id, written, &books);
            }
            self.touched.insert((kind, id.clone()));
            self.books.insert((kind, id.clone()), books);
        };
        match delta {
            Delta::Set(id, (written, books)) => {
                keep(&id, &written, books);
                Delta::Set(id, written)
            }
            Delta::Remove(id) => {
                self.books.remove(&(kind, id.clone()));
                self.parts.wishes.forget(kind, &id);
                if allocates {
                    self.allocator.forget(&id);
                }
                Delta::Remove(id)
            }
            Delta::Replace(all) => {
                let here: BTreeSet<Id> = all.iter().map(|(id, _)| id.clone()).collect();
                let rows = all
                    .into_iter()
                    .map(|(id, (written, books))| {
                        keep(&id, &written, books);
                        (id, written)
                    })
                    .collect();
                if allocates {
                    self.allocator.keep(&here);
                }
                self.books
                    .retain(|(of, id), _| *of != kind || here.contains(id));
                Delta::Replace(rows)
            }
        }
    }

    /// Lets everything taken in count: derives, pushes, reports.
    pub(crate) fn commit(&mut self) {
        let Some(pending) = self.pending.take() else {
            return;
        };
        self.allocate();
        let waited = pending.first.elapsed();
        let changes = self.graph.commit();
        tracing::debug!(
            "derived in {:?} after waiting for {waited:?}",
            pending.first.elapsed() - waited
        );
        self.report(&changes);
        self.push(changes, pending.first);
        self.publish();
        if self.graph.take_stale() {
            self.look.note();
        }
        if *self.synced.borrow() || self.waits_for_supply() {
            return;
        }
        self.synced.send_replace(true);
        self.parts.store.mark_ready();
        // From now on what is missing comes as a change of its own.
        self.supplied = Supplied::default();
        tracing::info!("every source is known; proxies are served from now on");
    }

    /// Gives addresses to ServiceEntries that have none. Every status was read by now.
    fn allocate(&mut self) {
        for (id, allocated) in self.allocator.settle() {
            self.touched.insert((IstioKind::ServiceEntry, id.clone()));
            let delta = match allocated {
                Some(allocated) => Delta::Set(id, allocated),
                None => Delta::Remove(id),
            };
            self.graph.take(self.graph.sources.allocated, delta);
        }
    }

    /// Whether proxies are to wait for keys and credentials: after a restart of the control plane they have them
    /// already, and must not be told for a moment that there are none.
    fn waits_for_supply(&mut self) -> bool {
        let now = Instant::now();
        let until = self.supplied.until.unwrap_or(now + SUPPLY_MOST);
        if !self.is_short() || until <= now {
            return false;
        }
        self.supplied.until = Some(until);
        self.note(now);
        true
    }

    fn push(&mut self, changes: Changes, first: Instant) {
        let Changes {
            changed, removed, ..
        } = changes;
        if changed.is_empty() && removed.is_empty() {
            return;
        }
        let mut by_kind = BTreeMap::<Kind, u64>::new();
        for key in changed.iter().map(|encoded| encoded.key()).chain(&removed) {
            *by_kind.entry(key.kind).or_default() += 1;
        }
        let changed_keys = changed.iter().map(|encoded| encoded.key().clone());
        let changed_keys: Vec<Key> = changed_keys.take(pages::MOST_KEYS).collect();
        let removed_keys: Vec<Key> = removed.iter().take(pages::MOST_KEYS).cloned().collect();
        let applied = self.parts.store.apply_encoded(&changed, removed);
        let metrics = &self.parts.metrics;
        metrics.debounce.record(first.elapsed());
        metrics.pushes.add(1);
        metrics.resources_pushed.add(applied.changed as u64);
        metrics.bytes_pushed.add(applied.bytes as u64);
        for (kind, count) in by_kind {
            metrics.pushes_by_type.add(&format!("{kind:?}"), count);
        }
        tracing::debug!(
            "push {}: {} changed, {} removed, {} bytes",
            applied.generation,
            applied.changed,
            applied.removed,
            applied.bytes
        );
        self.last_push = Some(Push {
            at: jiff::Timestamp::now(),
            generation: applied.generation,
            changed: changed_keys,
            removed: removed_keys,
            bytes: applied.bytes,
        });
        if self.parts.store.has_proxies() {
            self.measure(applied.generation, first);
        }
    }

    /// Records how long it takes until every proxy has answered this generation.
    fn measure(&self, generation: u64, first: Instant) {
        let mut converged = self.parts.store.converged();
        let metrics = Arc::clone(&self.parts.metrics);
        tokio::spawn(async move {
            let all = converged.wait_for(|reached| *reached >= generation);
            if let Ok(Ok(_)) = tokio::time::timeout(CONVERGENCE_MOST, all).await {
                metrics.convergence.record(first.elapsed());
            }
        });
    }

    /// Logs what is new about objects and asks for their statuses.
    fn report(&mut self, changes: &Changes) {
        for change in &changes.noticed {
            let old = change.old.as_deref().map(Vec::as_slice).unwrap_or_default();
            let new = change.new.as_deref().map(Vec::as_slice).unwrap_or_default();
            for notice in new.iter().filter(|notice| !old.contains(notice)) {
                match notice.severity {
                    Severity::Error if self.graph.is_refused(&change.key) => {
                        tracing::error!("{notice}");
                    }
                    Severity::Error | Severity::Warning => tracing::warn!("{notice}"),
                    Severity::Info => tracing::debug!("{notice}"),
                }
            }
            let is_mended = old.iter().any(Notice::is_error) && !new.iter().any(Notice::is_error);
            if is_mended && self.graph.is_in_force(&change.key) {
                tracing::info!("{} is in order again", change.key);
            }
            if let Some(kind) = change.key.istio_kind() {
                self.touched.insert((kind, change.key.id.clone()));
            }
        }
        let now = jiff::Timestamp::now().to_string();
        for (kind, id) in std::mem::take(&mut self.touched) {
            let Some(books) = self.books.get(&(kind, id.clone())) else {
                continue;
            };
            let object = ObjectId::istio(kind, id.clone());
            let verdict = status::Verdict {
                refused: self.graph.is_refused(&object),
                notices: self.graph.notices_of(&object),
                addresses: match kind {
                    IstioKind::ServiceEntry => self.allocator.status(&id, &books.status),
                    _ => None,
                },
            };
            match status::wish((kind, &id), books, verdict, &now) {
                Some(wish) => self.parts.wishes.add(wish),
                None => self.parts.wishes.forget(kind, &id),
            }
        }
    }

    /// Tells the other tasks what changed for them.
    fn publish(&self) {
        let counts = self.graph.counts();
        replace(&self.counts, counts);
        let mut settings = self.parts.injection.clone();
        if let Some(config) = self.graph.mesh_config() {
            if let Some(domain) = &config.trust_domain {
                settings.trust_domain.clone_from(domain);
            }
            if let Some(merge) = config.enable_prometheus_merge {
                settings.prometheus_merge = merge;
            }
            if let Some(defaults) = &config.default_config {
                settings.proxy_defaults = defaults.clone();
            }
        }
        replace(&self.settings, settings);
        replace(
            &self.wanted_keys,
            BTreeSet::clone(&self.graph.wanted_keys()),
        );
        replace(&self.needs, Needs::clone(&self.graph.needs()));
    }
}

/// Wakes those who look only when something changed.
fn replace<T: PartialEq>(sender: &watch::Sender<T>, value: T) {
    sender.send_if_modified(|old| {
        let is_new = *old != value;
        *old = value;
        is_new
    });
}

fn is_replace<T>(delta: &Delta<T>) -> bool {
    matches!(delta, Delta::Replace(_))
}

fn event_name<T>(delta: &Delta<T>) -> &'static str {
    match delta {
        Delta::Set(..) => "update",
        Delta::Remove(_) => "delete",
        Delta::Replace(_) => "list",
    }
}
