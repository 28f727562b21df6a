//! A derived collection in which every input makes at most one entry, under a key that no other input makes.

use crate::fetch::Fetch;
use crate::graph::{Node, Slot, table};
use crate::runs::Runs;
use crate::table::{Key, Table, Value};
use std::any::Any;
use std::collections::BTreeSet;
use std::sync::Arc;

/// From an input entry and what it fetches to an output value.
pub(crate) type Transform<K, V, P> = Box<dyn Fn(&mut Fetch<'_>, &K, &V) -> Option<P> + Send>;

/// From an input's key to its output's: different ones for different inputs.
pub(crate) type Rename<K, O> = Box<dyn Fn(&K) -> O + Send>;

pub(crate) struct Mapped<K, V, O, P> {
    input: usize,
    rename: Rename<K, O>,
    transform: Transform<K, V, P>,
    /// Whether it never ran: then every input is new to it.
    fresh: bool,
    runs: Runs<K>,
    table: Table<O, P>,
}

impl<K: Key, V: Value, O: Key, P: Value> Mapped<K, V, O, P> {
    pub(crate) fn new(input: usize, rename: Rename<K, O>, transform: Transform<K, V, P>) -> Self {
        Self {
            input,
            rename,
            transform,
            fresh: true,
            runs: Runs::default(),
            table: Table::default(),
        }
    }

    /// Keys of the inputs that have to run.
    fn due(&mut self, before: &[Slot]) -> Vec<K> {
        let input = table::<K, V>(before, self.input);
        if std::mem::take(&mut self.fresh) {
            return input.rows().keys().cloned().collect();
        }
        let own = input.changes().iter().map(|change| change.key.clone());
        let due: BTreeSet<K> = own.chain(self.runs.concerned(before)).collect();
        due.into_iter().collect()
    }
}

impl<K: Key, V: Value, O: Key, P: Value> Node for Mapped<K, V, O, P> {
    fn run(&mut self, before: &[Slot]) {
        for key in self.due(before) {
            let made = match table::<K, V>(before, self.input).find(&key) {
                Some(value) => {
                    let transform = &self.transform;
                    self.runs
                        .run(before, &key, |fetch| transform(fetch, &key, value))
                }
                None => {
                    self.runs.drop(&key);
                    None
                }
            };
            // An equal value keeps its old allocation: the table looks.
            self.table.put((self.rename)(&key), made.map(Arc::new));
        }
    }

    fn settle(&mut self) {
        self.table.settle();
    }

    fn pack(&mut self) {
        self.runs.pack();
        self.table.pack();
    }

    fn rows(&self) -> &dyn Any {
        &self.table
    }

    fn figures(&self) -> (usize, u64) {
        (self.table.rows().len(), self.runs.count())
    }
}
