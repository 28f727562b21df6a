//! The graph: it owns every node, hands out handles and runs a commit through the nodes in creation order.
//!
//! A node can only refer to nodes that existed before it, so creation order is a topological order: each
//! node runs once per commit and sees its inputs' end state, never an intermediate one.

use crate::derive::Derived;
use crate::fetch::Fetch;
use crate::hold::{Held, Holding};
use crate::index::IndexTable;
use crate::join::{Concat, Joined, Union};
use crate::map::Mapped;
use crate::source::Source;
use crate::table::{Change, Key, Table, Value};
use std::any::Any;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

/// A handle to a collection of one graph. Using it with another graph panics.
pub struct Collection<K, V> {
    pub(crate) node: usize,
    kinds: PhantomData<fn() -> (K, V)>,
}

impl<K, V> Clone for Collection<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K, V> Copy for Collection<K, V> {}

/// A handle to a secondary index over a [`Collection`]: from index key to entries.
pub struct Index<I, K, V> {
    pub(crate) node: usize,
    pub(crate) of: Collection<K, V>,
    kinds: PhantomData<fn() -> I>,
}

impl<I, K, V> Clone for Index<I, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<I, K, V> Copy for Index<I, K, V> {}

/// Figures about one node, for debug pages and tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStats {
    /// Name given at creation.
    pub name: &'static str,
    /// Entries it holds now.
    pub entries: usize,
    /// How often its transform ran; 0 for nodes without one.
    pub runs: u64,
}

/// What the graph needs from a node.
pub(crate) trait Node: Send {
    /// Takes in what changed before it. `before` holds every earlier node.
    fn run(&mut self, before: &[Slot]);
    /// The commit is over: forget the changes.
    fn settle(&mut self);
    /// It ran for the first time, which may have brought most of what it will ever hold: give back room for more.
    fn pack(&mut self);
    /// Its rows, as `Table<K, V>` or `IndexTable<I, K>`.
    fn rows(&self) -> &dyn Any;
    /// For sources: the node itself, as `Source<K, V>`.
    fn source(&mut self) -> Option<&mut dyn Any> {
        None
    }
    /// Entries held, and transform runs so far.
    fn figures(&self) -> (usize, u64);
}

/// A node and its name.
pub(crate) struct Slot {
    name: &'static str,
    node: Box<dyn Node>,
    /// Whether it never ran.
    is_new: bool,
}

impl Slot {
    fn new(name: &'static str, node: impl Node + 'static) -> Self {
        Self {
            name,
            node: Box::new(node),
            is_new: true,
        }
    }
}

const WRONG_GRAPH: &str = "a handle is used only with the graph that made it";

/// The rows of collection `node` among `nodes`.
pub(crate) fn table<K: Key, V: Value>(nodes: &[Slot], node: usize) -> &Table<K, V> {
    nodes[node].node.rows().downcast_ref().expect(WRONG_GRAPH)
}

/// The rows of index `node` among `nodes`.
pub(crate) fn index_table<I: Key, K: Key>(nodes: &[Slot], node: usize) -> &IndexTable<I, K> {
    nodes[node].node.rows().downcast_ref().expect(WRONG_GRAPH)
}

/// Collections, what is derived from them, and who is told of changes.
#[derive(Default)]
pub struct Graph {
    nodes: Vec<Slot>,
    observers: Vec<Box<dyn Observer>>,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// A collection filled with [`Graph::set`] and [`Graph::remove`].
    pub fn source<K: Key, V: Value>(&mut self, name: &'static str) -> Collection<K, V> {
        self.add(name, Source::<K, V>::default())
    }

    /// Stages a value of a source; it takes effect with the next [`Graph::commit`].
    pub fn set<K: Key, V: Value>(&mut self, source: Collection<K, V>, key: K, value: V) {
        self.staged(source).insert(key, Some(Arc::new(value)));
    }

    /// Stages the removal of a source's entry; an absent entry is no change.
    pub fn remove<K: Key, V: Value>(&mut self, source: Collection<K, V>, key: K) {
        self.staged(source).insert(key, None);
    }

    /// Stages a source's whole content: entries that are not in `rows` are removed.
    pub fn replace<K: Key, V: Value>(
        &mut self,
        source: Collection<K, V>,
        rows: impl IntoIterator<Item = (K, V)>,
    ) {
        let mut next: BTreeMap<K, Option<Arc<V>>> = table::<K, V>(&self.nodes, source.node)
            .rows()
            .keys()
            .map(|key| (key.clone(), None))
            .collect();
        next.extend(rows.into_iter().map(|(k, v)| (k, Some(Arc::new(v)))));
        *self.staged(source) = next;
    }

    /// A collection of what `transform` makes of each entry of `input`: none, one or many entries.
    /// When several inputs make the same key, the one with the smallest input key wins.
    pub fn derive<K: Key, V: Value, O: Key, P: Value>(
        &mut self,
        name: &'static str,
        input: Collection<K, V>,
        transform: impl Fn(&mut Fetch<'_>, &K, &V) -> Vec<(O, P)> + Send + 'static,
    ) -> Collection<O, P> {
        self.add(name, Derived::new(input.node, Box::new(transform)))
    }

    /// [`Graph::derive`] that keeps the key and makes at most one value.
    pub fn map<K: Key, V: Value, P: Value>(
        &mut self,
        name: &'static str,
        input: Collection<K, V>,
        transform: impl Fn(&mut Fetch<'_>, &K, &V) -> Option<P> + Send + 'static,
    ) -> Collection<K, P> {
        self.map_as(name, input, K::clone, transform)
    }

    /// [`Graph::map`] under other keys. `rename` must give different inputs different keys in the same order: it is not
    /// checked, and of two with one key the one that ran last would win.
    pub fn map_as<K: Key, V: Value, O: Key, P: Value>(
        &mut self,
        name: &'static str,
        input: Collection<K, V>,
        rename: impl Fn(&K) -> O + Send + 'static,
        transform: impl Fn(&mut Fetch<'_>, &K, &V) -> Option<P> + Send + 'static,
    ) -> Collection<O, P> {
        let node = Mapped::new(input.node, Box::new(rename), Box::new(transform));
        self.add(name, node)
    }

    /// A collection of one entry at most, made from what `transform` fetches.
    pub fn single<P: Value>(
        &mut self,
        name: &'static str,
        transform: impl Fn(&mut Fetch<'_>) -> Option<P> + Send + 'static,
    ) -> Collection<(), P> {
        let unit = self.source::<(), ()>(name);
        self.set(unit, (), ());
        self.map(name, unit, move |fetch, (), ()| transform(fetch))
    }

    /// All entries of `inputs`; where a key is in several, the first of them wins.
    pub fn join<K: Key, V: Value>(
        &mut self,
        name: &'static str,
        inputs: &[Collection<K, V>],
    ) -> Collection<K, V> {
        let inputs = inputs.iter().map(|input| input.node).collect();
        self.add(name, Joined::<K, V>::new(inputs))
    }

    /// [`Graph::join`] of collections that have no key in common, which is not checked: looking at one is enough.
    pub fn union<K: Key, V: Value>(
        &mut self,
        name: &'static str,
        inputs: &[Collection<K, V>],
    ) -> Collection<K, V> {
        let inputs = inputs.iter().map(|input| input.node).collect();
        self.add(name, Union::<K, V>::new(inputs))
    }

    /// The entries of `inputs` put together: under each key one list, with what the first says first.
    pub fn concat<K: Key, T: Value + Clone>(
        &mut self,
        name: &'static str,
        inputs: &[Collection<K, Vec<T>>],
    ) -> Collection<K, Vec<T>> {
        let inputs = inputs.iter().map(|input| input.node).collect();
        self.add(name, Concat::<K, T>::new(inputs))
    }

    /// Keeps, per key, the last value that `judge` let pass: the only node whose state depends on history.
    pub fn hold<K: Key, V: Value, P: Value>(
        &mut self,
        name: &'static str,
        input: Collection<K, V>,
        judge: impl Fn(&V) -> Held<P> + Send + 'static,
    ) -> Collection<K, P> {
        self.add(name, Holding::<K, V, P>::new(input.node, Box::new(judge)))
    }

    /// An index over `of`: `extract` names the index keys of an entry.
    pub fn index<I: Key, K: Key, V: Value>(
        &mut self,
        name: &'static str,
        of: Collection<K, V>,
        extract: impl Fn(&K, &V) -> Vec<I> + Send + 'static,
    ) -> Index<I, K, V> {
        let node = crate::index::IndexNode::new(of.node, Box::new(extract));
        self.nodes.push(Slot::new(name, node));
        Index {
            node: self.nodes.len() - 1,
            of,
            kinds: PhantomData,
        }
    }

    /// Calls `told` at the end of every commit that changed `of`, with all its changes, each key once and in
    /// key order. The first commit after this call reports everything that is there.
    pub fn observe<K: Key, V: Value>(
        &mut self,
        of: Collection<K, V>,
        told: impl FnMut(&[Change<K, V>]) + Send + 'static,
    ) {
        self.observers.push(Box::new(Told {
            of: of.node,
            fresh: true,
            told: Box::new(told),
            kinds: PhantomData,
        }));
    }

    /// Lets everything staged take effect, runs what depends on it, then tells the observers.
    pub fn commit(&mut self) {
        for at in 0..self.nodes.len() {
            let (before, rest) = self.nodes.split_at_mut(at);
            if let Some(slot) = rest.first_mut() {
                slot.node.run(before);
                if std::mem::take(&mut slot.is_new) {
                    slot.node.pack();
                }
            }
        }
        for observer in &mut self.observers {
            observer.tell(&self.nodes);
        }
        for slot in &mut self.nodes {
            slot.node.settle();
        }
    }

    /// The value of an entry as of the last commit.
    pub fn find<K: Key, V: Value>(&self, of: Collection<K, V>, key: &K) -> Option<&Arc<V>> {
        table::<K, V>(&self.nodes, of.node).find(key)
    }

    /// Every entry as of the last commit, in key order.
    pub fn entries<K: Key, V: Value>(
        &self,
        of: Collection<K, V>,
    ) -> impl ExactSizeIterator<Item = (&K, &Arc<V>)> {
        table::<K, V>(&self.nodes, of.node).rows().iter()
    }

    /// Figures about every node, in creation order.
    pub fn stats(&self) -> Vec<NodeStats> {
        let figures = |slot: &Slot| {
            let (entries, runs) = slot.node.figures();
            NodeStats {
                name: slot.name,
                entries,
                runs,
            }
        };
        self.nodes.iter().map(figures).collect()
    }

    fn add<K, V>(&mut self, name: &'static str, node: impl Node + 'static) -> Collection<K, V> {
        self.nodes.push(Slot::new(name, node));
        Collection {
            node: self.nodes.len() - 1,
            kinds: PhantomData,
        }
    }

    fn staged<K: Key, V: Value>(
        &mut self,
        source: Collection<K, V>,
    ) -> &mut BTreeMap<K, Option<Arc<V>>> {
        let source: &mut Source<K, V> = self.nodes[source.node]
            .node
            .source()
            .and_then(|any| any.downcast_mut())
            .expect("only sources of this graph are set");
        &mut source.staged
    }
}

/// Somebody who is told of changes.
trait Observer: Send {
    fn tell(&mut self, nodes: &[Slot]);
}

/// What an observer is called with.
type Callback<K, V> = Box<dyn FnMut(&[Change<K, V>]) + Send>;

struct Told<K, V> {
    of: usize,
    fresh: bool,
    told: Callback<K, V>,
    kinds: PhantomData<fn() -> (K, V)>,
}

impl<K: Key, V: Value> Observer for Told<K, V> {
    fn tell(&mut self, nodes: &[Slot]) {
        let table = table::<K, V>(nodes, self.of);
        if !std::mem::take(&mut self.fresh) {
            if !table.changes().is_empty() {
                (self.told)(table.changes());
            }
            return;
        }
        let all: Vec<Change<K, V>> = table
            .rows()
            .iter()
            .map(|(key, value)| Change {
                key: key.clone(),
                old: None,
                new: Some(Arc::clone(value)),
            })
            .collect();
        if !all.is_empty() {
            (self.told)(&all);
        }
    }
}
