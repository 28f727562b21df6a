//! The webhooks' certificate: made on start, kept in a Secret so that a restart or a second replica uses the same.
//!
//! It is signed by a root of its own that signs nothing else: its key is thrown away at once. The mesh's
//! identities have nothing to do with it.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Name of the Secret in the root namespace.
pub(crate) const SECRET: &str = "istiod-webhook-certs";
/// How long a certificate is valid.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// A certificate is replaced when less than this is left.
const RENEW: Duration = Duration::from_secs(60 * 24 * 3600);
/// Clocks may differ by this much.
const SKEW: Duration = Duration::from_secs(3600);

/// A serving certificate and the root that signed it, as PEM.
#[derive(Clone)]
pub(crate) struct Serving {
    /// The root: `caBundle` of the webhook configurations.
    pub(crate) root: String,
    certificate: String,
    key: String,
    not_after: SystemTime,
}

/// The webhooks' certificate cannot be made, stored or used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Making it failed.
    #[error("the webhook certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    /// The Secret cannot be read or written.
    #[error(
        "secret {namespace}/{SECRET} with the webhook certificate cannot be used: {source}; check the API \
         server and the service account's rights on secrets"
    )]
    Secret {
        /// Namespace of the Secret.
        namespace: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// What is stored is not a certificate with its key.
    #[error(
        "secret {SECRET} does not hold a usable certificate and key: {0}; delete it and a new one is made"
    )]
    Unusable(String),
}

impl Serving {
    /// Makes a root and a certificate for `names`.
    pub(crate) fn make(names: &[String], now: SystemTime) -> Result<Self, CertificateError> {
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (from, until) = (epoch + since - SKEW, epoch + since + LIFETIME);
        let mut root = CertificateParams::default();
        root.not_before = from;
        root.not_after = until;
        root.distinguished_name
            .push(DnType::CommonName, "lateen webhook root");
        root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root_key = KeyPair::generate()?;
        let root_certificate = root.self_signed(&root_key)?;

        let mut leaf = CertificateParams::new(names.to_vec())?;
        leaf.not_before = from;
        leaf.not_after = until;
        let first = names.first().map(String::as_str).unwrap_or_default();
        // RFC 5280: a common name has at most 64 characters.
        if first.len() <= 64 {
            leaf.distinguished_name.push(DnType::CommonName, first);
        }
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = leaf.signed_by(&key, &Issuer::from_params(&root, &root_key))?;
        Ok(Self {
            root: root_certificate.pem(),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            not_after: now + LIFETIME,
        })
    }

    /// Whether it should be replaced.
    pub(crate) fn is_due(&self, now: SystemTime) -> bool {
        !matches!(self.not_after.duration_since(now), Ok(left) if left > RENEW)
    }

    /// TLS settings that present it.
    pub(crate) fn tls(&self) -> Result<Arc<rustls::ServerConfig>, CertificateError> {
        let unusable = |e: &dyn std::fmt::Display| CertificateError::Unusable(e.to_string());
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(self.certificate.as_bytes())
                .collect::<Result<_, _>>()
                .map_err(|e| unusable(&e))?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(|e| unusable(&e))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| unusable(&e))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|e| unusable(&e))?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(tls))
    }

    fn from_secret(secret: &Secret) -> Option<Self> {
        let text = |key: &str| {
            let value = secret.data.as_ref()?.get(key)?;
            String::from_utf8(value.0.clone()).ok()
        };
        let seconds: u64 = text("notAfter")?.trim().parse().ok()?;
        Some(Self {
            root: text("ca.crt")?,
            certificate: text("tls.crt")?,
            key: text("tls.key")?,
            not_after: UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?,
        })
    }

    fn secret(&self, namespace: &str) -> Secret {
        let until = self
            .not_after
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let until = until.as_secs().to_string();
        let data = [
            ("ca.crt", &self.root),
            ("tls.crt", &self.certificate),
            ("tls.key", &self.key),
            ("notAfter", &until),
        ];
        Secret {
            metadata: ObjectMeta {
                name: Some(SECRET.to_owned()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            type_: Some("Opaque".to_owned()),
            data: Some(
                data.map(|(key, value)| (key.to_owned(), ByteString(value.clone().into_bytes())))
                    .into_iter()
                    .collect::<BTreeMap<_, _>>(),
            ),
            ..Secret::default()
        }
    }
}

/// The certificate from the Secret, or a new one, stored there. Of several writers the first wins.
pub(crate) async fn load(
    client: kube::Client,
    namespace: &str,
    names: &[String],
) -> Result<Serving, CertificateError> {
    let api: Api<Secret> = Api::namespaced(client, namespace);
    let failed = |source| CertificateError::Secret {
        namespace: namespace.to_owned(),
        source: Box::new(source),
    };
    let now = SystemTime::now();
    let stored = api.get_opt(SECRET).await.map_err(failed)?;
    let usable = |secret: &Secret| {
        let serving = Serving::from_secret(secret)?;
        (!serving.is_due(now) && serving.tls().is_ok()).then_some(serving)
    };
    if let Some(serving) = stored.as_ref().and_then(usable) {
        return Ok(serving);
    }
    let fresh = Serving::make(names, now)?;
    let secret = fresh.secret(namespace);
    if stored.is_some() {
        let patch = Patch::Merge(&secret);
        api.patch(SECRET, &PatchParams::default(), &patch)
            .await
            .map_err(failed)?;
        return Ok(fresh);
    }
    match api.create(&PostParams::default(), &secret).await {
        Ok(_) => Ok(fresh),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let theirs = api.get(SECRET).await.map_err(failed)?;
            usable(&theirs).ok_or_else(|| {
                CertificateError::Unusable("another process wrote something else".to_owned())
            })
        }
        Err(e) => Err(failed(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_gives_the_same_certificate_back() {
        let now = SystemTime::now();
        let names = ["istiod.istio-system.svc".to_owned()];
        let made = Serving::make(&names, now).expect("it can be made");
        let read = Serving::from_secret(&made.secret("istio-system")).expect("it reads back");
        assert_eq!((&read.root, &read.key), (&made.root, &made.key));
        assert!(read.tls().is_ok(), "rustls takes it");
        assert!(!read.is_due(now));
        assert!(read.is_due(now + LIFETIME - RENEW));
        assert!(read.is_due(now + 2 * LIFETIME));
    }

    #[test]
    fn a_foreign_secret_is_not_taken() {
        assert!(Serving::from_secret(&Secret::default()).is_none());
    }
}
