//! A collection that is filled from outside: what is staged counts from the next commit.

use crate::graph::{Node, Slot};
use crate::table::{Key, Table, Value};
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A collection that is filled from outside.
pub(crate) struct Source<K, V> {
    pub(crate) staged: BTreeMap<K, Option<Arc<V>>>,
    table: Table<K, V>,
}

impl<K, V> Default for Source<K, V> {
    fn default() -> Self {
        Self {
            staged: BTreeMap::new(),
            table: Table::default(),
        }
    }
}

impl<K: Key, V: Value> Node for Source<K, V> {
    fn run(&mut self, _before: &[Slot]) {
        for (key, value) in std::mem::take(&mut self.staged) {
            self.table.put(key, value);
        }
    }

    fn settle(&mut self) {
        self.table.settle();
    }

    fn pack(&mut self) {
        self.table.pack();
    }

    fn rows(&self) -> &dyn Any {
        &self.table
    }

    fn source(&mut self) -> Option<&mut dyn Any> {
        Some(self)
    }

    fn figures(&self) -> (usize, u64) {
        (self.table.rows().len(), 0)
    }
}
