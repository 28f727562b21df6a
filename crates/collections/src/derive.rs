//! A derived collection: which inputs must run again, and whose output counts.

use crate::fetch::{Fetch, Run, Watches};
use crate::graph::{Node, Slot, table};
use crate::table::{Key, Table, Value};
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// From an input entry and what it fetches to output entries.
pub(crate) type Transform<K, V, O, P> = Box<dyn Fn(&mut Fetch<'_>, &K, &V) -> Vec<(O, P)> + Send>;

pub(crate) struct Derived<K, V, O, P> {
    input: usize,
    transform: Transform<K, V, O, P>,
    /// Whether it never ran: then every input is new to it.
    fresh: bool,
    next_run: Run,
    inputs: BTreeMap<K, Input<O>>,
    keys: BTreeMap<Run, K>,
    /// Output values by output key and by the input that made them.
    claims: BTreeMap<O, BTreeMap<K, Arc<P>>>,
    watches: Watches,
    table: Table<O, P>,
    runs: u64,
}

/// What is remembered of one input entry.
struct Input<O> {
    run: Run,
    outputs: Vec<O>,
}

impl<K: Key, V: Value, O: Key, P: Value> Derived<K, V, O, P> {
    pub(crate) fn new(input: usize, transform: Transform<K, V, O, P>) -> Self {
        Self {
            input,
            transform,
            fresh: true,
            next_run: 0,
            inputs: BTreeMap::new(),
            keys: BTreeMap::new(),
            claims: BTreeMap::new(),
            watches: Watches::default(),
            table: Table::default(),
            runs: 0,
        }
    }

    /// Keys of the inputs that have to run.
    fn due(&mut self, before: &[Slot]) -> BTreeSet<K> {
        let input = table::<K, V>(before, self.input);
        if std::mem::take(&mut self.fresh) {
            return input.rows().keys().cloned().collect();
        }
        let concerned = self.watches.concerned(before);
        let own = input.changes().iter().map(|change| change.key.clone());
        own.chain(
            concerned
                .iter()
                .filter_map(|run| self.keys.get(run).cloned()),
        )
        .collect()
    }

    /// Takes back what `key` made before; its output keys join `touched`.
    fn retract(&mut self, key: &K, touched: &mut BTreeSet<O>) {
        let Some(input) = self.inputs.remove(key) else {
            return;
        };
        self.watches.forget(input.run);
        self.keys.remove(&input.run);
        for output in input.outputs {
            if let Some(claims) = self.claims.get_mut(&output) {
                claims.remove(key);
                if claims.is_empty() {
                    self.claims.remove(&output);
                }
            }
            touched.insert(output);
        }
    }

    /// Runs the transform for one input; its output keys join `touched`.
    fn produce(&mut self, before: &[Slot], (key, value): (&K, &V), touched: &mut BTreeSet<O>) {
        let run = self.next_run;
        self.next_run += 1;
        self.runs += 1;
        let mut fetch = Fetch {
            nodes: before,
            watches: &mut self.watches,
            run,
        };
        let mut outputs = Vec::new();
        for (output, made) in (self.transform)(&mut fetch, key, value) {
            // An equal value keeps its old allocation.
            let made = match self.table.find(&output) {
                Some(old) if **old == made => Arc::clone(old),
                _ => Arc::new(made),
            };
            let claims = self.claims.entry(output.clone()).or_default();
            claims.insert(key.clone(), made);
            touched.insert(output.clone());
            outputs.push(output);
        }
        self.keys.insert(run, key.clone());
        self.inputs.insert(key.clone(), Input { run, outputs });
    }
}

impl<K: Key, V: Value, O: Key, P: Value> Node for Derived<K, V, O, P> {
    fn run(&mut self, before: &[Slot]) {
        let mut touched = BTreeSet::new();
        for key in self.due(before) {
            self.retract(&key, &mut touched);
            if let Some(value) = table::<K, V>(before, self.input).find(&key) {
                self.produce(before, (&key, value), &mut touched);
            }
        }
        for output in touched {
            let claims = self.claims.get(&output);
            let winner = claims.and_then(|claims| claims.values().next()).cloned();
            self.table.put(output, winner);
        }
    }

    fn settle(&mut self) {
        self.table.settle();
    }

    fn rows(&self) -> &dyn Any {
        &self.table
    }

    fn figures(&self) -> (usize, u64) {
        (self.table.rows().len(), self.runs)
    }
}
