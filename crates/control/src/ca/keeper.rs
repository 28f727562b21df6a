//! The task that owns the CA's state: Secrets in; what signs and what is trusted out.
//!
//! A Secret that cannot be used is told once and changes nothing: the last good CA stays.

mod publish;

use crate::ca::page::{self, Page};
use crate::ca::rotation::{Record, Root, Rotation};
use crate::ca::secret::{self, Files, PLUGGED, RECORD, SELF_SIGNED};
use crate::ca::vault::{Stored, Vault};
use crate::ca::{Domains, Settings, Signing, Trusted};
use crate::metrics::Metrics;
use futures::FutureExt;
use k8s_openapi::api::core::v1::Secret;
use lateen_base::backoff::Backoff;
use lateen_identity::ca::{Authority, CaError};
use lateen_identity::trust::TrustBundles;
use lateen_model::security::TrustBundle;
use lateen_xds::server::Store;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The CA is looked at at least this often, for what only time changes.
const LOOK: Duration = Duration::from_secs(3600);
/// Wait after a write that failed.
const AGAIN: Duration = Duration::from_secs(1);
/// A Secret that cannot be used is read again after this: time cures some faults, such as a CA that is not valid yet.
const REREAD: Duration = Duration::from_secs(10);

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
    /// When to read that Secret again although it is the same.
    reread: Option<Instant>,
    /// Whether it is the self-signed CA and has expired: nobody but this control plane replaces it.
    expired: bool,
    /// The bundle as it was published, and the store's generation that brought it.
    published: Option<(TrustBundle, u64)>,
    /// The state at the time of a fault, from which the work begins anew.
    salvaged: Option<Record>,
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
            reread: None,
            expired: false,
            published: None,
            salvaged: None,
            recorded: None,
            write_after: None,
            alarm: 0,
        }
    }

    /// Works until `shutdown`. A fault of this program ends the work, not the CA: what signs and what is trusted stays,
    /// and the work begins anew.
    pub(crate) async fn run(mut self, mut inputs: Inputs, shutdown: CancellationToken) {
        let mut backoff = Backoff::new(AGAIN, LOOK);
        loop {
            let work = AssertUnwindSafe(self.work(&mut inputs, &shutdown));
            let Err(panic) = work.catch_unwind().await else {
                return;
            };
            let why = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied());
            tracing::error!(
                "the keeper of the CA failed and starts anew; this is a fault of Lateen, please report it: {}",
                why.unwrap_or("no reason is known")
            );
            self.parts.metrics.ca.load_errors.add(1);
            self.begin_anew();
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(backoff.next_delay()) => {}
            }
        }
    }

    /// Forgets everything but what was seen and published.
    fn begin_anew(&mut self) {
        if let Some(rotation) = self.rotation.take() {
            self.salvaged = Some(rotation.record());
        }
        self.read = None;
        self.away = None;
        self.error = None;
        self.reread = None;
        self.expired = false;
        self.recorded = None;
        self.write_after = None;
    }

    async fn work(&mut self, inputs: &mut Inputs, shutdown: &CancellationToken) {
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
        if stored.name == RECORD && self.rotation.is_some() {
            let before = self.secrets.get(RECORD).and_then(Option::as_ref);
            let gone = before.is_some() && stored.secret.is_none();
            let record = stored.secret.as_ref().map(|secret| self.record(secret));
            if let Some(rotation) = &mut self.rotation {
                match record {
                    Some(Ok(record)) => rotation.merge(&record),
                    // It is written anew.
                    Some(Err(())) => self.recorded = None,
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

    /// The record of a Secret, with what cannot be used left out; what is wrong is told.
    fn record(&self, secret: &Secret) -> Result<Record, ()> {
        let read = secret::record(secret).map_err(|why| vec![why]);
        let (record, notices) = match read {
            Ok(record) => {
                let (record, notices) = record.cleaned(SystemTime::now());
                (Ok(record), notices)
            }
            Err(why) => (Err(()), why),
        };
        for notice in notices {
            self.parts.metrics.ca.load_errors.add(1);
            let namespace = &self.parts.namespace;
            tracing::error!("the secret {namespace}/{RECORD} is damaged: {notice}");
        }
        record
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
        let later = [away, self.write_after, self.reread];
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
            let record = self.secrets[RECORD].as_ref();
            let record = record.and_then(|secret| self.record(secret).ok());
            let record = record.unwrap_or_default();
            self.recorded = Some(record.clone());
            let record = self.salvaged.take().unwrap_or(record);
            let Settings {
                validity, timing, ..
            } = &self.parts.settings;
            self.rotation = Some(Rotation::restore(record, validity.default, *timing));
        }
        self.load();
        if self.may_write() {
            self.make_root().await;
        }
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
        let again = self.reread.is_some_and(|at| at <= Instant::now());
        if self.read == read && !again {
            return;
        }
        self.read = read;
        self.expired = false;
        self.reread = None;
        let now = SystemTime::now();
        let made = match files {
            Ok(files) => Authority::from_pem(&files.borrow(), now).map_err(|e| {
                self.expired = name == SELF_SIGNED && matches!(e, CaError::Expired(_));
                e.to_string()
            }),
            Err(why) => Err(why),
        };
        match made {
            Ok(authority) => self.offer(name, authority, now),
            Err(why) => self.refuse(name, &why),
        }
    }

    /// Has a CA that can be used take over.
    fn offer(&mut self, name: &'static str, authority: Authority, now: SystemTime) {
        let mut roots = Root::all_of(&authority.anchor_pem());
        roots.extend(Root::all_of(authority.root_pem()));
        let anchor = roots.first().cloned();
        let certificate = authority.cert_pem();
        let crl = authority.crl_pem().to_owned();
        let signer = Arc::new(Signer {
            life: page::life_of(&certificate).unwrap_or_default(),
            authority: Arc::new(authority),
            secret: name,
        });
        if let Some(rotation) = &mut self.rotation {
            rotation.offer(signer, distinct(roots), Instant::now(), now);
            if let Some(anchor) = anchor {
                let hash = Sha256::digest(certificate.as_bytes());
                let hash = hash.iter().map(|byte| format!("{byte:02x}")).collect();
                rotation.revoke(anchor, hash, &crl, now);
            }
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

    /// Tells once why a Secret cannot be used.
    fn refuse(&mut self, name: &str, why: &str) {
        self.reread = Some(Instant::now() + REREAD);
        let namespace = &self.parts.namespace;
        let stays = match self.rotation.as_ref().and_then(Rotation::signer) {
            Some(_) => "the last good CA stays",
            None if self.expired => "a new root replaces it",
            None => "nothing can be signed until it is mended",
        };
        let text = format!("secret {namespace}/{name} cannot be used: {why}; {stays}");
        if self.error.as_ref() != Some(&text) {
            self.parts.metrics.ca.load_errors.add(1);
            tracing::error!("{text}");
            self.error = Some(text);
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
            Some(secret) => match self.is_ending() || self.expired {
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
