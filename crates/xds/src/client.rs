//! The proxy's end: keeps a stream to the control plane and turns it into updates.

use lateen_model::mesh::Scope;
use lateen_model::resource::{Key, Resource};
use std::path::PathBuf;
use tokio::sync::mpsc;

/// What the client connects to and who it says it is.
#[derive(Debug, Clone)]
pub struct Options {
    /// `host:port` of the control plane, plaintext.
    pub address: String,
    /// What this proxy is; travels in the node metadata and filters what it is sent.
    pub scope: Scope,
    /// `<type>~<ip>~<name>.<ns>~<ns>.svc.<domain>`; [`node_id`] makes it.
    pub node_id: String,
    /// Version of this proxy, for status.
    pub version: String,
    /// File that keeps the last good configuration; absent: none is kept.
    pub cache: Option<PathBuf>,
}

/// What the client tells its owner.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// Resources changed.
    Changed {
        /// New or replaced.
        changed: Vec<Resource>,
        /// Gone.
        removed: Vec<Key>,
    },
    /// What came so far is a whole configuration: every kind had its first answer, or the cache was
    /// loaded. Sent at most once after the cache and once after each connection's first full answer.
    Synced,
}

/// The node id of a proxy (Istio: `<type>~<ip>~<name>.<ns>~<ns>.svc.<domain>`).
pub fn node_id(scope: &Scope) -> String {
    let _ = scope;
    String::new()
}

/// Loads the cache, connects, and sends what changes until `updates` is closed. Reconnects for ever.
pub async fn run(options: Options, updates: mpsc::Sender<Update>) {
    let _ = &options;
    updates.closed().await;
}
