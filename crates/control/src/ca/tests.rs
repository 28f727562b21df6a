//! The CA as its callers meet it: Secrets in memory, a reviewer that knows some tokens, real sockets.

mod callers;
mod revoked;
mod secrets;
mod takeover;

use super::*;
use crate::ca::secret::{Files, PLUGGED, RECORD, SELF_SIGNED};
use k8s_openapi::api::authentication::v1::{TokenReviewStatus, UserInfo};
use k8s_openapi::api::core::v1::Secret;
use lateen_model::resource::{Kind, Resource};
use lateen_model::security::TrustBundle;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

/// Secrets in memory; every write is told as the watch would.
struct Memory {
    secrets: Mutex<BTreeMap<String, Secret>>,
    versions: Mutex<u64>,
    /// Panics at the next write.
    broken: AtomicBool,
    out: mpsc::Sender<Stored>,
}

impl Memory {
    fn secret(&self, name: &str) -> Option<Secret> {
        self.secrets.lock().get(name).cloned()
    }

    /// Sets or deletes a Secret as a user would.
    async fn set(&self, name: &'static str, secret: Option<Secret>) {
        let stored = self.put(name, secret);
        self.out.send(stored).await.expect("the keeper runs");
    }

    fn put(&self, name: &'static str, secret: Option<Secret>) -> Stored {
        let mut versions = self.versions.lock();
        *versions += 1;
        let secret = secret.map(|mut secret| {
            secret.metadata.name = Some(name.to_owned());
            secret.metadata.resource_version = Some(versions.to_string());
            secret
        });
        let mut secrets = self.secrets.lock();
        match &secret {
            Some(secret) => secrets.insert(name.to_owned(), secret.clone()),
            None => secrets.remove(name),
        };
        Stored { name, secret }
    }
}

fn known(secret: &Secret) -> &'static str {
    let name = secret.metadata.name.as_deref().expect("a name");
    let known = [PLUGGED, SELF_SIGNED, RECORD].into_iter();
    known
        .into_iter()
        .find(|one| *one == name)
        .expect("a Secret of the CA")
}

#[tonic::async_trait]
impl Vault for Memory {
    async fn create(&self, secret: &Secret) -> Result<bool, String> {
        assert!(
            !self.broken.swap(false, Ordering::Relaxed),
            "as it was told"
        );
        let name = known(secret);
        if self.secret(name).is_some() {
            return Ok(false);
        }
        self.set(name, Some(secret.clone())).await;
        Ok(true)
    }

    async fn replace(&self, secret: &Secret) -> Result<bool, String> {
        let name = known(secret);
        let version = |secret: &Secret| secret.metadata.resource_version.clone();
        if self.secret(name).as_ref().map(version) != Some(version(secret)) {
            return Ok(false);
        }
        self.set(name, Some(secret.clone())).await;
        Ok(true)
    }
}

/// Knows tokens that read `<namespace>/<account>`, of another audience when they read `other:…`.
struct Registry;

#[tonic::async_trait]
impl Reviewer for Registry {
    async fn review(&self, token: &str) -> Result<TokenReviewStatus, String> {
        let (audience, token) = match token.strip_prefix("other:") {
            Some(token) => ("api", token),
            None => ("istio-ca", token),
        };
        let Some((namespace, account)) = token.split_once('/') else {
            return Ok(TokenReviewStatus::default());
        };
        Ok(TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(vec![audience.to_owned()]),
            user: Some(UserInfo {
                username: Some(format!("system:serviceaccount:{namespace}:{account}")),
                ..UserInfo::default()
            }),
            error: None,
        })
    }
}

/// A CA with everything around it.
struct Running {
    vault: Arc<Memory>,
    store: Store,
    metrics: Arc<Metrics>,
    page: watch::Receiver<Page>,
    trusted: watch::Receiver<Trusted>,
    domains: watch::Sender<Option<Domains>>,
    port: Option<Port>,
    shutdown: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

const NAME: &str = "istiod.istio-system.svc";

fn domains(own: &str) -> Domains {
    Domains {
        own: own.into(),
        aliases: Vec::new(),
    }
}

/// Starts a CA over these Secrets.
async fn start_with(settings: Settings, secrets: Vec<(&'static str, Secret)>) -> Running {
    let (out, stored) = mpsc::channel(64);
    let vault = Arc::new(Memory {
        secrets: Mutex::default(),
        versions: Mutex::default(),
        broken: AtomicBool::default(),
        out,
    });
    for (name, secret) in secrets {
        vault.put(name, Some(secret));
    }
    for name in [PLUGGED, SELF_SIGNED, RECORD] {
        let secret = vault.secret(name);
        let told = vault.out.send(Stored { name, secret }).await;
        told.expect("there is room");
    }
    let store = Store::new();
    store.mark_ready();
    let metrics = Arc::new(Metrics::default());
    let shutdown = CancellationToken::new();
    let (sender, receiver) = watch::channel(Some(domains("cluster.local")));
    let parts = Parts {
        settings,
        namespace: "istio-system".to_owned(),
        store: store.clone(),
        metrics: Arc::clone(&metrics),
        domains: receiver,
        names: vec![NAME.to_owned()],
        vault: vault.clone(),
        stored,
        reviewer: Arc::new(Registry),
    };
    let views = super::start(parts, &shutdown);
    Running {
        vault,
        store,
        metrics,
        page: views.page,
        trusted: views.trusted,
        domains: sender,
        port: Some(views.port),
        shutdown,
    }
}

async fn start() -> Running {
    start_with(Settings::default(), Vec::new()).await
}

impl Running {
    /// Waits until the page is so.
    async fn page(&mut self, so: impl FnMut(&Page) -> bool) -> Page {
        self.page
            .wait_for(so)
            .await
            .expect("the keeper runs")
            .clone()
    }

    /// Waits until this CA signs.
    async fn signs(&mut self, secret: &str) -> Page {
        self.page(|page| page.secret.as_deref() == Some(secret))
            .await
    }

    fn bundle(&self) -> TrustBundle {
        let entries = self.store.debug_dump(Kind::TrustBundle);
        let [entry] = &entries[..] else {
            panic!("one bundle, not {}", entries.len());
        };
        match &entry.resource {
            Resource::TrustBundle(bundle) => bundle.clone(),
            other => panic!("{other:?}"),
        }
    }
}

/// States of the roots in order, with spaces.
fn states(page: &Page) -> String {
    let states: Vec<_> = page.roots.iter().map(|root| root.state).collect();
    states.join(" ")
}

/// A new CA as the Secret `name` holds it.
fn made(name: &'static str) -> Secret {
    made_ago(name, Duration::ZERO)
}

/// A CA that was made for a year, so long ago.
fn made_ago(name: &'static str, ago: Duration) -> Secret {
    let authority = Authority::self_signed("cluster.local", YEAR, SystemTime::now() - ago);
    let authority = authority.expect("it can be made");
    let files = Files {
        cert: authority.cert_pem(),
        key: authority.key_pem(),
        chain: String::new(),
        root: authority.root_pem().to_owned(),
        crl: String::new(),
    };
    let mut secret = files.secret("istio-system");
    secret.metadata.name = Some(name.to_owned());
    secret
}

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
