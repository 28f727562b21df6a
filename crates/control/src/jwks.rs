//! Keys of token issuers: fetched for all RequestAuthentications, kept fresh, handed to the graph.
//!
//! ```text
//! wanted URIs --one task each--> fetch (bounded, addresses checked) --> Keys { set, problem } --> graph
//! ```
//! A set that was fetched stays in use when a later fetch fails. Without any set there are no keys at all: nothing
//! here makes up a default. A URI that ends in `/.well-known/openid-configuration` is an issuer's discovery
//! document, which says where the keys are (OpenID Connect Discovery 1.0 §4).

pub(crate) mod address;
mod fetch;
mod set;

use crate::source::{Delta, Id};
use address::Rules;
use fetch::Client;
use ipnet::IpNet;
use lateen_base::Str;
use lateen_base::backoff::Backoff;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

/// How long fetched keys count as fresh. Istio: `PILOT_JWT_PUB_KEY_REFRESH_INTERVAL`, 20 minutes.
const REFRESH: Duration = Duration::from_secs(20 * 60);
/// Fetches under way at once.
const AT_ONCE: usize = 16;
/// URIs that are looked at; the rest is told why not.
const MOST_URIS: usize = 2000;
/// What makes a URI a discovery document.
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// How keys are fetched.
#[derive(Debug, Clone)]
pub struct Options {
    /// Files with root certificates (PEM) that are trusted beside the system's.
    pub extra_roots: Vec<PathBuf>,
    /// Networks that are not called, beside those that never are (Istio: `BLOCKED_CIDRS_IN_JWKS_URIS`).
    pub blocked: Vec<IpNet>,
    /// Whether loopback addresses may be called: for tests and for an issuer beside the control plane.
    pub allow_loopback: bool,
    /// Bound on one fetch with everything that belongs to it.
    pub limit: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            extra_roots: Vec::new(),
            blocked: Vec::new(),
            allow_loopback: false,
            limit: Duration::from_secs(10),
        }
    }
}

/// What is known of one URI's keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Keys {
    /// The last good key set as JSON, public keys only; absent: there never was one.
    pub(crate) set: Option<Str>,
    /// Why the last fetch failed; absent: it did not.
    pub(crate) problem: Option<Str>,
}

/// Keeps the keys of every wanted URI until `wanted` ends. Reports name the URI in [`Id::name`] (the namespace is
/// empty); whatever is wanted is reported within the time limit of a fetch, and again whenever it changes.
pub(crate) async fn run(
    options: Options,
    mut wanted: watch::Receiver<BTreeSet<Str>>,
    reports: mpsc::Sender<Delta<Keys>>,
) {
    let shared = Arc::new(Shared {
        client: Client::new(&options),
        places: Semaphore::new(AT_ONCE),
        reports,
    });
    let mut tasks: BTreeMap<Str, JoinHandle<()>> = BTreeMap::new();
    // Those for which there was no room.
    let mut refused: BTreeSet<Str> = BTreeSet::new();
    loop {
        let uris = wanted.borrow_and_update().clone();
        let gone: Vec<Str> = tasks
            .keys()
            .chain(&refused)
            .filter(|uri| !uris.contains(*uri))
            .cloned()
            .collect();
        for uri in gone {
            if let Some(task) = tasks.remove(&uri) {
                task.abort();
            }
            refused.remove(&uri);
            shared.send(Delta::Remove(Id::new("", &uri))).await;
        }
        for uri in uris {
            if tasks.contains_key(&uri) {
                continue;
            }
            if tasks.len() >= MOST_URIS {
                if refused.insert(Str::clone(&uri)) {
                    shared.refuse(&uri).await;
                }
                continue;
            }
            refused.remove(&uri);
            let shared = Arc::clone(&shared);
            let of = Str::clone(&uri);
            let task = tokio::spawn(async move { shared.keep(&of).await });
            tasks.insert(uri, task);
        }
        let ended = tokio::select! {
            changed = wanted.changed() => changed.is_err(),
            () = shared.reports.closed() => true,
        };
        if ended {
            tasks.into_values().for_each(|task| task.abort());
            return;
        }
    }
}

/// What all fetches share.
struct Shared {
    client: Client,
    places: Semaphore,
    reports: mpsc::Sender<Delta<Keys>>,
}

impl Shared {
    async fn send(&self, delta: Delta<Keys>) {
        // Nobody listens any more only when the control plane ends.
        let _ = self.reports.send(delta).await;
    }

    async fn refuse(&self, uri: &Str) {
        let problem = format!("more than {MOST_URIS} different jwksUri are in use; use fewer");
        let keys = Keys {
            set: None,
            problem: Some(problem.into()),
        };
        self.send(Delta::Set(Id::new("", uri), keys)).await;
    }

    /// Fetches one URI's keys again and again.
    async fn keep(&self, uri: &Str) {
        let mut known = Keys::default();
        let mut reported = false;
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        loop {
            let fetched = {
                let _place = self.places.acquire().await;
                self.fetch(uri).await
            };
            let next = match fetched {
                Ok(set) => Keys {
                    set: Some(set),
                    problem: None,
                },
                Err(problem) => Keys {
                    set: known.set.clone(),
                    problem: Some(problem.into()),
                },
            };
            let pause = match &next.problem {
                None => {
                    backoff.reset();
                    jittered(REFRESH)
                }
                Some(_) => jittered(backoff.next_delay()),
            };
            if next != known || !reported {
                if let Some(problem) = &next.problem {
                    let kept = if next.set.is_some() {
                        "; the last good keys stay"
                    } else {
                        ""
                    };
                    tracing::warn!("keys of {uri}: {problem}{kept}");
                }
                reported = true;
                known = next.clone();
                self.send(Delta::Set(Id::new("", uri), next)).await;
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn fetch(&self, uri: &str) -> Result<Str, String> {
        let body = match uri.strip_suffix(DISCOVERY) {
            None => self.client.get(uri).await,
            Some(issuer) => {
                let document = self.client.get(uri).await.map_err(|e| e.to_string())?;
                let uri = set::discovered(&document, issuer)?;
                self.client.get(&uri).await
            }
        };
        set::public(&body.map_err(|e| e.to_string())?).map(Str::from)
    }
}

/// Up to a tenth longer, so that many fetches do not come at once.
fn jittered(pause: Duration) -> Duration {
    let tenth = u64::try_from(pause.as_millis() / 10).unwrap_or(u64::MAX);
    pause + Duration::from_millis(fastrand::u64(0..=tenth))
}

#[cfg(test)]
mod tests;
