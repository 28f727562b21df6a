//! The Secrets that hold the CA: what is in them, and what they look like when this control plane writes them.

use crate::ca::rotation::Record;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ObjectMeta;
use std::collections::BTreeMap;

/// The Secret of a CA that the user plugs in (Istio).
pub(crate) const PLUGGED: &str = "cacerts";
/// The Secret of the self-signed CA (Istio).
pub(crate) const SELF_SIGNED: &str = "istio-ca-secret";
/// The Secret that remembers which roots are trusted. It holds no key; whoever writes it can add a root, so it is a
/// Secret all the same.
pub(crate) const RECORD: &str = "istio-ca-roots";

/// Most bytes of a record; Kubernetes takes 1 MiB for a Secret with everything that belongs to it.
const MOST_RECORD: usize = 900 << 10;

/// Key of [`RECORD`] in its Secret.
const RECORD_KEY: &str = "roots.json";

/// A CA as files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Files {
    /// The signing certificate, PEM.
    pub(crate) cert: String,
    /// Its key, PEM.
    pub(crate) key: String,
    /// From the signing certificate up to the root, PEM; empty: the signing certificate is the root.
    pub(crate) chain: String,
    /// Roots, PEM.
    pub(crate) root: String,
    /// Revocation lists, PEM; empty: none.
    pub(crate) crl: String,
}

impl Files {
    /// The CA of a Secret: in Istio's form (`ca-cert.pem`, `ca-key.pem`, `root-cert.pem`, `cert-chain.pem`,
    /// `ca-crl.pem`) or in that of cert-manager (`tls.crt`, `tls.key`, `ca.crt`).
    ///
    /// # Errors
    /// A sentence that names what is missing.
    pub(crate) fn read(secret: &Secret) -> Result<Self, String> {
        let text = |key: &str| -> Result<Option<String>, String> {
            let value = secret.data.as_ref().and_then(|data| data.get(key));
            let Some(value) = value.filter(|value| !value.0.is_empty()) else {
                return Ok(None);
            };
            let text = std::str::from_utf8(&value.0)
                .map_err(|_| format!("{key} is not text: it must be PEM"))?;
            Ok(Some(text.to_owned()))
        };
        let need = |key: &str| text(key)?.ok_or_else(|| missing(key));
        if text("ca-cert.pem")?.is_none() && text("tls.crt")?.is_some() {
            let chain = need("tls.crt")?;
            return Ok(Self {
                cert: chain.clone(),
                key: need("tls.key")?,
                chain,
                root: need("ca.crt")?,
                crl: text("ca-crl.pem")?.unwrap_or_default(),
            });
        }
        let cert = need("ca-cert.pem")?;
        let is_plugged = secret.metadata.name.as_deref() == Some(PLUGGED);
        Ok(Self {
            key: need("ca-key.pem")?,
            chain: text("cert-chain.pem")?.unwrap_or_default(),
            root: match text("root-cert.pem")? {
                Some(root) => root,
                None if is_plugged => return Err(missing("root-cert.pem")),
                None => cert.clone(),
            },
            crl: text("ca-crl.pem")?.unwrap_or_default(),
            cert,
        })
    }

    /// The files as the CA reads them.
    pub(crate) fn borrow(&self) -> lateen_identity::ca::Files<'_> {
        lateen_identity::ca::Files {
            cert: &self.cert,
            key: &self.key,
            chain: &self.chain,
            root: &self.root,
            crl: &self.crl,
        }
    }

    /// The Secret of a self-signed CA.
    pub(crate) fn secret(&self, namespace: &str) -> Secret {
        let data = [
            ("ca-cert.pem", &self.cert),
            ("ca-key.pem", &self.key),
            ("root-cert.pem", &self.root),
            ("cert-chain.pem", &self.chain),
        ];
        let data = data.map(|(key, text)| (key.to_owned(), text.clone()));
        secret(SELF_SIGNED, namespace, "istio.io/ca-root", data)
    }
}

/// The record in its Secret.
///
/// # Errors
/// A sentence that says why it cannot be read.
pub(crate) fn record(secret: &Secret) -> Result<Record, String> {
    let text = secret.data.as_ref().and_then(|data| data.get(RECORD_KEY));
    let text = text.ok_or_else(|| format!("it has no {RECORD_KEY}"))?;
    serde_json::from_slice(&text.0).map_err(|e| format!("{RECORD_KEY}: {e}"))
}

/// The Secret of a record. Revocation lists that make it too large are left out.
pub(crate) fn record_secret(record: &Record, namespace: &str) -> Secret {
    let mut text = serde_json::to_string(record).unwrap_or_default();
    if text.len() > MOST_RECORD {
        tracing::error!(
            "the secret {RECORD} has no place for {} KiB of revocation lists: a restart forgets those of past CAs",
            text.len() >> 10
        );
        let short = Record {
            revoked: Vec::new(),
            ..record.clone()
        };
        text = serde_json::to_string(&short).unwrap_or_default();
    }
    let data = [(RECORD_KEY.to_owned(), text)];
    secret(RECORD, namespace, "istio.io/ca-roots", data)
}

fn secret<const N: usize>(
    name: &str,
    namespace: &str,
    kind: &str,
    data: [(String, String); N],
) -> Secret {
    let bytes = |(key, text): (String, String)| (key, ByteString(text.into_bytes()));
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        type_: Some(kind.to_owned()),
        data: Some(data.into_iter().map(bytes).collect::<BTreeMap<_, _>>()),
        ..Secret::default()
    }
}

fn missing(key: &str) -> String {
    format!(
        "{key} is missing: a CA needs ca-cert.pem, ca-key.pem, root-cert.pem and cert-chain.pem, or tls.crt, tls.key \
         and ca.crt"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, data: &[(&str, &str)]) -> Secret {
        let own = |(key, text): &(&str, &str)| {
            let value = ByteString(text.as_bytes().to_vec());
            ((*key).to_owned(), value)
        };
        Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            data: Some(data.iter().map(own).collect()),
            ..Secret::default()
        }
    }

    fn check(name: &str, data: &[(&str, &str)], want: Result<[&str; 5], &str>) {
        let read = Files::read(&of(name, data));
        match want {
            Ok([cert, key, chain, root, crl]) => {
                let read = read.expect("it is whole");
                let got = [read.cert, read.key, read.chain, read.root, read.crl];
                assert_eq!(got, [cert, key, chain, root, crl]);
            }
            Err(part) => {
                let error = read.expect_err("something is missing");
                assert!(error.starts_with(part), "{error}");
            }
        }
    }

    #[test]
    fn every_form_of_the_secret_is_read() {
        let (cert, key) = (("ca-cert.pem", "C"), ("ca-key.pem", "K"));
        let root = ("root-cert.pem", "R");
        check(
            PLUGGED,
            &[
                cert,
                key,
                root,
                ("cert-chain.pem", "CH"),
                ("ca-crl.pem", "L"),
            ],
            Ok(["C", "K", "CH", "R", "L"]),
        );
        check(
            PLUGGED,
            &[("tls.crt", "C"), ("tls.key", "K"), ("ca.crt", "R")],
            Ok(["C", "K", "C", "R", ""]),
        );
        check(SELF_SIGNED, &[cert, key], Ok(["C", "K", "", "C", ""]));
        check(PLUGGED, &[cert, key], Err("root-cert.pem is missing"));
        check(PLUGGED, &[cert, root], Err("ca-key.pem is missing"));
        check(PLUGGED, &[("tls.crt", "C")], Err("tls.key is missing"));
        check(PLUGGED, &[], Err("ca-cert.pem is missing"));
        check(
            PLUGGED,
            &[("ca-cert.pem", "")],
            Err("ca-cert.pem is missing"),
        );
    }

    #[test]
    fn what_is_written_reads_back() {
        let files = Files {
            cert: "C".to_owned(),
            key: "K".to_owned(),
            chain: String::new(),
            root: "C".to_owned(),
            crl: String::new(),
        };
        assert_eq!(Files::read(&files.secret("istio-system")), Ok(files));
        let empty = Record::default();
        assert_eq!(record(&record_secret(&empty, "istio-system")), Ok(empty));
        assert!(record(&Secret::default()).is_err());
    }
}
