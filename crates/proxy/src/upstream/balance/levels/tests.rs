//! Ranks in, who carries what.

use super::super::tests::endpoints;
use super::*;

/// `share:members` of each rank; endpoints have these ranks, and some are out.
fn check(ranks: &[u32], out: &[usize], least: u32, want: &str) {
    let mut all = endpoints(&vec![1; ranks.len()]).to_vec();
    for (endpoint, rank) in all.iter_mut().zip(ranks) {
        endpoint.priority = *rank;
    }
    let out: HashSet<_> = out.iter().map(|at| all[*at].address).collect();
    let mut before = 0;
    let said: Vec<_> = levels(&all, Some(&out), least)
        .iter()
        .map(|level| {
            let share = level.upto - before;
            before = level.upto;
            let members: Vec<_> = level.members().map(|at| at.to_string()).collect();
            format!("{share}:{}", members.join(","))
        })
        .collect();
    assert_eq!(
        said.join(" "),
        want,
        "{ranks:?} without {out:?}, least {least}"
    );
}

#[test]
fn a_rank_carries_all_as_long_as_enough_are_well() {
    check(&[0, 0, 0, 0, 1], &[], 0, "100:0,1,2,3");
    check(&[0, 0, 0, 0, 1], &[3], 0, "100:0,1,2");
    // 140 % of two of four: 70.
    check(&[0, 0, 0, 0, 1], &[2, 3], 0, "70:0,1 30:4");
    check(&[0, 0, 0, 0, 1], &[0, 1, 2, 3], 0, "100:4");
    check(&[0, 1, 2], &[0, 1], 0, "100:2");
}

#[test]
fn when_nothing_is_enough_shares_are_made_whole() {
    // 35 and 70 of a hundred; then 35 and 35 of 70.
    check(&[0, 0, 0, 0, 1, 1], &[1, 2, 3, 5], 0, "35:0 65:4");
    check(
        &[0, 0, 0, 0, 1, 1, 1, 1],
        &[1, 2, 3, 5, 6, 7],
        0,
        "50:0 50:4",
    );
}

#[test]
fn nobody_is_left() {
    check(&[0, 0], &[0, 1], 0, "");
    check(&[], &[], 0, "");
}

#[test]
fn with_too_few_that_are_well_all_are_used() {
    check(&[0, 0, 0, 0], &[0, 1], 50, "100:2,3");
    check(&[0, 0, 0, 0], &[0, 1, 2], 50, "100:0,1,2,3");
    check(&[0, 0], &[0, 1], 1, "100:0,1");
    check(&[0, 0, 1, 1], &[0, 1], 50, "100:2,3");
    check(&[0, 0, 0, 1], &[0, 1, 2, 3], 50, "75:0,1,2 25:3");
}

#[test]
fn localities_have_shares() {
    let mut all = endpoints(&[1; 4]).to_vec();
    for (at, (locality, share)) in [("a", 20), ("a", 20), ("b", 80), ("b", 80)]
        .into_iter()
        .enumerate()
    {
        let mut workload = (*all[at].workload).clone();
        workload.locality = locality.into();
        all[at].workload = std::sync::Arc::new(workload);
        all[at].locality_weight = share;
    }
    let shares = |out: &[usize]| {
        let out: HashSet<_> = out.iter().map(|at| all[*at].address).collect();
        let levels = levels(&all, Some(&out), 0);
        let groups = levels[0].groups().iter();
        let said = groups.map(|g| format!("{:.2}:{:?}", g.share, g.members));
        said.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(shares(&[]), "0.20:[0, 1] 0.80:[2, 3]");
    // 80 x 1.4 / 2 = 56 beside 20.
    assert_eq!(shares(&[3]), "0.26:[0, 1] 0.74:[2]");
    assert_eq!(shares(&[2, 3]), "1.00:[0, 1]");
}
