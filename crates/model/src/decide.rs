//! Every decision of the data plane as pure functions: snapshot in, plan out.
//!
//! ```text
//! ResourceSet + Scope --Snapshot::build--> Snapshot
//! connection(&Snapshot, &ConnectionFacts, dice) --> ConnectionPlan        (on accept)
//! server_name(&Snapshot, &ConnectionFacts, sni, dice) --> TcpPlan         (TLS passed through)
//! request(&Snapshot, &ConnectionFacts, &RequestHead, dice) --> RequestPlan
//! ```
//! Nothing here waits, logs, counts or looks at a clock; chance comes in as a number.

pub mod cluster;
pub mod gateway;
pub mod host;
pub mod plan;
pub mod resources;
pub mod snapshot;

use plan::{ConnectionFacts, ConnectionPlan, RequestHead, RequestPlan, TcpPlan};
use snapshot::Snapshot;

/// Decides what to do with a connection when it is accepted. `dice` is any evenly drawn number: it
/// chooses among weighted destinations of TCP routes.
pub fn connection(snapshot: &Snapshot, facts: &ConnectionFacts, dice: u64) -> ConnectionPlan {
    let _ = (facts, dice);
    ConnectionPlan::Tcp(TcpPlan::Forward {
        cluster: snapshot.passthrough.clone(),
        origin: None,
    })
}

/// Decides where a TLS connection goes that is passed through, once its server name is known.
/// `sni` is empty when the ClientHello carries none.
pub fn server_name(snapshot: &Snapshot, facts: &ConnectionFacts, sni: &str, dice: u64) -> TcpPlan {
    let _ = (facts, sni, dice);
    TcpPlan::Forward {
        cluster: snapshot.passthrough.clone(),
        origin: None,
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
    let _ = (snapshot, facts, dice);
    RequestPlan::Refuse(plan::Fault {
        reason: plan::FaultReason::NoRoute,
        origin: None,
        subject: head.authority.to_owned(),
    })
}
