//! Numbers of the inputs that fetched something, and what they fetched.
//!
//! An input that fetches nothing costs nothing here: it runs again only when its own value changes.

use crate::fetch::{Fetch, Run, Watches};
use crate::graph::Slot;
use crate::table::{Key, pack};
use std::collections::BTreeMap;

/// What a derived collection remembers of its runs.
pub(crate) struct Runs<K> {
    numbers: BTreeMap<K, Run>,
    /// Inputs by number; none: the number is free.
    keys: Vec<Option<K>>,
    free: Vec<Run>,
    watches: Watches,
    count: u64,
}

impl<K> Default for Runs<K> {
    fn default() -> Self {
        Self {
            numbers: BTreeMap::new(),
            keys: Vec::new(),
            free: Vec::new(),
            watches: Watches::default(),
            count: 0,
        }
    }
}

impl<K: Key> Runs<K> {
    /// Runs `transform` for `key` and remembers what it fetches in place of what it fetched before.
    pub(crate) fn run<T>(
        &mut self,
        nodes: &[Slot],
        key: &K,
        transform: impl FnOnce(&mut Fetch<'_>) -> T,
    ) -> T {
        let old = self.forget(key);
        let next = || Run::try_from(self.keys.len()).expect("fewer inputs than numbers");
        let run = old.or_else(|| self.free.pop()).unwrap_or_else(next);
        let mut fetch = Fetch {
            nodes,
            watches: &mut self.watches,
            run,
            has_fetched: false,
        };
        let made = transform(&mut fetch);
        let has_fetched = fetch.has_fetched;
        self.count += 1;
        self.keep(run, has_fetched.then_some(key));
        made
    }

    /// Notes whose number `run` is from now on.
    fn keep(&mut self, run: Run, key: Option<&K>) {
        let at = run as usize;
        if at == self.keys.len() {
            if key.is_none() {
                return;
            }
            self.keys.push(None);
        }
        self.keys[at] = key.cloned();
        match key {
            Some(key) => {
                self.numbers.insert(key.clone(), run);
            }
            None => self.free.push(run),
        }
    }

    /// Forgets what `key` fetched; its number, which nobody has now.
    fn forget(&mut self, key: &K) -> Option<Run> {
        let run = self.numbers.remove(key)?;
        self.watches.forget(run);
        self.keys[run as usize] = None;
        Some(run)
    }

    /// Forgets an input that is gone.
    pub(crate) fn drop(&mut self, key: &K) {
        if let Some(run) = self.forget(key) {
            self.free.push(run);
        }
    }

    /// Inputs for which something that they fetched changed in this commit.
    pub(crate) fn concerned(&self, nodes: &[Slot]) -> impl Iterator<Item = K> {
        let runs = self.watches.concerned(nodes).into_iter();
        runs.filter_map(|run| self.keys[run as usize].clone())
    }

    /// Gives back room for more.
    pub(crate) fn pack(&mut self) {
        pack(&mut self.numbers);
        self.keys.shrink_to_fit();
        self.watches.pack();
    }

    /// How often a transform ran.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }
}
