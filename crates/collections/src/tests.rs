//! The laws of the crate, on small graphs and on random histories.

use crate::{Collection, Graph, Held};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// What each run of a transform saw, by input key: equal sights in a row would be a needless run.
type Sights = Arc<Mutex<BTreeMap<u8, String>>>;

struct World {
    graph: Graph,
    people: Collection<u8, u8>,
    towns: Collection<u8, u8>,
    all: Collection<u8, String>,
    kept: Collection<u8, u8>,
}

/// Two sources; a derivation that fetches by key, index and filter; one on top of it; a join; a hold.
fn world() -> World {
    let mut graph = Graph::new();
    let people = graph.source::<u8, u8>("people");
    let towns = graph.source::<u8, u8>("towns");
    let by_parity = graph.index("towns by parity", towns, |_, value| vec![value % 2]);
    let sights: Sights = Arc::default();
    let first = graph.derive("first", people, move |fetch, key, value| {
        let by_key = fetch.get(towns, value);
        let by_index = fetch.matching(by_parity, &(key % 2));
        let least = *value;
        let by_filter = fetch.filter(towns, move |_, size| *size > least);
        let sight = format!("{value} {by_key:?} {by_index:?} {by_filter:?}");
        let before = sights
            .lock()
            .expect("one thread")
            .insert(*key, sight.clone());
        assert_ne!(before.as_ref(), Some(&sight), "ran again on the same");
        // Several people make the same key: the smallest person wins.
        vec![(value % 4, sight.clone()), (100 + key, sight)]
    });
    let second = graph.map("second", people, move |fetch, key, _| {
        fetch
            .get(first, &(key % 4))
            .map(|text| format!("{}", text.len()))
    });
    let census = graph.single("census", move |fetch| Some(fetch.all(towns).len()));
    let third = graph.derive("third", census, |_, (), n| vec![(200u8, n.to_string())]);
    let all = graph.join("all", &[third, second, first]);
    let kept = graph.hold("kept", people, |v| match v % 3 {
        0 => Held::Take(*v),
        1 => Held::Keep,
        _ => Held::Drop,
    });
    World {
        graph,
        people,
        towns,
        all,
        kept,
    }
}

impl World {
    fn put(&mut self, person: bool, key: u8, value: Option<u8>) {
        let of = if person { self.people } else { self.towns };
        match value {
            Some(value) => self.graph.set(of, key, value),
            None => self.graph.remove(of, key),
        }
    }

    fn all(&self) -> BTreeMap<u8, String> {
        let entries = self.graph.entries(self.all);
        entries.map(|(k, v)| (*k, (**v).clone())).collect()
    }
}

proptest! {
    #[test]
    fn history_does_not_matter(
        steps in prop::collection::vec((any::<bool>(), 0u8..6, prop::option::of(0u8..8), any::<bool>()), 0..60),
    ) {
        let mut lived = world();
        let mut state: BTreeMap<(bool, u8), u8> = BTreeMap::new();
        let told: Arc<Mutex<BTreeMap<u8, String>>> = Arc::default();
        let mirror = Arc::clone(&told);
        lived.graph.observe(lived.all, move |changes| {
            let mut mirror = mirror.lock().expect("one thread");
            for change in changes {
                assert_ne!(change.old, change.new, "a change changes");
                let old = match &change.new {
                    Some(new) => mirror.insert(change.key, (**new).clone()),
                    None => mirror.remove(&change.key),
                };
                assert_eq!(old.as_ref(), change.old.as_deref(), "observers miss nothing");
            }
        });
        for (person, key, value, commit) in steps {
            // People stay once they came, so that equal sights in a row are always a fault.
            let value = if person { Some(value.unwrap_or(0)) } else { value };
            lived.put(person, key, value);
            match value {
                Some(value) => state.insert((person, key), value),
                None => state.remove(&(person, key)),
            };
            if commit {
                lived.graph.commit();
            }
        }
        lived.graph.commit();
        let mut fresh = world();
        for ((person, key), value) in state {
            fresh.put(person, key, Some(value));
        }
        fresh.graph.commit();
        prop_assert_eq!(lived.all(), fresh.all());
        prop_assert_eq!(&*told.lock().expect("one thread"), &fresh.all());
    }

    #[test]
    fn removed_inputs_leave_nothing(
        keys in prop::collection::vec((any::<bool>(), 0u8..6, 0u8..8), 0..20),
    ) {
        let mut world = world();
        for &(person, key, value) in &keys {
            world.put(person, key, Some(value));
        }
        world.graph.commit();
        for &(person, key, _) in &keys {
            world.put(person, key, None);
        }
        world.graph.commit();
        prop_assert_eq!(world.all(), BTreeMap::from([(200, "0".to_owned())]));
        prop_assert_eq!(world.graph.entries(world.kept).len(), 0);
    }
}

/// How often the transform named `name` ran.
fn runs(graph: &Graph, name: &str) -> u64 {
    let stats = graph.stats();
    stats
        .iter()
        .filter(|node| node.name == name)
        .map(|node| node.runs)
        .sum()
}

#[test]
fn only_what_was_fetched_counts() {
    let mut graph = Graph::new();
    let routes = graph.source::<&str, &str>("routes");
    let services = graph.source::<&str, u32>("services");
    let joined = graph.map("joined", routes, move |fetch, _, service| {
        fetch.get(services, service).copied()
    });
    let parity = graph.map("parity", joined, |_, _, number| Some(number % 2));
    for (key, service) in [("a", "x"), ("b", "y")] {
        graph.set(routes, key, service);
    }
    graph.set(services, "x", 1);
    graph.commit();
    assert_eq!((runs(&graph, "joined"), runs(&graph, "parity")), (2, 1));

    graph.set(services, "x", 1);
    graph.set(services, "z", 9);
    graph.commit();
    assert_eq!(
        runs(&graph, "joined"),
        2,
        "equal and foreign values end at the source"
    );

    graph.set(services, "y", 5);
    graph.commit();
    assert_eq!(runs(&graph, "joined"), 3, "a missing answer is watched too");

    graph.set(services, "x", 3);
    graph.commit();
    assert_eq!((runs(&graph, "joined"), runs(&graph, "parity")), (4, 3));
    assert_eq!(graph.find(parity, &"a").map(|v| **v), Some(1));
}

#[test]
fn one_commit_is_one_batch() {
    let mut graph = Graph::new();
    let numbers = graph.source::<u8, u8>("numbers");
    let doubled = graph.map("doubled", numbers, |_, _, v| Some(v * 2));
    let batches: Arc<Mutex<Vec<usize>>> = Arc::default();
    let seen = Arc::clone(&batches);
    graph.observe(doubled, move |changes| {
        seen.lock().expect("one thread").push(changes.len());
    });
    graph.set(numbers, 1, 1);
    graph.set(numbers, 2, 1);
    graph.set(numbers, 1, 3);
    graph.commit();
    graph.commit();
    graph.replace(numbers, [(2, 1), (3, 1)]);
    graph.commit();
    assert_eq!(*batches.lock().expect("one thread"), [2, 2]);
}

#[test]
fn late_nodes_catch_up() {
    let mut graph = Graph::new();
    let numbers = graph.source::<u8, u8>("numbers");
    graph.set(numbers, 1, 4);
    graph.commit();
    let by_value = graph.index("by value", numbers, |_, v| vec![*v]);
    let found = graph.map("found", numbers, move |fetch, _, v| {
        Some(fetch.matching(by_value, v).len())
    });
    graph.commit();
    assert_eq!(graph.find(found, &1).map(|n| **n), Some(1));
}

#[test]
fn hold_keeps_the_last_good_value_until_the_entry_goes() {
    let mut world = world();
    let mut step = |value: Option<u8>| {
        world.put(true, 1, value);
        world.graph.commit();
        world.graph.find(world.kept, &1).map(|v| **v)
    };
    assert_eq!(step(Some(1)), None, "nothing good yet");
    assert_eq!(step(Some(3)), Some(3));
    assert_eq!(step(Some(4)), Some(3), "broken: the last good one stays");
    assert_eq!(step(Some(6)), Some(6));
    assert_eq!(step(None), None);
    assert_eq!(step(Some(7)), None, "a new life starts empty");
}
