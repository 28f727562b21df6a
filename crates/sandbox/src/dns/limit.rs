//! How many questions one client may ask: a bucket of tokens per address.

use std::collections::HashMap;
use std::net::IpAddr;

use tokio::time::Instant;

/// Questions that a client may ask in a second, on average.
const RATE: f64 = 2000.0;
/// Questions that it may ask at once.
const BURST: f64 = 2000.0;
/// Clients that are remembered.
const CLIENTS: usize = 4096;

/// The buckets of all clients.
#[derive(Default)]
pub(super) struct Limit {
    buckets: HashMap<IpAddr, (f64, Instant)>,
}

impl Limit {
    /// Whether the client may ask one more question now.
    pub(super) fn admit(&mut self, client: IpAddr, now: Instant) -> bool {
        if self.buckets.len() >= CLIENTS && !self.buckets.contains_key(&client) {
            let refill = BURST / RATE;
            self.buckets
                .retain(|_, (_, at)| now.duration_since(*at).as_secs_f64() < refill);
            // All of them are busy: forgetting them all is unfair to nobody for long.
            if self.buckets.len() >= CLIENTS {
                self.buckets.clear();
            }
        }
        let (tokens, at) = self.buckets.entry(client).or_insert((BURST, now));
        *tokens = (*tokens + now.duration_since(*at).as_secs_f64() * RATE).min(BURST);
        *at = now;
        let admitted = *tokens >= 1.0;
        if admitted {
            *tokens -= 1.0;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    #[test]
    fn one_client_does_not_starve_another() {
        let (greedy, modest) = (
            Ipv4Addr::new(10, 0, 0, 1).into(),
            Ipv4Addr::LOCALHOST.into(),
        );
        let mut limit = Limit::default();
        let start = Instant::now();
        let admitted = (0..5000).filter(|_| limit.admit(greedy, start)).count();
        assert_eq!(admitted, BURST as usize);
        assert!(limit.admit(modest, start));
        let later = start + Duration::from_millis(10);
        let admitted = (0..5000).filter(|_| limit.admit(greedy, later)).count();
        assert_eq!(admitted, (RATE / 100.0) as usize);
    }

    #[test]
    fn memory_is_bounded() {
        let mut limit = Limit::default();
        let now = Instant::now();
        (0..20_000u32).for_each(|n| _ = limit.admit(Ipv4Addr::from(n).into(), now));
        assert!(limit.buckets.len() <= CLIENTS);
    }
}
