//! How a connection's peer proved who it is, and whether that still holds: by the mesh's roots for those whom the mesh
//! vouched for, by a gateway's own settings for its clients. Peers that neither vouches for are not looked at again.

use crate::shared::Shared;
use crate::tls::{GatewayClients, unlisted};
use lateen_model::decide;
use lateen_model::decide::plan::{ConnectionFacts, Fault, FaultReason, Inside, ServerFacts};
use lateen_model::decide::snapshot::Snapshot;
use lateen_model::identity::SpiffeId;
use lateen_model::tls::{ServerTls, ServerTlsMode};
use rustls::pki_types::CertificateDer;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

/// A peer's certificates, leaf first; empty: it showed none.
pub(crate) type Chain = Rc<[CertificateDer<'static>]>;

/// Chains that were verified with the mesh's roots of now; the text says why one is not believed.
pub(super) type Verified = HashMap<Chain, Option<String>>;

/// How a peer proved who it is.
#[derive(Clone)]
pub(crate) struct Proof {
    /// What it showed.
    pub(crate) chain: Chain,
    /// When that was verified: certificates may expire while their connection goes on.
    pub(crate) since: SystemTime,
    /// Generation of the membership whose roots vouch for it; absent: the mesh does not.
    pub(crate) mesh: Option<u64>,
    /// Where a gateway's server ended TLS; absent: none did.
    pub(crate) server: Option<AtServer>,
}

/// A connection of which a gateway's server ended TLS.
#[derive(Clone)]
pub(crate) struct AtServer {
    facts: ConnectionFacts,
    sni: Option<String>,
    /// What the chain was verified with last; absent: nothing of the server's own.
    passed: Option<Arc<GatewayClients>>,
}

impl Proof {
    /// A peer that showed this chain, which nobody has vouched for yet.
    pub(crate) fn of(chain: Chain) -> Self {
        Self {
            chain,
            since: SystemTime::now(),
            mesh: None,
            server: None,
        }
    }

    /// A peer that showed nothing.
    pub(crate) fn none() -> Self {
        Self::of(Chain::from([]))
    }

    /// Why the mesh does not vouch for the peer any more. Looked at once for each membership.
    pub(super) fn distrust(&mut self, shared: &Shared, verified: &mut Verified) -> Option<Fault> {
        let vouched = self.mesh?;
        let member = shared.member.load();
        let member = member.as_ref().filter(|m| m.generation != vouched)?;
        let problem = verified.entry(Rc::clone(&self.chain)).or_insert_with(|| {
            let done = member.bundles.verify(&self.chain, self.since);
            done.err().map(|error| error.to_string())
        });
        let Some(problem) = problem else {
            self.mesh = Some(member.generation);
            return None;
        };
        Some(Fault {
            reason: FaultReason::HandshakeFailed,
            origin: None,
            subject: format!("the peer is not trusted any more: {problem}"),
        })
    }

    /// Why a gateway's server would not let the client in as it came: it asks for more now, or verifies with other
    /// certificates. A server that is gone asks for nothing: its requests find no route.
    pub(super) fn outgrown(&mut self, shared: &Shared, snapshot: &Snapshot) -> Option<Fault> {
        let server = self.server.as_ref()?;
        let edge = decide::gateway_server(snapshot, &server.facts, server.sni.as_deref())?;
        let why = self.wanting(shared, edge)?;
        Some(Fault {
            reason: FaultReason::HandshakeFailed,
            origin: Some(edge.1.origin.clone()),
            subject: format!("the server's settings have changed: {why}"),
        })
    }

    fn wanting(
        &mut self,
        shared: &Shared,
        (key, _, then): (&Arc<ServerTls>, &ServerFacts, Inside),
    ) -> Option<String> {
        match key.mode {
            ServerTlsMode::Simple => None,
            ServerTlsMode::OptionalMutual if self.chain.is_empty() => None,
            ServerTlsMode::IstioMutual if self.mesh.is_none() => {
                Some("it wants a certificate of the mesh now".to_owned())
            }
            ServerTlsMode::IstioMutual => unlisted(key, self.identity().as_ref()),
            ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => {
                let now = match shared.servers.settings(shared, key, then) {
                    Ok(served) => served.clients,
                    Err(why) => return Some(why),
                };
                let server = self.server.as_mut()?;
                if server.passed.as_ref().is_some_and(|p| Arc::ptr_eq(p, &now)) {
                    return None;
                }
                let done = now.verify(&self.chain, self.since);
                server.passed = Some(now);
                done.err()
            }
        }
    }

    fn identity(&self) -> Option<SpiffeId> {
        lateen_identity::trust::peer_id(&self.chain).ok()
    }
}

impl AtServer {
    /// `passed` is what the client was verified with in the handshake.
    pub(crate) fn new(
        facts: &ConnectionFacts,
        sni: Option<&str>,
        passed: Option<Arc<GatewayClients>>,
    ) -> Self {
        Self {
            facts: *facts,
            sni: sni.map(str::to_owned),
            passed,
        }
    }
}
