//! Roots with their revocation lists, and the path from a leaf to one of them. Whose roots they are, and which name a
//! leaf must carry, is the callers' business.

mod revoked;

use crate::certificate::Facts;
use crate::pem;
use revoked::Lists;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator};

/// Roots and revocation lists.
pub(crate) struct Anchors {
    roots: Vec<Root>,
    anchors: Vec<TrustAnchor<'static>>,
    revoked: Lists,
    kind: Kind,
}

struct Root {
    der: CertificateDer<'static>,
    facts: Facts,
}

/// What may be among the roots.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Authorities only.
    Authorities,
    /// Also the very certificate that a peer shows, such as one that signed itself.
    Pins,
}

/// No path leads to a root.
#[derive(Debug)]
pub(crate) enum ChainError {
    /// Every root has expired or is not valid yet.
    NoCurrentRoot,
    /// Something is wrong on the way.
    Path(webpki::Error),
}

impl Anchors {
    /// Reads PEM texts; `crls` may be empty. A root that cannot be used is left out with a notice.
    pub(crate) fn read(
        roots: &str,
        crls: &str,
        kind: Kind,
        notices: &mut Vec<String>,
    ) -> Result<Self, String> {
        let mut out = Self {
            roots: Vec::new(),
            anchors: Vec::new(),
            revoked: Lists::default(),
            kind,
        };
        let ders =
            pem::certificates(roots).map_err(|why| format!("the roots cannot be used: {why}"))?;
        for der in ders {
            if let Err(why) = out.add(der) {
                notices.push(format!("a root is left out: {why}"));
            }
        }
        if out.anchors.is_empty() {
            return Err("there is no usable root".into());
        }
        if !crls.trim().is_empty() {
            // Without its list, what was revoked would be good again: better nobody than everybody.
            out.revoked = Lists::read(crls)?;
        }
        Ok(out)
    }

    fn add(&mut self, der: CertificateDer<'static>) -> Result<(), String> {
        let facts = Facts::of(&der)?;
        if self.kind == Kind::Authorities && !facts.may_sign {
            return Err(format!(
                "{} is not the certificate of an authority (basicConstraints CA:TRUE is missing)",
                facts.subject
            ));
        }
        let anchor = webpki::anchor_from_trusted_cert(&der).map_err(|error| error.to_string())?;
        self.anchors.push(anchor.to_owned());
        self.roots.push(Root { der, facts });
        Ok(())
    }

    /// When the last root ends.
    pub(crate) fn not_after(&self) -> Option<SystemTime> {
        self.roots.iter().map(|root| root.facts.not_after).max()
    }

    /// Finds a path; see [`crate::trust::TrustBundles::verify`] for what is looked at.
    pub(crate) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: SystemTime,
        usage: impl ExtendedKeyUsageValidator,
    ) -> Result<(), ChainError> {
        let anchors = self.current(now);
        if anchors.is_empty() {
            return Err(ChainError::NoCurrentRoot);
        }
        if self.kind == Kind::Pins {
            let pinned = |root: &Root| root.der == *leaf && root.facts.is_current(now);
            if self.roots.iter().any(pinned) {
                return Ok(());
            }
        }
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let certificate = EndEntityCert::try_from(leaf).map_err(ChainError::Path)?;
        let path = certificate
            .verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &anchors,
                intermediates,
                UnixTime::since_unix_epoch(since),
                usage,
                // The library takes one list for each issuer's name; see `revoked` for why that is not enough.
                None,
                None,
            )
            .map_err(ChainError::Path)?;
        self.revoked.check(&path).map_err(ChainError::Path)
    }

    /// The roots that are within their dates: the library looks at the dates of everything below a root only.
    fn current(&self, now: SystemTime) -> Cow<'_, [TrustAnchor<'static>]> {
        if self.roots.iter().all(|root| root.facts.is_current(now)) {
            return Cow::Borrowed(&self.anchors);
        }
        let both = self.roots.iter().zip(&self.anchors);
        both.filter(|(root, _)| root.facts.is_current(now))
            .map(|(_, anchor)| anchor.clone())
            .collect()
    }
}
