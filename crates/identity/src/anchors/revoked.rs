//! Revocation lists, looked at for every certificate of a path.
//!
//! While one authority takes over from another of the same name, each has its own list: a list counts for the
//! certificates that were signed with the key that signed the list, not for everybody whose issuer has that name.

use crate::pem;
use parking_lot::Mutex;
use rustls_pki_types::CertificateRevocationListDer;
use std::collections::HashMap;
use webpki::{CertRevocationList, Error, OwnedCertRevocationList, VerifiedPath, spki_for_anchor};
use x509_parser::error::X509Error;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Keys whose lists are remembered; more than that and everything is looked at anew.
const REMEMBERED: usize = 64;

/// The lists of one set of roots.
#[derive(Default)]
pub(super) struct Lists(Vec<List>);

struct List {
    der: CertificateRevocationListDer<'static>,
    read: CertRevocationList<'static>,
    /// Whether it was signed with a key (as SubjectPublicKeyInfo).
    signers: Mutex<HashMap<Vec<u8>, bool>>,
}

impl Lists {
    /// Reads PEM; the error is a sentence without its subject.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let ders = pem::revocation_lists(text)
            .map_err(|why| format!("the revocation lists cannot be used: {why}"))?;
        let mut out = Vec::new();
        for (at, der) in ders.into_iter().enumerate() {
            let read = OwnedCertRevocationList::from_der(&der).map_err(|why| {
                format!("revocation list number {} cannot be used: {why}", at + 1)
            })?;
            out.push(List {
                der,
                read: read.into(),
                signers: Mutex::default(),
            });
        }
        Ok(Self(out))
    }

    /// Refuses a path of which a certificate below the root is on a list of its issuer.
    pub(super) fn check(&self, path: &VerifiedPath<'_>) -> Result<(), Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        let leaf = std::iter::once::<&webpki::Cert<'_>>(path.end_entity());
        let below: Vec<_> = leaf.chain(path.intermediate_certificates()).collect();
        for (at, certificate) in below.iter().enumerate() {
            let signer = match below.get(at + 1) {
                Some(issuer) => issuer.subject_public_key_info(),
                None => spki_for_anchor(path.anchor()),
            };
            for list in &self.0 {
                if list.read.issuer() == certificate.issuer()
                    && list.read.find_serial(certificate.serial())?.is_some()
                    && list.is_signed_with(&signer)
                {
                    return Err(Error::CertRevoked);
                }
            }
        }
        Ok(())
    }
}

impl List {
    fn is_signed_with(&self, key: &[u8]) -> bool {
        if let Some(known) = self.signers.lock().get(key) {
            return *known;
        }
        let found = self.verify(key);
        let mut signers = self.signers.lock();
        if signers.len() >= REMEMBERED {
            signers.clear();
        }
        signers.insert(key.to_vec(), found);
        found
    }

    /// What cannot be verified counts: the lists come from the control plane, and no door opens for want of an algorithm.
    fn verify(&self, key: &[u8]) -> bool {
        let Ok((_, list)) = CertificateRevocationList::from_der(&self.der) else {
            return true;
        };
        let Ok((_, key)) = SubjectPublicKeyInfo::from_der(key) else {
            return true;
        };
        !matches!(
            list.verify_signature(&key),
            Err(X509Error::SignatureVerificationError)
        )
    }
}
