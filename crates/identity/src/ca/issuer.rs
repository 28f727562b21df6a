//! Signing below an authority whose name the certificate library cannot spell: repeated or multi-valued parts
//! (`DC=corp,DC=example`), unusual kinds of text. The library makes the certificate, then the issuer's name is put in
//! byte by byte as the authority's certificate has it (RFC 5280 §4.1.2.4 wants exactly that), and it is signed anew.

use super::{CaError, make};
use crate::certificate::parse;
use crate::pem;
use rcgen::{
    CertificateParams, DistinguishedName, Issuer, KeyIdMethod, KeyPair, PublicKeyData,
    SignatureAlgorithm, SigningKey,
};
use rustls_pki_types::CertificateDer;
use std::borrow::Cow;
use x509_parser::extensions::ParsedExtension;

/// DER tags (X.690 §8).
const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;

/// What signs: a key and the name that goes with it.
pub(super) struct Signer {
    issuer: Issuer<'static, Draft>,
    /// The subject of the authority's certificate, DER.
    name: Vec<u8>,
}

impl Signer {
    /// Puts an authority's certificate and its key (PEM) together.
    ///
    /// # Errors
    /// One of them cannot be read, or they do not belong together.
    pub(super) fn of(certificate: &CertificateDer<'static>, key: &str) -> Result<Self, CaError> {
        let unusable = |file| move |why: String| CaError::Unusable { file, why };
        let key = pem::private_key(key).map_err(|source| CaError::Pem {
            file: "ca-key.pem",
            source,
        })?;
        let key = KeyPair::try_from(&key).map_err(|e| unusable("ca-key.pem")(e.to_string()))?;
        let parsed = parse(certificate).map_err(unusable("ca-cert.pem"))?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(CaError::Mismatch);
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        // Leaves name the key as the authority's certificate does (RFC 5280 §4.2.1.1).
        let named =
            parsed
                .iter_extensions()
                .find_map(|extension| match extension.parsed_extension() {
                    ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                    _ => None,
                });
        if let Some(id) = named {
            params.key_identifier_method = KeyIdMethod::PreSpecified(id);
        }
        Ok(Self {
            name: parsed.subject().as_raw().to_vec(),
            issuer: Issuer::new(params, Draft(key)),
        })
    }

    /// The private key.
    pub(super) fn key(&self) -> &KeyPair {
        &self.issuer.key().0
    }

    /// Signs `params` for `key`.
    pub(super) fn sign(
        &self,
        params: &CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, CaError> {
        let draft = params.signed_by(key, &self.issuer).map_err(make)?;
        let draft = draft.der();
        let parsed = parse(draft).map_err(CaError::Make)?;
        let body = parsed.tbs_certificate.as_ref();
        let empty = parsed.issuer().as_raw();
        // Both are slices of the draft, so the distance is the place of the name in the body.
        let at = (empty.as_ptr() as usize).checked_sub(body.as_ptr() as usize);
        let broken = || CaError::Make("the draft of a certificate has no issuer".into());
        let at = at
            .filter(|at| body.get(*at..*at + empty.len()) == Some(empty))
            .ok_or_else(broken)?;
        let start = header(body).ok_or_else(broken)?;
        let parts = [&body[start..at], &self.name, &body[at + empty.len()..]];
        let body = tagged(SEQUENCE, &parts.concat());
        let mut signature = vec![0];
        signature.extend(self.key().sign(&body).map_err(make)?);
        let algorithm = algorithm(draft).ok_or_else(broken)?;
        let parts = [
            Cow::from(&body),
            Cow::from(algorithm),
            Cow::from(tagged(BIT_STRING, &signature)),
        ];
        Ok(tagged(SEQUENCE, &parts.concat()).into())
    }
}

/// The key for drafts: they are never signed, because their signature would be thrown away.
struct Draft(KeyPair);

impl PublicKeyData for Draft {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        PublicKeyData::algorithm(&self.0)
    }
}

impl SigningKey for Draft {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(vec![0])
    }
}

/// Length of a value's tag and length octets.
fn header(der: &[u8]) -> Option<usize> {
    let first = *der.get(1)?;
    Some(match first {
        0..=0x7f => 2,
        long => 2 + usize::from(long & 0x7f),
    })
}

/// Length of a value with its header.
fn whole(der: &[u8]) -> Option<usize> {
    let header = header(der)?;
    let length = match header {
        2 => usize::from(der[1]),
        _ => der
            .get(2..header)?
            .iter()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
    };
    Some(header + length)
}

/// The signature algorithm of a certificate: the second of its three parts.
fn algorithm(certificate: &[u8]) -> Option<&[u8]> {
    let parts = certificate.get(header(certificate)?..)?;
    let after = parts.get(whole(parts)?..)?;
    after.get(..whole(after)?)
}

/// A value with its tag and length (X.690 §8.1.3, shortest form).
fn tagged(tag: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = value.len();
    match length {
        0..=0x7f => out.push(length as u8),
        _ => {
            let bytes = length.to_be_bytes();
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            out.push(0x80 | (bytes.len() - zeros) as u8);
            out.extend(&bytes[zeros..]);
        }
    }
    out.extend(value);
    out
}
