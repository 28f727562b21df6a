//! How a proxy ends: told to drain, it waits for what is under way, then everything stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Notify, watch};

/// The stages of a proxy's life, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Serving.
    Running,
    /// Serving, not ready; clients are asked to go elsewhere.
    Draining,
    /// As draining, and ending as soon as nothing is under way.
    Ending,
    /// Stopping at once.
    Ended,
}

/// The current stage, and how much is under way.
#[derive(Debug, Clone)]
pub(crate) struct Drain {
    stage: Arc<watch::Sender<Stage>>,
    active: Arc<Active>,
}

#[derive(Debug, Default)]
struct Active {
    count: AtomicUsize,
    idle: Notify,
}

/// Held while a request or a TCP connection is under way.
#[derive(Debug)]
pub(crate) struct Underway(Arc<Active>);

impl Drain {
    pub(crate) fn new() -> Self {
        Self {
            stage: Arc::new(watch::Sender::new(Stage::Running)),
            active: Arc::default(),
        }
    }

    pub(crate) fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// Moves on to `stage`; never back.
    pub(crate) fn advance(&self, stage: Stage) {
        self.stage.send_if_modified(|current| {
            let forward = stage > *current;
            if forward {
                *current = stage;
            }
            forward
        });
    }

    /// Resolves once `stage` is reached.
    pub(crate) async fn reached(&self, stage: Stage) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self
            .stage
            .subscribe()
            .wait_for(|current| *current >= stage)
            .await;
    }

    pub(crate) fn begin(&self) -> Underway {
        self.active.count.fetch_add(1, Ordering::Relaxed);
        Underway(Arc::clone(&self.active))
    }

    pub(crate) fn active(&self) -> usize {
        self.active.count.load(Ordering::Relaxed)
    }

    /// Resolves when nothing is under way.
    pub(crate) async fn idle(&self) {
        loop {
            let notified = self.active.idle.notified();
            if self.active() == 0 {
                return;
            }
            notified.await;
        }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}
