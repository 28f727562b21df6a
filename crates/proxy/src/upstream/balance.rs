//! Choosing an endpoint: by turns, at random, or the less busy of two (Istio's default), all by weight.

use super::loads::Loads;
use lateen_base::Str;
use lateen_model::decide::cluster::{Cluster, Endpoint};
use lateen_model::traffic::Balancer;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// Clusters remembered before all turns start anew: a bound, not a tuning.
const MOST: usize = 4096;

/// Whose turn it is, per cluster name.
#[derive(Debug, Default)]
pub(super) struct Turns(RefCell<HashMap<Str, Turn>>);

#[derive(Debug)]
struct Turn {
    endpoints: Arc<[Endpoint]>,
    /// Running sums of weights; absent when all weigh the same.
    sums: Option<Vec<u64>>,
    next: u64,
}

impl Turns {
    /// The index of an endpoint of `cluster` that is not in `tried`; none when all are.
    pub(super) fn pick(
        &self,
        cluster: &Cluster,
        endpoints: &Arc<[Endpoint]>,
        loads: &Loads,
        tried: &[SocketAddr],
    ) -> Option<usize> {
        if endpoints.len() <= 1 && tried.is_empty() {
            return (!endpoints.is_empty()).then_some(0);
        }
        let mut turns = self.0.borrow_mut();
        if turns.len() >= MOST && !turns.contains_key(&cluster.name) {
            turns.clear();
        }
        let turn = turns
            .entry(cluster.name.clone())
            .or_insert_with(|| Turn::new(endpoints));
        if !Arc::ptr_eq(&turn.endpoints, endpoints) {
            *turn = Turn {
                next: turn.next,
                ..Turn::new(endpoints)
            };
        }
        let first = turn.pick(cluster.balancer, loads);
        // Of those left after a failure, the next in order: rare, so simple.
        (first..endpoints.len())
            .chain(0..first)
            .find(|i| !tried.contains(&endpoints[*i].address))
    }
}

impl Turn {
    fn new(endpoints: &Arc<[Endpoint]>) -> Self {
        let same = endpoints
            .windows(2)
            .all(|pair| pair[0].weight == pair[1].weight);
        let sums = (!same).then(|| {
            endpoints
                .iter()
                .scan(0, |sum, e| {
                    *sum += u64::from(e.weight.max(1));
                    Some(*sum)
                })
                .collect()
        });
        // A random start keeps many proxies from calling the same endpoint first.
        Self {
            endpoints: Arc::clone(endpoints),
            sums,
            next: fastrand::u64(..1 << 32),
        }
    }

    fn pick(&mut self, balancer: Balancer, loads: &Loads) -> usize {
        match balancer {
            Balancer::RoundRobin => self.in_turn(),
            Balancer::Random | Balancer::Passthrough => self.drawn(),
            Balancer::LeastRequest => {
                let (a, b) = (self.drawn(), self.drawn());
                // Two draws of the same endpoint would make small clusters lopsided.
                let b = if a == b {
                    (a + 1) % self.endpoints.len()
                } else {
                    b
                };
                if self.cost(b, loads) < self.cost(a, loads) {
                    b
                } else {
                    a
                }
            }
        }
    }

    // What one more request would mean there, in units of weight.
    fn cost(&self, at: usize, loads: &Loads) -> f64 {
        let endpoint = &self.endpoints[at];
        f64::from(loads.active(endpoint.address) + 1) / f64::from(endpoint.weight.max(1))
    }

    fn in_turn(&mut self) -> usize {
        self.next = self.next.wrapping_add(1);
        match &self.sums {
            None => (self.next % self.endpoints.len() as u64) as usize,
            // Steps of the golden ratio visit weights in proportion without runs of one endpoint.
            Some(_) => self.at(self.next.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
        }
    }

    fn drawn(&self) -> usize {
        match &self.sums {
            None => fastrand::usize(..self.endpoints.len()),
            Some(_) => self.at(fastrand::u64(..)),
        }
    }

    // The endpoint at `position` of the whole weight, `position` being a fraction of 2^64.
    fn at(&self, position: u64) -> usize {
        let Some(sums) = &self.sums else { return 0 };
        let total = sums.last().copied().unwrap_or(1);
        let point = ((u128::from(position) * u128::from(total)) >> 64) as u64;
        sums.partition_point(|sum| *sum <= point)
    }
}

#[cfg(test)]
mod tests;
