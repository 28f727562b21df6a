//! Counters in memory, bounded in number. Which end is known by their windows; when there are still too many, those go
//! that would have ended first.

use super::{Counted, Hit};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Parts that are locked by themselves.
const PARTS: usize = 16;

/// Counters of this process.
#[derive(Debug)]
pub struct Memory {
    parts: Vec<Mutex<Part>>,
    hasher: RandomState,
    most: usize,
    evictions: AtomicU64,
}

#[derive(Debug, Default)]
struct Part {
    counters: HashMap<Arc<str>, (u64, u64)>,
    by_end: BTreeSet<(u64, Arc<str>)>,
}

impl Memory {
    /// A store of at most `most` counters.
    pub fn new(most: usize) -> Self {
        Self {
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            most: most.div_ceil(PARTS).max(1),
            evictions: AtomicU64::new(0),
        }
    }

    /// How many counters there are.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|p| p.lock().counters.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Counters that were thrown away before their window ended.
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// Counts hits.
    pub fn count(&self, hit: &Hit, now: Duration) -> Counted {
        let hash = self.hasher.hash_one(hit.key.as_str());
        let part = &self.parts[(hash % PARTS as u64) as usize];
        let mut part = part.lock();
        part.drop_ended(now.as_secs());
        let before = part.counters.get(hit.key.as_str()).map_or(0, |c| c.0);
        let after = before.saturating_add(hit.hits);
        let granted = after <= hit.limit;
        if granted && hit.hits > 0 {
            self.put(&mut part, hit, after);
        }
        Counted {
            granted,
            before,
            left: hit
                .limit
                .saturating_sub(if granted { after } else { before }),
        }
    }

    fn put(&self, part: &mut Part, hit: &Hit, value: u64) {
        if let Some(counter) = part.counters.get_mut(hit.key.as_str()) {
            counter.0 = value;
            return;
        }
        if part.counters.len() >= self.most
            && let Some((_, key)) = part.by_end.pop_first()
        {
            part.counters.remove(&key);
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
        let key: Arc<str> = hit.key.as_str().into();
        part.by_end.insert((hit.end, Arc::clone(&key)));
        part.counters.insert(key, (value, hit.end));
    }
}

impl Part {
    fn drop_ended(&mut self, now: u64) {
        while let Some((end, _)) = self.by_end.first()
            && *end <= now
        {
            if let Some((_, key)) = self.by_end.pop_first() {
                self.counters.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(key: &str, hits: u64, limit: u64, end: u64) -> Hit {
        Hit {
            key: key.to_owned(),
            hits,
            limit,
            end,
        }
    }

    #[test]
    fn a_refused_lease_leaves_what_is_left() {
        let memory = Memory::new(100);
        let now = Duration::from_secs(1);
        assert!(memory.count(&hit("a", 7, 10, 60), now).granted);
        let refused = memory.count(&hit("a", 5, 10, 60), now);
        assert!(!refused.granted);
        assert_eq!(refused.left, 3);
        assert!(memory.count(&hit("a", 3, 10, 60), now).granted);
        assert!(!memory.count(&hit("a", 1, 10, 60), now).granted);
    }

    #[test]
    fn the_number_of_counters_is_bounded_and_ended_ones_go_first() {
        let memory = Memory::new(64);
        for i in 0..10_000 {
            memory.count(&hit(&format!("k{i}"), 1, 10, 60), Duration::from_secs(1));
        }
        assert!(memory.len() <= 64, "{}", memory.len());
        assert!(memory.evictions() >= 10_000 - 64);
        let evicted = memory.evictions();
        // One of each part, after the end of all windows.
        for i in 0..1000 {
            memory.count(&hit(&format!("k{i}"), 1, 10, 99), Duration::from_secs(60));
            if i == 0 {
                assert!(memory.len() <= 61, "the part of the first key has only it");
            }
        }
        assert!(memory.evictions() > evicted);
    }
}
