//! How many connections may be open at once: admission is one atomic addition, and leaving is automatic.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Descriptors that a process needs beside its clients' connections.
const OTHERS: usize = 256;

/// Raises the limit on descriptors to what the process may have; returns the limit in force. Common defaults (1024) are
/// meant for programs that use `select`, and are too few for a proxy.
pub fn raise_descriptors() -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return 1024;
    };
    let raised = soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    usize::try_from(if raised { hard } else { soft }).unwrap_or(usize::MAX)
}

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
        self.admit_below(self.most)
    }

    /// As [`Self::admit`], for those who must leave an eighth of the places to others.
    pub fn admit_stranger(self: &Arc<Self>) -> Option<Admission> {
        self.admit_below(self.most - self.most / 8)
    }

    fn admit_below(self: &Arc<Self>, most: usize) -> Option<Admission> {
        let admitted = self.open.fetch_add(1, Ordering::Relaxed) < most;
        // From here on the place is given back on every path.
        let admission = Admission(Arc::clone(self));
        if admitted {
            return Some(admission);
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// Counts a connection that was refused for another reason.
    pub fn note_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
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

    #[test]
    fn strangers_leave_places_to_others() {
        let budget = ConnectionBudget::new(8);
        let held: Vec<_> = std::iter::from_fn(|| budget.admit_stranger()).collect();
        assert_eq!(held.len(), 7);
        let own = budget.admit();
        assert!(own.is_some() && budget.admit().is_none());
    }

    #[test]
    fn descriptors_are_raised_to_what_there_may_be() {
        use nix::sys::resource::{Resource, getrlimit};
        let raised = raise_descriptors();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!((soft, raised as u64), (hard, hard));
    }
}
