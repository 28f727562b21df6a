//! Certificates that Gateways and DestinationRules name (`credentialName`): read from Secrets, checked, and handed
//! to the graph for the proxies that may read the Secret themselves.
//!
//! ```text
//! needs (from the graph) + Secrets of those namespaces + SubjectAccessReview --> Found { credential, problem }
//! ```
//! A Secret is looked for in the namespace of the proxy's pod and nowhere else. Only Secrets of namespaces in which
//! something is needed are watched, and of those only what looks like certificates is kept. A Secret whose content
//! is no good changes nothing: what it held before stays in use.

mod access;
mod content;
pub(crate) mod needs;
#[cfg(test)]
mod tests;
mod watch;

use crate::source::{Delta, Id};
use access::{Access, CHECK_AGAIN};
use content::{Content, ContentError, Material, Reading};
use kube::Client;
use lateen_base::Str;
use lateen_model::name::Origin;
use lateen_model::security::{Credential, Secret};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, watch as channel};
use tokio::time::Instant;
use watch::{Kind, Watches};

/// What is needed: Secrets (or ConfigMaps with a CA), each with the service accounts of its namespace whose
/// proxies ask for it.
pub(crate) type Needs = BTreeMap<Id, BTreeSet<Str>>;

/// How long a credential whose Secret was deleted stays in use: replacing a Secret by deleting and creating it
/// must not close a gateway.
const GONE_GRACE: Duration = Duration::from_secs(30);

/// Names that are never handed to a proxy, whatever a Gateway says: the mesh's own CA.
const NEVER: [&str; 4] = [
    "istio-ca-secret",
    "istio-ca-roots",
    "cacerts",
    crate::certificate::SECRET,
];

/// What became of one need.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Found {
    /// What proxies get; absent: nothing.
    pub(crate) credential: Option<Credential>,
    /// What is wrong, for the author of the Gateway; absent: nothing.
    pub(crate) problem: Option<Str>,
}

/// Keeps the answer to every need until `needs` ends. Whatever is needed is reported once its namespace's Secrets
/// have been listed, and again whenever the answer changes; what is needed no more is removed.
pub(crate) async fn run(
    client: Client,
    mut needs: channel::Receiver<Needs>,
    reports: mpsc::Sender<Delta<Found>>,
) {
    let (changes, mut changed) = mpsc::channel(256);
    let mut watches = Watches::new(client.clone(), changes);
    let mut keeper = Keeper::new(Access::new(client), reports);
    loop {
        let wanted = needs.borrow_and_update().clone();
        let namespaces = wanted.keys().map(|id| Str::clone(&id.namespace));
        let closed = watches.watch(namespaces.collect());
        keeper.forget(&closed);
        let due = keeper.answer(&wanted).await;
        tokio::select! {
            ended = needs.changed() => if ended.is_err() {
                return;
            },
            change = changed.recv() => match change {
                None => return,
                Some(change) => {
                    keeper.take(change);
                    // Several come at once after a list.
                    while let Ok(change) = changed.try_recv() {
                        keeper.take(change);
                    }
                }
            },
            () = tokio::time::sleep_until(due) => {}
        }
    }
}

/// What is known and what was said.
struct Keeper {
    access: Access,
    reports: mpsc::Sender<Delta<Found>>,
    /// Secrets by namespace, once listed; likewise ConfigMaps.
    secrets: BTreeMap<Str, BTreeMap<Str, Content>>,
    maps: BTreeMap<Str, BTreeMap<Str, Content>>,
    /// The last good material of each need, and since when its Secret is gone.
    good: BTreeMap<Id, (Material, Option<Instant>)>,
    said: BTreeMap<Id, Found>,
}

impl Keeper {
    fn new(access: Access, reports: mpsc::Sender<Delta<Found>>) -> Self {
        Self {
            access,
            reports,
            secrets: BTreeMap::new(),
            maps: BTreeMap::new(),
            good: BTreeMap::new(),
            said: BTreeMap::new(),
        }
    }

    fn take(&mut self, (namespace, kind, delta): watch::Change) {
        let all = match kind {
            Kind::Secret => &mut self.secrets,
            Kind::ConfigMap => &mut self.maps,
        };
        let objects = all.entry(namespace).or_default();
        match delta {
            Delta::Set(id, content) => {
                objects.insert(id.name, content);
            }
            Delta::Remove(id) => {
                objects.remove(&id.name);
            }
            Delta::Replace(rows) => {
                *objects = rows
                    .into_iter()
                    .map(|(id, content)| (id.name, content))
                    .collect();
            }
        }
    }

    /// Forgets namespaces that are not watched any more.
    fn forget(&mut self, namespaces: &[Str]) {
        for namespace in namespaces {
            self.secrets.remove(namespace);
            self.maps.remove(namespace);
        }
    }

    /// Reports what changed; returns when to look again although nothing happened.
    async fn answer(&mut self, needs: &Needs) -> Instant {
        let mut due = Instant::now() + CHECK_AGAIN;
        let past: Vec<Id> = self
            .said
            .keys()
            .filter(|id| !needs.contains_key(*id))
            .cloned()
            .collect();
        for id in past {
            self.said.remove(&id);
            self.good.remove(&id);
            let _ = self.reports.send(Delta::Remove(id)).await;
        }
        for (id, accounts) in needs {
            // Nothing is said before the namespace is known: a missing Secret and an unread one are different.
            let known = [&self.secrets, &self.maps];
            if known.iter().any(|all| !all.contains_key(&id.namespace)) {
                continue;
            }
            let (material, problem) = self.material(id, SystemTime::now());
            if let Some((_, Some(gone))) = self.good.get(id) {
                due = due.min(*gone + GONE_GRACE);
            }
            let readers = self.access.readers(id, accounts).await;
            let refused = accounts.iter().filter(|account| !readers.contains(account));
            let refused: Vec<&str> = refused.map(|account| &**account).collect();
            let problem = problem.or_else(|| {
                (!refused.is_empty()).then(|| {
                    format!(
                        "service account {} of namespace {} may not read secret {}: grant it `get` on secrets there",
                        refused.join(", "),
                        id.namespace,
                        id.name
                    )
                })
            });
            let found = Found {
                credential: material
                    .filter(|_| !readers.is_empty())
                    .map(|material| credential(id, material, readers)),
                problem: problem.map(Str::from),
            };
            if self.said.get(id) != Some(&found) {
                self.said.insert(id.clone(), found.clone());
                let _ = self.reports.send(Delta::Set(id.clone(), found)).await;
            }
        }
        due
    }

    /// The material to use and what is wrong with what is there.
    fn material(&mut self, id: &Id, now: SystemTime) -> (Option<Material>, Option<String>) {
        if NEVER.contains(&&*id.name) {
            let why =
                format!("secret {id} belongs to the mesh's own CA and is never given to a proxy");
            return (None, Some(why));
        }
        let last = self.good.get(id).cloned();
        match (self.read(id, now), last) {
            (Some(Ok(reading)), last) => self.use_reading(id, reading, last.map(|(good, _)| good)),
            (Some(Err(error)), Some((good, _))) => {
                let why = format!("secret {id}: {error}; what it held before stays in use");
                (Some(good), Some(why))
            }
            (Some(Err(error)), None) => (None, Some(format!("secret {id}: {error}"))),
            (None, last) => {
                let why = format!(
                    "secret {id} does not exist; create it in the namespace where the gateway's pods run"
                );
                let kept = last.and_then(|(good, gone)| {
                    let gone = gone.unwrap_or_else(Instant::now);
                    let still = gone.elapsed() < GONE_GRACE;
                    self.good.remove(id);
                    still.then(|| {
                        self.good.insert(id.clone(), (good.clone(), Some(gone)));
                        good
                    })
                });
                (kept, Some(why))
            }
        }
    }

    /// What can be used of what was read. Without anything to verify clients with, what they were verified with
    /// before stays; without that too, servers that verify clients have nothing and stay closed.
    fn use_reading(
        &mut self,
        id: &Id,
        reading: Reading,
        last: Option<Material>,
    ) -> (Option<Material>, Option<String>) {
        let Reading {
            mut material,
            expired,
            flaw,
        } = reading;
        let mut why = None;
        if let Some(flaw) = flaw {
            if let Some(last) = &last {
                material.ca = Str::clone(&last.ca);
                material.crl = Str::clone(&last.crl);
            }
            let stays = match material.ca.is_empty() {
                true => "servers that verify clients stay closed",
                false => "what it held before stays in use",
            };
            why = Some(format!("secret {id}: {flaw}; {stays}"));
        }
        if let Some(at) = expired {
            let why = format!("secret {id}: its certificate has expired at {at}; renew it");
            // An expired certificate tells clients more than none, unless there is a better one.
            return (Some(last.unwrap_or(material)), Some(why));
        }
        self.good.insert(id.clone(), (material.clone(), None));
        (Some(material), why)
    }

    /// What is there under a name: a Secret, else a ConfigMap with a CA. What clients are verified with comes from
    /// the Secret `<name>-cacert` where there is one (Istio asks for that first).
    fn read(&self, id: &Id, now: SystemTime) -> Option<Result<Reading, ContentError>> {
        let secrets = self.secrets.get(&id.namespace)?;
        let companion: Str = format!("{}-cacert", id.name).into();
        let companion = secrets.get(&companion).map(Content::authority);
        let only = |read: Result<Material, ContentError>| {
            read.map(|material| Reading {
                material,
                ..Reading::default()
            })
        };
        let Some(secret) = secrets.get(&id.name) else {
            let map = self.maps.get(&id.namespace)?.get(&id.name);
            return companion.or_else(|| Some(map?.authority())).map(only);
        };
        let mut reading = match (secret.read(now), &companion) {
            (Ok(reading), _) => reading,
            // A Secret without certificates of its own beside one with a CA.
            (Err(ContentError::Empty), Some(_)) => return companion.map(only),
            (Err(error), _) => return Some(Err(error)),
        };
        match companion {
            Some(Ok(of)) => {
                reading.material.ca = of.ca;
                reading.material.crl = of.crl;
                reading.flaw = None;
            }
            Some(Err(error)) => {
                // Never the Secret's own CA instead: it may let in whom the companion would not.
                reading.material.ca = "".into();
                reading.material.crl = "".into();
                reading.flaw = Some(ContentError::Companion(Box::new(error)));
            }
            None => {}
        }
        Some(Ok(reading))
    }
}

fn credential(id: &Id, material: Material, readers: Vec<Str>) -> Credential {
    Credential {
        origin: Origin {
            kind: "Secret".into(),
            namespace: Str::clone(&id.namespace),
            name: Str::clone(&id.name),
            created: 0,
        },
        chain: material.chain,
        key: material.key.unwrap_or_else(|| Secret::new("")),
        ca: material.ca,
        crl: material.crl,
        readers,
    }
}
