//! PEM text in and out (RFC 7468). Everything that is read is bounded; nothing is verified here.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

/// Longest text that is read, in bytes: the roots of an operating system are some 250 KB.
const LONGEST: usize = 1 << 20;

/// A text is not the PEM it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// Nothing of the wanted kind is in it.
    #[error("there is no {0} in it; it must be PEM text that begins with -----BEGIN")]
    Empty(&'static str),
    /// A block cannot be decoded.
    #[error("{what} number {number} is not readable: {why}")]
    Malformed {
        /// What was looked for.
        what: &'static str,
        /// Position of the block, from 1.
        number: usize,
        /// What is wrong with it.
        why: String,
    },
    /// Longer than any honest one.
    #[error("it is longer than 1 MiB")]
    TooLong,
}

/// Every certificate of a text, in order; at least one.
pub(crate) fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let what = "certificate";
    let out: Vec<CertificateDer<'static>> = blocks(text, what)?;
    for (at, der) in out.iter().enumerate() {
        let malformed = |why: String| PemError::Malformed {
            what,
            number: at + 1,
            why,
        };
        match x509_parser::parse_x509_certificate(der) {
            Ok(([], _)) => {}
            Ok(_) => return Err(malformed("bytes follow the certificate".into())),
            Err(error) => return Err(malformed(error.to_string())),
        }
    }
    Ok(out)
}

/// Every revocation list of a text, in order; at least one.
pub(crate) fn revocation_lists(
    text: &str,
) -> Result<Vec<CertificateRevocationListDer<'static>>, PemError> {
    blocks(text, "revocation list")
}

/// The first private key of a text (PKCS#8, PKCS#1 or SEC 1).
pub(crate) fn private_key(text: &str) -> Result<PrivateKeyDer<'static>, PemError> {
    if text.len() > LONGEST {
        return Err(PemError::TooLong);
    }
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| match error {
        rustls_pki_types::pem::Error::NoItemsFound => PemError::Empty("private key"),
        error => PemError::Malformed {
            what: "private key",
            number: 1,
            why: error.to_string(),
        },
    })
}

fn blocks<T: PemObject>(text: &str, what: &'static str) -> Result<Vec<T>, PemError> {
    if text.len() > LONGEST {
        return Err(PemError::TooLong);
    }
    let mut out = Vec::new();
    for block in T::pem_slice_iter(text.as_bytes()) {
        out.push(block.map_err(|error| PemError::Malformed {
            what,
            number: out.len() + 1,
            why: error.to_string(),
        })?);
    }
    if out.is_empty() {
        return Err(PemError::Empty(what));
    }
    Ok(out)
}

/// A block with the label, lines of 64 characters.
pub(crate) fn encode(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = after;
    }
    out.push_str("-----END ");
    out.push_str(label);
    out.push_str("-----\n");
    out
}

/// Certificates one after the other.
pub(crate) fn encode_chain(chain: &[CertificateDer<'_>]) -> String {
    chain.iter().map(|der| encode("CERTIFICATE", der)).collect()
}

/// A private key in the form that its label tells.
pub(crate) fn encode_key(key: &PrivateKeyDer<'_>) -> String {
    let label = match key {
        PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
        PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
        _ => "PRIVATE KEY",
    };
    encode(label, key.secret_der())
}
