//! The task that owns the CA's state: Secrets in; what signs and what is trusted out.
//!
//! A Secret that cannot be used is told once and changes nothing: the last good CA stays.

use crate::ca::page::{self, Page, RootEntry};
use crate::ca::rotation::{Record, Root, Rotation};
use crate::ca::secret::{self, Files, PLUGGED, RECORD, SELF_SIGNED};
use crate::ca::vault::{Stored, Vault};
use crate::ca::{Domains, Settings, Signing, Trusted};
use crate::metrics::Metrics;
use k8s_openapi::api::core::v1::Secret;
use lateen_identity::ca::Authority;
use lateen_identity::trust::TrustBundles;
use lateen_model::resource::{Key, Kind, Resource};
use lateen_model::security::TrustBundle;
use lateen_xds::server::Store;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The CA is looked at at least this often, for what only time changes.
const LOOK: Duration = Duration::from_secs(3600);
/// Wait after a write that failed.
const AGAIN: Duration = Duration::from_secs(1);
/// Days left at which the log warns.
const ALARMS: [u64; 3] = [30, 7, 1];

/// What the keeper works with.
pub(crate) struct Parts {
    pub(crate) settings: Settings,
    pub(crate) namespace: String,
    pub(crate) vault: Arc<dyn Vault>,
    pub(crate) store: Store,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) out: Out,
}

/// Who is told.
pub(crate) struct Out {
    pub(crate) signing: watch::Sender<Signing>,
    pub(crate) trust: watch::Sender<TrustBundles>,
    pub(crate) trusted: watch::Sender<Trusted>,
    pub(crate) page: watch::Sender<Page>,
}

/// What the keeper listens to.
pub(crate) struct Inputs {
    pub(crate) stored: mpsc::Receiver<Stored>,
    pub(crate) domains: watch::Receiver<Option<Domains>>,
    /// Validities that are longer than any granted before.
    pub(crate) longer: mpsc::UnboundedReceiver<Duration>,
}

/// The keeper.
pub(crate) struct Keeper {
    parts: Parts,
    /// Secrets as last seen; no entry: not known yet.
    secrets: BTreeMap<&'static str, Option<Secret>>,
    domains: Option<Domains>,
    rotation: Option<Rotation<Arc<Signer>>>,
    /// What was read last, good or bad.
    read: Option<(&'static str, Result<Files, String>)>,
    /// Since when `cacerts` is away although it is in force.
    away: Option<Instant>,
    /// What is wrong with the Secret that should be in force.
    error: Option<String>,
    /// The bundle as it was published, and the store's generation that brought it.
    published: Option<(TrustBundle, u64)>,
    /// The record as it was written last by this process.
    recorded: Option<Record>,
    /// Not before: a write failed.
    write_after: Option<Instant>,
    /// Index of the last alarm that was given.
    alarm: usize,
}

/// A CA and where it came from.
pub(crate) struct Signer {
    authority: Arc<Authority>,
    secret: &'static str,
    /// From the beginning of its certificate to the end.
    life: Duration,
}

impl Keeper {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            parts,
            secrets: BTreeMap::new(),
            domains: None,
            rotation: None,
            read: None,
            away: None,
            error: None,
            published: None,
            recorded: None,
            write_after: None,
            alarm: 0,
        }
    }

    /// Works until `shutdown`.
    pub(crate) async fn run(mut self, mut inputs: Inputs, shutdown: CancellationToken) {
        let mut converged = self.parts.store.converged();
        loop {
            self.domains = inputs.domains.borrow_and_update().clone();
            let reached = *converged.borrow_and_update();
            self.step(reached).await;
            let wake = self.wake();
            let waiting = self.rotation.as_ref().is_some_and(Rotation::is_waiting);
            tokio::select! {
                () = shutdown.cancelled() => return,
                stored = inputs.stored.recv() => match stored {
                    Some(stored) => self.take(stored),
                    None => return,
                },
                changed = inputs.domains.changed() => if changed.is_err() {
                    return;
                },
                Some(validity) = inputs.longer.recv() => {
                    if let Some(rotation) = &mut self.rotation {
                        rotation.granted(validity);
                    }
                }
                _ = converged.changed(), if waiting => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    fn take(&mut self, stored: Stored) {
        if stored.name == RECORD {
            let before = self.secrets.get(RECORD).and_then(Option::as_ref);
            let gone = before.is_some() && stored.secret.is_none();
            if let Some(rotation) = &mut self.rotation {
                match stored.secret.as_ref().and_then(secret::record) {
                    Some(record) => rotation.merge(&record),
                    None if gone => {
                        tracing::warn!(
                            "the secret {RECORD} is gone: roots that signed before are trusted no more"
                        );
                        rotation.forget();
                        self.recorded = None;
                    }
                    None => {}
                }
            }
        }
        self.secrets.insert(stored.name, stored.secret);
    }

    /// When to look again although nothing happened.
    fn wake(&self) -> Instant {
        let now = Instant::now();
        let mut wake = now + LOOK;
        if let Some(rotation) = &self.rotation {
            for at in rotation.due().into_iter().flat_map(|(a, b)| [a, b]) {
                if at > now {
                    wake = wake.min(at);
                }
            }
            let clock = page::seconds(SystemTime::now());
            for old in rotation.retiring() {
                let left = Duration::from_secs(old.until.saturating_sub(clock).max(1));
                wake = wake.min(now + left);
            }
        }
        let away = self.away.map(|since| since + self.parts.settings.absence);
        let later = [away, self.write_after];
        let later = later.into_iter().flatten().filter(|at| *at > now);
        later.fold(wake, Instant::min)
    }

    /// Brings everything in line with what is known. `reached` is the generation of the store that every proxy has.
    async fn step(&mut self, reached: u64) {
        let known = [PLUGGED, SELF_SIGNED, RECORD];
        if self.domains.is_none() || !known.iter().all(|name| self.secrets.contains_key(name)) {
            return;
        }
        if self.rotation.is_none() {
            let record = self.secrets[RECORD].as_ref().and_then(secret::record);
            let record = record.unwrap_or_default();
            self.recorded = Some(record.clone());
            let Settings {
                validity, timing, ..
            } = &self.parts.settings;
            self.rotation = Some(Rotation::restore(record, validity.default, *timing));
        }
        if self.may_write() {
            self.make_root().await;
        }
        self.load();
        let everybody = self
            .published
            .as_ref()
            .is_some_and(|(_, generation)| reached >= *generation);
        // What was just published is not known to anybody.
        let known = everybody && !self.publish_trust();
        if let Some(rotation) = &mut self.rotation {
            rotation.advance(known, Instant::now(), SystemTime::now());
        }
        self.publish_trust();
        self.publish();
        self.alarm();
        if self.may_write() {
            self.persist().await;
        }
    }

    fn may_write(&self) -> bool {
        self.write_after.is_none_or(|at| at <= Instant::now())
    }

    fn failed(&mut self, what: &str, error: &str) {
        self.write_after = Some(Instant::now() + AGAIN);
        tracing::warn!("{what}: {error}; trying again");
    }

    /// The Secret that should be in force now.
    fn wanted(&mut self) -> Option<(&'static str, Secret)> {
        let stored = |keeper: &Self, name| keeper.secrets.get(name).cloned().flatten();
        if let Some(plugged) = stored(self, PLUGGED) {
            self.away = None;
            return Some((PLUGGED, plugged));
        }
        let in_force = matches!(self.read, Some((PLUGGED, _)));
        if in_force {
            let away = *self.away.get_or_insert_with(|| {
                tracing::warn!(
                    "the secret {PLUGGED} is gone; its CA signs for {:?} more, then the self-signed one takes over",
                    self.parts.settings.absence
                );
                Instant::now()
            });
            if away.elapsed() < self.parts.settings.absence {
                return None;
            }
        }
        stored(self, SELF_SIGNED).map(|secret| (SELF_SIGNED, secret))
    }

    /// Reads the Secret that should be in force, when it is new.
    fn load(&mut self) {
        let Some((name, stored)) = self.wanted() else {
            return;
        };
        let files = Files::read(&stored);
        let read = Some((name, files.clone()));
        if self.read == read {
            return;
        }
        self.read = read;
        let now = SystemTime::now();
        let made = files
            .and_then(|files| Authority::from_pem(&files.borrow(), now).map_err(|e| e.to_string()));
        match made {
            Ok(authority) => {
                let mut roots = Root::all_of(&authority.anchor_pem());
                roots.extend(Root::all_of(authority.root_pem()));
                let signer = Arc::new(Signer {
                    life: page::life_of(&authority.cert_pem()).unwrap_or_default(),
                    authority: Arc::new(authority),
                    secret: name,
                });
                if let Some(rotation) = &mut self.rotation {
                    rotation.offer(signer, distinct(roots), Instant::now(), now);
                    match rotation.is_waiting() {
                        true => tracing::info!(
                            "the CA of the secret {name} takes over once every proxy trusts its root"
                        ),
                        false => tracing::info!("the CA of the secret {name} signs"),
                    }
                }
                self.error = None;
                self.alarm = 0;
            }
            Err(why) => {
                self.parts.metrics.ca.load_errors.add(1);
                let namespace = &self.parts.namespace;
                let stays = match self.rotation.as_ref().and_then(Rotation::signer) {
                    Some(_) => "the last good CA stays",
                    None => "nothing can be signed until it is mended",
                };
                let text = format!("secret {namespace}/{name} cannot be used: {why}; {stays}");
                tracing::error!("{text}");
                self.error = Some(text);
            }
        }
    }

    /// Makes the self-signed CA when there is no CA at all, or when its end comes near.
    async fn make_root(&mut self) {
        let plugged = self.secrets[PLUGGED].is_some() || matches!(self.read, Some((PLUGGED, _)));
        let there = self.secrets[SELF_SIGNED].clone();
        if plugged && !self.is_overdue() {
            return;
        }
        let old = match there {
            None => None,
            Some(secret) => match self.is_ending() {
                true => Some(secret),
                false => return,
            },
        };
        let validity = self.parts.settings.root_validity;
        let Some(domains) = &self.domains else {
            return;
        };
        let made = Authority::self_signed(&domains.own, validity, SystemTime::now());
        let files = match made {
            Ok(authority) => Files {
                cert: authority.cert_pem(),
                key: authority.key_pem(),
                chain: String::new(),
                root: authority.root_pem().to_owned(),
                crl: String::new(),
            },
            Err(e) => return self.failed("a self-signed CA cannot be made", &e.to_string()),
        };
        let mut fresh = files.secret(&self.parts.namespace);
        let written = match old {
            None => self.parts.vault.create(&fresh).await,
            Some(old) => {
                fresh.metadata = old.metadata;
                self.parts.vault.replace(&fresh).await
            }
        };
        match written {
            // It comes back by the watch, as another replica's would; a write that was lost is repeated.
            Ok(_) => self.write_after = Some(Instant::now() + AGAIN),
            Err(e) => self.failed(&format!("the secret {SELF_SIGNED} cannot be written"), &e),
        }
    }

    /// Whether `cacerts` is away for so long that the self-signed CA is needed.
    fn is_overdue(&self) -> bool {
        let absence = self.parts.settings.absence;
        self.secrets[PLUGGED].is_none() && self.away.is_some_and(|since| since.elapsed() >= absence)
    }

    /// Whether the self-signed CA in force has less than a tenth of its life left.
    fn is_ending(&self) -> bool {
        let rotation = self
            .rotation
            .as_ref()
            .filter(|rotation| !rotation.is_waiting());
        let signer = rotation.and_then(Rotation::signer);
        signer.is_some_and(|signer| {
            let end = signer.authority.not_after();
            let left = end.duration_since(SystemTime::now()).unwrap_or_default();
            signer.secret == SELF_SIGNED && left < signer.life / 10
        })
    }

    /// Publishes roots and revocation lists; tells whether they changed.
    fn publish_trust(&mut self) -> bool {
        let (Some(rotation), Some(domains)) = (&self.rotation, &self.domains) else {
            return false;
        };
        let bundle = rotation.bundle();
        if bundle.is_empty() {
            return false;
        }
        let files = self.read.as_ref().and_then(|(_, read)| read.as_ref().ok());
        // Lists of a Secret that cannot be used are not known; those before them stay.
        let crls = match files.filter(|_| self.error.is_none()) {
            Some(files) => files.crl.trim().to_owned(),
            None => self
                .published
                .as_ref()
                .map_or_else(String::new, |(old, _)| old.crls.to_string()),
        };
        let text = |roots: &[Root]| roots.iter().map(Root::pem).collect::<String>();
        let fresh = TrustBundle {
            trust_domain: domains.own.clone(),
            roots: text(&bundle).into(),
            crls: crls.as_str().into(),
        };
        let old = self.published.take();
        let (trust, notices) =
            TrustBundles::of(&[Arc::new(fresh.clone())], &domains.own, &domains.aliases);
        if let Some((old, generation)) = old {
            if old == fresh {
                self.published = Some((old, generation));
                return false;
            }
            if old.trust_domain != fresh.trust_domain {
                let name = old.trust_domain;
                let kind = Kind::TrustBundle;
                self.parts.store.apply(Vec::new(), vec![Key { kind, name }]);
            }
        }
        for notice in notices {
            tracing::warn!("{notice}");
        }
        let applied = self
            .parts
            .store
            .apply(vec![Resource::TrustBundle(fresh.clone())], Vec::new());
        self.published = Some((fresh, applied.generation));
        self.parts.out.trust.send_replace(trust);
        let mut sorted = bundle;
        sorted.sort();
        self.parts.out.trusted.send_replace(Trusted {
            roots: text(&sorted).into(),
            crl: crls.into(),
        });
        true
    }

    /// Tells what signs, and shows the state.
    fn publish(&self) {
        let (Some(rotation), Some(domains)) = (&self.rotation, &self.domains) else {
            return;
        };
        let signer = rotation.signer();
        let authority = signer.map(|signer| Arc::clone(&signer.authority));
        let why = match &self.error {
            Some(error) => error.clone(),
            None => "the CA was replaced while the control plane was away: it signs in a few seconds, once proxies \
                     trust its root"
                .to_owned(),
        };
        self.parts.out.signing.send_if_modified(|signing| {
            let same = match (&signing.authority, &authority) {
                (Some(old), Some(new)) => Arc::ptr_eq(old, new),
                (None, None) => *signing.why == *why,
                _ => false,
            };
            let same = same && signing.trust_domain == domains.own;
            signing.authority.clone_from(&authority);
            signing.why = why.into();
            signing.trust_domain = domains.own.clone();
            !same
        });
        let metrics = &self.parts.metrics.ca;
        let root = rotation
            .bundle()
            .first()
            .and_then(|root| page::end_of(root.pem()));
        metrics.root_expiry.set(root.map_or(0, page::seconds));
        let chain = authority.as_ref().map(|authority| authority.not_after());
        metrics.chain_expiry.set(chain.map_or(0, page::seconds));
        self.parts.out.page.send_if_modified(|page| {
            let fresh = self.page(rotation, domains);
            let differs = *page != fresh;
            *page = fresh;
            differs
        });
    }

    fn page(&self, rotation: &Rotation<Arc<Signer>>, domains: &Domains) -> Page {
        let entry = |root: &Root| {
            let going = rotation.retiring().iter().find(|old| old.root == *root);
            let until = going.map(|old| SystemTime::UNIX_EPOCH + Duration::from_secs(old.until));
            let state = match (going.is_some(), rotation.waiting().contains(root)) {
                (true, _) => "going",
                (false, true) => "coming",
                (false, false) => "signing",
            };
            RootEntry {
                state,
                expires: page::end_of(root.pem()).and_then(page::time),
                until: until.and_then(page::time),
            }
        };
        let signer = rotation.signer();
        let crl = self
            .published
            .as_ref()
            .is_some_and(|(b, _)| !b.crls.is_empty());
        Page {
            trust_domain: domains.own.to_string(),
            secret: signer.map(|signer| signer.secret.to_owned()),
            expires: signer.and_then(|signer| page::time(signer.authority.not_after())),
            roots: rotation.bundle().iter().map(entry).collect(),
            crl,
            error: self.error.clone(),
        }
    }

    /// Warns when the end of the CA comes near.
    fn alarm(&mut self) {
        let signer = self.rotation.as_ref().and_then(Rotation::signer);
        let Some(signer) = signer else {
            return;
        };
        let end = signer.authority.not_after();
        let left = end.duration_since(SystemTime::now()).unwrap_or_default();
        let days = left.as_secs().div_ceil(24 * 3600);
        let due = ALARMS.iter().take_while(|limit| days <= **limit).count();
        let due = due + usize::from(left.is_zero());
        if due > self.alarm {
            let name = signer.secret;
            let text = match left.is_zero() {
                true => format!(
                    "the CA of the secret {name} has expired: nothing is signed any more; give the mesh a new one"
                ),
                false => format!(
                    "the CA of the secret {name} expires in {days} days or less: give the mesh a new one"
                ),
            };
            tracing::warn!("{text}");
        }
        self.alarm = due;
    }

    /// Writes the record, when it changed here.
    async fn persist(&mut self) {
        let Some(rotation) = &self.rotation else {
            return;
        };
        let record = rotation.record();
        if self.recorded.as_ref() == Some(&record) || record.active.is_empty() {
            return;
        }
        let mut fresh = secret::record_secret(&record, &self.parts.namespace);
        let written = match self.secrets[RECORD].clone() {
            None => self.parts.vault.create(&fresh).await,
            Some(old) => {
                fresh.metadata = old.metadata;
                self.parts.vault.replace(&fresh).await
            }
        };
        match written {
            Ok(true) => self.recorded = Some(record),
            // The watch brings what another replica wrote; then it is tried again.
            Ok(false) => self.write_after = Some(Instant::now() + AGAIN),
            Err(e) => self.failed(&format!("the secret {RECORD} cannot be written"), &e),
        }
    }
}

fn distinct(roots: Vec<Root>) -> Vec<Root> {
    let mut all = Vec::with_capacity(roots.len());
    for root in roots {
        if !all.contains(&root) {
            all.push(root);
        }
    }
    all
}
