//! The authority that signs certificates of workloads: made on the spot, or an intermediate that the user plugged in.
//! Pure: whoever calls tells the time and stores what must be stored. Who may ask for which identity is decided by the
//! caller too; of a request only the public key is used.

mod error;
mod issuer;
mod request;

pub use error::CaError;
pub use request::{KeyKind, Request};

use crate::certificate::{Facts, parse, show};
use crate::pem;
use crate::trust::TrustBundles;
use issuer::Signer;
use lateen_model::identity::SpiffeId;
use lateen_model::security::TrustBundle;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a workload's certificate is valid when nobody says otherwise (Istio: 24 hours).
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// The longest that a workload's certificate is valid (Istio: 90 days).
pub const MAX_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);
/// How long a root made here is valid (Istio: 10 years).
pub const ROOT_LIFETIME: Duration = Duration::from_secs(3650 * 24 * 3600);
/// Clocks of two machines may differ by this much: certificates begin that long before they are made (Istio: 2 minutes).
const SKEW: Duration = Duration::from_secs(120);

/// An authority that can sign.
pub struct Authority {
    signer: Signer,
    /// From the signer up to, but without, the root; empty when the signer is the root.
    chain: Vec<CertificateDer<'static>>,
    certificate: CertificateDer<'static>,
    /// The root that the chain leads to.
    root: CertificateDer<'static>,
    crl: String,
    not_after: SystemTime,
    bundle: TrustBundle,
}

/// The files of an authority as PEM texts (Istio: secrets `cacerts` and `istio-ca-secret`).
#[derive(Clone, Copy, Default)]
pub struct Files<'a> {
    /// `ca-cert.pem`: the signer's certificate.
    pub cert: &'a str,
    /// `ca-key.pem`: its private key.
    pub key: &'a str,
    /// `cert-chain.pem`: certificates between signer and root; the signer and the root may be in it too. May be empty.
    pub chain: &'a str,
    /// `root-cert.pem`: what others trust; several during a rotation. Empty: the signer is its own root.
    pub root: &'a str,
    /// `ca-crl.pem`: revocation lists. May be empty.
    pub crl: &'a str,
}

/// A certificate for a server of the control plane.
pub struct Serving {
    /// Leaf first, then intermediates.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
    /// When it ends.
    pub not_after: SystemTime,
}

// === impl Authority ===

impl Authority {
    /// A new root with a new key, valid for `lifetime`. [`Authority::key_pem`] is what must be kept.
    ///
    /// # Errors
    /// The trust domain is not one, or there is no randomness.
    pub fn self_signed(
        trust_domain: &str,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Self, CaError> {
        SpiffeId::of_account(trust_domain, "any", "any")?;
        let mut params = CertificateParams::default();
        let serial = random_serial()?;
        // Each root has a name of its own, so that chains and revocation lists of two never mix.
        let unique: String = serial[..4].iter().map(|b| format!("{b:02x}")).collect();
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, trust_domain);
        name.push(DnType::CommonName, format!("root {unique}"));
        params.distinguished_name = name;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        valid(&mut params, now - SKEW, now + lifetime);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(make)?;
        let certificate = params.self_signed(&key).map_err(make)?;
        let files = (certificate.pem(), key.serialize_pem());
        Self::from_pem(
            &Files {
                cert: &files.0,
                key: &files.1,
                ..Files::default()
            },
            now,
        )
    }

    /// Reads an authority and tries it: a certificate that it signs must lead to its root.
    ///
    /// # Errors
    /// A text is malformed, the key is not the certificate's, the certificate is no authority's or has expired, or
    /// what it signs would not be believed (wrong chain or root, or a revocation list that forbids it).
    pub fn from_pem(files: &Files<'_>, now: SystemTime) -> Result<Self, CaError> {
        let pem =
            |file, text| pem::certificates(text).map_err(|source| CaError::Pem { file, source });
        let certificate = pem("ca-cert.pem", files.cert)?.swap_remove(0);
        let facts = Facts::of(&certificate).map_err(|why| CaError::Unusable {
            file: "ca-cert.pem",
            why,
        })?;
        if !facts.may_sign {
            return Err(CaError::NotAnAuthority(facts.subject));
        }
        if now < facts.not_before {
            return Err(CaError::NotYetValid(show(facts.not_before)));
        }
        let roots = match files.root.trim() {
            "" => vec![certificate.clone()],
            _ => pem("root-cert.pem", files.root)?,
        };
        let mut chain = Vec::new();
        let above = match files.chain.trim() {
            "" => Vec::new(),
            _ => pem("cert-chain.pem", files.chain)?,
        };
        for der in std::iter::once(certificate.clone()).chain(above) {
            if !roots.contains(&der) && !chain.contains(&der) {
                chain.push(der);
            }
        }
        let signer = Signer::of(&certificate, files.key)?;
        let root = root_of(chain.last().unwrap_or(&certificate), &roots).clone();
        let end = |der| Facts::of(der).ok().map(|facts| facts.not_after);
        let above = chain.iter().chain([&root]).filter_map(end).min();
        let not_after = above.map_or(facts.not_after, |at| at.min(facts.not_after));
        if not_after <= now {
            return Err(CaError::Expired(show(not_after)));
        }
        if !files.crl.trim().is_empty() {
            pem::revocation_lists(files.crl).map_err(|source| CaError::Pem {
                file: "ca-crl.pem",
                source,
            })?;
        }
        let authority = Self {
            signer,
            chain,
            certificate,
            crl: files.crl.trim().to_owned(),
            not_after,
            bundle: TrustBundle {
                trust_domain: PROBE.into(),
                roots: pem::encode_chain(&roots).into(),
                crls: files.crl.trim().into(),
            },
            root,
        };
        authority.probe(now)?;
        Ok(authority)
    }

    /// Signs the key of a request (PEM, PKCS#10) for `id`, and returns PEM certificates: the leaf, those between, and
    /// the root last. A `validity` of zero means [`DEFAULT_LIFETIME`]; more than [`MAX_LIFETIME`] is shortened to it,
    /// and nothing outlives the authority. Names, usages and dates in the request are ignored.
    ///
    /// # Errors
    /// The request cannot be read, is not signed with its own key, has a weak key, or the authority has expired.
    pub fn sign(
        &self,
        csr_pem: &str,
        id: &SpiffeId,
        validity: Duration,
        now: SystemTime,
    ) -> Result<Vec<String>, CaError> {
        let key = request::public_key(csr_pem)?;
        let leaf = self.leaf(&key, id, validity, now)?;
        let mut out = vec![pem::encode("CERTIFICATE", &leaf)];
        out.extend(self.chain.iter().map(|der| pem::encode("CERTIFICATE", der)));
        out.push(pem::encode("CERTIFICATE", &self.root));
        Ok(out)
    }

    /// A certificate with a new key for a server that is known by DNS names (or addresses) and, when `id` is given, as
    /// a member of the mesh.
    ///
    /// # Errors
    /// A name cannot be put into a certificate, or the authority has expired.
    pub fn serve_certificate(
        &self,
        dns_names: &[String],
        id: Option<&SpiffeId>,
        validity: Duration,
        now: SystemTime,
    ) -> Result<Serving, CaError> {
        let mut names = Vec::new();
        for name in dns_names {
            names.push(alternative_name(name)?);
        }
        if let Some(id) = id {
            names.push(uri(id)?);
        }
        let key = KeyPair::generate().map_err(make)?;
        let leaf = self.certificate_for(&key, names, validity, now)?;
        let not_after = Facts::of(&leaf).map_err(CaError::Make)?.not_after;
        let mut chain = vec![leaf];
        chain.extend(self.chain.iter().cloned());
        let key = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|why| CaError::Make(why.to_owned()))?;
        Ok(Serving {
            chain,
            key,
            not_after,
        })
    }

    /// The roots that others trust, as PEM: those of `root-cert.pem`, or its own certificate.
    pub fn root_pem(&self) -> &str {
        &self.bundle.roots
    }

    /// The one of [`Authority::root_pem`] that its chain leads to, as PEM.
    pub fn anchor_pem(&self) -> String {
        pem::encode("CERTIFICATE", &self.root)
    }

    /// The signer's certificate as PEM (`ca-cert.pem`).
    pub fn cert_pem(&self) -> String {
        pem::encode("CERTIFICATE", &self.certificate)
    }

    /// The signer's private key as PEM (`ca-key.pem`). A secret.
    pub fn key_pem(&self) -> String {
        self.signer.key().serialize_pem()
    }

    /// The revocation lists as PEM; empty: none.
    pub fn crl_pem(&self) -> &str {
        &self.crl
    }

    /// When the first certificate from the signer to its root ends.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Whether it is its own root.
    pub fn is_root(&self) -> bool {
        self.chain.is_empty()
    }

    /// What others need to believe whom it signs for.
    pub fn bundle(&self, trust_domain: &str) -> TrustBundle {
        TrustBundle {
            trust_domain: trust_domain.into(),
            ..self.bundle.clone()
        }
    }

    fn leaf(
        &self,
        key: &impl PublicKeyData,
        id: &SpiffeId,
        validity: Duration,
        now: SystemTime,
    ) -> Result<CertificateDer<'static>, CaError> {
        self.certificate_for(key, vec![uri(id)?], validity, now)
    }

    fn certificate_for(
        &self,
        key: &impl PublicKeyData,
        names: Vec<SanType>,
        validity: Duration,
        now: SystemTime,
    ) -> Result<CertificateDer<'static>, CaError> {
        if self.not_after <= now {
            return Err(CaError::Expired(show(self.not_after)));
        }
        let validity = match validity {
            Duration::ZERO => DEFAULT_LIFETIME,
            validity => validity.min(MAX_LIFETIME),
        };
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from_slice(&random_serial()?));
        valid(
            &mut params,
            now - SKEW,
            (now + validity).min(self.not_after),
        );
        // Without a subject the alternative names are critical (RFC 5280 §4.2.1.6), as in Istio's certificates.
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        self.signer.sign(&params, key)
    }

    /// Signs a certificate for nobody and verifies it as others would.
    fn probe(&self, now: SystemTime) -> Result<(), CaError> {
        let id = SpiffeId::of_account(PROBE, "probe", "probe")?;
        let key = KeyPair::generate().map_err(make)?;
        let mut chain = vec![self.leaf(&key, &id, SKEW, now)?];
        chain.extend(self.chain.iter().cloned());
        let (bundles, notices) = TrustBundles::of(&[Arc::new(self.bundle.clone())], PROBE, &[]);
        bundles.verify(&chain, now).map_err(|error| {
            CaError::NoPath(notices.first().cloned().unwrap_or(error.to_string()))
        })?;
        Ok(())
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority(valid until {})", show(self.not_after))
    }
}

// === impl Serving ===

impl Serving {
    /// The chain as PEM, leaf first.
    pub fn chain_pem(&self) -> String {
        pem::encode_chain(&self.chain)
    }

    /// The key as PEM. A secret.
    pub fn key_pem(&self) -> String {
        pem::encode_key(&self.key)
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serving(valid until {})", show(self.not_after))
    }
}

/// Trust domain of the certificate that an authority is tried with.
const PROBE: &str = "probe.invalid";

/// The root that issued `top`; the first when none did (the trial says so then).
fn root_of<'a>(
    top: &CertificateDer<'_>,
    roots: &'a [CertificateDer<'static>],
) -> &'a CertificateDer<'static> {
    let issued = |root: &&CertificateDer<'_>| {
        let (Ok(root), Ok(top)) = (parse(root), parse(top)) else {
            return false;
        };
        root.subject().as_raw() == top.issuer().as_raw()
            && top.verify_signature(Some(root.public_key())).is_ok()
    };
    roots.iter().find(issued).unwrap_or(&roots[0])
}

fn uri(id: &SpiffeId) -> Result<SanType, CaError> {
    let name = id
        .uri()
        .try_into()
        .map_err(|error: rcgen::Error| CaError::Name {
            name: id.uri().to_owned(),
            why: error.to_string(),
        })?;
    Ok(SanType::URI(name))
}

fn alternative_name(name: &str) -> Result<SanType, CaError> {
    if let Ok(address) = name.parse() {
        return Ok(SanType::IpAddress(address));
    }
    let good = rustls_pki_types::DnsName::try_from(name.trim_start_matches("*."));
    let bad = |why: String| CaError::Name {
        name: name.to_owned(),
        why,
    };
    good.map_err(|error| bad(error.to_string()))?;
    let text = name
        .try_into()
        .map_err(|error: rcgen::Error| bad(error.to_string()))?;
    Ok(SanType::DnsName(text))
}

/// 128 random bits that are a positive number (RFC 5280 §4.1.2.2).
fn random_serial() -> Result<[u8; 16], CaError> {
    let mut serial = [0; 16];
    aws_lc_rs::rand::fill(&mut serial)
        .map_err(|_| CaError::Make("there is no randomness".into()))?;
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(serial)
}

fn valid(params: &mut CertificateParams, from: SystemTime, until: SystemTime) {
    let since = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since(from);
    params.not_after = epoch + since(until);
}

fn make(error: rcgen::Error) -> CaError {
    CaError::Make(error.to_string())
}

#[cfg(test)]
mod tests;
