//! Work by key: what changed is worked on once, as soon as possible, and never twice at a time;
//! what failed is tried again later and later.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::store::Key;

/// First and longest delay after a failure.
const FIRST_RETRY: Duration = Duration::from_millis(25);
const LAST_RETRY: Duration = Duration::from_secs(2);
/// How many keys are worked on at a time.
const CONCURRENCY: usize = 16;

/// Keys that wait to be worked on. Clones share the same queue.
#[derive(Clone, Default)]
pub struct Queue {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Key>,
    queued: HashSet<Key>,
    running: HashSet<Key>,
    /// Keys to come back to at a time.
    later: HashMap<Key, Instant>,
    failures: HashMap<Key, u32>,
}

impl Queue {
    /// Adds a key, to be worked on as soon as possible.
    pub fn add(&self, key: Key) {
        let mut state = self.state.lock();
        state.later.remove(&key);
        if state.queued.insert(key.clone()) {
            state.waiting.push_back(key);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Adds a key, if there is one.
    pub fn retry(&self, key: Option<Key>) {
        key.into_iter().for_each(|key| self.add(key));
    }

    /// Comes back to a key after a delay, or at an earlier time that is already set.
    pub fn add_after(&self, key: Key, delay: Duration) {
        let time = Instant::now() + delay;
        let mut state = self.state.lock();
        let entry = state.later.entry(key).or_insert(time);
        *entry = (*entry).min(time);
        drop(state);
        self.changed.notify_one();
    }

    /// Works on every key that failed now, rather than when its delay is over: something has
    /// changed that may have been the cause.
    pub fn retry_failed(&self) {
        let failed: Vec<Key> = {
            let state = self.state.lock();
            state
                .failures
                .keys()
                .filter(|key| state.later.contains_key(*key))
                .cloned()
                .collect()
        };
        failed.into_iter().for_each(|key| self.add(key));
    }

    /// Works until `shutdown`: calls `work` for each key. It returns when to look at the key again
    /// without a change, if ever.
    pub async fn run<W, F, E>(self, name: &'static str, shutdown: CancellationToken, work: W)
    where
        W: Fn(Key) -> F,
        F: Future<Output = Result<Option<Duration>, E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        let mut tasks: JoinSet<(Key, Result<Option<Duration>, E>)> = JoinSet::new();
        loop {
            while tasks.len() < CONCURRENCY {
                let Some(key) = self.next() else { break };
                let job = work(key.clone());
                tasks.spawn(async move { (key, job.await) });
            }
            let wake = self.wake_at();
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.changed.notified() => {}
                () = sleep_until(wake) => {}
                Some(done) = tasks.join_next() => match done {
                    Ok((key, outcome)) => self.done(name, key, outcome),
                    Err(error) => tracing::error!(controller = name, %error, "reconcile broke"),
                },
            }
        }
    }

    /// The next key to work on; due ones are moved in from the waiting room first.
    fn next(&self) -> Option<Key> {
        let mut state = self.state.lock();
        let now = Instant::now();
        let due: Vec<Key> = state
            .later
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            state.later.remove(&key);
            if state.queued.insert(key.clone()) {
                state.waiting.push_back(key);
            }
        }
        let at = state
            .waiting
            .iter()
            .position(|key| !state.running.contains(key))?;
        let key = state.waiting.remove(at)?;
        state.queued.remove(&key);
        state.running.insert(key.clone());
        Some(key)
    }

    fn wake_at(&self) -> Option<Instant> {
        self.state.lock().later.values().min().copied()
    }

    fn done<E: Display>(&self, name: &'static str, key: Key, outcome: Result<Option<Duration>, E>) {
        let mut state = self.state.lock();
        state.running.remove(&key);
        let again = match outcome {
            Ok(again) => {
                state.failures.remove(&key);
                again
            }
            Err(error) => {
                let count = state.failures.entry(key.clone()).or_default();
                *count += 1;
                let exponent = (*count - 1).min(16);
                tracing::debug!(controller = name, ?key, %error, "will try again");
                Some(FIRST_RETRY.saturating_mul(1 << exponent).min(LAST_RETRY))
            }
        };
        let queued = state.queued.contains(&key);
        drop(state);
        if let Some(delay) = again
            && !queued
        {
            self.add_after(key, delay);
        }
    }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
