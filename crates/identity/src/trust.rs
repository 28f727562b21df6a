//! Whom a workload believes: the roots of each trust domain, and the verification of certificate chains against them.
//! Pure: no clock, no files. What a verified peer may do is decided elsewhere.

use crate::anchors::{Anchors, ChainError, Kind};
use crate::certificate::{Facts, parse, show};
use lateen_base::Str;
use lateen_model::identity::{BadSpiffeId, SpiffeId};
use lateen_model::security::TrustBundle;
use rustls_pki_types::{CertificateDer, UnixTime};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use webpki::{ExtendedKeyUsageValidator, KeyPurposeIdIter, KeyUsage, RequiredEkuNotFoundContext};
use x509_parser::extensions::GeneralName;

/// Most certificates that a peer may show. Istio's chains have two to four.
const LONGEST_CHAIN: usize = 12;

/// The roots of every trust domain that a workload believes, each for its own members only. Cheap to clone.
/// The default believes nobody.
#[derive(Clone, Default)]
pub struct TrustBundles {
    domains: Arc<BTreeMap<Str, Arc<Bundle>>>,
}

/// What identifies members of one trust domain; or why nobody is believed.
struct Bundle(Result<Anchors, String>);

/// A peer's certificate is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// No certificate at all.
    #[error("the peer showed no certificate")]
    NoCertificate,
    /// More certificates than any honest peer has.
    #[error("the peer showed {0} certificates; {LONGEST_CHAIN} are the most that are accepted")]
    TooMany(usize),
    /// Bytes that are no certificate.
    #[error("the peer's certificate cannot be read: {0}")]
    Malformed(String),
    /// SPIFFE X509-SVID §2: exactly one.
    #[error(
        "the peer's certificate has {0} URI names; a workload's certificate has exactly one, its SPIFFE id"
    )]
    NotOneName(usize),
    /// A name that could be read two ways.
    #[error("the peer's certificate names no identity: {0}")]
    BadName(#[from] BadSpiffeId),
    /// There are no roots of the trust domain.
    #[error(
        "{id} is of trust domain {domain}, of which no root is known ({known}); is it in trustDomainAliases or caCertificates of the mesh's settings?"
    )]
    UnknownTrustDomain {
        /// Who it claims to be.
        id: SpiffeId,
        /// Its trust domain.
        domain: String,
        /// The known ones.
        known: String,
    },
    /// Every root of the trust domain has expired.
    #[error(
        "every root of trust domain {0} has expired or is not valid yet; give the mesh a new root"
    )]
    NoCurrentRoot(String),
    /// The bundle of the trust domain cannot be used, so nobody is believed.
    #[error("nobody of trust domain {domain} is believed: {why}")]
    Unusable {
        /// The trust domain.
        domain: String,
        /// What is wrong with its bundle.
        why: String,
    },
    /// The chain does not lead to a root of its own trust domain.
    #[error(
        "the certificate of {0} was not signed by a root of its trust domain; it may be older than the last change of roots, or come from another mesh"
    )]
    UnknownIssuer(SpiffeId),
    /// A certificate of the chain has expired.
    #[error(
        "the certificate of {id} (or of its signer) expired at {at}; look at its proxy's log for why it was not renewed"
    )]
    Expired {
        /// Whose.
        id: SpiffeId,
        /// When.
        at: String,
    },
    /// A certificate of the chain is not valid yet.
    #[error(
        "the certificate of {id} (or of its signer) is valid from {at} on; compare the clocks of both machines"
    )]
    NotYetValid {
        /// Whose.
        id: SpiffeId,
        /// From when on.
        at: String,
    },
    /// A certificate of the chain is on a revocation list.
    #[error("the certificate of {0} (or of its signer) has been revoked")]
    Revoked(SpiffeId),
    /// Anything else that a chain must not be.
    #[error("the certificate of {id} is not acceptable: {why}")]
    Refused {
        /// Whose.
        id: SpiffeId,
        /// What is wrong.
        why: String,
    },
}

/// The SPIFFE id of a chain's leaf. It is only what the certificate says: verify the chain before believing it.
///
/// # Errors
/// There is no certificate, it cannot be read, or it has not exactly one URI name that is a SPIFFE id.
pub fn peer_id(chain: &[CertificateDer<'_>]) -> Result<SpiffeId, TrustError> {
    let leaf = chain.first().ok_or(TrustError::NoCertificate)?;
    let parsed = parse(leaf).map_err(TrustError::Malformed)?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|error| TrustError::Malformed(error.to_string()))?;
    let names = names.map(|names| names.value.general_names.as_slice());
    let mut uris = Vec::new();
    for name in names.unwrap_or_default() {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            // What cannot be read might be a second name to somebody else.
            GeneralName::Invalid(..) => {
                return Err(TrustError::Malformed(
                    "one of its alternative names is not text".into(),
                ));
            }
            _ => {}
        }
    }
    match uris.as_slice() {
        [uri] => Ok(SpiffeId::parse(uri)?),
        uris => Err(TrustError::NotOneName(uris.len())),
    }
}

/// When the first certificate of a chain ends.
///
/// # Errors
/// There is none, or one cannot be read.
pub fn not_after(chain: &[CertificateDer<'_>]) -> Result<SystemTime, TrustError> {
    let mut first = None;
    for der in chain {
        let end = Facts::of(der).map_err(TrustError::Malformed)?.not_after;
        first = Some(first.map_or(end, |first: SystemTime| first.min(end)));
    }
    first.ok_or(TrustError::NoCertificate)
}

// === impl TrustBundles ===

impl TrustBundles {
    /// Reads bundles. `own` is the mesh's trust domain; its roots also vouch for members of `aliases`, unless an alias
    /// has a bundle of its own. What cannot be used is told in the second value: roots that cannot be read or have
    /// expired are left out; a revocation list that cannot be read closes its trust domain.
    pub fn of(bundles: &[Arc<TrustBundle>], own: &str, aliases: &[Str]) -> (Self, Vec<String>) {
        Self::default().followed_by(bundles, own, aliases)
    }

    /// As [`TrustBundles::of`], for bundles that replace these: where one cannot be used, what these have of its trust
    /// domain stays in force. One bad text does not close a trust domain that worked.
    pub fn followed_by(
        &self,
        bundles: &[Arc<TrustBundle>],
        own: &str,
        aliases: &[Str],
    ) -> (Self, Vec<String>) {
        let mut notices = Vec::new();
        let mut domains = BTreeMap::new();
        for bundle in bundles {
            let domain = &bundle.trust_domain;
            let good = self.domains.get(domain).filter(|good| good.0.is_ok());
            let read = Bundle::read(bundle, good.is_some(), &mut notices);
            let read = match good {
                Some(good) if read.0.is_err() => good.clone(),
                _ => Arc::new(read),
            };
            domains.insert(domain.clone(), read);
        }
        if let Some(bundle) = domains.get(own).cloned() {
            for alias in aliases {
                domains
                    .entry(alias.clone())
                    .or_insert_with(|| bundle.clone());
            }
        }
        let domains = Arc::new(domains);
        (Self { domains }, notices)
    }

    /// Whether nobody is believed.
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }

    /// When the last root of a trust domain expires; absent: there is none.
    pub fn not_after(&self, trust_domain: &str) -> Option<SystemTime> {
        let anchors = self.domains.get(trust_domain)?.0.as_ref().ok()?;
        anchors.not_after()
    }

    /// Verifies a chain, leaf first: a path to a root of the leaf's own trust domain, dates, usages, constraints, and
    /// revocation lists for every certificate below the root (a certificate whose issuer has no list counts as good).
    ///
    /// # Errors
    /// Anything of that is not so. An empty set of bundles refuses everybody.
    pub fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<SpiffeId, TrustError> {
        let (leaf, intermediates) = chain.split_first().ok_or(TrustError::NoCertificate)?;
        self.verify_parts(leaf, intermediates, now)
    }

    /// As [`TrustBundles::verify`], in the parts that TLS hands over.
    pub(crate) fn verify_parts(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<SpiffeId, TrustError> {
        if intermediates.len() >= LONGEST_CHAIN {
            return Err(TrustError::TooMany(intermediates.len() + 1));
        }
        let id = peer_id(std::slice::from_ref(leaf))?;
        let domain = id.trust_domain();
        let Some(bundle) = self.domains.get(domain) else {
            return Err(TrustError::UnknownTrustDomain {
                domain: domain.to_owned(),
                known: self.known(),
                id,
            });
        };
        match &bundle.0 {
            Ok(anchors) => anchors
                .verify(leaf, intermediates, now, WorkloadUsage)
                .map_err(|error| refusal(id.clone(), error))?,
            Err(why) => {
                return Err(TrustError::Unusable {
                    domain: domain.to_owned(),
                    why: why.clone(),
                });
            }
        }
        Ok(id)
    }

    fn known(&self) -> String {
        let names: Vec<&str> = self.domains.keys().take(5).map(|name| &**name).collect();
        match names.as_slice() {
            [] => "there are no roots at all".into(),
            names => format!("only of {}", names.join(", ")),
        }
    }
}

impl fmt::Debug for TrustBundles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.domains.keys()).finish()
    }
}

// === impl Bundle ===

impl Bundle {
    /// `replaces`: whether there is another that stays in force when this one cannot be used.
    fn read(from: &TrustBundle, replaces: bool, notices: &mut Vec<String>) -> Self {
        let domain = &from.trust_domain;
        let mut told = Vec::new();
        let out = Anchors::read(&from.roots, &from.crls, Kind::Authorities, &mut told);
        let mut say = |why: &str| notices.push(format!("trust domain {domain}: {why}"));
        told.iter().for_each(|why| say(why));
        if let Err(why) = &out {
            say(&match replaces {
                true => format!("the roots and revocation lists of before stay in force: {why}"),
                false => format!("nobody is believed: {why}"),
            });
        }
        Self(out)
    }
}

fn refusal(id: SpiffeId, error: ChainError) -> TrustError {
    let at = |time: UnixTime| show(UNIX_EPOCH + Duration::from_secs(time.as_secs()));
    let error = match error {
        ChainError::NoCurrentRoot => {
            return TrustError::NoCurrentRoot(id.trust_domain().to_owned());
        }
        ChainError::Path(error) => error,
    };
    match error {
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
            TrustError::UnknownIssuer(id)
        }
        webpki::Error::CertExpired { not_after, .. } => TrustError::Expired {
            id,
            at: at(not_after),
        },
        webpki::Error::CertNotValidYet { not_before, .. } => TrustError::NotYetValid {
            id,
            at: at(not_before),
        },
        webpki::Error::CertRevoked => TrustError::Revoked(id),
        other => TrustError::Refused {
            id,
            why: format!("{other:?}"),
        },
    }
}

/// A workload's certificate serves both ends; one that names usages must name one of the two (SPIFFE X509-SVID §4.4).
struct WorkloadUsage;

impl ExtendedKeyUsageValidator for WorkloadUsage {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let mut present = Vec::new();
        for purpose in purposes {
            let purpose = purpose?.to_decoded_oid();
            if purpose == KeyUsage::SERVER_AUTH_REPR || purpose == KeyUsage::CLIENT_AUTH_REPR {
                return Ok(());
            }
            present.push(purpose);
        }
        if present.is_empty() {
            return Ok(());
        }
        let required = KeyUsage::client_auth();
        Err(webpki::Error::RequiredEkuNotFoundContext(
            RequiredEkuNotFoundContext { required, present },
        ))
    }
}

#[cfg(test)]
mod tests;
