//! The CA as `/debug/ca` shows it. It holds no key.

use lateen_identity::trust::TrustBundles;
use lateen_model::security::TrustBundle;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// State of the CA.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Page {
    /// The trust domain; empty: not known yet.
    pub(crate) trust_domain: String,
    /// The Secret whose CA signs; none: nothing signs.
    pub(crate) secret: Option<String>,
    /// When the signing certificate ends.
    pub(crate) expires: Option<String>,
    /// Every root that is trusted; the first is that of the CA which signs.
    pub(crate) roots: Vec<RootEntry>,
    /// Whether there are revocation lists.
    pub(crate) crl: bool,
    /// What is wrong with the Secret; the last good CA stays meanwhile.
    pub(crate) error: Option<String>,
}

/// One root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct RootEntry {
    /// `signing`, `coming` or `going`.
    pub(crate) state: &'static str,
    /// SHA-256 of the certificate, hexadecimal.
    pub(crate) sha256: String,
    /// When it ends.
    pub(crate) expires: Option<String>,
    /// Until when a going one is trusted.
    pub(crate) until: Option<String>,
}

/// A time as users read it.
pub(crate) fn time(at: SystemTime) -> Option<String> {
    jiff::Timestamp::try_from(at).ok().map(|at| at.to_string())
}

/// When the last of these roots ends, in PEM.
pub(crate) fn end_of(roots: &str) -> Option<SystemTime> {
    const ANY: &str = "any";
    let bundle = TrustBundle {
        trust_domain: ANY.into(),
        roots: roots.into(),
        crls: "".into(),
    };
    TrustBundles::of(&[Arc::new(bundle)], ANY, &[])
        .0
        .not_after(ANY)
}

/// SHA-256 of a certificate (PEM), hexadecimal; empty when it is none.
pub(crate) fn sha256(certificate: &str) -> String {
    let der = CertificateDer::from_pem_slice(certificate.as_bytes());
    let hash = der.map(|der| Sha256::digest(&der)).ok();
    hash.iter()
        .flatten()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// How long a certificate (PEM) is valid from its beginning to its end.
pub(crate) fn life_of(certificate: &str) -> Option<Duration> {
    let der = CertificateDer::from_pem_slice(certificate.as_bytes()).ok()?;
    let (_, read) = x509_parser::parse_x509_certificate(&der).ok()?;
    let validity = read.validity();
    let seconds = validity.not_after.timestamp() - validity.not_before.timestamp();
    u64::try_from(seconds).ok().map(Duration::from_secs)
}

/// Seconds since 1970.
pub(crate) fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
