//! The rows of one collection and what the current commit changed in them.

use std::collections::BTreeMap;
use std::sync::Arc;

/// What a key must be able to do. Order makes every run deterministic.
pub trait Key: Ord + Clone + Send + Sync + 'static {}
impl<T: Ord + Clone + Send + Sync + 'static> Key for T {}

/// What a value must be able to do. Equality ends propagation.
pub trait Value: PartialEq + Send + Sync + 'static {}
impl<T: PartialEq + Send + Sync + 'static> Value for T {}

/// One entry's change in one commit; `old` and `new` are never equal.
#[derive(Debug)]
pub struct Change<K, V> {
    /// The entry's key.
    pub key: K,
    /// Value before the commit; absent: the entry is new.
    pub old: Option<Arc<V>>,
    /// Value after the commit; absent: the entry is gone.
    pub new: Option<Arc<V>>,
}

/// Rows and the changes of the commit under way.
pub(crate) struct Table<K, V> {
    rows: BTreeMap<K, Arc<V>>,
    changes: Vec<Change<K, V>>,
    /// Whether its first commit is not over yet.
    is_new: bool,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self {
            rows: BTreeMap::new(),
            changes: Vec::new(),
            is_new: true,
        }
    }
}

impl<K: Key, V: Value> Table<K, V> {
    /// The value under `key`.
    pub(crate) fn find(&self, key: &K) -> Option<&Arc<V>> {
        self.rows.get(key)
    }

    /// Every row in key order.
    pub(crate) fn rows(&self) -> &BTreeMap<K, Arc<V>> {
        &self.rows
    }

    /// What this commit changed so far; nothing in the first one, in which whoever looks at it is new as well and looks
    /// at every row.
    pub(crate) fn changes(&self) -> &[Change<K, V>] {
        &self.changes
    }

    /// Sets or removes a row and records the change, if it is one. At most once per key and commit.
    pub(crate) fn put(&mut self, key: K, new: Option<Arc<V>>) {
        let old = match (self.rows.get_mut(&key), &new) {
            (None, None) => return,
            (Some(old), Some(new)) if old == new => return,
            (Some(old), Some(new)) => Some(std::mem::replace(old, Arc::clone(new))),
            (None, Some(new)) => self.rows.insert(key.clone(), Arc::clone(new)),
            (Some(_), None) => self.rows.remove(&key),
        };
        // A first commit may bring a hundred thousand rows, through every collection.
        if !self.is_new {
            self.changes.push(Change { key, old, new });
        }
    }

    /// Gives back room for more rows.
    pub(crate) fn pack(&mut self) {
        pack(&mut self.rows);
    }

    /// Forgets the changes: the commit is over.
    pub(crate) fn settle(&mut self) {
        self.is_new = false;
        self.changes.clear();
        // One large commit must not keep its buffer for ever.
        self.changes.shrink_to(64);
    }
}

/// Builds a map anew, full: one that was filled in the order of its keys is half empty.
pub(crate) fn pack<K: Ord, V>(map: &mut BTreeMap<K, V>) {
    *map = std::mem::take(map).into_iter().collect();
}
