//! Whether a connection may come in: the mesh's mutual TLS where it is required, and the policies for connections.
//! Requests are authorized elsewhere.

use crate::authorize::Noticed;
use crate::connection::Conn;
use crate::external;
use lateen_base::Str;
use lateen_model::decide::authz::{self, Denied, Verdict};
use lateen_model::decide::plan::{ConnectionFacts, Direction, Fault, FaultReason, Peer};
use lateen_model::decide::snapshot::Snapshot;
use lateen_model::decide::{self};
use lateen_model::security::MtlsMode;
use lateen_telemetry::record::Record;

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

/// What the policies for connections say, where no provider can be asked any more.
///
/// # Errors
/// A policy says no, with the policy as the fault's origin.
pub(crate) fn admit(
    snapshot: &Snapshot,
    facts: &ConnectionFacts,
    peer: &Peer,
) -> Result<(), Refused> {
    admit_again(snapshot, facts, peer, &[])
}

/// As [`admit`], for a connection that the providers in `asked` have agreed to: what they said holds as long as it.
///
/// # Errors
/// As for [`admit`].
pub(crate) fn admit_again(
    snapshot: &Snapshot,
    facts: &ConnectionFacts,
    peer: &Peer,
    asked: &[Str],
) -> Result<(), Refused> {
    if facts.direction == Direction::Outbound {
        return Ok(());
    }
    let denied = match authz::admit(snapshot, facts, peer).verdict {
        Verdict::Allow => return Ok(()),
        Verdict::Deny(denied) => denied,
        Verdict::Ask(questions) => {
            let is_new = |q: &authz::Question| !asked.contains(&q.provider.name);
            let Some(question) = questions.into_iter().find(is_new) else {
                return Ok(());
            };
            Denied {
                policy: Some(question.matched),
                reason: "its provider cannot be asked about a connection that is open already"
                    .to_owned(),
            }
        }
    };
    Err(refusal(facts, peer, denied))
}

/// Asks the policies for connections, and the providers that they name; who agreed comes back. AUDIT policies and
/// those that are tried dry are noted.
///
/// # Errors
/// A policy or a provider says no, or a provider cannot be asked.
pub(crate) async fn ask(conn: &Conn, record: &Record) -> Result<Vec<Str>, Refused> {
    if conn.facts.direction == Direction::Outbound {
        return Ok(Vec::new());
    }
    let ruling = {
        let live = conn.worker.shared.live.load();
        authz::admit(&live.snapshot, &conn.facts, &conn.peer)
    };
    let noticed = Noticed {
        conn,
        record,
        request: None,
    };
    noticed.write(&ruling);
    let questions = match ruling.verdict {
        Verdict::Allow => return Ok(Vec::new()),
        Verdict::Deny(denied) => return Err(refusal(&conn.facts, &conn.peer, denied)),
        Verdict::Ask(questions) => questions,
    };
    let mut agreed = Vec::new();
    for question in &questions {
        Box::pin(external::admit(conn, question))
            .await
            .map_err(|fault| Refused {
                termination: match fault.reason {
                    FaultReason::AuthzRefused => "ext_authz_denied".to_owned(),
                    _ => "ext_authz_error".to_owned(),
                },
                fault: *fault,
            })?;
        agreed.push(question.provider.name.clone());
    }
    // Policies may have changed while somebody was asked.
    let live = conn.worker.shared.live.load();
    admit_again(&live.snapshot, &conn.facts, &conn.peer, &agreed)?;
    Ok(agreed)
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
