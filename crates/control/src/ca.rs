//! The CA of the mesh: which key signs, whom it signs for, which roots are trusted, and the port for all of it.
//!
//! ```text
//! Secrets --keeper--> signing --> service (CreateCertificate) --.
//!            |          '-> serving (TLS of the port) ----------+-- secured (15012) <-- proxies
//!            '-> trust --> xDS (TrustBundle), ConfigMaps, caller (who calls?) --'
//! ```
//! Certificates and their mathematics are `lateen_identity`'s; what travels over xDS is the store's.

mod caller;
mod keeper;
pub(crate) mod limit;
mod page;
mod queue;
mod record;
mod rotation;
mod secret;
mod secured;
mod service;
mod serving;
mod tokens;
mod vault;

#[cfg(test)]
mod tests;

pub use rotation::Timing;
pub use service::Validity;

pub(crate) use page::Page;
pub(crate) use secured::Settings as TlsSettings;

use crate::metrics::Metrics;
use caller::Doorkeeper;
use keeper::Keeper;
use lateen_base::Str;
use lateen_identity::ca::Authority;
use lateen_identity::trust::TrustBundles;
use lateen_xds::server::Store;
use secured::Connection;
use service::Issuer;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokens::{Reviewer, Tokens};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use vault::{Stored, Vault};

/// What the CA is told at the start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Validity of workloads' certificates.
    pub validity: Validity,
    /// Validity of a root that is made here; a new one is made when a tenth of it is left.
    pub root_validity: Duration,
    /// How long a takeover takes.
    pub timing: Timing,
    /// How long the Secret `cacerts` may be away before the self-signed CA takes over.
    pub absence: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            validity: Validity::default(),
            root_validity: lateen_identity::ca::ROOT_LIFETIME,
            timing: Timing::default(),
            absence: Duration::from_secs(30),
        }
    }
}

/// What the mesh says that the CA must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Domains {
    /// The trust domain that certificates are signed for.
    pub(crate) own: Str,
    /// Others whose certificates the mesh's roots vouch for.
    pub(crate) aliases: Vec<Str>,
}

/// What signs now.
#[derive(Clone)]
pub(crate) struct Signing {
    /// Absent: nothing does.
    pub(crate) authority: Option<Arc<Authority>>,
    /// Why nothing signs, as a sentence for callers.
    pub(crate) why: Arc<str>,
    pub(crate) trust_domain: Str,
}

/// What is trusted, as it is written into ConfigMaps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Trusted {
    /// Roots as PEM, in an order that does not depend on which of them signs: replicas write the same text. Empty:
    /// not known yet.
    pub(crate) roots: Arc<str>,
    /// Revocation lists as PEM; empty: none.
    pub(crate) crl: Arc<str>,
}

/// What the CA works with.
pub(crate) struct Parts {
    pub(crate) settings: Settings,
    /// Namespace of the Secrets.
    pub(crate) namespace: String,
    pub(crate) store: Store,
    pub(crate) metrics: Arc<Metrics>,
    /// Absent until the mesh is known.
    pub(crate) domains: watch::Receiver<Option<Domains>>,
    /// Names that the secured port is called by.
    pub(crate) names: Vec<String>,
    pub(crate) vault: Arc<dyn Vault>,
    pub(crate) stored: mpsc::Receiver<Stored>,
    pub(crate) reviewer: Arc<dyn Reviewer>,
}

/// What others see of the CA.
pub(crate) struct Views {
    pub(crate) trusted: watch::Receiver<Trusted>,
    pub(crate) page: watch::Receiver<Page>,
    pub(crate) port: Port,
}

/// The parts of the secured port.
pub(crate) struct Port {
    pub(crate) tls: secured::Settings,
    trust: watch::Receiver<TrustBundles>,
    doorkeeper: Arc<Doorkeeper>,
    issuer: Issuer,
}

/// The Secrets as the API server keeps them, and TokenReview.
pub(crate) fn cluster(
    client: &kube::Client,
    namespace: &str,
    shutdown: &CancellationToken,
) -> (Arc<dyn Vault>, mpsc::Receiver<Stored>, Arc<dyn Reviewer>) {
    let secrets = vault::Cluster::new(client.clone(), namespace);
    let stored = secrets.watch(shutdown);
    let reviewer = tokens::Cluster(client.clone());
    (Arc::new(secrets), stored, Arc::new(reviewer))
}

/// Starts the CA; it ends with `shutdown`.
pub(crate) fn start(parts: Parts, shutdown: &CancellationToken) -> Views {
    let signing = watch::Sender::new(Signing {
        authority: None,
        why: "the CA is not known yet: try again in a moment".into(),
        trust_domain: "".into(),
    });
    let trust = watch::Sender::new(TrustBundles::default());
    let trusted = watch::Sender::new(Trusted::default());
    let page = watch::Sender::new(Page::default());
    let (longest, longer) = mpsc::unbounded_channel();
    let doorkeeper = Arc::new(Doorkeeper::new(
        Tokens::new(parts.reviewer),
        trust.subscribe(),
        Arc::clone(&parts.metrics),
    ));
    let issuer = Issuer::start(
        service::Parts {
            doorkeeper: Arc::clone(&doorkeeper),
            signing: signing.subscribe(),
            longest,
            validity: parts.settings.validity,
            metrics: Arc::clone(&parts.metrics),
        },
        shutdown,
    );
    let tls = serving::keep(signing.subscribe(), parts.names, &parts.settings, shutdown);
    let views = Views {
        trusted: trusted.subscribe(),
        page: page.subscribe(),
        port: Port {
            tls,
            trust: trust.subscribe(),
            doorkeeper,
            issuer,
        },
    };
    let keeper = Keeper::new(keeper::Parts {
        settings: parts.settings,
        namespace: parts.namespace,
        vault: parts.vault,
        store: parts.store,
        metrics: parts.metrics,
        out: keeper::Out {
            signing,
            trust,
            trusted,
            page,
        },
    });
    let inputs = keeper::Inputs {
        stored: parts.stored,
        domains: parts.domains,
        longer,
    };
    tokio::spawn(keeper.run(inputs, shutdown.clone()));
    views
}

impl Port {
    /// Serves xDS and certificates until `shutdown`.
    pub(crate) async fn serve(
        self,
        listener: TcpListener,
        store: Store,
        shutdown: CancellationToken,
    ) {
        let incoming = secured::connections(listener, self.tls, self.trust, shutdown.clone());
        let incoming: ReceiverStream<io::Result<Connection>> = ReceiverStream::new(incoming);
        let served = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(Duration::from_secs(30)))
            .http2_keepalive_timeout(Some(Duration::from_secs(10)))
            .max_concurrent_streams(Some(16))
            .http2_max_header_list_size(Some(64 << 10))
            .add_service(lateen_xds::server::service(store, self.doorkeeper))
            .add_service(self.issuer.service())
            .serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned())
            .await;
        if let Err(e) = served {
            tracing::error!("the server of the secured port ended: {e}");
        }
    }
}
