//! Token buckets that all workers share, each one atomic number: the time at which it will be full again (GCRA).

use super::generations::Generations;
use super::standing::Standing;
use lateen_filters::external::Fingerprint;
use lateen_model::decide::limits::{Counter, Met};
use lateen_model::limit::Bucket;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Parts that are locked by themselves.
const PARTS: usize = 16;
/// Buckets of a part that stay for sure as long as they are used; twice as many are there at most.
const MOST: usize = 4096;

/// Every bucket of the proxy.
#[derive(Debug)]
pub(crate) struct Buckets {
    parts: [Mutex<Generations<Fingerprint, Arc<AtomicU64>>>; PARTS],
    epoch: Instant,
}

/// A token that was taken.
#[derive(Debug)]
pub(super) struct Taken {
    full_at: Arc<AtomicU64>,
    token: u64,
}

impl Default for Buckets {
    fn default() -> Self {
        Self {
            parts: std::array::from_fn(|_| Mutex::new(Generations::new(MOST))),
            epoch: Instant::now(),
        }
    }
}

impl Buckets {
    /// Takes a token of the bucket that counts a request. Absent: there is none.
    pub(super) fn take(&self, met: &Met, counter: &Counter) -> (Standing, Option<Taken>) {
        let now = u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let full_at = self.bucket(&key(met, counter));
        take(&full_at, &counter.bucket, now)
    }

    /// Gives tokens back.
    pub(super) fn give_back(&self, taken: &[Taken]) {
        for one in taken {
            one.full_at.fetch_sub(one.token, Ordering::Relaxed);
        }
    }

    fn bucket(&self, key: &Fingerprint) -> Arc<AtomicU64> {
        let part = &self.parts[key.part(PARTS)];
        Arc::clone(part.lock().entry(key, Arc::default))
    }
}

/// Tells a bucket from others, whatever its size: a change of a limit goes on from what is left.
fn key(met: &Met, counter: &Counter) -> Fingerprint {
    let origin = met.origin();
    let rule = met.rule.to_be_bytes();
    let at = counter.values.as_ref().map_or(usize::MAX, |(at, _)| *at);
    let at = at.to_be_bytes();
    let mut parts: Vec<&[u8]> = vec![
        origin.namespace.as_bytes(),
        origin.name.as_bytes(),
        &rule,
        &at,
    ];
    for (key, value) in counter.values.iter().flat_map(|(_, values)| values) {
        parts.extend([key.as_bytes(), value.as_bytes()]);
    }
    Fingerprint::of(parts)
}

/// Takes a token at `now` (nanoseconds). A token is worth the time that it takes to come back; what the bucket lacks of
/// being full is the time until it is.
pub(super) fn take(
    full_at: &Arc<AtomicU64>,
    bucket: &Bucket,
    now: u64,
) -> (Standing, Option<Taken>) {
    let interval = u64::try_from(bucket.interval.as_nanos()).unwrap_or(u64::MAX);
    let limit = u64::from(bucket.tokens);
    let standing = |left, reset| {
        Standing::of_bucket(limit, bucket.interval, left, Duration::from_nanos(reset))
    };
    if bucket.tokens == 0 || bucket.burst == 0 {
        return (standing(0, interval), None);
    }
    let token = interval.div_ceil(limit).max(1);
    let size = token.saturating_mul(u64::from(bucket.burst));
    let mut seen = full_at.load(Ordering::Relaxed);
    loop {
        // What a larger bucket lacked is more than a smaller one can lack.
        let lacks = seen.saturating_sub(now).min(size);
        let after = lacks.saturating_add(token);
        if after > size {
            return (standing(0, after - size), None);
        }
        let new = now.saturating_add(after);
        match full_at.compare_exchange_weak(seen, new, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => {
                let taken = Taken {
                    full_at: Arc::clone(full_at),
                    token,
                };
                return (standing((size - after) / token, after), Some(taken));
            }
            Err(other) => seen = other,
        }
    }
}
