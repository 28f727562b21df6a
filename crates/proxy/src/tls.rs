//! Ending TLS that clients bring, and the settings of TLS towards endpoints outside of the mesh. Settings are built once
//! per content of their certificates; when new content cannot be used the last that could stays in force.

mod store;

pub(crate) use store::{Origins, Servers};

use crate::live::Chain;
use crate::shared::Shared;
use lateen_base::Str;
use lateen_identity::tls::explain;
use lateen_identity::trust::still_valid;
use lateen_model::decide::host::canonical;
use lateen_model::decide::plan::{Fault, FaultReason, Inside, Peer, ServerFacts};
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
            Self::Handshake(reason) => reason.clone(),
            other => format!("TLS_error:{other}:TLS_error_end"),
        }
    }
}

/// A failed handshake in words.
pub(crate) fn handshake_error(failure: &TlsFailure) -> TlsError {
    TlsError::Handshake(match failure {
        TlsFailure::Refused(error) => format!("TLS_error:{}:TLS_error_end", explain(error)),
        other => other.transport_reason(),
    })
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
    pub(crate) chain: Chain,
}

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
    let ended = ended(stream, handshake);
    // A resumed session was verified when it began.
    let identity = still_valid(&ended.chain, SystemTime::now());
    match identity {
        Ok(identity) => Ok(Ended {
            peer: Peer {
                identity: Some(identity),
                ..ended.peer
            },
            ..ended
        }),
        Err(error) => Err(refused(error.to_string()).into()),
    }
}

/// Ends TLS as a server of a gateway asks for.
///
/// # Errors
/// The server has no usable certificate, or the client's does not do.
pub(crate) async fn end_gateway(
    shared: &Shared,
    stream: Stream,
    (key, server, then): (&Arc<ServerTls>, &ServerFacts, Inside),
) -> Result<Ended, NotEnded> {
    if key.mode == ServerTlsMode::IstioMutual {
        return end_mesh(shared, stream).await.map_err(|not| NotEnded {
            fault: Fault {
                origin: Some(server.origin.clone()),
                ..not.fault
            },
            ..not
        });
    }
    let refused = |subject: String| Fault {
        reason: FaultReason::HandshakeFailed,
        origin: Some(server.origin.clone()),
        subject,
    };
    let config = shared.servers.config(shared, key, then).map_err(|why| {
        refused(format!(
            "server {:?} on port {}: {why}",
            server.name, server.port
        ))
    })?;
    let (stream, handshake) = accept(stream, config, PATIENCE)
        .await
        .map_err(|failure| NotEnded::new(&failure, refused))?;
    let mut ended = ended(stream, handshake);
    // A client of a gateway may be a workload of some mesh; that it is one of ours was not verified.
    if key.mode == ServerTlsMode::Mutual {
        ended.peer.identity = verified_identity(shared, &ended);
    }
    Ok(ended)
}

// Policies at gateways may name principals: only certificates that the mesh itself vouches for have one.
fn verified_identity(shared: &Shared, ended: &Ended) -> Option<SpiffeId> {
    let member = shared.member.load_full()?;
    member.bundles.verify(&ended.chain, SystemTime::now()).ok()
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
        chain: Chain::from(handshake.peer_certificates),
    }
}
