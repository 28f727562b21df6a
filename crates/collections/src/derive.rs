//! A derived collection: which inputs must run again, and whose output counts.

use crate::fetch::Fetch;
use crate::graph::{Node, Slot, table};
use crate::runs::Runs;
use crate::table::{Key, Table, Value, pack};
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
    runs: Runs<K>,
    /// Output keys that an input made.
    outputs: BTreeMap<K, Box<[O]>>,
    claims: BTreeMap<O, Claims<K, P>>,
    table: Table<O, P>,
}

/// The inputs that make one output key, with their values. Nearly always there is one.
enum Claims<K, P> {
    One(K, Arc<P>),
    More(BTreeMap<K, Arc<P>>),
}

impl<K: Key, P> Claims<K, P> {
    fn insert(&mut self, key: &K, value: Arc<P>) {
        match self {
            Self::One(own, held) if own == key => *held = value,
            Self::One(own, held) => {
                let first = (own.clone(), Arc::clone(held));
                *self = Self::More([first, (key.clone(), value)].into());
            }
            Self::More(all) => {
                all.insert(key.clone(), value);
            }
        }
    }

    /// Takes back the claim of `key`; true: nobody claims any more.
    fn remove(&mut self, key: &K) -> bool {
        match self {
            Self::One(own, _) => own == key,
            Self::More(all) => {
                all.remove(key);
                all.is_empty()
            }
        }
    }

    /// The value of the smallest input.
    fn winner(&self) -> Option<&Arc<P>> {
        match self {
            Self::One(_, value) => Some(value),
            Self::More(all) => all.values().next(),
        }
    }
}

impl<K: Key, V: Value, O: Key, P: Value> Derived<K, V, O, P> {
    pub(crate) fn new(input: usize, transform: Transform<K, V, O, P>) -> Self {
        Self {
            input,
            transform,
            fresh: true,
            runs: Runs::default(),
            outputs: BTreeMap::new(),
            claims: BTreeMap::new(),
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

impl<K: Key, V: Value, O: Key, P: Value> Derived<K, V, O, P> {
    /// Takes back what `key` made before; its output keys join `touched`.
    fn retract(&mut self, key: &K, touched: &mut BTreeSet<O>) {
        for output in self.outputs.remove(key).into_iter().flatten() {
            if let Some(claims) = self.claims.get_mut(&output)
                && claims.remove(key)
            {
                self.claims.remove(&output);
            }
            touched.insert(output);
        }
    }

    /// Notes what the transform made of one input; its output keys join `touched`.
    fn produce(&mut self, key: &K, made: Vec<(O, P)>, touched: &mut BTreeSet<O>) {
        if made.is_empty() {
            return;
        }
        let mut outputs = Vec::with_capacity(made.len());
        for (output, value) in made {
            // An equal value keeps its old allocation.
            let value = match self.table.find(&output) {
                Some(old) if **old == value => Arc::clone(old),
                _ => Arc::new(value),
            };
            match self.claims.get_mut(&output) {
                Some(claims) => claims.insert(key, value),
                None => {
                    let claims = Claims::One(key.clone(), value);
                    self.claims.insert(output.clone(), claims);
                }
            }
            touched.insert(output.clone());
            outputs.push(output);
        }
        self.outputs.insert(key.clone(), outputs.into());
    }
}

impl<K: Key, V: Value, O: Key, P: Value> Node for Derived<K, V, O, P> {
    fn run(&mut self, before: &[Slot]) {
        let mut touched = BTreeSet::new();
        for key in self.due(before) {
            self.retract(&key, &mut touched);
            let Some(value) = table::<K, V>(before, self.input).find(&key) else {
                self.runs.drop(&key);
                continue;
            };
            let transform = &self.transform;
            let made = self
                .runs
                .run(before, &key, |fetch| transform(fetch, &key, value));
            self.produce(&key, made, &mut touched);
        }
        for output in touched {
            let claims = self.claims.get(&output);
            let winner = claims.and_then(Claims::winner).cloned();
            self.table.put(output, winner);
        }
    }

    fn settle(&mut self) {
        self.table.settle();
    }

    fn pack(&mut self) {
        self.runs.pack();
        pack(&mut self.outputs);
        pack(&mut self.claims);
        self.table.pack();
    }

    fn rows(&self) -> &dyn Any {
        &self.table
    }

    fn figures(&self) -> (usize, u64) {
        (self.table.rows().len(), self.runs.count())
    }
}
