//! How a connection to an endpoint is secured, and the opening of it: the mesh's mutual TLS to endpoints that have an
//! identity, TLS as a DestinationRule asks for, or none.

use super::pool::Place;
use crate::live::Chain;
use crate::shared::Shared;
use crate::tls::{self, TlsError};
use lateen_base::Str;
use lateen_identity::tls::MeshAlpn;
use lateen_identity::trust::peer_id;
use lateen_model::identity::SpiffeId;
use lateen_model::tls::ClientTls;
use lateen_net::dial::{Dial, DialError, dial};
use lateen_net::stream::Stream;
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

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
        sans: Vec<Str>,
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
    /// The endpoint's certificates; empty without TLS.
    pub(super) chain: Chain,
}

/// No connection came about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The endpoint cannot be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// TLS failed, or its settings cannot be used.
    #[error("{0}")]
    Tls(TlsError),
    /// The HTTP engine could not start.
    #[error("{0}")]
    Http(String),
}

impl ConnectError {
    /// The reason in Envoy's style, for `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
    pub(crate) fn transport_reason(&self) -> String {
        match self {
            Self::Dial(error) => error.transport_reason(),
            Self::Tls(error) => error.transport_reason(),
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
    let how = Dial {
        timeout,
        source: place.source,
    };
    // Without a certificate nobody is called in vain.
    let secured = match &place.security {
        Security::Plain => None,
        Security::Mesh { server_name, .. } => {
            let member = shared.member.load_full().ok_or_else(|| {
                ConnectError::Tls(TlsError::NoCertificate(shared.why_no_certificate()))
            })?;
            Some((
                member.tls.client(purpose.in_mesh()),
                name(server_name, place.address),
            ))
        }
        Security::Origin {
            settings,
            server_name,
        } => {
            let config = shared
                .origins
                .config(shared, settings, purpose.outside())
                .map_err(ConnectError::Tls)?;
            Some((config, name(server_name, place.address)))
        }
    };
    let stream = Stream::new(dial(place.address, &how).await?, bytes::Bytes::new());
    let Some((config, name)) = secured else {
        return Ok(Connected {
            stream,
            chain: Chain::from([]),
        });
    };
    let left = timeout
        .saturating_sub(began.elapsed())
        .max(Duration::from_millis(100));
    let (stream, handshake) = lateen_net::tls::connect(stream, name, config, left)
        .await
        .map_err(|failure| ConnectError::Tls(tls::handshake_error(&failure)))?;
    let chain = Chain::from(handshake.peer_certificates);
    expect_identity(&place.security, &chain, place.address)?;
    Ok(Connected { stream, chain })
}

fn name(text: &str, address: SocketAddr) -> ServerName<'static> {
    ServerName::try_from(text.to_owned()).unwrap_or_else(|_| ServerName::from(address.ip()))
}

/// The certificate was verified to be a member's; this is whether it is the member that was meant.
fn expect_identity(
    security: &Security,
    chain: &Chain,
    address: SocketAddr,
) -> Result<(), ConnectError> {
    let Security::Mesh { identity, sans, .. } = security else {
        return Ok(());
    };
    let wrong = |reason: String| ConnectError::Tls(TlsError::Identity(reason));
    let shown = peer_id(chain).map_err(|error| wrong(format!("{address}: {error}")))?;
    let wanted = match (identity, sans.as_slice()) {
        (None, []) => return Ok(()),
        (Some(wanted), []) if *wanted == shown => return Ok(()),
        (Some(wanted), []) => wanted.to_string(),
        (_, sans) if sans.iter().any(|san| **san == *shown.uri()) => return Ok(()),
        (_, sans) => sans.join(" or "),
    };
    Err(wrong(format!(
        "the identity of {address} is {shown}, wanted {wanted}"
    )))
}
