//! Every decision of the data plane as pure functions: snapshot in, plan out.
//!
//! ```text
//! ResourceSet + Scope --Snapshot::build--> Snapshot
//! connection(&Snapshot, &ConnectionFacts, dice) --> ConnectionPlan        (on accept)
//! server_name(&Snapshot, &ConnectionFacts, sni, dice) --> TcpPlan         (TLS passed through)
//! request(&Snapshot, &ConnectionFacts, &RequestHead, dice) --> RequestPlan
//! ```
//! Nothing here waits, logs, counts or looks at a clock; chance comes in as a number.

pub mod authz;
pub mod cluster;
mod clusters;
pub mod gateway;
pub mod host;
mod inbound;
mod l4;
mod matcher;
mod outbound;
pub mod plan;
mod policy;
mod registry;
pub mod resources;
mod rewrite;
mod routes;
pub mod simulate;
pub mod snapshot;
pub mod summary;
mod virtual_hosts;

#[cfg(test)]
mod tests;

use plan::{
    ConnectionFacts, ConnectionPlan, Direction, Fault, FaultReason, RequestHead, RequestPlan,
    TcpPlan,
};
use snapshot::Snapshot;

/// Decides what to do with a connection when it is accepted. `dice` is any evenly drawn number: it
/// chooses among weighted destinations of TCP routes.
pub fn connection(snapshot: &Snapshot, facts: &ConnectionFacts, dice: u64) -> ConnectionPlan {
    match facts.direction {
        Direction::Outbound => outbound::connection(snapshot, facts, dice),
        Direction::Inbound => inbound::connection(snapshot, facts),
        Direction::Gateway => gateway::connection(snapshot, facts, dice),
    }
}

/// Decides where a TLS connection goes that is passed through, once its server name is known.
/// `sni` is empty when the ClientHello carries none.
pub fn server_name(snapshot: &Snapshot, facts: &ConnectionFacts, sni: &str, dice: u64) -> TcpPlan {
    let sni = host::canonical(sni);
    match facts.direction {
        Direction::Outbound => outbound::server_name(snapshot, facts, &sni, dice),
        Direction::Inbound => inbound::tcp(snapshot, facts),
        Direction::Gateway => gateway::server_name(snapshot, facts, &sni, dice),
    }
}

/// Decides what to do with one request. `dice` is any evenly drawn number: it chooses among
/// weighted destinations. Ask again with the same `dice` for a retry and the choice is the same.
pub fn request(
    snapshot: &Snapshot,
    facts: &ConnectionFacts,
    head: &RequestHead<'_>,
    dice: u64,
) -> RequestPlan {
    if head.authority.is_empty() {
        return RequestPlan::Refuse(Fault {
            reason: FaultReason::BadRequest,
            origin: None,
            subject: "a request without Host".to_owned(),
        });
    }
    match facts.direction {
        Direction::Outbound => outbound::request(snapshot, facts, head, dice),
        Direction::Inbound => inbound::request(snapshot, facts),
        Direction::Gateway => gateway::request(snapshot, facts, head, dice),
    }
}
