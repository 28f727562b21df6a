//! What every thread of a proxy shares: the snapshot in force, metrics, the log, and the stage of its life.

use crate::config::{Destinations, Ports};
use crate::demand::Demand;
use crate::drain::Drain;
use crate::identity::Membership;
use crate::limits::{Buckets, Tally};
use crate::overload::Overload;
use crate::tls::{Origins, Servers};
use crate::upstream::{Own, States};
use arc_swap::{ArcSwap, ArcSwapOption};
use lateen_model::decide::resources::ResourceSet;
use lateen_model::decide::snapshot::Snapshot;
use lateen_model::mesh::{MeshSettings, Scope};
use lateen_net::dns::{Counts, Resolver};
use lateen_net::http::Limits;
use lateen_telemetry::access_log::Format;
use lateen_telemetry::metrics::Metrics;
use lateen_telemetry::writer::LogWriter;
use std::sync::Arc;

/// One configuration in force; replaced as a whole.
pub(crate) struct Live {
    pub(crate) snapshot: Snapshot,
    /// What it was compiled from.
    pub(crate) resources: ResourceSet,
    /// The access log's format; absent: no access log.
    pub(crate) format: Option<Arc<Format>>,
    /// Counts replacements, from 0.
    pub(crate) generation: u64,
}

/// Shared by all threads.
pub(crate) struct Shared {
    pub(crate) scope: Scope,
    pub(crate) limits: Limits,
    /// Sessions of mutual TLS that are remembered; absent: the default.
    pub(crate) tls_sessions: Option<usize>,
    pub(crate) overload: Overload,
    pub(crate) ports: Ports,
    /// Where the proxy itself listens: nobody is called there.
    pub(crate) own: Own,
    pub(crate) destinations: Destinations,
    pub(crate) live: ArcSwap<Live>,
    /// What proves who this proxy is, and whom it believes; absent: it has no certificate yet, or never will.
    pub(crate) member: ArcSwapOption<Membership>,
    /// Why there is no certificate.
    pub(crate) no_member: ArcSwap<String>,
    /// TLS settings of gateway servers.
    pub(crate) servers: Servers,
    /// TLS settings towards endpoints outside of the mesh.
    pub(crate) origins: Origins,
    /// What is known of clusters: what is under way there, and who fails.
    pub(crate) states: States,
    pub(crate) drain: Drain,
    /// What the control plane is asked when it is first needed.
    pub(crate) demand: Demand,
    /// What became of the application's DNS questions.
    pub(crate) dns: Arc<Counts>,
    /// Resolves names of endpoints and of hosts that clients ask for.
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) metrics: Metrics,
    /// Local rate limits.
    pub(crate) buckets: Buckets,
    /// What rate limits did.
    pub(crate) tally: Tally,
    pub(crate) log: LogWriter,
}

impl Shared {
    /// Counts the certificates of the mesh that this proxy has had; 0 while it has none.
    pub(crate) fn generation(&self) -> u64 {
        self.member.load().as_ref().map_or(0, |m| m.generation)
    }

    /// Why there is no certificate, as part of a sentence.
    pub(crate) fn why_no_certificate(&self) -> String {
        self.no_member.load().to_string()
    }
}

impl Live {
    /// Compiles `resources`; what did not change since `previous` is taken over.
    pub(crate) fn compile(resources: ResourceSet, scope: &Scope, previous: Option<&Self>) -> Self {
        let snapshot = Snapshot::build_from(&resources, scope, previous.map(|p| &p.snapshot));
        let format = format_of(snapshot.mesh(), previous);
        Self {
            snapshot,
            resources,
            format,
            generation: previous.map_or(0, |p| p.generation + 1),
        }
    }
}

// A format that cannot be used leaves the previous one in force, or Istio's default.
fn format_of(mesh: &MeshSettings, previous: Option<&Live>) -> Option<Arc<Format>> {
    if !mesh.access_log {
        return None;
    }
    let before = previous.filter(|p| p.snapshot.mesh().access_log_format == mesh.access_log_format);
    if let Some(format) = before.and_then(|p| p.format.clone()) {
        return Some(format);
    }
    let Some(text) = &mesh.access_log_format else {
        return Some(Arc::default());
    };
    match Format::parse(text) {
        Ok(format) => Some(Arc::new(format)),
        Err(error) => {
            tracing::warn!("{error}; the previous access-log format stays in force");
            previous
                .and_then(|p| p.format.clone())
                .or_else(|| Some(Arc::default()))
        }
    }
}
