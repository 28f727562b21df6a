//! Choosing an endpoint of those that are listed.
//!
//! ```text
//! rank (nearness) -> locality, where shares are given -> by turns | at random | the less busy | by key
//! ```
//! Endpoints that fail are left out of all that; so are ranks that are not needed.

mod levels;
mod table;
mod warmup;

use super::limits::State;
use super::loads::Loads;
use super::outlier::Ejected;
use lateen_base::Str;
use lateen_model::decide::cluster::{Cluster, Endpoint};
use lateen_model::traffic::{Balancer, HashTable};
use levels::{Group, Level, levels};
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use table::Table;
use tokio::time::Instant;

/// Clusters remembered before all turns start anew: a bound, not a tuning.
const MOST: usize = 4096;

/// Steps of the golden ratio visit weights in proportion without runs of one endpoint.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Whose turn it is, per cluster name.
#[derive(Default)]
pub(super) struct Turns(RefCell<HashMap<Str, Turn>>);

/// What is known when an endpoint is chosen.
pub(super) struct Choice<'a> {
    pub(super) loads: &'a Loads,
    /// Endpoints that are left out because they fail; absent: none.
    pub(super) ejected: Option<Ejected>,
    /// Who knows the endpoints' ages; absent: they do not matter.
    pub(super) state: Option<Arc<State>>,
    /// The hash of the key; absent: there is none.
    pub(super) hash: Option<u64>,
    pub(super) tried: &'a [SocketAddr],
    /// What time it is.
    pub(super) now: Instant,
}

struct Turn {
    endpoints: Arc<[Endpoint]>,
    ejected: Option<Ejected>,
    levels: Vec<Level>,
    /// Endpoints in the levels.
    usable: usize,
    /// When the youngest endpoint has warmed up; absent: none warms up.
    cold_until: Option<Instant>,
    next: u64,
}

impl Turns {
    /// The index of an endpoint of `cluster` that is not among those that were tried, and whether there are more; none
    /// when there is none.
    pub(super) fn pick(
        &self,
        cluster: &Cluster,
        endpoints: &Arc<[Endpoint]>,
        choice: &Choice<'_>,
    ) -> Option<(usize, bool)> {
        if endpoints.len() <= 1 && choice.tried.is_empty() && choice.ejected.is_none() {
            return (!endpoints.is_empty()).then_some((0, false));
        }
        let mut turns = self.0.borrow_mut();
        if turns.len() >= MOST && !turns.contains_key(&cluster.name) {
            turns.clear();
        }
        let turn = turns
            .entry(cluster.name.clone())
            .or_insert_with(|| Turn::new(cluster, endpoints, choice));
        if !turn.is_of(endpoints, choice) {
            *turn = Turn {
                next: turn.next,
                ..Turn::new(cluster, endpoints, choice)
            };
        }
        let at = turn.pick(cluster, choice)?;
        Some((at, turn.usable > choice.tried.len() + 1))
    }
}

impl Turn {
    fn new(cluster: &Cluster, endpoints: &Arc<[Endpoint]>, choice: &Choice<'_>) -> Self {
        let outlier = cluster.settings.outlier.as_ref();
        let least = outlier.map_or(0, |o| o.min_health_percent);
        let levels = levels(endpoints, choice.ejected.as_deref(), least);
        // A random start keeps many proxies from calling the same endpoint first.
        Self {
            usable: levels.iter().map(Level::len).sum(),
            cold_until: warmup::until(cluster, endpoints, choice.state.as_deref()),
            endpoints: Arc::clone(endpoints),
            ejected: choice.ejected.clone(),
            levels,
            next: fastrand::u64(..1 << 32),
        }
    }

    fn is_of(&self, endpoints: &Arc<[Endpoint]>, choice: &Choice<'_>) -> bool {
        let ejected = match (&self.ejected, &choice.ejected) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        ejected && Arc::ptr_eq(&self.endpoints, endpoints)
    }

    fn pick(&mut self, cluster: &Cluster, choice: &Choice<'_>) -> Option<usize> {
        let drawn = choice.hash.unwrap_or_else(|| fastrand::u64(..));
        let level = match self.levels.as_slice() {
            [] => return None,
            [_] => 0,
            many => {
                let point = (drawn % 100) as u32;
                many.iter().position(|l| point < l.upto).unwrap_or(0)
            }
        };
        if let Balancer::ConsistentHash(settings) = &cluster.balancer {
            return self.by_key(level, settings.table, drawn, choice.tried);
        }
        let weights = self
            .cold_until
            .filter(|until| choice.now < *until)
            .and_then(|_| warmup::weights(cluster, &self.endpoints, choice));
        self.next = self.next.wrapping_add(1);
        let next = self.next;
        let group = self.levels[level].group(fastrand::f64());
        let first = Choosing {
            endpoints: &self.endpoints,
            group,
            weights: weights.as_deref(),
            next,
        }
        .pick(&cluster.balancer, choice.loads);
        let tried = |at: &usize| choice.tried.contains(&self.endpoints[*at].address);
        if choice.tried.is_empty() || !tried(&first) {
            return Some(first);
        }
        // Of those left after a failure, the next in order, near ones first: rare, so simple.
        let of_level = |level: &Level| level.members().collect::<Vec<_>>();
        let rest = self.levels.iter().map(of_level);
        rest.filter_map(|members| {
            let from = members.iter().position(|at| *at > first).unwrap_or(0);
            let (before, after) = members.split_at(from);
            let mut all = after.iter().chain(before);
            all.find(|at| !tried(at)).copied()
        })
        .next()
    }

    /// The endpoint that a key leads to; past those that were tried.
    fn by_key(
        &mut self,
        level: usize,
        kind: HashTable,
        hash: u64,
        tried: &[SocketAddr],
    ) -> Option<usize> {
        let endpoints = &self.endpoints;
        let tried = |at: usize| tried.contains(&endpoints[at].address);
        let at_level = |level: &mut Level| {
            let built = match level.table.take() {
                Some(built) => built,
                None => Table::build(kind, endpoints, level),
            };
            let found = built.find(hash, tried);
            level.table = Some(built);
            found
        };
        let found = at_level(&mut self.levels[level]);
        found.or_else(|| self.levels.iter_mut().find_map(at_level))
    }
}

/// One choice among a group's members.
struct Choosing<'a> {
    endpoints: &'a [Endpoint],
    group: &'a Group,
    /// Weights by index where some endpoints warm up.
    weights: Option<&'a [f64]>,
    next: u64,
}

impl Choosing<'_> {
    fn pick(&self, balancer: &Balancer, loads: &Loads) -> usize {
        let members = &self.group.members;
        match balancer {
            _ if members.len() == 1 => members[0],
            Balancer::RoundRobin if self.is_even() => {
                members[(self.next % members.len() as u64) as usize]
            }
            Balancer::RoundRobin => self.at(self.next.wrapping_mul(GOLDEN)),
            Balancer::LeastRequest if self.is_even() => {
                let (a, b) = (
                    fastrand::usize(..members.len()),
                    fastrand::usize(..members.len()),
                );
                // Two draws of the same endpoint would make small clusters lopsided.
                let b = if a == b { (a + 1) % members.len() } else { b };
                let (a, b) = (members[a], members[b]);
                let active = |at: usize| loads.active(self.endpoints[at].address);
                if active(b) < active(a) { b } else { a }
            }
            Balancer::LeastRequest => self.by_load(loads),
            Balancer::Random | Balancer::Passthrough | Balancer::ConsistentHash(_) => {
                self.at(fastrand::u64(..))
            }
        }
    }

    fn is_even(&self) -> bool {
        self.weights.is_none() && self.group.sums.is_none()
    }

    fn weight(&self, at: usize) -> f64 {
        match self.weights {
            Some(weights) => weights[at],
            None => f64::from(self.endpoints[at].weight.max(1)),
        }
    }

    /// By weight, less where much is under way (Envoy: weight divided by one more than the requests there are).
    fn by_load(&self, loads: &Loads) -> usize {
        let share = |at: usize| {
            let active = loads.active(self.endpoints[at].address);
            self.weight(at) / f64::from(active + 1)
        };
        self.drawn(fastrand::f64(), share)
    }

    // The endpoint at `position` of the whole weight, `position` being a fraction of 2^64.
    fn at(&self, position: u64) -> usize {
        let members = &self.group.members;
        let scaled = |whole: u64| ((u128::from(position) * u128::from(whole)) >> 64) as u64;
        match (&self.group.sums, self.weights) {
            (_, Some(_)) => {
                let fraction = position as f64 / u64::MAX as f64;
                self.drawn(fraction, |at| self.weight(at))
            }
            (None, None) => members[scaled(members.len() as u64) as usize],
            (Some(sums), None) => {
                let point = scaled(sums.last().copied().unwrap_or(1));
                members[sums.partition_point(|sum| *sum <= point)]
            }
        }
    }

    fn drawn(&self, fraction: f64, share: impl Fn(usize) -> f64) -> usize {
        let members = &self.group.members;
        let shares: Vec<f64> = members.iter().map(|at| share(*at)).collect();
        let mut point = shares.iter().sum::<f64>() * fraction;
        for (at, share) in members.iter().zip(&shares) {
            if point < *share {
                return *at;
            }
            point -= share;
        }
        members[members.len() - 1]
    }
}

#[cfg(test)]
mod tests;
