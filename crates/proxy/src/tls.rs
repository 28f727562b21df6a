//! Ending TLS that clients bring, and the settings of TLS towards endpoints outside of the mesh. Settings are built once
//! per content of their certificates; when new content cannot be used the last that could stays in force.

mod store;

pub(crate) use lateen_identity::tls::GatewayClients;
pub(crate) use store::{Origins, Servers};

use crate::live::{AtServer, Chain, Proof};
use crate::shared::Shared;
use lateen_base::Str;
use lateen_identity::tls::explain;
use lateen_model::decide::host::canonical;
use lateen_model::decide::plan::{ConnectionFacts, Fault, FaultReason, Inside, Peer, ServerFacts};
use lateen_model::identity::SpiffeId;
use lateen_model::tls::{ServerTls, ServerTlsMode};
use lateen_net::detect::ClientHello;
use lateen_net::stream::Stream;
use lateen_net::tls::{Handshake, TlsFailure, accept};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Bound on a client's handshake, from its first byte awaited to its last (Istio: 15 s for the first bytes, 10 s for TLS).
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// TLS towards an endpoint did not come about.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum TlsError {
    /// The proxy cannot prove who it is.
    #[error("this proxy has no certificate of the mesh: {0}")]
    NoCertificate(String),
    /// The handshake failed, in Envoy's words.
    #[error("{0}")]
    Handshake(String),
    /// The handshake took too long, in Envoy's words.
    #[error("{0}")]
    TooSlow(String),
    /// The endpoint is somebody else.
    #[error("{0}")]
    Identity(String),
    /// The settings cannot be used.
    #[error("{0}")]
    Settings(String),
}

impl TlsError {
    /// The reason in Envoy's words, for `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
    pub(crate) fn transport_reason(&self) -> String {
        match self {
            Self::Handshake(reason) | Self::TooSlow(reason) => reason.clone(),
            other => format!("TLS_error:{other}:TLS_error_end"),
        }
    }
}

/// A failed handshake in words.
pub(crate) fn handshake_error(failure: &TlsFailure) -> TlsError {
    match failure {
        TlsFailure::Refused(error) => {
            TlsError::Handshake(format!("TLS_error:{}:TLS_error_end", explain(error)))
        }
        TlsFailure::Timeout(_) => TlsError::TooSlow(failure.transport_reason()),
        other => TlsError::Handshake(other.transport_reason()),
    }
}

/// The same for logs.
fn sentence(failure: &TlsFailure) -> String {
    match failure {
        TlsFailure::Refused(error) => explain(error),
        other => other.to_string(),
    }
}

/// Whether a hello is from a proxy of the mesh (Istio's ALPN scheme), and not TLS of the application's own.
pub(crate) fn is_mesh(hello: &ClientHello) -> bool {
    hello
        .alpn
        .iter()
        .any(|protocol| protocol == "istio" || protocol.starts_with("istio-"))
}

/// Why TLS did not come about.
pub(crate) struct NotEnded {
    pub(crate) fault: Fault,
    /// Whether it was the client who left: nothing to report.
    pub(crate) left: bool,
}

impl NotEnded {
    fn new(failure: &TlsFailure, fault: impl FnOnce(String) -> Fault) -> Self {
        Self {
            left: matches!(failure, TlsFailure::Closed | TlsFailure::Broken(_)),
            fault: fault(sentence(failure)),
        }
    }
}

impl From<Fault> for NotEnded {
    fn from(fault: Fault) -> Self {
        Self { fault, left: false }
    }
}

/// A connection whose TLS ended here.
pub(crate) struct Ended {
    pub(crate) stream: Stream,
    pub(crate) peer: Peer,
    pub(crate) proof: Proof,
}

/// A server of a gateway that ends TLS: its settings, itself, and what is inside.
pub(crate) type Edge<'a> = (&'a Arc<ServerTls>, &'a ServerFacts, Inside);

/// Ends the mesh's mutual TLS.
///
/// # Errors
/// The proxy has no certificate yet, or the client is no member of the mesh.
pub(crate) async fn end_mesh(shared: &Shared, stream: Stream) -> Result<Ended, NotEnded> {
    let refused = |subject: String| Fault {
        reason: FaultReason::HandshakeFailed,
        origin: None,
        subject,
    };
    let Some(member) = shared.member.load_full() else {
        return Err(refused(format!(
            "this proxy has no certificate of the mesh: {}",
            shared.why_no_certificate()
        ))
        .into());
    };
    let (stream, handshake) = accept(stream, member.tls.server(), PATIENCE)
        .await
        .map_err(|failure| NotEnded::new(&failure, refused))?;
    let resumed = handshake.resumed;
    let mut ended = ended(stream, handshake);
    let identity = member
        .tls
        .peer(&ended.proof.chain, resumed, SystemTime::now())
        .map_err(|error| refused(error.to_string()))?;
    ended.peer.identity = Some(identity);
    ended.proof.mesh = Some(member.generation);
    Ok(ended)
}

/// Ends TLS as a server of a gateway asks for; `sni` is the name that chose it.
///
/// # Errors
/// The server has no usable certificate, or the client's does not do.
pub(crate) async fn end_gateway(
    shared: &Shared,
    stream: Stream,
    (key, server, then): Edge<'_>,
    facts: &ConnectionFacts,
    sni: Option<&str>,
) -> Result<Ended, NotEnded> {
    let refused = |subject: String| Fault {
        reason: FaultReason::HandshakeFailed,
        origin: Some(server.origin.clone()),
        subject,
    };
    if key.mode == ServerTlsMode::IstioMutual {
        let mut ended = end_mesh(shared, stream).await.map_err(|not| NotEnded {
            fault: Fault {
                origin: Some(server.origin.clone()),
                ..not.fault
            },
            ..not
        })?;
        unlisted(key, ended.peer.identity.as_ref()).map_or(Ok(()), |why| Err(refused(why)))?;
        ended.proof.server = Some(AtServer::new(facts, sni, None));
        return Ok(ended);
    }
    let served = shared.servers.settings(shared, key, then).map_err(|why| {
        refused(format!(
            "server {:?} on port {}: {why}",
            server.name, server.port
        ))
    })?;
    let (stream, handshake) = accept(stream, served.config, PATIENCE)
        .await
        .map_err(|failure| NotEnded::new(&failure, refused))?;
    let mut ended = ended(stream, handshake);
    // A client of a gateway may be a workload of some mesh; that it is one of ours was not verified.
    if let Some((identity, generation)) = verified_identity(shared, &ended.proof.chain) {
        ended.peer.identity = Some(identity);
        ended.proof.mesh = Some(generation);
    }
    ended.proof.server = Some(AtServer::new(facts, sni, Some(served.clients)));
    Ok(ended)
}

/// Why a member of the mesh is not among those that a server of mode ISTIO_MUTUAL takes (`subjectAltNames`).
pub(crate) fn unlisted(key: &ServerTls, identity: Option<&SpiffeId>) -> Option<String> {
    let id = identity.map_or("", |id| id.uri());
    let listed = key.sans.is_empty() || key.sans.iter().any(|san| **san == *id);
    (!listed).then(|| format!("{id} is not among the server's subjectAltNames"))
}

// Policies at gateways may name principals: only certificates that the mesh itself vouches for have one.
fn verified_identity(shared: &Shared, chain: &Chain) -> Option<(SpiffeId, u64)> {
    if chain.is_empty() {
        return None;
    }
    let member = shared.member.load_full()?;
    let identity = member.bundles.verify(chain, SystemTime::now()).ok()?;
    Some((identity, member.generation))
}

fn ended(stream: Stream, handshake: Handshake) -> Ended {
    let server_name = handshake.server_name.unwrap_or_default();
    Ended {
        stream,
        peer: Peer {
            identity: None,
            server_name: Str::from(canonical(&server_name).as_ref()),
            alpn: handshake.alpn.unwrap_or_default().into(),
            tls: true,
        },
        proof: Proof::of(Chain::from(handshake.peer_certificates)),
    }
}
