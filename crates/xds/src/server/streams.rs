//! What the store knows of its streams: whose they are and how far each has come.

use crate::server::Identity;
use crate::session::Session;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// All streams. It is asked and changed at every message, so nothing here looks at each but what must.
#[derive(Debug, Default)]
pub(super) struct Streams {
    all: HashMap<u64, State>,
    /// How many subscribed streams have acknowledged everything up to which generation.
    acked: BTreeMap<u64, usize>,
}

/// One stream.
#[derive(Debug)]
struct State {
    session: Arc<Mutex<Session>>,
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
        session: Arc<Mutex<Session>>,
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
            session,
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
        let Some(state) = self.all.get_mut(&id) else {
            return;
        };
        state.settled = settled;
        let old = std::mem::replace(&mut state.acked, acked);
        if old == acked {
            return;
        }
        if let Some(new) = acked {
            *self.acked.entry(new).or_default() += 1;
        }
        self.uncount(old);
    }

    /// Forgets a stream that ended.
    pub(super) fn remove(&mut self, id: u64) {
        if let Some(state) = self.all.remove(&id) {
            self.uncount(state.acked);
        }
    }

    fn uncount(&mut self, acked: Option<u64>) {
        let Some(generation) = acked else {
            return;
        };
        if let Some(count) = self.acked.get_mut(&generation) {
            *count -= 1;
            if *count == 0 {
                self.acked.remove(&generation);
            }
        }
    }

    /// The generation that every subscribed stream has acknowledged; absent when there is none.
    pub(super) fn slowest(&self) -> Option<u64> {
        self.acked.keys().next().copied()
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
        all.map(|state| Arc::clone(&state.session)).collect()
    }
}
