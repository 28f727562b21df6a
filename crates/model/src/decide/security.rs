//! The part of a snapshot that says who is who and who may do what.

use super::authz::Authz;
use super::jwt::JwtRules;
use super::peers::PeerModes;
use super::plan::{ConnectionFacts, Direction};
use super::resources::ResourceSet;
use super::snapshot::Snapshot;
use crate::identity::SpiffeId;
use crate::mesh::{AuthzProvider, MeshSettings, Scope};
use crate::security::{Credential, MtlsMode, TrustBundle};
use crate::workload::Workload;
use lateen_base::Str;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// What a proxy holds of the mesh's security.
#[derive(Debug, Default)]
pub(super) struct Security {
    pub modes: PeerModes,
    pub authz: Arc<Authz>,
    jwt: Arc<JwtRules>,
    no_jwt: Arc<JwtRules>,
    pub providers: BTreeMap<Str, Arc<AuthzProvider>>,
    /// By `namespace/name`.
    pub credentials: BTreeMap<Str, Arc<Credential>>,
    trust_bundles: Vec<Arc<TrustBundle>>,
}

impl Security {
    /// Compiles the part; what did not change is shared with `previous`.
    pub fn build(
        set: &ResourceSet,
        scope: &Scope,
        mesh: &MeshSettings,
        previous: Option<&Self>,
    ) -> Self {
        let root = &mesh.root_namespace;
        let providers = providers(mesh, previous);
        Self {
            modes: PeerModes::build(set, root),
            authz: Authz::build(set, (scope, mesh), previous.map(|p| &p.authz)),
            jwt: JwtRules::build(set, scope, root, previous.map(|p| &p.jwt)),
            no_jwt: previous.map(|p| p.no_jwt.clone()).unwrap_or_default(),
            providers,
            credentials: set.credentials.clone(),
            trust_bundles: set.trust_bundles.values().cloned().collect(),
        }
    }
}

fn providers(
    mesh: &MeshSettings,
    previous: Option<&Security>,
) -> BTreeMap<Str, Arc<AuthzProvider>> {
    let shared = |provider: &AuthzProvider| {
        let old = previous.and_then(|p| p.providers.get(&provider.name));
        match old.filter(|old| ***old == *provider) {
            Some(old) => old.clone(),
            None => Arc::new(provider.clone()),
        }
    };
    mesh.authz_providers
        .iter()
        .map(|provider| (provider.name.clone(), shared(provider)))
        .collect()
}

/// The identity that a workload's certificate has; absent when its service account is not known.
pub(super) fn identity(workload: &Workload, mesh: &MeshSettings) -> Option<SpiffeId> {
    let domain = match &*workload.trust_domain {
        "" => &*mesh.trust_domain,
        own => own,
    };
    if workload.service_account.is_empty() {
        return None;
    }
    SpiffeId::of_account(domain, &workload.namespace, &workload.service_account).ok()
}

impl Snapshot {
    /// The secret that a gateway's server names: `name`, in the proxy's own namespace, or `namespace/name`.
    /// Absent: there is none, or the proxy may not read it.
    pub fn credentials(&self, name: &str) -> Option<&Arc<Credential>> {
        let all = &self.security.credentials;
        if name.contains('/') {
            return all.get(name);
        }
        all.get(format!("{}/{name}", self.scope.namespace).as_str())
    }

    /// The roots of every trust domain that is known, by trust domain.
    pub fn trust_bundles(&self) -> &[Arc<TrustBundle>] {
        &self.security.trust_bundles
    }

    /// The tokens that count for requests of such a connection. The same reference as long as they are the same.
    /// Nothing that goes out has its tokens looked at.
    pub fn jwt_rules(&self, facts: &ConnectionFacts) -> &Arc<JwtRules> {
        match facts.direction {
            Direction::Inbound | Direction::Gateway => &self.security.jwt,
            Direction::Outbound => &self.security.no_jwt,
        }
    }

    /// The provider of external authorization with this name.
    pub fn provider(&self, name: &str) -> Option<&Arc<AuthzProvider>> {
        self.security.providers.get(name)
    }

    /// Who answers at an address that the client chose itself (`Discovery::OriginalDestination`; no id: any member of
    /// the mesh), and the server name to send when the cluster has none. Absent: the address is no workload's, or that
    /// one takes no mutual TLS on this port: plain text.
    pub fn identity_at(&self, address: SocketAddr) -> Option<(Option<SpiffeId>, Str)> {
        let workload = self.workload_at(address.ip())?;
        if !mutual(&self.security.modes, &self.mesh, workload, address.port()) {
            return None;
        }
        let identity = identity(workload, &self.mesh);
        let name = format!(
            "outbound_.{}_._.{}.{}",
            address.port(),
            workload.name,
            workload.namespace
        );
        Some((identity, name.into()))
    }
}

/// Whether automatic mutual TLS is used for a workload's port (Istio: auto mTLS); else plain text.
pub(super) fn mutual(
    modes: &PeerModes,
    mesh: &MeshSettings,
    workload: &Workload,
    port: u16,
) -> bool {
    let mode = || modes.of(&workload.namespace, &workload.labels, port).0;
    mesh.auto_mtls && workload.takes_mtls && mode() != MtlsMode::Disable
}
