//! Where keys lead, and how little changes when endpoints do.

use super::super::levels::levels;
use super::super::tests::endpoints;
use super::*;
use std::collections::HashSet;

const RING: HashTable = HashTable::Ring { minimum: 1024 };
const MAGLEV: HashTable = HashTable::Maglev { size: 65537 };

fn table(kind: HashTable, endpoints: &[Endpoint], out: &[usize]) -> Table {
    let out: HashSet<_> = out.iter().map(|at| endpoints[*at].address).collect();
    let levels = levels(endpoints, Some(&out), 0);
    Table::build(kind, endpoints, &levels[0])
}

/// Where a thousand keys lead.
fn led(table: &Table) -> Vec<usize> {
    (0..1000u32)
        .map(|key| xxh64(&key.to_le_bytes(), 0))
        .map(|hash| table.find(hash, |_| false).unwrap())
        .collect()
}

#[test]
fn keys_of_others_stay_when_an_endpoint_goes() {
    let all = endpoints(&[1; 10]);
    // With fewer endpoints each has more places on the ring, so a few keys of others move as well (Envoy).
    for (kind, strays) in [(RING, 120), (MAGLEV, 30)] {
        let before = led(&table(kind, &all, &[]));
        let after = led(&table(kind, &all, &[3]));
        let moved = before
            .iter()
            .zip(&after)
            .filter(|(b, a)| **b != 3 && b != a);
        let moved = moved.count();
        assert!(moved <= strays, "{kind:?}: {moved} keys of others moved");
        assert!(!after.contains(&3));
        assert!(before.contains(&3));
    }
}

#[test]
fn the_order_in_which_endpoints_are_listed_does_not_matter() {
    let all = endpoints(&[1, 2, 3, 1]);
    let mut turned = all.to_vec();
    turned.reverse();
    for kind in [RING, MAGLEV] {
        let (one, other) = (
            led(&table(kind, &all, &[])),
            led(&table(kind, &turned, &[])),
        );
        let same = one
            .iter()
            .zip(&other)
            .all(|(a, b)| all[*a].address == turned[*b].address);
        assert!(same, "{kind:?}");
    }
}

#[test]
fn weights_are_respected() {
    let all = endpoints(&[1, 3]);
    for kind in [RING, MAGLEV] {
        let to_heavy = led(&table(kind, &all, &[]))
            .iter()
            .filter(|at| **at == 1)
            .count();
        assert!(to_heavy.abs_diff(750) < 60, "{kind:?}: {to_heavy} of 1000");
    }
}

#[test]
fn a_ring_has_its_least_size_and_the_lightest_a_whole_number_of_places() {
    let Table::Ring(points) = table(HashTable::Ring { minimum: 10 }, &endpoints(&[1, 1, 1]), &[])
    else {
        panic!("a ring");
    };
    // Ten over three, rounded up, for each.
    assert_eq!(points.len(), 12);
    let wanted = xxh64(b"10.0.0.0:80_0", 0);
    assert!(
        points.contains(&(wanted, 0)),
        "places are named as Envoy names them"
    );
    assert!(points.is_sorted());
}

#[test]
fn every_place_of_a_maglev_table_is_taken_once() {
    let size = 101;
    let Table::Maglev(places) = table(HashTable::Maglev { size }, &endpoints(&[1, 1, 1]), &[])
    else {
        panic!("a table");
    };
    let mut counts = [0; 3];
    places.iter().for_each(|at| counts[*at as usize] += 1);
    counts.sort_unstable();
    assert_eq!(counts, [33, 34, 34]);
}

#[test]
fn those_that_were_tried_are_passed_over() {
    let all = endpoints(&[1, 1, 1]);
    for kind in [RING, MAGLEV] {
        let table = table(kind, &all, &[]);
        let first = table.find(7, |_| false).unwrap();
        let second = table.find(7, |at| at == first).unwrap();
        assert_ne!(first, second);
        assert_eq!(table.find(7, |_| true), None);
    }
}
