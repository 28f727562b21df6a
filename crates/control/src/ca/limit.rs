//! How often one caller may ask: a bucket of tokens for each, in bounded memory.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::Hash;
use tokio::time::Instant;

/// Callers remembered at once; beyond that the idle ones are forgotten first.
const MOST_CALLERS: usize = 65_536;

/// Buckets of `burst` tokens that fill with `rate` tokens a second.
#[derive(Debug)]
pub(crate) struct Limit<K> {
    buckets: Mutex<HashMap<K, Bucket>>,
    burst: f64,
    rate: f64,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl<K: Eq + Hash> Limit<K> {
    /// Full buckets for everybody.
    pub(crate) fn new(burst: u32, rate: f64) -> Self {
        Self {
            buckets: Mutex::default(),
            burst: f64::from(burst),
            rate,
        }
    }

    /// Takes a token of this caller; false: there is none left.
    pub(crate) fn allows(&self, caller: K, now: Instant) -> bool {
        let (burst, rate) = (self.burst, self.rate);
        let level = |bucket: &Bucket| {
            let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
            (bucket.tokens + passed * rate).min(burst)
        };
        let mut buckets = self.buckets.lock();
        if buckets.len() >= MOST_CALLERS && !buckets.contains_key(&caller) {
            buckets.retain(|_, bucket| level(bucket) < burst);
            if buckets.len() >= MOST_CALLERS {
                return false;
            }
        }
        let bucket = buckets.entry(caller).or_insert(Bucket {
            tokens: burst,
            at: now,
        });
        let tokens = level(bucket);
        let allowed = tokens >= 1.0;
        *bucket = Bucket {
            tokens: if allowed { tokens - 1.0 } else { tokens },
            at: now,
        };
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn each_caller_has_its_own_bucket() {
        let limit = Limit::new(2, 0.5);
        let now = Instant::now();
        let later = now + Duration::from_secs(2);
        let asked: Vec<bool> = [
            ("a", now),
            ("a", now),
            ("a", now),
            ("b", now),
            ("a", later),
            ("a", later),
        ]
        .map(|(caller, at)| limit.allows(caller, at))
        .to_vec();
        assert_eq!(asked, [true, true, false, true, true, false]);
    }
}
