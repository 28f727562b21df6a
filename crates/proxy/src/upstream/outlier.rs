//! Failing endpoints of one cluster: counted, left out, and let in again (Envoy: outlier detection).
//!
//! ```text
//! in  --(threshold of consecutive errors, if not too many are out)--> out for base x number of ejections
//! out --(at the first interval after that)--> in;  each interval in: one ejection is forgotten
//! ```
//! Pure: whoever calls says what time it is.

use lateen_model::decide::cluster::Endpoint;
use lateen_model::traffic::OutlierDetection;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Longest ejection, unless the base is longer (Envoy: `max_ejection_time`).
const LONGEST: Duration = Duration::from_secs(300);

/// Endpoints remembered where they are not listed (names): a bound, not a tuning.
const MOST: usize = 4096;

/// What came of one try at an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It answered with this HTTP status.
    Answer(u16),
    /// A connection for opaque bytes came about.
    Connected,
    /// It could not be connected to, or ended the connection before an answer.
    Unreachable,
    /// It did not answer in time.
    Late,
}

/// Endpoints that are out.
pub(super) type Ejected = Arc<HashSet<SocketAddr>>;

/// The endpoints of one cluster.
#[derive(Debug, Default)]
pub(super) struct Detector {
    hosts: HashMap<SocketAddr, Host>,
    /// Who is out; replaced whenever that changes.
    ejected: Ejected,
    /// The last interval's end.
    looked: Option<Instant>,
}

#[derive(Debug, Default)]
struct Host {
    errors: u32,
    gateway_errors: u32,
    local_errors: u32,
    /// When it was put out, while it is.
    out_since: Option<Instant>,
    /// Ejections that are not forgotten.
    ejections: u32,
}

impl Detector {
    /// Who is out at `now`.
    pub(super) fn ejected(&mut self, settings: &OutlierDetection, now: Instant) -> Ejected {
        self.look(settings, now);
        Arc::clone(&self.ejected)
    }

    /// Takes note of an outcome in a cluster of `total` endpoints; tells whether the endpoint is put out for it.
    pub(super) fn note(
        &mut self,
        settings: &OutlierDetection,
        (address, outcome): (SocketAddr, Outcome),
        total: usize,
        now: Instant,
    ) -> bool {
        self.look(settings, now);
        if self.hosts.len() >= MOST && !self.hosts.contains_key(&address) {
            self.hosts.retain(|_, host| host.out_since.is_some());
        }
        let host = self.hosts.entry(address).or_default();
        // What was under way when it was put out says nothing new.
        if host.out_since.is_some() || !host.count(settings, outcome) {
            return false;
        }
        let out = self.ejected.len();
        let share = 100 * (out + 1) > settings.max_ejection_percent as usize * total;
        if out > 0 && share {
            return false;
        }
        host.out_since = Some(now);
        host.ejections += 1;
        self.renew();
        true
    }

    /// Forgets endpoints that the cluster no longer has.
    pub(super) fn keep(&mut self, endpoints: &[Endpoint]) {
        let listed: HashSet<_> = endpoints.iter().map(|e| e.address).collect();
        let before = self.hosts.len();
        self.hosts.retain(|address, _| listed.contains(address));
        if self.hosts.len() != before {
            self.renew();
        }
    }

    /// Nobody is out any more.
    pub(super) fn clear(&mut self) {
        if !self.hosts.is_empty() {
            *self = Self::default();
        }
    }

    /// Does what was due at the end of each interval since the last look.
    fn look(&mut self, settings: &OutlierDetection, now: Instant) {
        let mut looked = *self.looked.get_or_insert(now);
        let mut let_in = false;
        while let Some(at) = looked
            .checked_add(settings.interval)
            .filter(|at| *at <= now)
        {
            looked = at;
            let mut idle = true;
            for host in self.hosts.values_mut() {
                let_in |= host.look(settings, at);
                idle &= host.ejections == 0 && host.out_since.is_none();
            }
            if idle {
                // Nothing more can come of the intervals between: the last one counts.
                let past = now.duration_since(at).as_nanos();
                let interval = settings.interval.as_nanos().max(1);
                let rest = u64::try_from(past % interval).unwrap_or(0);
                looked = now - Duration::from_nanos(rest);
                break;
            }
        }
        self.looked = Some(looked);
        if let_in {
            self.renew();
        }
    }

    fn renew(&mut self) {
        let out = self.hosts.iter().filter(|(_, h)| h.out_since.is_some());
        self.ejected = Arc::new(out.map(|(address, _)| *address).collect());
    }
}

impl Host {
    /// Counts an outcome; tells whether a threshold is reached.
    fn count(&mut self, settings: &OutlierDetection, outcome: Outcome) -> bool {
        let status = match (outcome, settings.consecutive_local) {
            (Outcome::Answer(status), _) => status,
            (Outcome::Connected, None) => 200,
            (Outcome::Unreachable, None) => 503,
            (Outcome::Late, None) => 504,
            (Outcome::Connected, Some(_)) => {
                self.local_errors = 0;
                return false;
            }
            (Outcome::Unreachable | Outcome::Late, Some(most)) => {
                return reached(&mut self.local_errors, most);
            }
        };
        self.local_errors = 0;
        let codes = &settings.error_codes;
        let is_error = match codes.is_empty() {
            true => status >= 500,
            false => codes.contains(&status),
        };
        if !is_error {
            self.errors = 0;
            self.gateway_errors = 0;
            return false;
        }
        let gateway = match status {
            502..=504 => reached(&mut self.gateway_errors, settings.consecutive_gateway),
            _ => {
                self.gateway_errors = 0;
                false
            }
        };
        reached(&mut self.errors, settings.consecutive_5xx) || gateway
    }

    /// The end of an interval; tells whether it is let in.
    fn look(&mut self, settings: &OutlierDetection, at: Instant) -> bool {
        let Some(since) = self.out_since else {
            self.ejections = self.ejections.saturating_sub(1);
            return false;
        };
        let base = settings.base_ejection_time;
        let time = base.saturating_mul(self.ejections).min(LONGEST.max(base));
        if at.duration_since(since) < time {
            return false;
        }
        *self = Self {
            ejections: self.ejections,
            ..Self::default()
        };
        true
    }
}

/// One more of something; tells whether there are `most`, and then begins anew. 0: never.
fn reached(count: &mut u32, most: u32) -> bool {
    *count = count.saturating_add(1);
    let full = most > 0 && *count >= most;
    if full {
        *count = 0;
    }
    full
}

#[cfg(test)]
mod tests;
