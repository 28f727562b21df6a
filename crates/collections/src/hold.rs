//! The last value that was let pass: what keeps a good value in force while its source is broken.

use crate::graph::{Node, Slot, table};
use crate::table::{Key, Table, Value};
use std::any::Any;
use std::sync::Arc;

/// What becomes of an entry when its input changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held<P> {
    /// This value is in force from now on.
    Take(P),
    /// Whatever was in force stays so; nothing, if there was nothing.
    Keep,
    /// Nothing is in force.
    Drop,
}

/// Decides on an input value.
type Judge<V, P> = Box<dyn Fn(&V) -> Held<P> + Send>;

pub(crate) struct Holding<K, V, P> {
    input: usize,
    judge: Judge<V, P>,
    fresh: bool,
    table: Table<K, P>,
}

impl<K: Key, V: Value, P: Value> Holding<K, V, P> {
    pub(crate) fn new(input: usize, judge: Judge<V, P>) -> Self {
        Self {
            input,
            judge,
            fresh: true,
            table: Table::default(),
        }
    }

    fn take_in(&mut self, key: &K, input: Option<&V>) {
        match input.map_or(Held::Drop, |value| (self.judge)(value)) {
            Held::Take(value) => self.table.put(key.clone(), Some(Arc::new(value))),
            Held::Keep => {}
            Held::Drop => self.table.put(key.clone(), None),
        }
    }
}

impl<K: Key, V: Value, P: Value> Node for Holding<K, V, P> {
    fn run(&mut self, before: &[Slot]) {
        let input = table::<K, V>(before, self.input);
        if std::mem::take(&mut self.fresh) {
            for (key, value) in input.rows() {
                self.take_in(key, Some(value));
            }
            return;
        }
        for change in input.changes() {
            self.take_in(&change.key, change.new.as_deref());
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

    fn figures(&self) -> (usize, u64) {
        (self.table.rows().len(), 0)
    }
}
