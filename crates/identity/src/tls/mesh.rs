//! TLS between members of the mesh: both ends show the certificate of their identity. Which identity the other end
//! must have is the caller's question, after the handshake.

use super::verify::MemberVerifier;
use super::{TlsError, protocols, provider, refused, versions};
use crate::svid::Svid;
use crate::trust::{TrustBundles, TrustError, peer_id};
use lateen_model::identity::SpiffeId;
use lateen_model::tls::TlsVersion;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig, SignatureScheme};
use rustls_pki_types::CertificateDer;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

/// What servers of the mesh choose from, best first. `istio-peer-exchange` is missing on purpose: who agrees on it must
/// exchange metadata ahead of the bytes.
const SERVER: [&str; 6] = [
    "istio-h2",
    "istio-http/1.1",
    "istio-http/1.0",
    "istio",
    "h2",
    "http/1.1",
];
/// Sessions that a client remembers where nothing else is said.
const SESSIONS: usize = 1024;

/// What a client of the mesh is about to speak, so that the server knows before the first byte (Istio's ALPN scheme).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MeshAlpn {
    /// HTTP/1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Anything else.
    Tcp,
}

/// The TLS settings of one certificate and one set of bundles. A session is resumed only within the same value, so that
/// a new certificate, root or revocation list is looked at by everybody.
pub struct MeshTls {
    server: Arc<ServerConfig>,
    clients: [OnceLock<Arc<ClientConfig>>; 3],
    own: Arc<Fixed>,
    verifier: Arc<MemberVerifier>,
    min: TlsVersion,
    sessions: usize,
    id: SpiffeId,
}

impl MeshTls {
    /// Builds them. TLS 1.3 is preferred; `min` is the lowest version of both ends.
    ///
    /// # Errors
    /// The certificate's key cannot be used.
    pub fn new(
        svid: &Svid,
        bundles: &TrustBundles,
        min: TlsVersion,
    ) -> Result<Arc<Self>, TlsError> {
        Self::remembering(svid, bundles, min, None)
    }

    /// The same, where a client remembers so many sessions; with 0 every handshake is a whole one. Absent: 1,024.
    ///
    /// # Errors
    /// The certificate's key cannot be used.
    pub fn remembering(
        svid: &Svid,
        bundles: &TrustBundles,
        min: TlsVersion,
        sessions: Option<usize>,
    ) -> Result<Arc<Self>, TlsError> {
        let own = Arc::new(Fixed(svid.certified()?));
        let verifier = Arc::new(MemberVerifier::required(bundles.clone()));
        let mut server = ServerConfig::builder_with_provider(provider().clone())
            .with_protocol_versions(&versions(min, TlsVersion::V1_3)?)
            .map_err(refused)?
            .with_client_cert_verifier(verifier.clone())
            .with_cert_resolver(own.clone());
        server.alpn_protocols = protocols(&SERVER);
        server.ticketer = Ticketer::new().map_err(refused)?;
        // One is enough: a client that resumes gets the next one.
        server.send_tls13_tickets = 1;
        server.enable_secret_extraction = true;
        Ok(Arc::new(Self {
            server: Arc::new(server),
            clients: [const { OnceLock::new() }; 3],
            own,
            verifier,
            min,
            sessions: sessions.unwrap_or(SESSIONS),
            id: svid.id.clone(),
        }))
    }

    /// Whose certificate it shows.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Settings for accepting: the client must show a certificate of a member. A client without ALPN is accepted. As all
    /// settings here, they let a connection's own code have its keys (`enable_secret_extraction`): records are encrypted
    /// where they are.
    pub fn server(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// Settings for connecting: any member of the mesh verifies, whatever server name is sent.
    pub fn client(&self, alpn: MeshAlpn) -> Arc<ClientConfig> {
        let (slot, names): (_, &[&str]) = match alpn {
            MeshAlpn::Http1 => (0, &["istio-http/1.1", "istio-http/1.0", "istio"]),
            MeshAlpn::Http2 => (1, &["istio-h2", "istio", "h2"]),
            MeshAlpn::Tcp => (2, &["istio"]),
        };
        self.clients[slot]
            .get_or_init(|| Arc::new(self.client_for(names)))
            .clone()
    }

    fn client_for(&self, names: &[&str]) -> ClientConfig {
        let min = versions(self.min, TlsVersion::V1_3);
        let mut client = ClientConfig::builder_with_provider(provider().clone())
            .with_protocol_versions(&min.expect("the server's settings have the same versions"))
            .expect("the provider has ciphers for every version")
            .dangerous()
            .with_custom_certificate_verifier(self.verifier.clone())
            .with_client_cert_resolver(self.own.clone());
        client.alpn_protocols = protocols(names);
        client.resumption = match self.sessions {
            0 => Resumption::disabled(),
            sessions => Resumption::in_memory_sessions(sessions),
        };
        client.enable_secret_extraction = true;
        client
    }

    /// The identity of a peer whose handshake succeeded. In a `resumed` session TLS verifies nothing anew: the whole
    /// chain is verified here, with its roots.
    ///
    /// # Errors
    /// There is no certificate, or it is not believed any more.
    pub fn peer(
        &self,
        certificates: &[CertificateDer<'_>],
        resumed: bool,
        now: SystemTime,
    ) -> Result<SpiffeId, TrustError> {
        if resumed {
            return self.verifier.bundles().verify(certificates, now);
        }
        peer_id(certificates)
    }
}

impl fmt::Debug for MeshTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MeshTls({})", self.id)
    }
}

/// The one certificate of a workload, for both ends.
#[derive(Debug)]
pub(super) struct Fixed(pub(super) Arc<CertifiedKey>);

impl ResolvesServerCert for Fixed {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

impl ResolvesClientCert for Fixed {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
