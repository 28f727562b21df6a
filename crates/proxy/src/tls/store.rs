//! TLS settings that are made of secrets or files, kept as long as those stay the same. New content that cannot be used
//! leaves the last good settings in force; connections that are open never notice a change.

use super::TlsError;
use crate::shared::Shared;
use lateen_base::Str;
use lateen_identity::tls::{
    GatewayClients, GatewayOptions, OriginOptions, gateway_server, origin_client,
};
use lateen_model::decide::plan::Inside;
use lateen_model::security::{Credential, Secret};
use lateen_model::tls::{CertificateFiles, ClientTls, ClientTlsMode, ServerTls, ServerTlsMode};
use parking_lot::Mutex;
use rustls::{ClientConfig, ServerConfig};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often files are read again, when they are used.
const REREAD: Duration = Duration::from_secs(5);
/// Settings kept before everything is forgotten and made anew: a bound, not a tuning.
const MOST: usize = 1024;
/// Largest file read, in bytes.
const LARGEST: u64 = 1 << 20;

/// Texts of certificates, as PEM; empty ones are absent.
#[derive(Debug, Clone, PartialEq)]
struct Material {
    chain: Str,
    key: Secret,
    ca: Str,
    crl: Str,
}

impl Material {
    fn of_secret(credential: &Credential) -> Self {
        Self {
            chain: credential.chain.clone(),
            key: credential.key.clone(),
            ca: credential.ca.clone(),
            crl: credential.crl.clone(),
        }
    }

    fn of_files(files: &CertificateFiles) -> Result<Self, String> {
        Ok(Self {
            chain: read(files.chain.as_ref())?,
            key: Secret::new(&read(files.key.as_ref())?),
            ca: read(files.ca.as_ref())?,
            crl: read(files.crl.as_ref())?,
        })
    }
}

/// Why there are no certificates to make settings of.
enum Problem {
    /// They were taken away, or never were there: nothing made of them may be used any longer.
    Withdrawn(String),
    /// What is there cannot be used: the last that could stays in force.
    Bad(String),
}

impl Problem {
    fn words(self) -> String {
        match self {
            Self::Withdrawn(why) | Self::Bad(why) => why,
        }
    }
}

fn read(path: Option<&Str>) -> Result<Str, String> {
    let Some(path) = path else {
        return Ok("".into());
    };
    let unreadable = |why: &dyn std::fmt::Display| format!("file {path} cannot be read: {why}");
    let size = std::fs::metadata(&**path)
        .map_err(|e| unreadable(&e))?
        .len();
    if size > LARGEST {
        return Err(unreadable(&"it is larger than 1 MiB"));
    }
    let text = std::fs::read_to_string(&**path).map_err(|e| unreadable(&e))?;
    Ok(text.into())
}

fn secret(shared: &Shared, name: &str) -> Result<Material, Problem> {
    let live = shared.live.load();
    let found = live.snapshot.credentials(name);
    found.map(|c| Material::of_secret(c)).ok_or_else(|| {
        Problem::Withdrawn(format!(
            "there is no secret {name} that this proxy may read; make it, or allow its service account to read it"
        ))
    })
}

fn said(text: &Str) -> Option<&str> {
    (!text.is_empty()).then_some(&**text)
}

/// Settings of gateways' servers.
#[derive(Default)]
pub(crate) struct Servers(Mutex<HashMap<(Arc<ServerTls>, bool), ServerEntry>>);

struct ServerEntry {
    made_of: Vec<Material>,
    read: Instant,
    served: Served,
}

/// What a gateway's server shows, and what it verifies clients with: the same reference as long as it is the same.
#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) clients: Arc<GatewayClients>,
}

impl Servers {
    /// The settings of a server, of what its secrets or files say now.
    ///
    /// # Errors
    /// Its secrets are gone, or cannot be used and never could: what is wrong, as part of a sentence.
    pub(crate) fn settings(
        &self,
        shared: &Shared,
        key: &Arc<ServerTls>,
        then: Inside,
    ) -> Result<Served, String> {
        let of_files = key.credentials.is_empty();
        let slot = (Arc::clone(key), then == Inside::Http);
        let mut all = self.0.lock();
        let kept = all.get_mut(&slot);
        if let Some(kept) = kept
            .as_ref()
            .filter(|k| of_files && k.read.elapsed() < REREAD)
        {
            return Ok(kept.served.clone());
        }
        let made = materials(shared, key).and_then(|made_of| match &kept {
            Some(kept) if kept.made_of == made_of => Ok((made_of, kept.served.clone())),
            _ => build(key, &made_of, then)
                .map(|served| (made_of, served))
                .map_err(Problem::Bad),
        });
        match (made, kept) {
            (Ok((made_of, served)), _) => {
                if all.len() >= MOST {
                    all.clear();
                }
                let entry = ServerEntry {
                    made_of,
                    read: Instant::now(),
                    served: served.clone(),
                };
                all.insert(slot, entry);
                Ok(served)
            }
            (Err(Problem::Bad(why)), Some(kept)) => {
                if kept.read.elapsed() > REREAD {
                    tracing::warn!(
                        "a gateway's new certificate cannot be used, the last one stays in force: {why}"
                    );
                }
                kept.read = Instant::now();
                Ok(kept.served.clone())
            }
            (Err(problem), _) => {
                all.remove(&slot);
                Err(problem.words())
            }
        }
    }
}

// What a server is made of: each certificate, and last what clients are verified with. Of several secrets those count
// that are there.
fn materials(shared: &Shared, key: &ServerTls) -> Result<Vec<Material>, Problem> {
    let mut all = Vec::new();
    let mut missing = None;
    for name in &key.credentials {
        match secret(shared, name) {
            Ok(material) => all.push(material),
            Err(problem) => missing = missing.or(Some(problem)),
        }
    }
    let usable = all.iter().any(|m| !m.chain.is_empty());
    if let Some(problem) = missing.filter(|_| !usable) {
        return Err(problem);
    }
    if key.credentials.is_empty() {
        for files in &key.files {
            all.push(Material::of_files(files).map_err(Problem::Bad)?);
        }
    }
    let own = all.iter().find(|m| !m.ca.is_empty()).cloned();
    let verifies = matches!(
        key.mode,
        ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual
    );
    let ca = match (&key.ca_credential, own) {
        (Some(name), _) => Some(secret(shared, name)?),
        (None, Some(own)) => Some(own),
        (None, None) if verifies => key
            .credentials
            .iter()
            .find_map(|name| secret(shared, &format!("{name}-cacert")).ok()),
        (None, None) => None,
    };
    if verifies && ca.is_none() && !key.skip_verify && !key.credentials.is_empty() {
        // Clients that a CA vouched for that is gone are no clients any more.
        return Err(Problem::Withdrawn(
            "there is no CA to verify clients with".to_owned(),
        ));
    }
    all.push(Material {
        chain: "".into(),
        key: Secret::default(),
        ca: ca.as_ref().map_or_else(|| "".into(), |m| m.ca.clone()),
        crl: ca.map_or_else(|| "".into(), |m| m.crl),
    });
    Ok(all)
}

fn build(key: &ServerTls, made_of: &[Material], then: Inside) -> Result<Served, String> {
    let (clients, shown) = made_of.split_last().ok_or("it has no certificate")?;
    let certificates: Vec<(&str, &str)> = shown
        .iter()
        .filter(|m| !m.chain.is_empty())
        .map(|m| (&*m.chain, m.key.expose()))
        .collect();
    let options = GatewayOptions {
        tls: key,
        certificates: &certificates,
        ca: said(&clients.ca),
        crl: &clients.crl,
        alpn: match then {
            Inside::Http => &["h2", "http/1.1"],
            Inside::Tcp => &[],
        },
    };
    let secrets = key.credentials.join(", ");
    let named = |what: &str| {
        if secrets.is_empty() {
            what.to_owned()
        } else {
            format!("secret {secrets}: {what}")
        }
    };
    let (config, warnings) = gateway_server(&options).map_err(|e| named(&e.to_string()))?;
    for warning in warnings {
        tracing::warn!("{}", named(&warning));
    }
    let clients = GatewayClients::of(&options).map_err(|e| named(&e.to_string()))?;
    Ok(Served {
        config,
        clients: Arc::new(clients),
    })
}

/// Settings towards endpoints outside of the mesh.
#[derive(Default)]
pub(crate) struct Origins(Mutex<OriginTable>);

#[derive(Default)]
struct OriginTable {
    entries: HashMap<Arc<ClientTls>, OriginEntry>,
    generation: u64,
}

struct OriginEntry {
    made_of: Result<Option<Material>, String>,
    read: Instant,
    generation: u64,
    /// By protocols offered.
    configs: HashMap<&'static [&'static str], Result<Arc<ClientConfig>, String>>,
}

impl Origins {
    /// Counts changes of the certificates behind `settings`: connections of different counts are not interchangeable.
    pub(crate) fn generation(&self, shared: &Shared, settings: &Arc<ClientTls>) -> u64 {
        self.0.lock().fresh(shared, settings).generation
    }

    /// The settings for connections that offer `alpn`.
    ///
    /// # Errors
    /// They cannot be used; the sentence says what is wrong.
    pub(crate) fn config(
        &self,
        shared: &Shared,
        settings: &Arc<ClientTls>,
        alpn: &'static [&'static str],
    ) -> Result<Arc<ClientConfig>, TlsError> {
        let mut table = self.0.lock();
        let entry = table.fresh(shared, settings);
        let made_of = &entry.made_of;
        let made = entry.configs.entry(alpn).or_insert_with(|| {
            let material = made_of.clone()?;
            originate(settings, material.as_ref(), alpn)
        });
        made.clone().map_err(TlsError::Settings)
    }
}

impl OriginTable {
    fn fresh(&mut self, shared: &Shared, settings: &Arc<ClientTls>) -> &mut OriginEntry {
        if self.entries.len() >= MOST && !self.entries.contains_key(settings) {
            self.entries.clear();
        }
        let next = &mut self.generation;
        let mut entry_of = |made_of| {
            *next += 1;
            OriginEntry {
                made_of,
                read: Instant::now(),
                generation: *next,
                configs: HashMap::new(),
            }
        };
        match self.entries.entry(Arc::clone(settings)) {
            std::collections::hash_map::Entry::Vacant(slot) => {
                let made_of = origin_material(shared, settings);
                slot.insert(entry_of(made_of.map_err(Problem::words)))
            }
            std::collections::hash_map::Entry::Occupied(slot) => {
                let entry = slot.into_mut();
                let of_files = settings.credential.is_none();
                if of_files && entry.read.elapsed() < REREAD {
                    return entry;
                }
                let made_of = origin_material(shared, settings);
                entry.read = Instant::now();
                // Files that cannot be read leave the last good settings in force; a secret that is gone does not.
                let bad = matches!(made_of, Err(Problem::Bad(_)));
                let keeps = bad && entry.made_of.is_ok();
                let made_of = made_of.map_err(Problem::words);
                if made_of != entry.made_of && !keeps {
                    *entry = entry_of(made_of);
                }
                entry
            }
        }
    }
}

fn origin_material(shared: &Shared, settings: &ClientTls) -> Result<Option<Material>, Problem> {
    match &settings.credential {
        Some(name) => secret(shared, name).map(Some),
        None if settings.files == CertificateFiles::default() => Ok(None),
        None => Material::of_files(&settings.files)
            .map(Some)
            .map_err(Problem::Bad),
    }
}

fn originate(
    settings: &ClientTls,
    material: Option<&Material>,
    alpn: &'static [&'static str],
) -> Result<Arc<ClientConfig>, String> {
    let certificate = material
        .filter(|m| settings.mode == ClientTlsMode::Mutual && !m.chain.is_empty())
        .map(|m| (&*m.chain, m.key.expose()));
    if settings.mode == ClientTlsMode::Mutual && certificate.is_none() {
        return Err(match &settings.credential {
            Some(name) => format!(
                "mode MUTUAL shows a certificate, and secret {name} has none: put tls.crt and tls.key into it"
            ),
            None => "mode MUTUAL shows a certificate: set clientCertificate and privateKey, or credentialName"
                .to_owned(),
        });
    }
    let options = OriginOptions {
        ca: material.and_then(|m| said(&m.ca)),
        crl: material.map_or("", |m| &*m.crl),
        certificate,
        sans: &settings.sans,
        skip_verify: settings.skip_verify,
        alpn,
    };
    let (config, warnings) = origin_client(&options).map_err(|e| e.to_string())?;
    for warning in warnings {
        tracing::warn!("TLS of a DestinationRule: {warning}");
    }
    Ok(config)
}
