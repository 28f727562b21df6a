//! What the store knows of its streams: whose they are and how far each has come.

use crate::server::Identity;
use crate::session::Session;
use crate::table::Table;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::sync::Notify;

/// All streams. It is asked and changed at every message, so nothing here looks at each but what must.
#[derive(Debug, Default)]
pub(super) struct Streams {
    all: HashMap<u64, State>,
    acked: Acked,
}

/// How many subscribed streams have acknowledged everything up to which generation.
#[derive(Debug, Default)]
struct Acked(BTreeMap<u64, usize>);

/// What a stream shares with the list.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub session: Arc<Mutex<Session>>,
    /// Told when something changed that may concern the session.
    pub news: Arc<Notify>,
}

/// One stream.
#[derive(Debug)]
struct State {
    shared: Shared,
    /// Who proved to have opened it; absent on a plaintext connection.
    identity: Option<Identity>,
    /// Whose it says it is; absent before its first request.
    node_id: Option<Box<str>>,
    /// Absent before it subscribed.
    acked: Option<u64>,
    settled: u64,
}

impl Streams {
    /// Adds a stream, unless its identity has as many as it may; whether it did.
    pub(super) fn add(
        &mut self,
        id: u64,
        shared: Shared,
        identity: Option<Identity>,
        most: usize,
    ) -> bool {
        if identity.is_some() {
            let same = self.all.values().filter(|state| state.identity == identity);
            if same.count() >= most {
                return false;
            }
        }
        let state = State {
            shared,
            identity,
            node_id: None,
            acked: None,
            settled: 0,
        };
        self.all.insert(id, state);
        true
    }

    /// Notes whose the stream is; how many others the same proxy has.
    pub(super) fn name(&mut self, id: u64, node_id: &str) -> usize {
        let Some(state) = self.all.get_mut(&id) else {
            return 0;
        };
        state.node_id = Some(node_id.into());
        let identity = state.identity.clone();
        let same = self.all.iter().filter(|(other, state)| {
            **other != id && state.node_id.as_deref() == Some(node_id) && state.identity == identity
        });
        same.count()
    }

    /// Notes how far a stream has come.
    pub(super) fn note(&mut self, id: u64, acked: Option<u64>, settled: u64) {
        if let Some(state) = self.all.get_mut(&id) {
            state.note(&mut self.acked, acked, settled);
        }
    }

    /// Wakes the streams that a change of `table` may concern. For the others it is noted here that they have seen it:
    /// to wake a thousand tasks for every endpoint that comes or goes is most of what it costs.
    pub(super) fn tell(&mut self, table: &Table) {
        for state in self.all.values_mut() {
            // Whoever works on its session now looks at the table before or after the change: it must look again.
            let passed = state.shared.session.try_lock().and_then(|mut session| {
                let passed = session.pass(table);
                passed.then(|| (session.acked(), session.settled()))
            });
            match passed {
                Some((acked, settled)) => state.note(&mut self.acked, acked, settled),
                None => state.shared.news.notify_one(),
            }
        }
    }

    /// Forgets a stream that ended.
    pub(super) fn remove(&mut self, id: u64) {
        if let Some(state) = self.all.remove(&id) {
            self.acked.remove(state.acked);
        }
    }

    /// The generation that every subscribed stream has acknowledged; absent when there is none.
    pub(super) fn slowest(&self) -> Option<u64> {
        self.acked.0.keys().next().copied()
    }

    /// The generation up to which no subscribed stream needs removed resources any more.
    pub(super) fn settled(&self) -> u64 {
        let subscribed = self.all.values().filter(|state| state.acked.is_some());
        let settled = subscribed.map(|state| state.settled).min();
        settled.unwrap_or(u64::MAX)
    }

    /// Every session, to be asked without holding the list.
    pub(super) fn sessions(&self) -> Vec<Arc<Mutex<Session>>> {
        let all = self.all.values();
        all.map(|state| Arc::clone(&state.shared.session)).collect()
    }
}

impl State {
    fn note(&mut self, all: &mut Acked, acked: Option<u64>, settled: u64) {
        // It never goes back: others may have noted more meanwhile.
        self.settled = settled.max(self.settled);
        let acked = acked.max(self.acked);
        let old = std::mem::replace(&mut self.acked, acked);
        if old == acked {
            return;
        }
        if let Some(new) = acked {
            *all.0.entry(new).or_default() += 1;
        }
        all.remove(old);
    }
}

impl Acked {
    fn remove(&mut self, acked: Option<u64>) {
        let Some(generation) = acked else {
            return;
        };
        if let Some(count) = self.0.get_mut(&generation) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&generation);
            }
        }
    }
}
