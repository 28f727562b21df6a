//! Every decision of the data plane as pure functions: snapshot in, plan out.
//!
//! ```text
//! ResourceSet + Scope --Snapshot::build--> Snapshot
//! connection(&Snapshot, &ConnectionFacts, dice) --> ConnectionPlan        (on accept)
//! peer_mode(&Snapshot, &ConnectionFacts) --> PeerMode                     (inbound: mutual TLS or not)
//! secured(&Snapshot, &ConnectionFacts, alpn, dice) --> ConnectionPlan     (inbound, after the mesh's TLS ended here)
//! server_name(&Snapshot, &ConnectionFacts, sni, dice) --> TcpPlan         (TLS passed through)
//! gateway_tls(&Snapshot, &ConnectionFacts, sni, dice) --> GatewayTls      (gateway: TLS, server name known)
//! gateway_decrypted(&Snapshot, &ConnectionFacts, sni, dice) --> ConnectionPlan
//! authz::admit(&Snapshot, &ConnectionFacts, &Peer) --> Ruling             (bytes; HTTP is authorized by request)
//! authz::authorize(&Snapshot, &ConnectionFacts, &Peer, &RequestFacts) --> Ruling
//! limits::met(&Snapshot, &ConnectionFacts, &Peer, &LimitFacts) --> Vec<Met>
//! request(&Snapshot, &ConnectionFacts, &Peer, &RequestHead, dice) --> RequestPlan
//! known(&Snapshot, name, search) --> Known?                               (DNS)
//! demand::of_…(&Snapshot, address or name) --> Lookup?                    (to be asked first, where less than all is sent)
//! Directory::reach(&Scope, lookups) --> Reach?                            (control plane: what a proxy is sent)
//! ```
//! Paths and hosts are in the form of [`canonical`] before anything looks at them.
//! Nothing here waits, logs, counts or looks at a clock; chance comes in as a number.

pub mod authz;
pub mod canonical;
pub mod cluster;
mod clusters;
pub mod demand;
pub mod gateway;
pub mod host;
mod inbound;
pub mod jwt;
mod l4;
pub mod limits;
mod locality;
mod matcher;
mod names;
mod outbound;
mod peers;
pub mod plan;
mod policy;
pub mod reach;
mod registry;
pub mod resources;
mod rewrite;
mod routes;
mod security;
mod selection;
pub mod simulate;
pub mod snapshot;
pub mod summary;
mod virtual_hosts;

#[cfg(test)]
mod tests;

use crate::tls::ServerTls;
use plan::{
    ConnectionFacts, ConnectionPlan, Direction, Fault, FaultReason, GatewayTls, Inside, Peer,
    RequestHead, RequestPlan, ServerFacts, TcpPlan,
};
use snapshot::Snapshot;
use std::borrow::Cow;
use std::sync::Arc;

pub use names::{Known, known};
pub use peers::{PeerMode, peer_mode};

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

/// Decides what to do with an inbound connection whose mutual TLS ended here: by the declared protocol of the port,
/// else by `alpn` (Istio: `istio-http/1.1`, `istio-h2`; also `h2` and `http/1.1`), else by what speaks first inside.
/// `dice` as for [`connection`].
pub fn secured(
    snapshot: &Snapshot,
    facts: &ConnectionFacts,
    alpn: &str,
    dice: u64,
) -> ConnectionPlan {
    match facts.direction {
        Direction::Inbound => inbound::secured(snapshot, facts, alpn),
        Direction::Outbound | Direction::Gateway => connection(snapshot, facts, dice),
    }
}

/// Decides which server of a gateway takes a TLS connection, by its server name (none when the ClientHello has none).
/// `dice` as for [`connection`].
pub fn gateway_tls(
    snapshot: &Snapshot,
    facts: &ConnectionFacts,
    sni: Option<&str>,
    dice: u64,
) -> GatewayTls {
    let sni = host::canonical(sni.unwrap_or_default());
    gateway::tls(snapshot, facts, &sni, dice)
}

/// The server of a gateway that ends TLS for a server name, whether its certificates are there or not: what a
/// connection that is open would have to prove now. Absent: nobody ends TLS for that name.
pub fn gateway_server<'s>(
    snapshot: &'s Snapshot,
    facts: &ConnectionFacts,
    sni: Option<&str>,
) -> Option<(&'s Arc<ServerTls>, &'s ServerFacts, Inside)> {
    let sni = host::canonical(sni.unwrap_or_default());
    gateway::server(snapshot, facts, &sni)
}

/// Decides what to do with what is inside a connection whose TLS a gateway ended, with the server name that
/// [`gateway_tls`] saw: HTTP, or bytes. `dice` as for [`connection`].
pub fn gateway_decrypted(
    snapshot: &Snapshot,
    facts: &ConnectionFacts,
    sni: Option<&str>,
    dice: u64,
) -> ConnectionPlan {
    let sni = host::canonical(sni.unwrap_or_default());
    gateway::decrypted(snapshot, facts, &sni, dice)
}

/// Decides what to do with one request. `peer` tells what TLS said: at a gateway the server name chooses the server.
/// `dice` is any evenly drawn number: it chooses among weighted destinations. Ask again with the same `dice` for a
/// retry and the choice is the same. A path that is not canonical is sent on canonical: the plan has it.
pub fn request(
    snapshot: &Snapshot,
    facts: &ConnectionFacts,
    peer: &Peer,
    head: &RequestHead<'_>,
    dice: u64,
) -> RequestPlan {
    let path = match checked(snapshot, head) {
        Ok(path) => path,
        Err(reason) => {
            return RequestPlan::Refuse(Fault {
                reason: FaultReason::BadRequest,
                origin: None,
                subject: reason.to_owned(),
            });
        }
    };
    let seen = RequestHead {
        path: &path,
        ..*head
    };
    let mut plan = match facts.direction {
        Direction::Outbound => outbound::request(snapshot, facts, &seen, dice),
        Direction::Inbound => inbound::request(snapshot, facts),
        Direction::Gateway => gateway::request(snapshot, facts, peer, &seen, dice),
    };
    if let (RequestPlan::Forward(plan), Cow::Owned(path)) = (&mut plan, path) {
        plan.path.get_or_insert(path);
    }
    plan
}

/// The canonical path; what is wrong with the request's path or host.
fn checked<'h>(snapshot: &Snapshot, head: &RequestHead<'h>) -> Result<Cow<'h, str>, &'static str> {
    if head.authority.is_empty() {
        return Err("a request without Host");
    }
    canonical::host(head.authority)?;
    canonical::path(snapshot.mesh.path_normalization, head.path)
}
