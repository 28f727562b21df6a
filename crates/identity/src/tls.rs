//! TLS settings made from certificates: between members of the mesh ([`MeshTls`]), towards servers outside of it
//! ([`origin_client`]), at gateways ([`gateway_server`]) and at the control plane ([`control_server`]). Handshakes are
//! done by `net`; settings are built once per certificate and shared.

mod control;
mod gateway;
mod mesh;
mod origin;
mod outside;
mod verify;

pub use control::control_server;
pub(crate) use control::{ControlPlane, control_client};
pub use gateway::{GatewayClients, GatewayOptions, gateway_server};
pub use mesh::{MeshAlpn, MeshTls};
pub use origin::{OriginOptions, origin_client};

use crate::pem::PemError;
use crate::svid::SvidError;
use lateen_model::tls::TlsVersion;
use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, CipherSuite, OtherError, SupportedProtocolVersion};
use std::sync::{Arc, OnceLock};

/// TLS settings cannot be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TlsError {
    /// A text is not the PEM it should be.
    #[error("{what}: {source}")]
    Pem {
        /// What the text is.
        what: &'static str,
        /// What is wrong.
        source: PemError,
    },
    /// The workload's own certificate cannot be used.
    #[error(transparent)]
    Svid(#[from] SvidError),
    /// They do not belong together.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
    /// A key, certificate or revocation list cannot be used.
    #[error("{what} cannot be used: {why}")]
    Unusable {
        /// Which.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// Something that the mode needs is not there.
    #[error("{0}")]
    Missing(&'static str),
    /// None of the cipher suites is spoken.
    #[error(
        "none of the cipher suites {0} is supported; use names such as ECDHE-ECDSA-AES128-GCM-SHA256, or none for the safe ones"
    )]
    NoCipher(String),
    /// The range of versions is empty.
    #[error("the lowest TLS version is above the highest")]
    NoVersion,
    /// Anything else that the TLS library refuses.
    #[error("TLS settings are refused: {0}")]
    Refused(String),
}

/// The cryptography of the whole program, with X25519MLKEM768 as the preferred key exchange.
pub(crate) fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        // Of two suites that nobody can break the one that costs less: AES with 128 bits, SHA-256 in hardware.
        let is_first = |suite: &rustls::SupportedCipherSuite| {
            suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256
        };
        provider.cipher_suites.sort_by_key(|suite| !is_first(suite));
        Arc::new(provider)
    })
}

/// Why a handshake failed, as one sentence: what is wrong with the peer's certificate and the likely cure, or what TLS
/// itself says.
pub fn explain(error: &rustls::Error) -> String {
    let text = match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(why))) => {
            return why.to_string();
        }
        rustls::Error::NoCertificatesPresented => "the peer showed no certificate",
        rustls::Error::InvalidCertificate(CertificateError::Expired) => {
            "the peer's certificate (or its signer's) has expired; look at the peer's log for why it was not renewed"
        }
        rustls::Error::InvalidCertificate(CertificateError::NotValidYet) => {
            "the peer's certificate (or its signer's) is not valid yet; compare the clocks of both machines"
        }
        rustls::Error::InvalidCertificate(CertificateError::Revoked) => {
            "the peer's certificate (or its signer's) has been revoked"
        }
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the peer's certificate was not signed by a root that is trusted here"
        }
        other => return other.to_string(),
    };
    text.to_owned()
}

/// Versions from `min` to `max`, the newest first.
fn versions(
    min: TlsVersion,
    max: TlsVersion,
) -> Result<Vec<&'static SupportedProtocolVersion>, TlsError> {
    let all = [
        (TlsVersion::V1_3, &rustls::version::TLS13),
        (TlsVersion::V1_2, &rustls::version::TLS12),
    ];
    let out: Vec<_> = all
        .into_iter()
        .filter(|(version, _)| min <= *version && *version <= max)
        .map(|(_, version)| version)
        .collect();
    if out.is_empty() {
        return Err(TlsError::NoVersion);
    }
    Ok(out)
}

fn refused(error: rustls::Error) -> TlsError {
    match error {
        rustls::Error::InconsistentKeys(_) => TlsError::Mismatch,
        other => TlsError::Refused(other.to_string()),
    }
}

fn protocols(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}

#[cfg(test)]
mod tests;
