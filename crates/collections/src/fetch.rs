//! What a transform may look at beside its own entry, and the record of what it looked at.

use crate::few::Few;
use crate::graph::{Collection, Index, Slot, index_table, table};
use crate::table::{Key, Value, pack};
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Number of one input entry within a derived collection; it is given out again when the entry is gone.
pub(crate) type Run = u32;

/// A transform's window on other collections. Everything asked here is remembered, also when the answer was
/// "nothing": a later change of the answer runs the transform again.
pub struct Fetch<'g> {
    pub(crate) nodes: &'g [Slot],
    pub(crate) watches: &'g mut Watches,
    pub(crate) run: Run,
    /// Whether anything was asked.
    pub(crate) has_fetched: bool,
}

impl<'g> Fetch<'g> {
    /// One entry.
    pub fn get<K: Key, V: Value>(&mut self, of: Collection<K, V>, key: &K) -> Option<&'g V> {
        let run = self.run;
        let watch = self.table_watch::<K, V>(of);
        match size_of::<K>() {
            // There is one key: to ask for it is to ask for all.
            0 => {
                watch.whole.insert(run);
            }
            _ => watch.keys.add(run, key),
        }
        table::<K, V>(self.nodes, of.node)
            .find(key)
            .map(|value| &**value)
    }

    /// The entries under one index key, in key order.
    pub fn matching<I: Key, K: Key, V: Value>(
        &mut self,
        index: Index<I, K, V>,
        key: &I,
    ) -> Vec<(&'g K, &'g V)> {
        self.has_fetched = true;
        let watch = self.watches.of::<IndexWatch<I, K>>(index.node);
        watch.keys.add(self.run, key);
        let rows = table::<K, V>(self.nodes, index.of.node).rows();
        index_table::<I, K>(self.nodes, index.node)
            .under(key)
            .filter_map(|k| rows.get_key_value(k).map(|(k, v)| (k, &**v)))
            .collect()
    }

    /// The entries that `wanted` accepts, in key order. `wanted` must be a pure function: it decides later
    /// whether a change concerns this run.
    pub fn filter<K: Key, V: Value>(
        &mut self,
        of: Collection<K, V>,
        wanted: impl Fn(&K, &V) -> bool + Send + 'static,
    ) -> Vec<(&'g K, &'g V)> {
        let found = table::<K, V>(self.nodes, of.node)
            .rows()
            .iter()
            .filter(|(key, value)| wanted(key, value))
            .map(|(key, value)| (key, &**value))
            .collect();
        let run = self.run;
        let filters = &mut self.table_watch::<K, V>(of).filters;
        filters.entry(run).or_default().push(Box::new(wanted));
        found
    }

    /// Every entry, in key order.
    pub fn all<K: Key, V: Value>(&mut self, of: Collection<K, V>) -> Vec<(&'g K, &'g V)> {
        let run = self.run;
        self.table_watch::<K, V>(of).whole.insert(run);
        let rows = table::<K, V>(self.nodes, of.node).rows();
        rows.iter().map(|(key, value)| (key, &**value)).collect()
    }

    fn table_watch<K: Key, V: Value>(&mut self, of: Collection<K, V>) -> &mut TableWatch<K, V> {
        self.has_fetched = true;
        self.watches.of::<TableWatch<K, V>>(of.node)
    }
}

/// Everything that a derived collection's runs fetched, by node.
#[derive(Default)]
pub(crate) struct Watches {
    by_node: BTreeMap<usize, Box<dyn Watch>>,
}

impl Watches {
    /// The runs for which something that they fetched changed in this commit.
    pub(crate) fn concerned(&self, nodes: &[Slot]) -> BTreeSet<Run> {
        let mut runs = BTreeSet::new();
        for (&node, watch) in &self.by_node {
            watch.concerned(nodes, node, &mut runs);
        }
        runs
    }

    /// Gives back room for more.
    pub(crate) fn pack(&mut self) {
        for watch in self.by_node.values_mut() {
            watch.pack();
        }
    }

    /// Forgets what `run` fetched.
    pub(crate) fn forget(&mut self, run: Run) {
        for watch in self.by_node.values_mut() {
            watch.forget(run);
        }
    }

    fn of<W: Watch + Default + 'static>(&mut self, node: usize) -> &mut W {
        let watch = self
            .by_node
            .entry(node)
            .or_insert_with(|| Box::new(W::default()));
        (&mut **watch as &mut dyn Any)
            .downcast_mut()
            .expect("a node has one kind of watch, that of its own types")
    }
}

/// The watches on one node.
trait Watch: Any + Send {
    /// Gives back room for more.
    fn pack(&mut self);
    fn concerned(&self, nodes: &[Slot], node: usize, runs: &mut BTreeSet<Run>);
    fn forget(&mut self, run: Run);
}

/// Runs by the key that they asked for, both ways.
struct Asked<K> {
    by_key: BTreeMap<K, Few<Run>>,
    /// By run; none: it asked nothing here.
    by_run: Vec<Option<Few<K>>>,
}

impl<K> Default for Asked<K> {
    fn default() -> Self {
        Self {
            by_key: BTreeMap::new(),
            by_run: Vec::new(),
        }
    }
}

impl<K: Key> Asked<K> {
    fn add(&mut self, run: Run, key: &K) {
        let is_new = match self.by_key.get_mut(key) {
            Some(runs) => runs.insert(run),
            None => {
                self.by_key.insert(key.clone(), Few::One(run));
                true
            }
        };
        if !is_new {
            return;
        }
        let at = run as usize;
        if at >= self.by_run.len() {
            self.by_run.resize_with(at + 1, || None);
        }
        match &mut self.by_run[at] {
            Some(keys) => {
                keys.insert(key.clone());
            }
            none => *none = Some(Few::One(key.clone())),
        }
    }

    fn forget(&mut self, run: Run) {
        let Some(keys) = self.by_run.get_mut(run as usize).and_then(Option::take) else {
            return;
        };
        for key in keys.iter() {
            if let Some(runs) = self.by_key.get_mut(key)
                && runs.remove(&run)
            {
                self.by_key.remove(key);
            }
        }
    }

    fn pack(&mut self) {
        pack(&mut self.by_key);
        self.by_run.shrink_to_fit();
    }

    fn of(&self, key: &K) -> impl Iterator<Item = Run> {
        let runs = self.by_key.get(key).into_iter();
        runs.flat_map(Few::iter).copied()
    }
}

/// A remembered filter.
type Filter<K, V> = Box<dyn Fn(&K, &V) -> bool + Send>;

struct TableWatch<K, V> {
    keys: Asked<K>,
    filters: BTreeMap<Run, Vec<Filter<K, V>>>,
    whole: BTreeSet<Run>,
}

impl<K, V> Default for TableWatch<K, V> {
    fn default() -> Self {
        Self {
            keys: Asked::default(),
            filters: BTreeMap::new(),
            whole: BTreeSet::new(),
        }
    }
}

impl<K: Key, V: Value> Watch for TableWatch<K, V> {
    fn pack(&mut self) {
        self.keys.pack();
        self.whole = std::mem::take(&mut self.whole).into_iter().collect();
    }

    fn concerned(&self, nodes: &[Slot], node: usize, runs: &mut BTreeSet<Run>) {
        let changes = table::<K, V>(nodes, node).changes();
        if changes.is_empty() {
            return;
        }
        runs.extend(&self.whole);
        for change in changes {
            runs.extend(self.keys.of(&change.key));
        }
        for (&run, filters) in &self.filters {
            let accepts = |value: &Option<Arc<V>>, key: &K| {
                value
                    .as_ref()
                    .is_some_and(|value| filters.iter().any(|wanted| wanted(key, value)))
            };
            let touched =
                |c: &crate::table::Change<K, V>| accepts(&c.old, &c.key) || accepts(&c.new, &c.key);
            if !runs.contains(&run) && changes.iter().any(touched) {
                runs.insert(run);
            }
        }
    }

    fn forget(&mut self, run: Run) {
        self.keys.forget(run);
        self.filters.remove(&run);
        self.whole.remove(&run);
    }
}

struct IndexWatch<I, K> {
    keys: Asked<I>,
    of: std::marker::PhantomData<fn() -> K>,
}

impl<I, K> Default for IndexWatch<I, K> {
    fn default() -> Self {
        Self {
            keys: Asked::default(),
            of: std::marker::PhantomData,
        }
    }
}

impl<I: Key, K: Key> Watch for IndexWatch<I, K> {
    fn pack(&mut self) {
        self.keys.pack();
    }

    fn concerned(&self, nodes: &[Slot], node: usize, runs: &mut BTreeSet<Run>) {
        for key in index_table::<I, K>(nodes, node).touched() {
            runs.extend(self.keys.of(key));
        }
    }

    fn forget(&mut self, run: Run) {
        self.keys.forget(run);
    }
}
