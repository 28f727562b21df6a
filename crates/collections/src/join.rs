//! Several collections of one type seen as one: the first value of each key, the only one, or all of them.

use crate::graph::{Node, Slot, table};
use crate::table::{Key, Table, Value};
use std::any::Any;
use std::collections::BTreeSet;
use std::sync::Arc;

pub(crate) struct Joined<K, V> {
    inputs: Vec<usize>,
    fresh: bool,
    table: Table<K, V>,
}

impl<K: Key, V: Value> Joined<K, V> {
    pub(crate) fn new(inputs: Vec<usize>) -> Self {
        Self {
            inputs,
            fresh: true,
            table: Table::default(),
        }
    }
}

impl<K: Key, V: Value> Node for Joined<K, V> {
    fn run(&mut self, before: &[Slot]) {
        let fresh = std::mem::take(&mut self.fresh);
        for key in touched::<K, V>(before, &self.inputs, fresh) {
            let tables = self
                .inputs
                .iter()
                .map(|&input| table::<K, V>(before, input));
            let winner = tables.filter_map(|t| t.find(&key)).next().cloned();
            self.table.put(key, winner);
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

/// Keys that changed in one of `inputs`; all that are there when it is the first time.
fn touched<K: Key, V: Value>(before: &[Slot], inputs: &[usize], fresh: bool) -> BTreeSet<K> {
    let mut touched = BTreeSet::new();
    for &input in inputs {
        let input = table::<K, V>(before, input);
        if fresh {
            touched.extend(input.rows().keys().cloned());
        } else {
            touched.extend(input.changes().iter().map(|change| change.key.clone()));
        }
    }
    touched
}

pub(crate) struct Union<K, V> {
    inputs: Vec<usize>,
    fresh: bool,
    table: Table<K, V>,
}

impl<K: Key, V: Value> Union<K, V> {
    pub(crate) fn new(inputs: Vec<usize>) -> Self {
        Self {
            inputs,
            fresh: true,
            table: Table::default(),
        }
    }
}

impl<K: Key, V: Value> Node for Union<K, V> {
    fn run(&mut self, before: &[Slot]) {
        let fresh = std::mem::take(&mut self.fresh);
        for &input in &self.inputs {
            let input = table::<K, V>(before, input);
            if fresh {
                for (key, value) in input.rows() {
                    self.table.put(key.clone(), Some(Arc::clone(value)));
                }
                continue;
            }
            for change in input.changes() {
                self.table.put(change.key.clone(), change.new.clone());
            }
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

pub(crate) struct Concat<K, T> {
    inputs: Vec<usize>,
    fresh: bool,
    table: Table<K, Vec<T>>,
}

impl<K: Key, T: Value + Clone> Concat<K, T> {
    pub(crate) fn new(inputs: Vec<usize>) -> Self {
        Self {
            inputs,
            fresh: true,
            table: Table::default(),
        }
    }
}

impl<K: Key, T: Value + Clone> Node for Concat<K, T> {
    fn run(&mut self, before: &[Slot]) {
        let fresh = std::mem::take(&mut self.fresh);
        for key in touched::<K, Vec<T>>(before, &self.inputs, fresh) {
            let tables = self
                .inputs
                .iter()
                .map(|&input| table::<K, Vec<T>>(before, input));
            let lists: Vec<&Arc<Vec<T>>> = tables.filter_map(|t| t.find(&key)).collect();
            let whole = match lists[..] {
                [] => None,
                [only] => Some(Arc::clone(only)),
                _ => {
                    let all = lists.into_iter().flat_map(|list| list.iter().cloned());
                    Some(Arc::new(all.collect()))
                }
            };
            self.table.put(key, whole);
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
