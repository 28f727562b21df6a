//! Bounds on how long an answer may take, counted from when the whole request is there (Envoy: route and per-try
//! timeouts): a slow upload is not a slow upstream.

use super::Replay;
use super::replay::Ended;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

/// A bound on one exchange or try.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    limit: Duration,
    since: Instant,
    body: Rc<Ended>,
}

impl Bound {
    /// `limit` from now, or from the end of the request's body if that comes later.
    pub(crate) fn after(body: &Replay, limit: Duration) -> Self {
        Self {
            limit,
            since: Instant::now(),
            body: body.ended(),
        }
    }

    /// How much of it is left; all of it while the client still sends.
    pub(crate) fn left(&self) -> Duration {
        let ended = self.body.at();
        let until = ended.map(|at| at.max(self.since) + self.limit);
        until.map_or(self.limit, |until| {
            until.saturating_duration_since(Instant::now())
        })
    }

    /// Waits until it has passed.
    pub(crate) async fn passed(&self) {
        let ended = self.body.wait().await;
        tokio::time::sleep_until(ended.max(self.since) + self.limit).await;
    }
}
