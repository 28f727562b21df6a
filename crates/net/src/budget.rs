//! How many connections may be open at once: admission is one atomic addition, and leaving is automatic.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Descriptors that a process needs beside its clients' connections.
const OTHERS: usize = 256;

/// A bound on open connections, shared by all workers of a process or of a listener.
#[derive(Debug)]
pub struct ConnectionBudget {
    open: AtomicUsize,
    most: usize,
    refused: AtomicUsize,
}

/// One connection's place; dropping it gives the place back.
#[derive(Debug)]
pub struct Admission(Arc<ConnectionBudget>);

impl ConnectionBudget {
    /// At most `most` connections at once.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            open: AtomicUsize::new(0),
            most,
            refused: AtomicUsize::new(0),
        })
    }

    /// As many as there are descriptors for: every client may need another one upstream. (Envoy has no bound unless one
    /// is configured, and fails at the descriptors' end.)
    pub fn from_descriptors() -> Arc<Self> {
        use nix::sys::resource::{Resource, getrlimit};
        let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        Self::new((descriptors.saturating_sub(OTHERS) / 2).max(64))
    }

    /// Admits one connection; none when all places are taken: the connection is to be closed at once.
    pub fn admit(self: &Arc<Self>) -> Option<Admission> {
        let admitted = self.open.fetch_add(1, Ordering::Relaxed) < self.most;
        // From here on the place is given back on every path.
        let admission = Admission(Arc::clone(self));
        if admitted {
            return Some(admission);
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections that were refused since the beginning.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back() {
        let budget = ConnectionBudget::new(2);
        let first = budget.admit();
        let second = budget.admit();
        assert!(first.is_some() && second.is_some() && budget.admit().is_none());
        drop(first);
        assert!(budget.admit().is_some(), "its place is free again");
        assert_eq!((budget.open(), budget.refused()), (1, 1));
        assert!(ConnectionBudget::from_descriptors().admit().is_some());
    }
}
