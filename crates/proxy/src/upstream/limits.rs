//! What is under way at clusters, counted across all workers and held within the limits of DestinationRules.
//!
//! Counts are kept under the cluster's name, so they survive a change of configuration. A limit holds exactly: who
//! begins something takes a [`Slot`] first, and gives it back when the thing is over.

use super::outlier::Detector;
use lateen_base::Str;
use lateen_model::decide::cluster::ClusterSettings;
use lateen_model::decide::snapshot::Snapshot;
use lateen_model::traffic::RetryBudget;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::Notify;
use tokio::time::Instant;

/// States of clusters by name; only those are here that a DestinationRule asks something of.
#[derive(Default)]
pub(crate) struct States(Mutex<HashMap<Str, Arc<State>>>);

/// What all workers know of one cluster.
#[derive(Default)]
pub(crate) struct State {
    counts: [AtomicU32; 4],
    /// Who waits for a connection to end.
    waiting: AtomicU32,
    /// A connection has ended.
    freed: Notify,
    /// Connections without a request, which end when somebody else needs their slot.
    idle: Mutex<Vec<Arc<Notify>>>,
    /// Failing endpoints.
    pub(super) outlier: Mutex<Detector>,
    /// Since when each endpoint is known, where that matters.
    ages: Mutex<HashMap<SocketAddr, Instant>>,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Connection,
    /// A request that waits for a connection.
    Pending,
    /// A request on a connection.
    Request,
    Retry,
}

/// One of the things that are counted, until it is dropped.
pub(super) struct Slot {
    state: Arc<State>,
    kind: Kind,
}

/// Whether anything of a cluster is counted or remembered.
pub(super) fn matters(settings: &ClusterSettings) -> bool {
    counts(settings) || settings.outlier.is_some() || settings.warmup.is_some()
}

/// Whether connections and requests are counted.
pub(super) fn counts(settings: &ClusterSettings) -> bool {
    let pool = &settings.pool;
    let limits = [
        pool.max_connections,
        pool.max_pending,
        pool.max_requests,
        pool.max_retries,
    ];
    limits.iter().any(Option::is_some) || settings.retry_budget.is_some()
}

impl States {
    /// The state of the cluster with this name.
    pub(super) fn of(&self, cluster: &Str) -> Arc<State> {
        let mut states = self.0.lock();
        if let Some(state) = states.get(cluster) {
            return Arc::clone(state);
        }
        Arc::clone(states.entry(cluster.clone()).or_default())
    }

    /// Takes note of a new snapshot: endpoints that warm up are as old as the first snapshot that had them, and clusters
    /// that are gone are forgotten once nothing is under way there.
    pub(crate) fn observe(&self, snapshot: &Snapshot, now: Instant) {
        let clusters = || snapshot.clusters().filter(|c| matters(&c.settings));
        let named: HashMap<&Str, _> = clusters().map(|c| (&c.name, c)).collect();
        let gone = |name: &Str, state: &Arc<State>| {
            !named.contains_key(name) && Arc::strong_count(state) == 1
        };
        self.0.lock().retain(|name, state| !gone(name, state));
        for cluster in clusters() {
            let endpoints = cluster.discovery.endpoints();
            let state = self.of(&cluster.name);
            let mut detector = state.outlier.lock();
            match (&cluster.settings.outlier, endpoints) {
                (None, _) => detector.clear(),
                // Names have other endpoints each time.
                (Some(_), []) => {}
                (Some(_), endpoints) => detector.keep(endpoints),
            }
        }
        for cluster in clusters().filter(|c| c.settings.warmup.is_some()) {
            let endpoints = cluster.discovery.endpoints();
            let state = self.of(&cluster.name);
            let mut ages = state.ages.lock();
            ages.retain(|address, _| endpoints.iter().any(|e| e.address == *address));
            for endpoint in endpoints {
                ages.entry(endpoint.address).or_insert(now);
            }
        }
    }
}

#[cfg(test)]
impl State {
    /// Notes since when an endpoint is known.
    pub(super) fn know(&self, address: SocketAddr, since: Instant) {
        self.ages.lock().insert(address, since);
    }
}

impl State {
    /// Begins something, unless there are `most` already.
    pub(super) fn begin(self: &Arc<Self>, kind: Kind, most: Option<u32>) -> Option<Slot> {
        let most = most.unwrap_or(u32::MAX);
        let more = |n: u32| (n < most).then(|| n + 1);
        let count = &self.counts[kind as usize];
        count
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, more)
            .ok()?;
        Some(Slot {
            state: Arc::clone(self),
            kind,
        })
    }

    /// How many there are.
    pub(super) fn active(&self, kind: Kind) -> u32 {
        self.counts[kind as usize].load(Ordering::SeqCst)
    }

    /// Begins a connection as soon as there are fewer than `most`; idle ones are ended for it.
    pub(super) async fn connection(self: &Arc<Self>, most: Option<u32>) -> Slot {
        if let Some(slot) = self.begin(Kind::Connection, most) {
            return slot;
        }
        let _waiting = Waiting::begin(self);
        loop {
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            if let Some(slot) = self.begin(Kind::Connection, most) {
                return slot;
            }
            if let Some(idle) = self.idle.lock().pop() {
                idle.notify_one();
            }
            freed.await;
        }
    }

    /// Begins a retry, unless there are too many (Envoy: with a budget, the pool's own limit does not count).
    pub(super) fn retry(self: &Arc<Self>, settings: &ClusterSettings) -> Option<Slot> {
        let most = match settings.retry_budget {
            Some(budget) => Some(self.affordable(budget)),
            None => settings.pool.max_retries,
        };
        self.begin(Kind::Retry, most)
    }

    fn affordable(&self, budget: RetryBudget) -> u32 {
        let active = self.active(Kind::Request) + self.active(Kind::Pending);
        let share = f64::from(active) * budget.percent / 100.0;
        (share as u32).max(budget.least)
    }

    /// Whether somebody waits for a connection to end.
    pub(super) fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Lets an idle connection's slot be asked for: `end` is told.
    pub(super) fn lend(&self, end: &Arc<Notify>) {
        self.idle.lock().push(Arc::clone(end));
    }

    /// An idle connection is so no longer.
    pub(super) fn take_back(&self, end: &Arc<Notify>) {
        self.idle.lock().retain(|other| !Arc::ptr_eq(other, end));
    }

    /// Since when the endpoint is known; absent: nobody has noted it.
    pub(super) fn known_since(&self, address: SocketAddr) -> Option<Instant> {
        self.ages.lock().get(&address).copied()
    }
}

/// Somebody who waits for a connection to end.
struct Waiting<'a>(&'a State);

impl<'a> Waiting<'a> {
    fn begin(state: &'a State) -> Self {
        state.waiting.fetch_add(1, Ordering::SeqCst);
        Self(state)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Slot {
    /// The cluster's state.
    pub(super) fn state(&self) -> &Arc<State> {
        &self.state
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.state.counts[self.kind as usize].fetch_sub(1, Ordering::SeqCst);
        if self.kind == Kind::Connection {
            self.state.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
