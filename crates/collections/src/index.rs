//! A secondary index: entries of a collection by keys that are taken from them.

use crate::few::Few;
use crate::graph::{Node, Slot, table};
use crate::table::{Key, Value, pack};
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};

/// What an index holds, and which index keys the commit under way touched.
pub(crate) struct IndexTable<I, K> {
    entries: BTreeMap<I, Few<K>>,
    touched: BTreeSet<I>,
    /// Whether its first commit is not over yet: whoever looks then runs anyway.
    is_new: bool,
}

impl<I: Key, K: Key> IndexTable<I, K> {
    /// Keys of the entries under `key`.
    pub(crate) fn under(&self, key: &I) -> impl Iterator<Item = &K> {
        self.entries.get(key).into_iter().flat_map(Few::iter)
    }

    /// Index keys whose entries changed, came or went in this commit; none in its first one.
    pub(crate) fn touched(&self) -> &BTreeSet<I> {
        &self.touched
    }
}

/// Takes index keys from an entry.
type Extract<I, K, V> = Box<dyn Fn(&K, &V) -> Vec<I> + Send>;

pub(crate) struct IndexNode<I, K, V> {
    of: usize,
    extract: Extract<I, K, V>,
    fresh: bool,
    table: IndexTable<I, K>,
}

impl<I: Key, K: Key, V: Value> IndexNode<I, K, V> {
    pub(crate) fn new(of: usize, extract: Extract<I, K, V>) -> Self {
        Self {
            of,
            extract,
            fresh: true,
            table: IndexTable {
                entries: BTreeMap::new(),
                touched: BTreeSet::new(),
                is_new: true,
            },
        }
    }

    fn add(&mut self, key: &K, value: &V) {
        for at in (self.extract)(key, value) {
            if !self.table.is_new {
                self.table.touched.insert(at.clone());
            }
            match self.table.entries.get_mut(&at) {
                Some(keys) => {
                    keys.insert(key.clone());
                }
                None => {
                    self.table.entries.insert(at, Few::One(key.clone()));
                }
            }
        }
    }

    fn take(&mut self, key: &K, value: &V) {
        for at in (self.extract)(key, value) {
            if let Some(keys) = self.table.entries.get_mut(&at)
                && keys.remove(key)
            {
                self.table.entries.remove(&at);
            }
            self.table.touched.insert(at);
        }
    }
}

impl<I: Key, K: Key, V: Value> Node for IndexNode<I, K, V> {
    fn run(&mut self, before: &[Slot]) {
        let source = table::<K, V>(before, self.of);
        if std::mem::take(&mut self.fresh) {
            for (key, value) in source.rows() {
                self.add(key, value);
            }
            return;
        }
        for change in source.changes() {
            if let Some(old) = &change.old {
                self.take(&change.key, old);
            }
            if let Some(new) = &change.new {
                self.add(&change.key, new);
            }
        }
    }

    fn settle(&mut self) {
        self.table.touched.clear();
        self.table.is_new = false;
    }

    fn pack(&mut self) {
        pack(&mut self.table.entries);
    }

    fn rows(&self) -> &dyn Any {
        &self.table
    }

    fn figures(&self) -> (usize, u64) {
        (self.table.entries.len(), 0)
    }
}
