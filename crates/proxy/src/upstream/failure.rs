//! Why nothing came back.

use lateen_model::decide::plan::FaultReason;
use lateen_model::workload::Workload;
use std::net::SocketAddr;
use std::sync::Arc;

/// A request or connection that could not be served.
#[derive(Debug, Clone)]
pub(crate) struct Failed {
    pub(crate) reason: FaultReason,
    /// The connection's failure in Envoy's words; empty when there was none.
    pub(crate) transport: String,
    /// The endpoint tried last.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) workload: Option<Arc<Workload>>,
    pub(crate) attempts: u32,
    /// Whether a retry policy was used up.
    pub(crate) exhausted: bool,
    /// Whether the cluster's limit on retries left none.
    pub(crate) overflowed: bool,
    /// Whether it was the client that failed to send its body.
    pub(crate) client_gone: bool,
}

impl Failed {
    /// The same, where the last retry would have been one too many of the cluster's (`overflowed`).
    pub(super) fn overflowed(self, overflowed: bool) -> Self {
        Self {
            exhausted: self.exhausted && !overflowed,
            overflowed,
            ..self
        }
    }

    pub(crate) fn new(reason: FaultReason) -> Self {
        Self {
            reason,
            transport: String::new(),
            address: None,
            workload: None,
            attempts: 0,
            exhausted: false,
            overflowed: false,
            client_gone: false,
        }
    }
}
