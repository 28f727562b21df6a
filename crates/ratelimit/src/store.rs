//! Where hits are counted: a closed set of stores with one question.

pub mod memory;
pub mod redis;
mod resp;

use std::time::Duration;

/// Hits of one counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// The counter, its window included.
    pub key: String,
    /// How many.
    pub hits: u64,
    /// How many the window may have.
    pub limit: u64,
    /// Second since 1970 at which the window ends.
    pub end: u64,
}

/// What became of a [`Hit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Whether all of its hits are within the limit. Hits that are not leave the window as it was, as far as they
    /// were several: what is left is for smaller requests.
    pub granted: bool,
    /// What the window had before.
    pub before: u64,
    /// What is left of the limit.
    pub left: u64,
}

/// Nothing can be counted now; the text is part of a sentence.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// Where hits are counted.
#[derive(Debug)]
pub enum Store {
    /// In this process.
    Memory(memory::Memory),
    /// In Redis, where several servers share them.
    Redis(redis::Redis),
}

impl Store {
    /// Counts hits, each by itself. `now` is the time since 1970.
    ///
    /// # Errors
    /// Redis cannot be reached, or does not answer in time.
    pub async fn count(&self, hits: &[Hit], now: Duration) -> Result<Vec<Counted>, Unavailable> {
        match self {
            Self::Memory(memory) => Ok(hits.iter().map(|hit| memory.count(hit, now)).collect()),
            Self::Redis(redis) => redis.count(hits, now).await,
        }
    }
}
