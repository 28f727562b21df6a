//! What a Secret or ConfigMap holds, and whether a gateway could use it. Pure.
//!
//! Forms (Istio): generic (`cert`, `key`, `cacert`, `crl`) and `kubernetes.io/tls` (`tls.crt`, `tls.key`, `ca.crt`,
//! `ca.crl`). Where both are there, the generic one counts, and a certificate is never paired with the other form's key.

use k8s_openapi::api::core::v1::{ConfigMap, Secret as KubeSecret};
use lateen_base::Str;
use lateen_model::security::Secret;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Fields that mean something, the generic form first (Istio's order).
const CHAIN: [&str; 2] = ["cert", "tls.crt"];
const KEY: [&str; 2] = ["key", "tls.key"];
const CA: [&str; 2] = ["cacert", "ca.crt"];
const CRL: [&str; 2] = ["crl", "ca.crl"];
/// Largest field in bytes; a Secret as a whole has at most 1 MiB (Kubernetes).
const MOST_FIELD: usize = 512 << 10;
/// Certificates of one chain or bundle.
const MOST_CERTIFICATES: usize = 500;

/// The fields of one object that mean something; keys are redacted wherever it is shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct Content(BTreeMap<&'static str, Vec<u8>>);

/// Certificates that were found good.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Material {
    pub(super) chain: Str,
    pub(super) key: Option<Secret>,
    pub(super) ca: Str,
    pub(super) crl: Str,
}

/// What was found, and what is wrong although it can be used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Reading {
    pub(super) material: Material,
    /// When the certificate ended, if it has.
    pub(super) expired: Option<String>,
    /// Why there is nothing to verify clients with: it closes only servers that verify them.
    pub(super) flaw: Option<ContentError>,
}

/// What is wrong. The sentence continues `secret <namespace>/<name>: `.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub(super) enum ContentError {
    #[error("it has none of tls.crt and tls.key, cert and key, ca.crt or cacert")]
    Empty,
    #[error("{has} is there and {lacks} is not; a certificate needs its key")]
    Half {
        has: &'static str,
        lacks: &'static str,
    },
    #[error("{field} is not PEM of {what}: {why}")]
    Malformed {
        field: &'static str,
        what: &'static str,
        why: String,
    },
    #[error("{key} is not the key of the certificate in {chain}")]
    Mismatch {
        chain: &'static str,
        key: &'static str,
    },
    #[error("the secret of the same name with -cacert: {0}")]
    Companion(Box<ContentError>),
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Content {
    /// What matters of a Secret; absent when it holds no certificates.
    pub(super) fn of_secret(secret: &KubeSecret) -> Option<Self> {
        let data = secret.data.as_ref()?;
        Self::of(|field| data.get(field).map(|bytes| bytes.0.clone()))
    }

    /// What matters of a ConfigMap.
    pub(super) fn of_map(map: &ConfigMap) -> Option<Self> {
        let data = map.data.as_ref()?;
        let public = |field: &str| !KEY.contains(&field);
        Self::of(|field| {
            data.get(field)
                .filter(|_| public(field))
                .map(|text| text.clone().into_bytes())
        })
    }

    fn of(field: impl Fn(&str) -> Option<Vec<u8>>) -> Option<Self> {
        let names = [CHAIN, KEY, CA, CRL].into_iter().flatten();
        let fields: BTreeMap<_, _> = names
            .filter_map(|name| Some((name, field(name)?)))
            .filter(|(_, bytes)| !bytes.is_empty())
            .collect();
        (!fields.is_empty()).then_some(Self(fields))
    }

    fn get(&self, name: &'static str) -> Option<Field<'_>> {
        Some((name, self.0.get(name)?.as_slice()))
    }

    /// The certificate and its key, of the first form that is whole.
    fn pair(&self) -> Result<Option<(Field<'_>, Field<'_>)>, ContentError> {
        let forms = CHAIN.into_iter().zip(KEY);
        let mut whole = forms.clone();
        let found = whole.find_map(|(chain, key)| Some((self.get(chain)?, self.get(key)?)));
        if found.is_some() {
            return Ok(found);
        }
        for (chain, key) in forms {
            for (has, lacks) in [(chain, key), (key, chain)] {
                if self.get(has).is_some() {
                    return Err(ContentError::Half { has, lacks });
                }
            }
        }
        Ok(None)
    }

    /// Everything that a gateway can use of it.
    pub(super) fn read(&self, now: SystemTime) -> Result<Reading, ContentError> {
        let Some((chain, key)) = self.pair()? else {
            let material = self.authority()?;
            return Ok(Reading {
                material,
                ..Reading::default()
            });
        };
        let leaf = verify(chain, key)?;
        let (verifiers, flaw) = match self.verifiers() {
            Ok(verifiers) => (verifiers, None),
            Err(flaw) => (Default::default(), Some(flaw)),
        };
        let ended = expiry(&leaf, chain.0)?;
        let expired = (ended <= now).then(|| {
            jiff::Timestamp::try_from(ended)
                .map_or_else(|_| "an unknown time".into(), |t| t.to_string())
        });
        let (ca, crl) = verifiers;
        Ok(Reading {
            material: Material {
                chain: text(chain)?,
                key: Some(Secret::new(&text(key)?)),
                ca,
                crl,
            },
            expired,
            flaw,
        })
    }

    /// Only what clients are verified with.
    pub(super) fn authority(&self) -> Result<Material, ContentError> {
        let (ca, crl) = self.verifiers()?;
        if ca.is_empty() {
            return Err(ContentError::Empty);
        }
        Ok(Material {
            ca,
            crl,
            ..Material::default()
        })
    }

    fn verifiers(&self) -> Result<(Str, Str), ContentError> {
        let form = CA.iter().position(|name| self.0.contains_key(name));
        let ca = match form.and_then(|form| self.get(CA[form])) {
            Some(field) => {
                certificates(field)?;
                text(field)?
            }
            None => "".into(),
        };
        // The list of the same form; one of the other form can only revoke more.
        let own = form.and_then(|form| self.get(CRL[form]));
        let crl = match own.or_else(|| CRL.into_iter().find_map(|name| self.get(name))) {
            Some(field) => {
                let lists = CertificateRevocationListDer::pem_slice_iter(field.1);
                let lists: Result<Vec<_>, _> = lists.collect();
                let why = match lists {
                    Ok(lists) if !lists.is_empty() => None,
                    Ok(_) => Some("there is none in it".to_owned()),
                    Err(e) => Some(e.to_string()),
                };
                if let Some(why) = why {
                    let (field, what) = (field.0, "revocation lists");
                    return Err(ContentError::Malformed { field, what, why });
                }
                text(field)?
            }
            None => "".into(),
        };
        Ok((ca, crl))
    }
}

type Field<'a> = (&'static str, &'a [u8]);

/// Whether a certificate and a key can be used, and belong together; the leaf.
fn verify(chain: Field<'_>, key: Field<'_>) -> Result<CertificateDer<'static>, ContentError> {
    let certificates = certificates(chain)?;
    let malformed = |what, why| ContentError::Malformed {
        field: key.0,
        what,
        why,
    };
    let private = PrivateKeyDer::from_pem_slice(key.1)
        .map_err(|e| malformed("a private key", e.to_string()))?;
    let signing = any_supported_type(&private)
        .map_err(|e| malformed("a usable private key", e.to_string()))?;
    let leaf = certificates[0].clone();
    let pair = CertifiedKey::new(certificates, signing);
    match pair.keys_match() {
        Ok(()) => Ok(leaf),
        Err(_) => Err(ContentError::Mismatch {
            chain: chain.0,
            key: key.0,
        }),
    }
}

/// The certificates of a field: at least one, each one readable.
fn certificates((field, bytes): Field<'_>) -> Result<Vec<CertificateDer<'static>>, ContentError> {
    let malformed = |why: String| ContentError::Malformed {
        field,
        what: "certificates",
        why,
    };
    if bytes.len() > MOST_FIELD {
        return Err(malformed(format!("it has more than {MOST_FIELD} bytes")));
    }
    let all: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<_, _>>()
        .map_err(|e| malformed(e.to_string()))?;
    match all.len() {
        0 => return Err(malformed("there is none in it".to_owned())),
        n if n > MOST_CERTIFICATES => {
            return Err(malformed(format!(
                "there are {n}, at most {MOST_CERTIFICATES} are taken"
            )));
        }
        _ => {}
    }
    for certificate in &all {
        expiry(certificate, field)?;
    }
    Ok(all)
}

/// When a certificate ends.
fn expiry(
    certificate: &CertificateDer<'_>,
    field: &'static str,
) -> Result<SystemTime, ContentError> {
    let (_, read) =
        x509_parser::parse_x509_certificate(certificate).map_err(|e| ContentError::Malformed {
            field,
            what: "certificates",
            why: e.to_string(),
        })?;
    let seconds = u64::try_from(read.validity().not_after.timestamp()).unwrap_or_default();
    Ok(UNIX_EPOCH + Duration::from_secs(seconds))
}

fn text((field, bytes): Field<'_>) -> Result<Str, ContentError> {
    let read = std::str::from_utf8(bytes);
    read.map(Str::from).map_err(|_| ContentError::Malformed {
        field,
        what: "anything",
        why: "it is not text".to_owned(),
    })
}
