//! The controllers that make a cluster out of an API server: what Kubernetes' controller manager
//! does, as far as one machine needs it.
//!
//! ```text
//! Cluster (watched stores) ─▶ one queue and loop per controller ─▶ pure decision ─▶ writes
//! ```
//! Each controller compares what is wanted with what is, through the shared [`Cluster`], and
//! writes the difference. Decisions are pure functions beside the loop; failures are retried with
//! back-off and shown as conditions and events.
//!
//! They do not run pods (that is `pod`), program packets (`services`) or collect garbage (the API
//! server does).

mod cluster;
mod cron_job;
mod daemon_set;
mod deployment;
mod endpoints;
mod events;
mod failure;
mod job;
mod namespace;
pub(crate) mod objects;
mod queue;
mod replica_set;
mod stateful_set;
pub(crate) mod store;
#[cfg(test)]
pub(crate) mod testing;

use std::sync::Arc;

use kube::{Resource, ResourceExt};
use tokio_util::sync::CancellationToken;

pub use cluster::Cluster;
pub use store::{Key, Store};

/// Runs every controller until `shutdown`. `root_certificate` is the PEM certificate of the API
/// server's authority, which each namespace gets as `kube-root-ca.crt`; empty: none is written.
pub async fn run(
    cluster: Arc<Cluster>,
    root_certificate: impl Into<Arc<str>>,
    shutdown: CancellationToken,
) {
    let root_certificate = root_certificate.into();
    let accounts = namespace::run(cluster.clone(), root_certificate, shutdown.clone());
    let accounts = tokio::spawn(accounts);
    // Until all is listed, a controller would take what it does not see for missing.
    tokio::select! {
        () = shutdown.cancelled() => return,
        () = cluster.ready() => {}
    }
    let (c, s) = (&cluster, &shutdown);
    let loops = [
        accounts,
        tokio::spawn(deployment::run(c.clone(), s.clone())),
        tokio::spawn(replica_set::run(c.clone(), s.clone())),
        tokio::spawn(stateful_set::run(c.clone(), s.clone())),
        tokio::spawn(daemon_set::run(c.clone(), s.clone())),
        tokio::spawn(job::run(c.clone(), s.clone())),
        tokio::spawn(cron_job::run(c.clone(), s.clone())),
        tokio::spawn(endpoints::run(c.clone(), s.clone())),
    ];
    for one in loops {
        if let Err(error) = one.await {
            tracing::error!(%error, "a controller broke");
        }
    }
}

/// The key of the object's controller, when that is of the kind.
fn owner_key<K: Resource<DynamicType = ()>>(object: &K, kind: &str) -> Option<Key> {
    let owner = objects::controller_of(object.meta())?;
    let namespace = object.namespace().unwrap_or_default();
    (owner.kind == kind).then(|| Key::new(&namespace, &owner.name))
}
