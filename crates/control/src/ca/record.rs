//! What of the CA's state outlives the process, and how it is read back when somebody has damaged it.

use crate::ca::page;
use base64::Engine as _;
use lateen_identity::trust::TrustBundles;
use lateen_model::security::TrustBundle;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::SystemTime;

/// No certificate is valid for longer than this, in seconds (a century): it keeps sums of dates within bounds.
const MOST_SECONDS: u64 = 100 * 365 * 24 * 3600;

/// One root certificate as PEM in one spelling: equal roots have equal text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Root(Arc<str>);

impl Root {
    /// The certificates of a PEM text, each once, in their order; what is no certificate is passed over.
    pub(crate) fn all_of(pem: &str) -> Vec<Self> {
        let mut all = Vec::new();
        for der in CertificateDer::pem_slice_iter(pem.as_bytes()).flatten() {
            let root = Self::of(&der);
            if !all.contains(&root) {
                all.push(root);
            }
        }
        all
    }

    pub(crate) fn of(der: &[u8]) -> Self {
        Self(block("CERTIFICATE", der).into())
    }

    /// The PEM text.
    pub(crate) fn pem(&self) -> &str {
        &self.0
    }
}

/// A root that signs no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Retiring {
    /// The root.
    pub(crate) root: Root,
    /// Trusted until then, in seconds since 1970: its last certificate has expired.
    pub(crate) until: u64,
}

/// What must outlive this process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Roots of the CA that signs, the signing one first.
    #[serde(default)]
    pub(crate) active: Vec<Root>,
    /// Roots that signed before.
    #[serde(default)]
    pub(crate) retiring: Vec<Retiring>,
    /// Revocation lists of those roots.
    #[serde(default)]
    pub(crate) revoked: Vec<Revoked>,
    /// Longest validity ever granted, in seconds.
    #[serde(default)]
    pub(crate) longest: u64,
}

/// Revocation lists that a CA brought with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Revoked {
    /// The root that the CA's chain leads to: they go with it.
    pub(crate) root: Root,
    /// What tells the CA's certificate from others below that root.
    pub(crate) signer: String,
    /// The lists, PEM.
    pub(crate) crl: String,
    /// In force until then, in seconds since 1970; absent: as long as the root is trusted.
    #[serde(default)]
    pub(crate) until: Option<u64>,
}

impl Record {
    /// The record with everything out of it that cannot be used, each told as a sentence.
    pub(crate) fn cleaned(self, clock: SystemTime) -> (Self, Vec<String>) {
        let mut notices = Vec::new();
        let latest = page::seconds(clock) + MOST_SECONDS;
        let mut root = |root: Root| {
            let read = Root::all_of(root.pem()).into_iter().next();
            let read = read.filter(|root| is_usable(root, ""));
            if read.is_none() {
                notices.push("a root in it cannot be read and is trusted no more".to_owned());
            }
            read
        };
        let active = self.active.into_iter().filter_map(&mut root).collect();
        let retiring = self.retiring.into_iter().filter_map(|old| {
            Some(Retiring {
                root: root(old.root)?,
                until: old.until.min(latest),
            })
        });
        let retiring = retiring.collect();
        let revoked = self.revoked.into_iter().filter_map(|of| {
            let root = root(of.root)?;
            Some(Revoked {
                until: of.until.map(|until| until.min(latest)),
                root,
                ..of
            })
        });
        let (revoked, bad): (Vec<_>, Vec<_>) = revoked
            .collect::<Vec<_>>()
            .into_iter()
            .partition(|of| is_usable(&of.root, &of.crl));
        if !bad.is_empty() {
            notices.push("revocation lists in it cannot be read and are left out".to_owned());
        }
        let record = Self {
            active,
            retiring,
            revoked,
            longest: self.longest.min(MOST_SECONDS),
        };
        (record, notices)
    }
}

/// Whether others could use a root with these lists.
fn is_usable(root: &Root, crl: &str) -> bool {
    const ANY: &str = "any";
    let bundle = TrustBundle {
        trust_domain: ANY.into(),
        roots: root.pem().into(),
        crls: crl.into(),
    };
    let (bundles, _) = TrustBundles::of(&[Arc::new(bundle)], ANY, &[]);
    bundles.not_after(ANY).is_some()
}

/// The revocation lists of a PEM text, each as DER and as PEM in one spelling.
pub(crate) fn lists_of(text: &str) -> Vec<(Vec<u8>, String)> {
    CertificateRevocationListDer::pem_slice_iter(text.as_bytes())
        .flatten()
        .map(|der| (der.to_vec(), block("X509 CRL", &der)))
        .collect()
}

/// A PEM block with lines of 64 characters.
fn block(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::with_capacity(text.len() + text.len() / 64 + 64);
    pem.push_str(&format!("-----BEGIN {label}-----\n"));
    let mut rest = text.as_str();
    while !rest.is_empty() {
        // Base64 is ASCII: every index is a boundary.
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}
