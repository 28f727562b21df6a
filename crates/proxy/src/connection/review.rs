//! What a connection is asked beside its plan: whether it may come in, and whether it still may.

use super::Conn;
use crate::live::{Held, Review};
use crate::security;
use lateen_model::decide;
use lateen_model::decide::plan::Direction;
use lateen_model::security::MtlsMode;

impl Conn {
    /// Puts the connection under review, beginning now; one of our own application needs none.
    pub(crate) fn hold(&self, review: Review) -> Option<Held> {
        if self.facts.direction == Direction::Outbound {
            return None;
        }
        let worker = &self.worker;
        let (watch, proof) = (self.watch.clone(), self.proof.clone());
        Some(worker.watchlist.hold(&worker.shared, watch, proof, review))
    }

    /// Whether the client is likely to begin the mesh's TLS, though it need not.
    pub(super) fn may_begin_tls(&self) -> bool {
        let live = self.worker.shared.live.load();
        let snapshot = &live.snapshot;
        let workload = snapshot.workload_at(self.facts.source.ip());
        !self.peer.tls
            && workload.is_some_and(|workload| workload.takes_mtls)
            && decide::peer_mode(snapshot, &self.facts).mode == MtlsMode::Permissive
    }

    /// Whether policies for connections let it in.
    pub(crate) fn is_admitted(&self) -> bool {
        let live = self.worker.shared.live.load();
        security::admit(&live.snapshot, &self.facts, &self.peer).is_ok()
    }
}
