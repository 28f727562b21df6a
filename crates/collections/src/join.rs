//! Several collections of one type seen as one.

use crate::graph::{Node, Slot, table};
use crate::table::{Key, Table, Value};
use std::any::Any;
use std::collections::BTreeSet;

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
        let mut touched: BTreeSet<K> = BTreeSet::new();
        for &input in &self.inputs {
            let input = table::<K, V>(before, input);
            if fresh {
                touched.extend(input.rows().keys().cloned());
            } else {
                touched.extend(input.changes().iter().map(|change| change.key.clone()));
            }
        }
        for key in touched {
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

    fn rows(&self) -> &dyn Any {
        &self.table
    }

    fn figures(&self) -> (usize, u64) {
        (self.table.rows().len(), 0)
    }
}
