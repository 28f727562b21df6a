//! The server's own certificate authority, its TLS settings, and the kubeconfig that clients get.
//!
//! One self-signed ECDSA P-256 authority signs the server's certificate and every client certificate. It lives in
//! a directory (`ca.crt`, and `ca.key` readable by its owner only) or, without one, in memory alone. It does not
//! sign anything for pods: that is the mesh's CA.

use crate::auth::User;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Names that every server certificate carries, besides those given at start.
pub const SERVER_NAMES: [&str; 8] = [
    "127.0.0.1",
    "::1",
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "10.96.0.1",
];

/// How long issued certificates are valid, in years. The authority is of one machine and renewed by deleting it.
const YEARS: i16 = 10;

/// Why keys or certificates could not be read, made or kept.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of the authority cannot be read or written.
    #[error("{path}: {source}; check that the directory exists, is yours and has room")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of the authority is not what it should be.
    #[error("{path}: {why}; delete it to have a new one made (old kubeconfigs then stop working)")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A certificate could not be made, mostly because of an odd name.
    #[error("cannot make a certificate for {subject}: {source}")]
    Issue {
        /// Whom it was for.
        subject: String,
        /// What the certificate library said.
        source: rcgen::Error,
    },
    /// TLS settings were refused.
    #[error("TLS settings: {0}")]
    Settings(String),
}

/// A certificate authority that trusts itself.
pub struct Authority {
    der: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, both as PEM text.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// Its private key, PKCS#8.
    pub key: String,
}

/// What a kubeconfig authenticates with.
#[derive(Debug, Clone, Copy)]
pub enum Credential<'a> {
    /// A client certificate.
    Certificate(&'a Identity),
    /// A bearer token.
    Token(&'a str),
}

// === impl Authority ===

impl Authority {
    /// Opens the authority kept in a directory, or makes one there; without a directory it lives in memory only.
    pub fn open(dir: Option<&Path>) -> Result<Self, TlsError> {
        let Some(dir) = dir else {
            let key = fresh_key()?;
            let pem = authority_certificate(&key)?;
            return Self::from_parts(key, pem, Path::new("ca.crt"));
        };
        let (key, kept) = kept_key(&dir.join("ca.key"))?;
        let path = dir.join("ca.crt");
        let pem = match std::fs::read_to_string(&path) {
            Ok(pem) if kept => pem,
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(TlsError::File { path, source });
            }
            // A certificate without its key is of no use: a new pair replaces it.
            Ok(_) | Err(_) => {
                let pem = authority_certificate(&key)?;
                write_private(&path, &pem)?;
                pem
            }
        };
        Self::from_parts(key, pem, &path)
    }

    fn from_parts(key: KeyPair, pem: String, path: &Path) -> Result<Self, TlsError> {
        let content = |why: String| TlsError::Content {
            path: path.to_owned(),
            why,
        };
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| content(error.to_string()))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der)
            .map_err(|error| content(error.to_string()))?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(content(
                "the certificate does not belong to the key in ca.key".into(),
            ));
        }
        let issuer =
            Issuer::from_ca_cert_der(&der, key).map_err(|error| content(error.to_string()))?;
        Ok(Self { der, pem, issuer })
    }

    /// The authority's certificate as PEM: what clients trust, and `ca.crt` in every pod.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// TLS settings of the API server: a fresh certificate for [`SERVER_NAMES`] and `extra` (names or addresses),
    /// optional client certificates of this authority, HTTP/2 and HTTP/1.1. A client that shows a certificate of
    /// another authority is refused in the handshake.
    pub fn server_config(&self, extra: &[String]) -> Result<Arc<ServerConfig>, TlsError> {
        let mut names: Vec<String> = SERVER_NAMES.iter().map(|name| (*name).to_owned()).collect();
        names.extend(
            extra
                .iter()
                .filter(|name| !SERVER_NAMES.contains(&name.as_str()))
                .cloned(),
        );
        let identity = self.issue(
            "kube-apiserver",
            None,
            names,
            ExtendedKeyUsagePurpose::ServerAuth,
        )?;
        let (chain, key) = identity.parts()?;

        let settings = |error: &dyn std::fmt::Display| TlsError::Settings(error.to_string());
        let mut roots = RootCertStore::empty();
        roots
            .add(self.der.clone())
            .map_err(|error| settings(&error))?;
        let provider = provider();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .allow_unauthenticated()
                .build()
                .map_err(|error| settings(&error))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| settings(&error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| settings(&error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// A client certificate: `user` becomes the common name, `group` the organization
    /// (Kubernetes: X.509 client certificates). `system:masters` may do everything.
    pub fn client(&self, user: &str, group: Option<&str>) -> Result<Identity, TlsError> {
        self.issue(user, group, Vec::new(), ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// The administrator's certificate: user `kubernetes-admin` in `system:masters`.
    pub fn admin(&self) -> Result<Identity, TlsError> {
        self.client("kubernetes-admin", Some(crate::auth::MASTERS))
    }

    /// The text of a kubeconfig for the server at `url` with one context called `context`.
    pub fn kubeconfig(&self, url: &str, context: &str, credential: Credential<'_>) -> String {
        let quote = |text: &str| serde_json::Value::from(text).to_string();
        let user = match credential {
            Credential::Certificate(identity) => format!(
                "    client-certificate-data: {}\n    client-key-data: {}\n",
                STANDARD.encode(&identity.certificate),
                STANDARD.encode(&identity.key)
            ),
            Credential::Token(token) => format!("    token: {}\n", quote(token)),
        };
        let (name, server, authority) = (quote(context), quote(url), STANDARD.encode(&self.pem));
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: {name}\n\
             clusters:\n- name: {name}\n  cluster:\n    server: {server}\n    certificate-authority-data: {authority}\n\
             contexts:\n- name: {name}\n  context:\n    cluster: {name}\n    user: {name}\n    namespace: default\n\
             users:\n- name: {name}\n  user:\n{user}"
        )
    }

    fn issue(
        &self,
        common_name: &str,
        group: Option<&str>,
        names: Vec<String>,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Identity, TlsError> {
        let failed = |source| TlsError::Issue {
            subject: common_name.to_owned(),
            source,
        };
        let key = fresh_key()?;
        let mut params = CertificateParams::new(names).map_err(failed)?;
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        if let Some(group) = group {
            params
                .distinguished_name
                .push(DnType::OrganizationName, group);
        }
        params.extended_key_usages = vec![usage];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        limit_validity(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

// === impl Identity ===

impl Identity {
    /// The pair as rustls wants it.
    pub fn parts(
        &self,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let settings = |error: rustls_pki_types::pem::Error| TlsError::Settings(error.to_string());
        let certificate =
            CertificateDer::from_pem_slice(self.certificate.as_bytes()).map_err(settings)?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(self.key.as_bytes()).map_err(settings)?;
        Ok((vec![certificate], key.into()))
    }
}

/// The user named by a client certificate that TLS has verified already; absent when it has no common name.
pub fn certificate_user(der: &[u8]) -> Option<User> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let subject = certificate.subject();
    let name = subject
        .iter_common_name()
        .next()?
        .as_str()
        .ok()
        .filter(|name| !name.is_empty())?;
    let groups = subject
        .iter_organization()
        .filter_map(|group| group.as_str().ok())
        .map(str::to_owned)
        .collect();
    Some(User {
        name: name.to_owned(),
        groups,
        ..User::default()
    })
}

/// The cryptography that every TLS endpoint of this crate uses; never the process-wide default.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The key kept in a file, or a new one kept there from now on; the flag tells whether it was there before.
pub(crate) fn kept_key(path: &Path) -> Result<(KeyPair, bool), TlsError> {
    match std::fs::read_to_string(path) {
        Ok(pem) => {
            let content = |error: rcgen::Error| TlsError::Content {
                path: path.to_owned(),
                why: error.to_string(),
            };
            let key = KeyPair::from_pem(&pem).map_err(content)?;
            Ok((key, true))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = fresh_key()?;
            write_private(path, &key.serialize_pem())?;
            Ok((key, false))
        }
        Err(source) => Err(TlsError::File {
            path: path.to_owned(),
            source,
        }),
    }
}

/// A new ECDSA P-256 key.
pub(crate) fn fresh_key() -> Result<KeyPair, TlsError> {
    KeyPair::generate().map_err(|source| TlsError::Issue {
        subject: "a new key".into(),
        source,
    })
}

fn authority_certificate(key: &KeyPair) -> Result<String, TlsError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "lateen-kubernetes-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    limit_validity(&mut params);
    let certificate = params.self_signed(key).map_err(|source| TlsError::Issue {
        subject: "lateen-kubernetes-ca".into(),
        source,
    })?;
    Ok(certificate.pem())
}

/// From yesterday (clocks differ) for [`YEARS`].
fn limit_validity(params: &mut CertificateParams) {
    let today = jiff::Timestamp::now()
        .to_zoned(jiff::tz::TimeZone::UTC)
        .date();
    let first = today.yesterday().unwrap_or(today);
    params.not_before =
        rcgen::date_time_ymd(first.year().into(), first.month() as u8, first.day() as u8);
    // The 29th of February has no counterpart ten years later.
    let day = (first.day() as u8).min(28);
    params.not_after =
        rcgen::date_time_ymd((first.year() + YEARS).into(), first.month() as u8, day);
}

/// Writes a file that only its owner reads, whole or not at all.
fn write_private(path: &Path, text: &str) -> Result<(), TlsError> {
    let failed = |source| TlsError::File {
        path: path.to_owned(),
        source,
    };
    let partial = path.with_extension("partial");
    match std::fs::remove_file(&partial) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)
        .map_err(failed)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    std::fs::rename(&partial, path).map_err(failed)
}

#[cfg(test)]
mod tests;
