//! Who is at the two ends of a connection, for its records and metrics.

use super::Conn;
use crate::exchange::Open;
use lateen_model::decide::plan::Direction;
use lateen_model::identity::SpiffeId;
use lateen_model::workload::Workload;
use std::sync::Arc;

impl Conn {
    /// Names both ends in an exchange, as far as they are known before the upstream is.
    pub(crate) fn label(&self, open: &mut Open) {
        if !self.server_name.is_empty() {
            open.record.server_name = self.server_name.clone();
        }
        let labels = &self.worker.labels;
        let own = self.worker.shared.member.load();
        let own = own.as_ref().map(|member| &member.svid.id);
        if self.facts.direction == Direction::Inbound {
            let live = self.worker.shared.live.load();
            let workload = live.snapshot.workload_at(self.facts.source.ip());
            let identity = self.peer.identity.as_ref();
            open.source = labels.peer(workload, identity);
            open.destination = labels.own(own.filter(|_| identity.is_some()));
        } else {
            open.source = labels.own(None);
        }
    }

    /// Names the far end in an exchange once it is known; `identity` is who it proved to be.
    pub(crate) fn label_upstream(
        &self,
        open: &mut Open,
        workload: Option<&Arc<Workload>>,
        identity: Option<&SpiffeId>,
    ) {
        if self.facts.direction == Direction::Inbound {
            return;
        }
        let labels = &self.worker.labels;
        open.destination = labels.peer(workload, identity);
        if identity.is_some() {
            let own = self.worker.shared.member.load();
            open.source = labels.own(own.as_ref().map(|member| &member.svid.id));
        }
    }
}
