//! TLS towards servers that are no members of the mesh (DestinationRule modes SIMPLE and MUTUAL).

use super::outside::{Outside, OutsideServer, Peers};
use super::{TlsError, protocols, provider, refused, versions};
use crate::pem;
use lateen_base::Str;
use lateen_model::tls::TlsVersion;
use rustls::ClientConfig;
use rustls::client::Resumption;
use std::sync::Arc;

/// Where systems keep the roots that they trust, most common first.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What a client of outside servers does.
#[derive(Clone, Copy, Default)]
pub struct OriginOptions<'a> {
    /// Roots as PEM; absent: those of the system.
    pub ca: Option<&'a str>,
    /// Revocation lists as PEM; empty: none.
    pub crl: &'a str,
    /// Own certificate chain and key as PEM; absent: none is shown.
    pub certificate: Option<(&'a str, &'a str)>,
    /// Names of which the server's certificate must carry one: DNS names, addresses or URIs; empty: the server name that
    /// is connected to.
    pub sans: &'a [Str],
    /// Whether any certificate is accepted.
    pub skip_verify: bool,
    /// Protocols to offer, best first; empty: none.
    pub alpn: &'a [&'a str],
}

/// Settings for connecting, and warnings (an expired certificate, a root that cannot be used).
///
/// # Errors
/// A text is malformed, the key is not the certificate's, or there are no roots to verify with.
pub fn origin_client(
    options: &OriginOptions<'_>,
) -> Result<(Arc<ClientConfig>, Vec<String>), TlsError> {
    let mut warnings = Vec::new();
    let system;
    let roots = match options.ca {
        _ if options.skip_verify => None,
        Some(ca) => Some(ca),
        None => {
            system = system_roots()?;
            Some(system.as_str())
        }
    };
    let verifier = Outside::new(
        Peers {
            roots,
            crl: options.crl,
            sans: options.sans,
            ..Peers::default()
        },
        &mut warnings,
    )?;
    let builder = ClientConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&versions(TlsVersion::V1_2, TlsVersion::V1_3)?)
        .map_err(refused)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(OutsideServer(verifier)));
    let mut client = match options.certificate {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let what = "the client certificate";
            let chain =
                pem::certificates(chain).map_err(|source| TlsError::Pem { what, source })?;
            super::gateway::warn_of_dates(&chain[0], what, &mut warnings);
            let what = "the client's private key";
            let key = pem::private_key(key).map_err(|source| TlsError::Pem { what, source })?;
            builder.with_client_auth_cert(chain, key).map_err(refused)?
        }
    };
    client.alpn_protocols = protocols(options.alpn);
    client.resumption = Resumption::in_memory_sessions(256);
    client.enable_secret_extraction = true;
    Ok((Arc::new(client), warnings))
}

fn system_roots() -> Result<String, TlsError> {
    let found = SYSTEM_ROOTS
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok());
    found.ok_or(TlsError::Missing(
        "there is no CA to verify the server with: set caCertificates or credentialName, or install the system's roots (/etc/ssl/certs/ca-certificates.crt)",
    ))
}
