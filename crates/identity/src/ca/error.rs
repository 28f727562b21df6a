//! What can be wrong with an authority or a request, each as a sentence with its cure.

use crate::pem::PemError;
use lateen_model::identity::BadSpiffeId;

/// An authority cannot be made or used, or a request cannot be signed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CaError {
    /// One of the texts is not what it should be.
    #[error("{file}: {source}")]
    Pem {
        /// Its name in the secret.
        file: &'static str,
        /// What is wrong.
        source: PemError,
    },
    /// A key or certificate cannot be used.
    #[error("{file}: {why}")]
    Unusable {
        /// Its name in the secret.
        file: &'static str,
        /// What is wrong.
        why: String,
    },
    /// They do not belong together.
    #[error(
        "ca-key.pem is not the private key of ca-cert.pem; put the pair that was made together into the secret"
    )]
    Mismatch,
    /// The signer must not sign.
    #[error(
        "ca-cert.pem ({0}) may not sign certificates: it needs basicConstraints CA:TRUE and, when it names key usages, keyCertSign"
    )]
    NotAnAuthority(String),
    /// The signer (or a certificate above it) has expired.
    #[error("the authority's certificate expired at {0}; give the mesh a new one")]
    Expired(String),
    /// The signer is not valid yet.
    #[error("the authority's certificate is valid from {0} on; compare the clocks")]
    NotYetValid(String),
    /// Others would not believe what it signs.
    #[error(
        "what ca-cert.pem signs is not believed by who trusts root-cert.pem: {0}; are cert-chain.pem and root-cert.pem of this authority?"
    )]
    NoPath(String),
    /// The request is not a PKCS#10 request.
    #[error("the certificate request cannot be read: {0}")]
    Request(String),
    /// Its signature is not made with its own key.
    #[error("the certificate request is not signed with its own key")]
    Signature,
    /// Its key is of a kind or length that is not signed.
    #[error(
        "the certificate request has a key of a kind that is not signed ({0}); use ECDSA P-256 or P-384, Ed25519, or RSA of 2048 bits and more"
    )]
    KeyKind(String),
    /// A name that certificates cannot carry.
    #[error("{name:?} cannot be put into a certificate: {why}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// A trust domain that no identity can have.
    #[error(transparent)]
    TrustDomain(#[from] BadSpiffeId),
    /// The cryptography failed.
    #[error("a certificate cannot be made: {0}")]
    Make(String),
}
