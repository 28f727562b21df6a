//! A workload's certificate with its key. Where it comes from is in [`crate::source`]; whether others believe it is
//! decided by their [`crate::trust`].

use crate::certificate::{Facts, show};
use crate::pem::{self, PemError};
use crate::trust::{TrustError, not_after, peer_id};
use lateen_model::identity::SpiffeId;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// An X.509 SVID: certificate chain, key, and what the certificate says (SPIFFE X509-SVID §2).
pub struct Svid {
    /// Whose it is.
    pub id: SpiffeId,
    /// Leaf first, then intermediates, without the root. Never empty.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's private key.
    pub key: PrivateKeyDer<'static>,
    /// When the leaf begins to be valid.
    pub not_before: SystemTime,
    /// When the first certificate of the chain ends.
    pub not_after: SystemTime,
    /// The leaf's serial number: hexadecimal, lower case, no colons.
    pub serial: String,
}

/// A certificate and a key are no SVID.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SvidError {
    /// The text is not PEM as expected.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// The certificate carries no single SPIFFE id.
    #[error(transparent)]
    Identity(#[from] TrustError),
    /// A certificate cannot be read.
    #[error("a certificate of the chain cannot be read: {0}")]
    Certificate(String),
    /// The key is of a kind that TLS cannot use.
    #[error("the private key cannot be used: {0}")]
    Key(String),
    /// They do not belong together.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
}

impl Svid {
    /// Puts a chain (leaf first) and a key together. Roots at the chain's end are left out.
    ///
    /// # Errors
    /// The leaf has no single SPIFFE id, or the key is not the leaf's.
    pub fn new(
        mut chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, SvidError> {
        let id = peer_id(&chain)?;
        let facts = |der: &CertificateDer<'_>| Facts::of(der).map_err(SvidError::Certificate);
        let mut kept = chain.len();
        while kept > 1 && facts(&chain[kept - 1])?.self_issued {
            kept -= 1;
        }
        chain.truncate(kept);
        let not_after = not_after(&chain)?;
        let leaf = facts(&chain[0])?;
        certified(chain.clone(), &key)?;
        Ok(Self {
            id,
            chain,
            key,
            not_before: leaf.not_before,
            not_after,
            serial: leaf.serial,
        })
    }

    /// Reads chain and key from one text, in any order.
    ///
    /// # Errors
    /// As for [`Svid::new`], or the text is not PEM with both.
    pub fn from_pem(text: &str) -> Result<Self, SvidError> {
        Self::new(pem::certificates(text)?, pem::private_key(text)?)
    }

    /// The chain as PEM, leaf first.
    pub fn chain_pem(&self) -> String {
        pem::encode_chain(&self.chain)
    }

    /// The key as PEM. It is a secret: for files that only their owner reads.
    pub fn key_pem(&self) -> String {
        pem::encode_key(&self.key)
    }

    /// From its beginning to its end.
    pub fn lifetime(&self) -> Duration {
        self.not_after
            .duration_since(self.not_before)
            .unwrap_or_default()
    }

    /// How long it is still valid; zero when it has expired.
    pub fn remaining(&self, now: SystemTime) -> Duration {
        self.not_after.duration_since(now).unwrap_or_default()
    }

    /// Chain and key as TLS takes them.
    pub(crate) fn certified(&self) -> Result<Arc<CertifiedKey>, SvidError> {
        certified(self.chain.clone(), &self.key).map(Arc::new)
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Svid({}, serial {}, valid until {})",
            self.id,
            self.serial,
            show(self.not_after)
        )
    }
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'static>,
) -> Result<CertifiedKey, SvidError> {
    CertifiedKey::from_der(chain, key.clone_key(), crate::tls::provider()).map_err(|error| {
        match error {
            rustls::Error::InconsistentKeys(_) => SvidError::Mismatch,
            other => SvidError::Key(other.to_string()),
        }
    })
}
