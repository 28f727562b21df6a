//! Ranks of endpoints by nearness, what each carries, and the localities within.
//!
//! A rank carries everything as long as enough of it is well: with Envoy's factor of 1.4, until less than 5 of 7 are.
//! What it cannot carry goes to the next ranks (Envoy: priority levels, overprovisioning).

use super::table::Table;
use lateen_model::decide::cluster::Endpoint;
use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;

/// Envoy's overprovisioning factor, in per cent.
const FACTOR: u64 = 140;

/// One rank that carries something.
#[derive(Debug)]
pub(super) struct Level {
    /// Its share and that of the ranks before it, in per cent.
    pub(super) upto: u32,
    groups: Vec<Group>,
    /// Where keys lead, once somebody has asked.
    pub(super) table: Option<Table>,
}

/// Endpoints that are chosen among by weight alone: a rank's, or those of one of its localities.
#[derive(Debug)]
pub(super) struct Group {
    /// Its share of the rank and that of the groups before it, up to 1.
    upto: f64,
    /// The share alone.
    pub(super) share: f64,
    /// Indices of endpoints, at least one.
    pub(super) members: Vec<usize>,
    /// Running sums of weights; absent when all weigh the same.
    pub(super) sums: Option<Vec<u64>>,
}

/// The ranks that carry something. Of a rank where less than `least` per cent are well, everybody is used, unless the
/// others can carry everything.
pub(super) fn levels(
    endpoints: &[Endpoint],
    ejected: Option<&HashSet<SocketAddr>>,
    least: u32,
) -> Vec<Level> {
    let mut ranks: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (at, endpoint) in endpoints.iter().enumerate() {
        ranks.entry(endpoint.priority).or_default().push(at);
    }
    let ranks: Vec<_> = ranks.into_values().collect();
    let is_well = |at: &usize| ejected.is_none_or(|out| !out.contains(&endpoints[*at].address));
    let well: Vec<Vec<usize>> = ranks
        .iter()
        .map(|rank| rank.iter().copied().filter(is_well).collect())
        .collect();
    let can: Vec<u64> = ranks
        .iter()
        .zip(&well)
        .map(|(rank, well)| (FACTOR * well.len() as u64 / rank.len() as u64).min(100))
        .collect();
    let enough = can.iter().sum::<u64>() >= 100 && ranks.len() > 1;
    let panics = |at: usize| {
        let healthy = 100 * well[at].len() as u64;
        !enough && healthy < u64::from(least) * ranks[at].len() as u64
    };
    let shares = shares(&ranks, &can, &panics);
    let mut upto = 0;
    let mut levels = Vec::new();
    for (at, share) in shares.into_iter().enumerate() {
        let used = if panics(at) { &ranks[at] } else { &well[at] };
        if share == 0 || used.is_empty() {
            continue;
        }
        upto += share;
        levels.push(Level {
            upto,
            groups: groups(endpoints, &ranks[at], used),
            table: None,
        });
    }
    levels
}

/// What each rank carries, in per cent.
fn shares(ranks: &[Vec<usize>], can: &[u64], panics: &impl Fn(usize) -> bool) -> Vec<u32> {
    // Where all are in panic, each carries by its size (Envoy).
    let all = (0..ranks.len()).all(panics);
    let can: Vec<u64> = match all {
        false => can.to_vec(),
        true => ranks.iter().map(|rank| rank.len() as u64).collect(),
    };
    let whole = can.iter().sum::<u64>();
    let whole = if all { whole } else { whole.min(100) };
    if whole == 0 {
        return vec![0; ranks.len()];
    }
    let mut left = 100;
    let mut shares: Vec<u32> = can
        .iter()
        .map(|can| {
            let share = (can * 100 / whole).min(left);
            left -= share;
            share as u32
        })
        .collect();
    // What rounding has left.
    if let Some(first) = shares.iter_mut().find(|share| **share > 0) {
        *first += left as u32;
    }
    shares
}

/// The localities of a rank, each with the share that it is given as long as enough of it is well; one group where no
/// shares are given.
fn groups(endpoints: &[Endpoint], rank: &[usize], used: &[usize]) -> Vec<Group> {
    let weighted = |at: &usize| endpoints[*at].locality_weight > 0;
    if !used.iter().all(weighted) {
        return vec![Group::new(endpoints, used.to_vec(), 1.0)];
    }
    let mut localities: BTreeMap<&str, (u64, Vec<usize>)> = BTreeMap::new();
    for at in rank {
        let locality = &*endpoints[*at].workload.locality;
        localities.entry(locality).or_default().0 += 1;
    }
    for at in used {
        let locality = &*endpoints[*at].workload.locality;
        localities.entry(locality).or_default().1.push(*at);
    }
    let mut groups = Vec::new();
    for (all, members) in localities.into_values() {
        let Some(first) = members.first() else {
            continue;
        };
        let well = (FACTOR as f64 / 100.0 * members.len() as f64 / all as f64).min(1.0);
        let weight = f64::from(endpoints[*first].locality_weight) * well;
        groups.push(Group::new(endpoints, members, weight));
    }
    let whole: f64 = groups.iter().map(|g| g.share).sum();
    let mut upto = 0.0;
    for group in &mut groups {
        group.share /= whole;
        upto += group.share;
        group.upto = upto;
    }
    groups
}

impl Level {
    /// The group at a fraction of the whole share.
    pub(super) fn group(&self, fraction: f64) -> &Group {
        let at = self.groups.iter().position(|g| fraction < g.upto);
        &self.groups[at.unwrap_or(self.groups.len() - 1)]
    }

    pub(super) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Indices of its endpoints.
    pub(super) fn members(&self) -> impl Iterator<Item = usize> {
        self.groups.iter().flat_map(|g| g.members.iter().copied())
    }

    pub(super) fn len(&self) -> usize {
        self.groups.iter().map(|g| g.members.len()).sum()
    }
}

impl Group {
    fn new(endpoints: &[Endpoint], members: Vec<usize>, share: f64) -> Self {
        let weight = |at: usize| endpoints[at].weight.max(1);
        let same = members
            .windows(2)
            .all(|two| weight(two[0]) == weight(two[1]));
        let sums = (!same).then(|| {
            members
                .iter()
                .scan(0, |sum, at| {
                    *sum += u64::from(weight(*at));
                    Some(*sum)
                })
                .collect()
        });
        Self {
            upto: share,
            share,
            members,
            sums,
        }
    }
}

#[cfg(test)]
mod tests;
