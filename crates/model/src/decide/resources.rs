//! The resources that a proxy holds, by kind and name: what it was sent, before any compilation.

use crate::gateway::Gateway;
use crate::limit::RateLimitPolicy;
use crate::matching::labels_match;
use crate::mesh::{MeshSettings, Role, Scope, SidecarScope};
use crate::name::{ServiceKey, Visibility};
use crate::resource::{Key, Kind, Resource};
use crate::route::RouteTable;
use crate::security::{
    AuthorizationPolicy, Credential, PeerAuthentication, RequestAuthentication, TrustBundle,
};
use crate::service::Service;
use crate::traffic::TrafficPolicy;
use crate::workload::Workload;
use lateen_base::Str;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// All resources known, each shared by reference. Cloning copies references only.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ResourceSet {
    pub(crate) services: BTreeMap<Str, Arc<Service>>,
    pub(crate) workloads: BTreeMap<Str, Arc<Workload>>,
    pub(crate) routes: BTreeMap<Str, Arc<RouteTable>>,
    pub(crate) policies: BTreeMap<Str, Arc<TrafficPolicy>>,
    pub(crate) gateways: BTreeMap<Str, Arc<Gateway>>,
    pub(crate) scopes: BTreeMap<Str, Arc<SidecarScope>>,
    pub(crate) mesh: Option<Arc<MeshSettings>>,
    pub(crate) peer_authentications: BTreeMap<Str, Arc<PeerAuthentication>>,
    pub(crate) request_authentications: BTreeMap<Str, Arc<RequestAuthentication>>,
    pub(crate) authorization_policies: BTreeMap<Str, Arc<AuthorizationPolicy>>,
    pub(crate) trust_bundles: BTreeMap<Str, Arc<TrustBundle>>,
    pub(crate) credentials: BTreeMap<Str, Arc<Credential>>,
    pub(crate) rate_limits: BTreeMap<Str, Arc<RateLimitPolicy>>,
}

impl ResourceSet {
    /// A set of these resources; of two with one key the later stays.
    pub fn of(resources: impl IntoIterator<Item = Resource>) -> Self {
        let mut set = Self::default();
        set.apply(resources, []);
        set
    }

    /// Puts `changed` in, replacing what has the same key, and takes `removed` out.
    /// Returns whether anything differs from before.
    pub fn apply(
        &mut self,
        changed: impl IntoIterator<Item = Resource>,
        removed: impl IntoIterator<Item = Key>,
    ) -> bool {
        let mut differs = false;
        for resource in changed {
            differs |= self.insert(resource);
        }
        for key in removed {
            differs |= self.remove(&key);
        }
        differs
    }

    fn insert(&mut self, resource: Resource) -> bool {
        let name = resource.key().name;
        match resource {
            Resource::Service(v) => put(&mut self.services, name, v),
            Resource::Workload(v) => put(&mut self.workloads, name, v),
            Resource::RouteTable(v) => put(&mut self.routes, name, v),
            Resource::TrafficPolicy(v) => put(&mut self.policies, name, v),
            Resource::Gateway(v) => put(&mut self.gateways, name, v),
            Resource::PeerAuthentication(v) => put(&mut self.peer_authentications, name, v),
            Resource::RequestAuthentication(v) => put(&mut self.request_authentications, name, v),
            Resource::AuthorizationPolicy(v) => put(&mut self.authorization_policies, name, v),
            Resource::TrustBundle(v) => put(&mut self.trust_bundles, name, v),
            Resource::Credential(v) => put(&mut self.credentials, name, v),
            Resource::RateLimitPolicy(v) => put(&mut self.rate_limits, name, v),
            Resource::SidecarScope(v) => put(&mut self.scopes, name, v),
            Resource::MeshSettings(v) => {
                let differs = self.mesh.as_deref() != Some(&v);
                self.mesh = Some(Arc::new(v));
                differs
            }
        }
    }

    fn remove(&mut self, key: &Key) -> bool {
        let name = &key.name;
        match key.kind {
            Kind::Service => self.services.remove(name).is_some(),
            Kind::Workload => self.workloads.remove(name).is_some(),
            Kind::RouteTable => self.routes.remove(name).is_some(),
            Kind::TrafficPolicy => self.policies.remove(name).is_some(),
            Kind::Gateway => self.gateways.remove(name).is_some(),
            Kind::PeerAuthentication => self.peer_authentications.remove(name).is_some(),
            Kind::RequestAuthentication => self.request_authentications.remove(name).is_some(),
            Kind::AuthorizationPolicy => self.authorization_policies.remove(name).is_some(),
            Kind::TrustBundle => self.trust_bundles.remove(name).is_some(),
            Kind::Credential => self.credentials.remove(name).is_some(),
            Kind::RateLimitPolicy => self.rate_limits.remove(name).is_some(),
            Kind::SidecarScope => self.scopes.remove(name).is_some(),
            Kind::MeshSettings => self.mesh.take().is_some(),
        }
    }

    /// Number of resources of every kind.
    pub fn len(&self) -> usize {
        Kind::ALL.iter().map(|kind| self.count(*kind)).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of resources of one kind.
    pub fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Service => self.services.len(),
            Kind::Workload => self.workloads.len(),
            Kind::RouteTable => self.routes.len(),
            Kind::TrafficPolicy => self.policies.len(),
            Kind::Gateway => self.gateways.len(),
            Kind::PeerAuthentication => self.peer_authentications.len(),
            Kind::RequestAuthentication => self.request_authentications.len(),
            Kind::AuthorizationPolicy => self.authorization_policies.len(),
            Kind::TrustBundle => self.trust_bundles.len(),
            Kind::Credential => self.credentials.len(),
            Kind::RateLimitPolicy => self.rate_limits.len(),
            Kind::SidecarScope => self.scopes.len(),
            Kind::MeshSettings => usize::from(self.mesh.is_some()),
        }
    }

    /// Every PeerAuthentication, by name.
    pub fn peer_authentications(&self) -> impl Iterator<Item = &Arc<PeerAuthentication>> {
        self.peer_authentications.values()
    }

    /// Every RequestAuthentication, by name.
    pub fn request_authentications(&self) -> impl Iterator<Item = &Arc<RequestAuthentication>> {
        self.request_authentications.values()
    }

    /// Every AuthorizationPolicy, by name.
    pub fn authorization_policies(&self) -> impl Iterator<Item = &Arc<AuthorizationPolicy>> {
        self.authorization_policies.values()
    }

    /// Every TrustBundle, by name.
    pub fn trust_bundles(&self) -> impl Iterator<Item = &Arc<TrustBundle>> {
        self.trust_bundles.values()
    }

    /// Every Credential, by name.
    pub fn credentials(&self) -> impl Iterator<Item = &Arc<Credential>> {
        self.credentials.values()
    }

    /// Every service.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// Every workload.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.values()
    }

    /// The service with this key.
    pub fn service(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.services.get(key.to_string().as_str())
    }

    /// The workload with this uid.
    pub fn workload(&self, uid: &str) -> Option<&Arc<Workload>> {
        self.workloads.get(uid)
    }

    /// The mesh's settings; absent until they arrived.
    pub fn mesh(&self) -> Option<&Arc<MeshSettings>> {
        self.mesh.as_ref()
    }

    /// A copy of every resource, kinds in [`Kind::ALL`] order.
    pub fn to_resources(&self) -> Vec<Resource> {
        use Resource as R;
        let mut all = Vec::with_capacity(self.len());
        all.extend(self.mesh.iter().map(|v| R::MeshSettings((**v).clone())));
        all.extend(copies(&self.trust_bundles, R::TrustBundle));
        all.extend(copies(&self.peer_authentications, R::PeerAuthentication));
        all.extend(copies(
            &self.request_authentications,
            R::RequestAuthentication,
        ));
        all.extend(copies(&self.authorization_policies, R::AuthorizationPolicy));
        all.extend(copies(&self.credentials, R::Credential));
        all.extend(copies(&self.rate_limits, R::RateLimitPolicy));
        all.extend(copies(&self.services, R::Service));
        all.extend(copies(&self.workloads, R::Workload));
        all.extend(copies(&self.policies, R::TrafficPolicy));
        all.extend(copies(&self.scopes, R::SidecarScope));
        all.extend(copies(&self.routes, R::RouteTable));
        all.extend(copies(&self.gateways, R::Gateway));
        all
    }
}

fn copies<T: Clone>(
    map: &BTreeMap<Str, Arc<T>>,
    wrap: fn(T) -> Resource,
) -> impl Iterator<Item = Resource> {
    map.values().map(move |value| wrap((**value).clone()))
}

/// Keeps the old `Arc` when the value is the same, so that what was built from it can be reused.
fn put<T: PartialEq>(map: &mut BTreeMap<Str, Arc<T>>, name: Str, value: T) -> bool {
    if map.get(&name).is_some_and(|old| **old == value) {
        return false;
    }
    map.insert(name, Arc::new(value));
    true
}

/// Who needs a resource at all: what `exportTo` hides from a proxy's namespace it never has to be
/// sent. Everything else is decided in the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// Every proxy.
    Everyone,
    /// Proxies in these namespaces.
    Namespaces(Vec<Str>),
    /// Gateways whose labels have all of these.
    Gateways(BTreeMap<Str, Str>),
    /// Proxies of these service accounts in one namespace.
    Accounts {
        /// The namespace.
        namespace: Str,
        /// The accounts.
        accounts: Vec<Str>,
    },
}

impl Audience {
    /// Who needs `resource`.
    pub fn of(resource: &Resource) -> Self {
        let exported = |visibility: &Visibility, own: Option<&Str>| match visibility {
            Visibility::Public => Self::Everyone,
            Visibility::Namespaces(names) => {
                Self::Namespaces(names.iter().chain(own).cloned().collect())
            }
        };
        match resource {
            // Proxies beside its own endpoints need a service for the protocol of its ports.
            Resource::Service(s) => exported(&s.visibility, Some(&s.key.namespace)),
            Resource::RouteTable(r) => exported(&r.visibility, None),
            Resource::TrafficPolicy(t) => exported(&t.visibility, None),
            Resource::Gateway(g) => Self::Gateways(g.selector.clone()),
            Resource::AuthorizationPolicy(a) => exported(&a.visibility, None),
            Resource::RequestAuthentication(r) => exported(&r.visibility, None),
            Resource::RateLimitPolicy(r) => exported(&r.visibility, None),
            Resource::Credential(c) => Self::Accounts {
                namespace: c.origin.namespace.clone(),
                accounts: c.readers.clone(),
            },
            // Clients need to know which servers take mutual TLS.
            Resource::Workload(_)
            | Resource::SidecarScope(_)
            | Resource::PeerAuthentication(_)
            | Resource::TrustBundle(_)
            | Resource::MeshSettings(_) => Self::Everyone,
        }
    }

    /// Whether a proxy in `scope` belongs to it.
    pub fn includes(&self, scope: &Scope) -> bool {
        match self {
            Self::Everyone => true,
            Self::Namespaces(names) => names.contains(&scope.namespace),
            Self::Gateways(selector) => {
                scope.role == Role::Gateway && labels_match(selector, &scope.labels)
            }
            Self::Accounts {
                namespace,
                accounts,
            } => scope.namespace == *namespace && accounts.contains(&scope.service_account),
        }
    }
}
