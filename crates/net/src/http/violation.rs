//! What a peer did that ends its connection, and how often each happened in this process.

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a connection was ended by us, although its peer would have gone on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Bytes that two HTTP/1 implementations could read differently (RFC 9112): nothing after them was looked at.
    #[error("HTTP/1 framing: {0}")]
    Framing(&'static str),
    /// More HTTP/2 frames of a kind than an honest peer sends.
    #[error("HTTP/2 flood: {0}")]
    Flood(&'static str),
    /// A head that did not come to its end in time.
    #[error("a request head that did not come to its end in time")]
    SlowHead,
    /// The peer took no byte for too long while we had some for it.
    #[error("the peer took no byte of its answer for too long")]
    Stalled,
}

static COUNTS: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];
const NAMES: [&str; 4] = ["http1_framing", "http2_flood", "slow_head", "write_stalled"];

impl Violation {
    fn index(self) -> usize {
        match self {
            Self::Framing(_) => 0,
            Self::Flood(_) => 1,
            Self::SlowHead => 2,
            Self::Stalled => 3,
        }
    }

    /// Counts it; whoever ends a connection for it does so once.
    pub fn count(self) {
        COUNTS[self.index()].fetch_add(1, Ordering::Relaxed);
    }
}

/// How many connections were ended for each kind of [`Violation`] since the process began, by a name for metrics.
pub fn violations() -> impl Iterator<Item = (&'static str, u64)> {
    let count = |n: &AtomicU64| n.load(Ordering::Relaxed);
    NAMES.into_iter().zip(COUNTS.iter().map(count))
}

/// The violation that is behind an engine's error: the peer's fault, not the network's.
pub fn violation(error: &(dyn Error + 'static)) -> Option<Violation> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<Violation>() {
            return Some(*found);
        }
        // An IO error shows the cause of what it wraps, not what it wraps.
        let wrapped = error.downcast_ref::<std::io::Error>();
        if let Some(inner) = wrapped.and_then(|e| e.get_ref()) {
            if let Some(found) = inner.downcast_ref::<Violation>() {
                return Some(*found);
            }
            cause = Some(inner);
            continue;
        }
        cause = error.source();
    }
    None
}
