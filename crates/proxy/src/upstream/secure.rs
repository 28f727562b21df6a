//! How a connection to an endpoint is secured, and the opening of it: the mesh's mutual TLS to endpoints that have an
//! identity, TLS as a DestinationRule asks for, or none.

use super::pool::Place;
use super::preface;
use crate::identity::Membership;
use crate::live::{Held, Proof, Review, Watchlist};
use crate::shared::Shared;
use crate::tls::{self, TlsError};
use lateen_base::Str;
use lateen_identity::tls::MeshAlpn;
use lateen_model::identity::SpiffeId;
use lateen_model::tls::ClientTls;
use lateen_net::dial::{Dial, DialError, dial};
use lateen_net::stream::Stream;
use lateen_net::tls::Handshake;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How connections to an endpoint are secured.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Security {
    /// Not at all.
    Plain,
    /// By the mesh's mutual TLS.
    Mesh {
        /// Server name to send.
        server_name: Str,
        /// Who the endpoint must prove to be; absent, and no `sans` either: any member of the mesh.
        identity: Option<SpiffeId>,
        /// SPIFFE ids that are taken instead; empty: none.
        sans: Arc<[Str]>,
    },
    /// By TLS as a DestinationRule asks for.
    Origin {
        /// What it asks for.
        settings: Arc<ClientTls>,
        /// Server name to send, and to verify where nothing else is said.
        server_name: Str,
    },
}

impl Security {
    /// Who is called, when it must prove that.
    pub(crate) fn identity(&self) -> Option<&SpiffeId> {
        match self {
            Self::Mesh { identity, .. } => identity.as_ref(),
            Self::Plain | Self::Origin { .. } => None,
        }
    }
}

/// What a new connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Http1,
    Http2,
    Bytes,
}

impl Purpose {
    fn in_mesh(self) -> MeshAlpn {
        match self {
            Self::Http1 => MeshAlpn::Http1,
            Self::Http2 => MeshAlpn::Http2,
            Self::Bytes => MeshAlpn::Tcp,
        }
    }

    fn outside(self) -> &'static [&'static str] {
        match self {
            Self::Http1 => &["http/1.1"],
            Self::Http2 => &["h2"],
            Self::Bytes => &[],
        }
    }
}

/// A connection that can be used.
pub(super) struct Connected {
    pub(super) stream: Stream,
    /// How the endpoint proved that it is of the mesh; absent: it did not.
    pub(super) proof: Option<Proof>,
}

impl Connected {
    /// Puts the connection under review, where the mesh vouched for its endpoint.
    ///
    /// # Errors
    /// While it was opened, the endpoint has lost the mesh's trust.
    pub(super) fn watched(
        self,
        shared: &Shared,
        list: &Rc<Watchlist>,
    ) -> Result<(Stream, Option<Held>), ConnectError> {
        let Some(proof) = self.proof else {
            return Ok((self.stream, None));
        };
        let held = list.hold(shared, self.stream.watch(), proof, Review::Endpoint);
        match held.why() {
            None => Ok((self.stream, Some(held))),
            Some(fault) => Err(ConnectError::Tls(TlsError::Identity(fault.subject))),
        }
    }
}

/// No connection came about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The endpoint cannot be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// It is a port of the proxy itself.
    #[error("{0} is a port of this proxy itself, which it calls for nobody")]
    Own(SocketAddr),
    /// TLS failed, or its settings cannot be used.
    #[error("{0}")]
    Tls(TlsError),
    /// The HTTP engine could not start.
    #[error("{0}")]
    Http(String),
    /// The cluster's limits leave no connection, nor a place to wait for one.
    #[error("the cluster has as many connections and waiting requests as it may")]
    Overflow,
}

impl ConnectError {
    /// The reason in Envoy's style, for `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
    pub(crate) fn transport_reason(&self) -> String {
        match self {
            Self::Dial(error) => error.transport_reason(),
            Self::Tls(error) => error.transport_reason(),
            Self::Own(_) | Self::Overflow => format!("delayed connect error: {self}"),
            Self::Http(text) => format!("delayed connect error: {text}"),
        }
    }

    /// Whether a fresh connection may succeed at once: certificates may just have been renewed at either end.
    pub(crate) fn is_handshake(&self) -> bool {
        matches!(self, Self::Tls(TlsError::Handshake(_)))
    }
}

/// Opens a connection to `place`, all within `timeout`.
pub(super) async fn connect(
    shared: &Shared,
    place: &Place,
    purpose: Purpose,
    timeout: Duration,
) -> Result<Connected, ConnectError> {
    let began = tokio::time::Instant::now();
    let address = place.address;
    if shared.own.is(address) && !place.beside {
        return Err(ConnectError::Own(address));
    }
    let how = Dial {
        timeout,
        source: place.source,
        keepalive: place.keepalive(),
    };
    // Without a certificate nobody is called in vain.
    let secured = secure(shared, place, purpose)?;
    let mut stream = Stream::new(dial(address, &how).await?, bytes::Bytes::new());
    if let (Ok(local), Ok(peer)) = (stream.local_addr(), stream.peer_addr())
        && shared.own.has_arrived(local, peer)
        && !place.beside
    {
        return Err(ConnectError::Own(address));
    }
    if let Some(preface) = &place.preface {
        let told = stream.write_all(&preface::bytes(preface)).await;
        told.map_err(|source| DialError::Refused { address, source })?;
    }
    let Some(Secured {
        config,
        name,
        member,
    }) = secured
    else {
        return Ok(Connected {
            stream,
            proof: None,
        });
    };
    let left = timeout
        .saturating_sub(began.elapsed())
        .max(Duration::from_millis(100));
    let (stream, handshake) = lateen_net::tls::connect(stream, name, config, left)
        .await
        .map_err(|failure| ConnectError::Tls(tls::handshake_error(&failure)))?;
    let proof = match (&place.security, member) {
        (Security::Mesh { identity, sans, .. }, Some(member)) => {
            let wanted = (identity.as_ref(), &**sans);
            Some(prove(&member, wanted, handshake, address)?)
        }
        _ => None,
    };
    Ok(Connected { stream, proof })
}

/// What a handshake needs.
struct Secured {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    /// Whose roots are asked; absent outside of the mesh.
    member: Option<Arc<Membership>>,
}

/// How a connection to `place` is secured; none: not at all.
fn secure(
    shared: &Shared,
    place: &Place,
    purpose: Purpose,
) -> Result<Option<Secured>, ConnectError> {
    match &place.security {
        Security::Plain => Ok(None),
        Security::Mesh { server_name, .. } => {
            let member = shared.member.load_full().ok_or_else(|| {
                ConnectError::Tls(TlsError::NoCertificate(shared.why_no_certificate()))
            })?;
            Ok(Some(Secured {
                config: member.tls.client(purpose.in_mesh()),
                name: name(server_name, place.address),
                member: Some(member),
            }))
        }
        Security::Origin {
            settings,
            server_name,
        } => {
            let config = shared
                .origins
                .config(shared, settings, purpose.outside())
                .map_err(ConnectError::Tls)?;
            Ok(Some(Secured {
                config,
                name: name(server_name, place.address),
                member: None,
            }))
        }
    }
}

fn name(text: &str, address: SocketAddr) -> ServerName<'static> {
    ServerName::try_from(text.to_owned()).unwrap_or_else(|_| ServerName::from(address.ip()))
}

/// The certificate was verified to be a member's; this is whether it is the member that was meant: an identity, or one of
/// the names that are taken instead, or anybody.
fn prove(
    member: &Membership,
    (identity, sans): (Option<&SpiffeId>, &[Str]),
    handshake: Handshake,
    address: SocketAddr,
) -> Result<Proof, ConnectError> {
    let wrong = |reason: String| ConnectError::Tls(TlsError::Identity(reason));
    let proof = Proof {
        mesh: Some(member.generation),
        ..Proof::of(handshake.peer_certificates.into())
    };
    let shown = member
        .tls
        .peer(&proof.chain, handshake.resumed, SystemTime::now())
        .map_err(|error| wrong(format!("{address}: {error}")))?;
    let wanted = match (identity, sans) {
        (None, []) => return Ok(proof),
        (Some(wanted), []) if member.is_same(wanted, &shown) => return Ok(proof),
        (Some(wanted), []) => wanted.to_string(),
        (_, sans) if sans.iter().any(|san| **san == *shown.uri()) => return Ok(proof),
        (_, sans) => sans.join(" or "),
    };
    Err(wrong(format!(
        "the identity of {address} is {shown}, wanted {wanted}"
    )))
}
