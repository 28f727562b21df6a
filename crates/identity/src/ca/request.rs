//! Certificate requests (PKCS#10): made by workloads, read by the authority.

use super::{CaError, make};
use crate::pem;
use crate::svid::{Svid, SvidError};
use rcgen::{
    CertificateParams, DistinguishedName, KeyPair, RsaKeySize, SanType, SubjectPublicKeyInfo,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateSigningRequestDer, PrivateKeyDer};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

/// Longest request that is read, in bytes: one for RSA 8192 has some 3 KB.
const LONGEST: usize = 16 << 10;
/// Shortest RSA key that is signed, in bits.
const RSA_BITS: usize = 2048;

/// Kinds of keys that workloads make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyKind {
    /// ECDSA on P-256.
    #[default]
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// RSA with 2048 bits (Istio's own default).
    Rsa2048,
    /// RSA with 4096 bits.
    Rsa4096,
}

impl KeyKind {
    /// The kind that Istio's variables of a proxy ask for: `ECC_SIGNATURE_ALGORITHM`, `ECC_CURVE` and
    /// `WORKLOAD_RSA_KEY_SIZE`, each absent or empty when it is not set. Without all of them: P-256, where Istio takes RSA.
    ///
    /// # Errors
    /// A sentence that names the variable and what it may say.
    pub fn of_istio(ecc: &str, curve: &str, rsa_bits: &str) -> Result<Self, String> {
        match (ecc, curve, rsa_bits) {
            ("ECDSA", "P384", _) => Ok(Self::EcdsaP384),
            ("ECDSA", "" | "P256", _) | ("", _, "") => Ok(Self::EcdsaP256),
            ("ECDSA", curve, _) => Err(format!("ECC_CURVE is {curve:?}; it may be P256 or P384")),
            ("", _, "2048") => Ok(Self::Rsa2048),
            ("", _, "4096") => Ok(Self::Rsa4096),
            ("", _, bits) => Err(format!(
                "WORKLOAD_RSA_KEY_SIZE is {bits:?}; it may be 2048 or 4096"
            )),
            (ecc, _, _) => Err(format!(
                "ECC_SIGNATURE_ALGORITHM is {ecc:?}; it may be ECDSA"
            )),
        }
    }
}

/// A new key and the request to sign it.
pub struct Request {
    key: KeyPair,
    pem: String,
}

impl Request {
    /// Makes a key and a request that names `id` when it is known; the authority decides on the name anyway.
    ///
    /// # Errors
    /// There is no randomness, or `id` cannot be put into a request.
    pub fn new(kind: KeyKind, id: Option<&str>) -> Result<Self, CaError> {
        let rsa = |size| KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size);
        let key = match kind {
            KeyKind::EcdsaP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            KeyKind::EcdsaP384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            KeyKind::Rsa2048 => rsa(RsaKeySize::_2048),
            KeyKind::Rsa4096 => rsa(RsaKeySize::_4096),
        };
        let key = key.map_err(make)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(id) = id {
            params.subject_alt_names = vec![SanType::URI(id.try_into().map_err(make)?)];
        }
        let pem = params
            .serialize_request(&key)
            .and_then(|request| request.pem())
            .map_err(make)?;
        Ok(Self { key, pem })
    }

    /// The request as PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Puts the authority's answer (PEM, leaf first) and the key together.
    ///
    /// # Errors
    /// The answer is no certificate of a workload, or is for another key.
    pub fn answered(self, chain: &str) -> Result<Svid, SvidError> {
        let key = PrivateKeyDer::try_from(self.key.serialize_der())
            .map_err(|why| SvidError::Key(why.to_owned()))?;
        Svid::new(pem::certificates(chain)?, key)
    }
}

/// The public key of a request, after its signature has been verified. Nothing else of the request is used.
pub(super) fn public_key(csr_pem: &str) -> Result<SubjectPublicKeyInfo, CaError> {
    let unreadable = |why: String| CaError::Request(why);
    if csr_pem.len() > LONGEST {
        return Err(unreadable(format!("it is longer than {LONGEST} bytes")));
    }
    let der = CertificateSigningRequestDer::from_pem_slice(csr_pem.as_bytes())
        .map_err(|error| unreadable(error.to_string()))?;
    let (rest, request) =
        X509CertificationRequest::from_der(&der).map_err(|error| unreadable(error.to_string()))?;
    if !rest.is_empty() {
        return Err(unreadable("bytes follow the request".into()));
    }
    let key = &request.certification_request_info.subject_pki;
    if let Ok(PublicKey::RSA(rsa)) = key.parsed()
        && rsa.key_size() < RSA_BITS
    {
        return Err(CaError::KeyKind(format!("RSA of {} bits", rsa.key_size())));
    }
    let info = SubjectPublicKeyInfo::from_der(key.raw)
        .map_err(|_| CaError::KeyKind(key.algorithm.algorithm.to_id_string()))?;
    request.verify_signature().map_err(|_| CaError::Signature)?;
    Ok(info)
}
