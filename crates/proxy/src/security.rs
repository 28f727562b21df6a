//! Whether a connection may come in: the mesh's mutual TLS where it is required, and the policies for connections.
//! Requests are authorized elsewhere.

use lateen_model::decide::authz::{self, Denied, Verdict};
use lateen_model::decide::plan::{ConnectionFacts, Direction, Fault, FaultReason, Peer};
use lateen_model::decide::snapshot::Snapshot;
use lateen_model::decide::{self};
use lateen_model::security::MtlsMode;

/// The refusal of a connection that is not mutual TLS where it must be; none when it may go on.
pub(crate) fn must_be_mutual(
    snapshot: &Snapshot,
    facts: &ConnectionFacts,
    peer: &Peer,
) -> Option<Fault> {
    if facts.direction != Direction::Inbound || peer.identity.is_some() {
        return None;
    }
    let wanted = decide::peer_mode(snapshot, facts);
    (wanted.mode == MtlsMode::Strict).then(|| Fault {
        reason: FaultReason::NotMutualTls,
        origin: wanted.origin,
        subject: format!("{} on port {}", facts.source.ip(), facts.destination.port()),
    })
}

/// Asks the policies for connections.
///
/// # Errors
/// A policy says no, with the policy as the fault's origin.
pub(crate) fn admit(
    snapshot: &Snapshot,
    facts: &ConnectionFacts,
    peer: &Peer,
) -> Result<(), Refused> {
    if facts.direction == Direction::Outbound {
        return Ok(());
    }
    let denied = match authz::admit(snapshot, facts, peer).verdict {
        Verdict::Allow => return Ok(()),
        Verdict::Deny(denied) => denied,
        // There is no request to ask about.
        Verdict::Ask(questions) => Denied {
            policy: questions.into_iter().next().map(|q| q.matched),
            reason: "its provider cannot be asked about a connection that is not HTTP".to_owned(),
        },
    };
    Err(refusal(facts, peer, denied))
}

/// Writes an audit record for each AUDIT policy that matches a connection.
pub(crate) fn audit(snapshot: &Snapshot, facts: &ConnectionFacts, peer: &Peer) {
    if facts.direction == Direction::Outbound {
        return;
    }
    for policy in authz::admit(snapshot, facts, peer).audits {
        tracing::info!(
            target: "audit",
            "{policy} matches a connection from {} to {} by {}",
            facts.source,
            facts.destination,
            name(peer),
        );
    }
}

/// The refusal of a connection by a policy.
pub(crate) struct Refused {
    pub(crate) fault: Fault,
    /// What the access log says of the policy (Envoy: connection termination details).
    pub(crate) termination: String,
}

fn name(peer: &Peer) -> &str {
    peer.identity
        .as_ref()
        .map_or("an unknown peer", |id| id.uri())
}

/// Words for what a policy refuses.
pub(crate) fn refusal(facts: &ConnectionFacts, peer: &Peer, denied: Denied) -> Refused {
    let matched = denied.policy.as_ref().map(|matched| matched.name());
    Refused {
        termination: format!(
            "rbac_access_denied_matched_policy[{}]",
            matched.as_deref().unwrap_or("none")
        ),
        fault: Fault {
            reason: FaultReason::Denied,
            origin: denied.policy.map(|matched| matched.policy),
            subject: format!(
                "{} from {} to port {}: {}",
                name(peer),
                facts.source.ip(),
                facts.destination.port(),
                denied.reason
            ),
        },
    }
}
