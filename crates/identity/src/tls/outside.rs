//! Verifiers for peers that are no members of the mesh: servers behind a DestinationRule, clients of a gateway.

use super::TlsError;
use super::verify::{schemes, signature12, signature13, system};
use crate::anchors::{Anchors, ChainError, Kind};
use crate::certificate::parse;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lateen_base::Str;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::fmt;
use std::sync::Arc;
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::extensions::GeneralName;

/// Who is accepted.
#[derive(Clone, Copy, Default)]
pub(super) struct Peers<'a> {
    /// PEM; absent: nothing is verified.
    pub(super) roots: Option<&'a str>,
    /// PEM; empty: none.
    pub(super) crl: &'a str,
    /// See [`lateen_model::tls::ServerTls`].
    pub(super) sans: &'a [Str],
    pub(super) spki: &'a [Str],
    pub(super) hashes: &'a [Str],
}

/// [`Peers`], read.
pub(super) struct Outside {
    anchors: Option<Anchors>,
    sans: Vec<Str>,
    spki: Vec<Str>,
    hashes: Vec<Str>,
}

/// A peer outside of the mesh is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum OutsideError {
    #[error("the peer's certificate carries none of the names {wanted}; it carries {carried}")]
    Name { wanted: String, carried: String },
    #[error("the peer's certificate has none of the hashes that are accepted")]
    Hash,
    #[error("every root that peers are verified with has expired or is not valid yet")]
    NoCurrentRoot,
    #[error("the peer's certificate is not acceptable: {0}")]
    Refused(String),
}

impl Outside {
    /// Reads roots and lists; what can be left out is left out with a warning.
    pub(super) fn new(peers: Peers<'_>, warnings: &mut Vec<String>) -> Result<Self, TlsError> {
        let read = |roots| Anchors::read(roots, peers.crl, Kind::Pins, warnings);
        let what = "the CA that peers are verified with";
        let anchors = peers.roots.map(read).transpose();
        Ok(Self {
            anchors: anchors.map_err(|why| TlsError::Unusable { what, why })?,
            sans: peers.sans.to_vec(),
            spki: peers.spki.to_vec(),
            hashes: peers.hashes.to_vec(),
        })
    }

    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Error> {
        let Some(anchors) = &self.anchors else {
            return Ok(());
        };
        anchors
            .verify(leaf, intermediates, system(now), usage)
            .map_err(refusal)
    }

    /// Hashes of a certificate and of its key are alternatives, as in Envoy.
    fn check_hashes(&self, leaf: &CertificateDer<'_>) -> Result<(), Error> {
        if self.spki.is_empty() && self.hashes.is_empty() {
            return Ok(());
        }
        let parsed = parse(leaf).map_err(|_| CertificateError::BadEncoding)?;
        let key = STANDARD.encode(digest(&SHA256, parsed.public_key().raw));
        let whole: String = digest(&SHA256, leaf)
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let known = self.spki.iter().any(|spki| **spki == *key)
            || self.hashes.iter().any(|hash| **hash == *whole);
        known.then_some(()).ok_or(refuse(OutsideError::Hash))
    }

    fn check_names(&self, leaf: &CertificateDer<'_>) -> Result<(), Error> {
        if self.sans.is_empty() || self.sans.iter().any(|san| carries(leaf, san)) {
            return Ok(());
        }
        Err(refuse(OutsideError::Name {
            wanted: self.sans.join(", "),
            carried: carried(leaf),
        }))
    }
}

impl fmt::Debug for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outside")
    }
}

/// Whether a certificate carries a name: an address, a DNS name (wildcards of the certificate count), or a URI.
fn carries(leaf: &CertificateDer<'_>, san: &str) -> bool {
    let names = |name: ServerName<'_>| {
        EndEntityCert::try_from(leaf)
            .is_ok_and(|parsed| parsed.verify_is_valid_for_subject_name(&name).is_ok())
    };
    if ServerName::try_from(san).is_ok_and(names) {
        return true;
    }
    alternative_names(leaf).iter().any(|name| name == san)
}

/// Alternative names as text, without addresses.
fn alternative_names(leaf: &CertificateDer<'_>) -> Vec<String> {
    let Ok(parsed) = parse(leaf) else {
        return Vec::new();
    };
    let Ok(Some(names)) = parsed.subject_alternative_name() else {
        return Vec::new();
    };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::URI(name) | GeneralName::DNSName(name) | GeneralName::RFC822Name(name) => {
            Some((*name).to_owned())
        }
        _ => None,
    };
    names.value.general_names.iter().filter_map(text).collect()
}

fn carried(leaf: &CertificateDer<'_>) -> String {
    let names = alternative_names(leaf);
    match names.as_slice() {
        [] => "no name".into(),
        names => names[..names.len().min(5)].join(", "),
    }
}

fn refusal(error: ChainError) -> Error {
    let error = match error {
        ChainError::NoCurrentRoot => return refuse(OutsideError::NoCurrentRoot),
        ChainError::Path(error) => error,
    };
    Error::InvalidCertificate(match error {
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
            CertificateError::UnknownIssuer
        }
        webpki::Error::CertExpired { .. } => CertificateError::Expired,
        webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet,
        webpki::Error::CertRevoked => CertificateError::Revoked,
        other => return refuse(OutsideError::Refused(format!("{other:?}"))),
    })
}

fn refuse(error: OutsideError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

/// Verifies servers.
#[derive(Debug)]
pub(super) struct OutsideServer(pub(super) Outside);

impl ServerCertVerifier for OutsideServer {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.0
            .check(leaf, intermediates, now, KeyUsage::server_auth())?;
        if self.0.anchors.is_some() && self.0.sans.is_empty() {
            let wanted = name.to_str();
            if !carries(leaf, &wanted) {
                return Err(refuse(OutsideError::Name {
                    wanted: wanted.into_owned(),
                    carried: carried(leaf),
                }));
            }
        }
        if self.0.anchors.is_some() {
            self.0.check_names(leaf)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signature12(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signature13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

/// Verifies clients of a gateway.
#[derive(Debug)]
pub(super) struct OutsideClient {
    pub(super) peers: Outside,
    /// Whether a client must show a certificate.
    pub(super) required: bool,
}

impl ClientCertVerifier for OutsideClient {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.peers
            .check(leaf, intermediates, now, KeyUsage::client_auth())?;
        self.peers.check_hashes(leaf)?;
        self.peers.check_names(leaf)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signature12(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signature13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}
