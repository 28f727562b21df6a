//! TLS of the control plane's port 15012, both ends: proxies that have a certificate show it, others bring a token.

use super::mesh::Fixed;
use super::outside::{Outside, OutsideServer, Peers};
use super::verify::MemberVerifier;
use super::{TlsError, protocols, provider, refused, versions};
use crate::ca::Serving;
use crate::svid::Svid;
use crate::trust::TrustBundles;
use lateen_base::Str;
use lateen_model::tls::TlsVersion;
use rustls::client::Resumption;
use rustls::server::NoServerSessionStorage;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig};
use std::sync::Arc;

/// Settings that show `certificate` and ask for the client's: none is fine, one that is shown must be a member's.
/// Sessions are not resumed, so that every connection's certificate is verified anew. ALPN is `h2`.
///
/// # Errors
/// The key does not belong to the certificate.
pub fn control_server(
    certificate: &Serving,
    bundles: &TrustBundles,
) -> Result<Arc<ServerConfig>, TlsError> {
    let key = certificate.key.clone_key();
    let certified =
        CertifiedKey::from_der(certificate.chain.clone(), key, provider()).map_err(refused)?;
    let mut server = ServerConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&versions(TlsVersion::V1_2, TlsVersion::V1_3)?)
        .map_err(refused)?
        .with_client_cert_verifier(Arc::new(MemberVerifier::optional(bundles.clone())))
        .with_cert_resolver(Arc::new(Fixed(Arc::new(certified))));
    server.alpn_protocols = protocols(&["h2"]);
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(Arc::new(server))
}

/// What a client of the control plane knows.
pub(crate) struct ControlPlane<'a> {
    /// The mesh's roots as PEM.
    pub(crate) roots: &'a str,
    /// Names of which the server's certificate must carry one.
    pub(crate) names: &'a [String],
    /// The own certificate, when there is one.
    pub(crate) svid: Option<&'a Svid>,
}

/// Settings of a client of the control plane.
pub(crate) fn control_client(plane: &ControlPlane<'_>) -> Result<Arc<ClientConfig>, TlsError> {
    let names: Vec<Str> = plane
        .names
        .iter()
        .map(|name| name.as_str().into())
        .collect();
    let peers = Peers {
        roots: Some(plane.roots),
        sans: &names,
        ..Peers::default()
    };
    let verifier = Arc::new(OutsideServer(Outside::new(peers, &mut Vec::new())?));
    let builder = ClientConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&versions(TlsVersion::V1_2, TlsVersion::V1_3)?)
        .map_err(refused)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut client = match plane.svid {
        Some(svid) => builder.with_client_cert_resolver(Arc::new(Fixed(svid.certified()?))),
        None => builder.with_no_client_auth(),
    };
    client.alpn_protocols = protocols(&["h2"]);
    client.resumption = Resumption::disabled();
    Ok(Arc::new(client))
}
