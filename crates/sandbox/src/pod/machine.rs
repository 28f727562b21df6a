//! What every pod's worker needs of the node: clients, network, processes, image table, directories.

use std::path::PathBuf;

use kube::Client;

use super::cache::Cache;
use super::events::Events;
use super::process::Reaper;
use crate::cluster_network::ClusterNetwork;
use crate::images::{Image, Images};

/// The node's means.
pub(crate) struct Machine {
    /// Client of the API server.
    pub client: Client,
    /// Objects that pods refer to.
    pub cache: Cache,
    /// Makes pod networks.
    pub network: ClusterNetwork,
    /// Launches processes.
    pub reaper: Reaper,
    /// Publishes events.
    pub events: Events,
    /// The executable as containers' mounts have it.
    pub executable: PathBuf,
    /// Directory of pod directories.
    pub pods: PathBuf,
    /// Directory of volumes that outlive pods.
    pub shared: PathBuf,
    /// Whether user ids are real ones here, so that containers can have others than the node.
    pub real_root: bool,
    /// The user's image table.
    pub images_file: Option<PathBuf>,
    /// The image table.
    pub images: Images,
}

impl Machine {
    /// The program for an image. A user's table is read again for an image it did not have, so that an
    /// entry added while the sandbox runs is found.
    pub(crate) fn image(&self, name: &str) -> Option<Image> {
        if let Some(found) = self.images.find(name) {
            return Some(found.clone());
        }
        let fresh = Images::with_file(self.images_file.as_deref()?).ok()?;
        fresh.find(name).cloned()
    }
}

/// Whether this process's user ids are the host's.
pub(crate) fn real_root() -> bool {
    std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().nth(2) == Some("4294967295"))
}
