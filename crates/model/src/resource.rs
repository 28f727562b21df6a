//! The resources that travel from control plane to proxies: a closed set, each with a kind and a name.

use crate::gateway::Gateway;
use crate::limit::RateLimitPolicy;
use crate::mesh::{MeshSettings, SidecarScope};
use crate::name::Origin;
use crate::route::RouteTable;
use crate::security::{
    AuthorizationPolicy, Credential, PeerAuthentication, RequestAuthentication, TrustBundle,
};
use crate::service::Service;
use crate::traffic::TrafficPolicy;
use crate::workload::Workload;
use lateen_base::Str;
use serde::Serialize;

/// One resource. The same value serves every proxy: what depends on the client is decided in the proxy.
#[expect(
    clippy::large_enum_variant,
    reason = "resources are held by reference, each in an allocation of its own"
)]
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Resource {
    /// A service.
    Service(Service),
    /// A workload.
    Workload(Workload),
    /// A VirtualService's routes.
    RouteTable(RouteTable),
    /// A DestinationRule.
    TrafficPolicy(TrafficPolicy),
    /// A Gateway.
    Gateway(Gateway),
    /// A Sidecar.
    SidecarScope(SidecarScope),
    /// The mesh's settings; its name is `default`.
    MeshSettings(MeshSettings),
    /// A PeerAuthentication.
    PeerAuthentication(PeerAuthentication),
    /// A RequestAuthentication.
    RequestAuthentication(RequestAuthentication),
    /// An AuthorizationPolicy.
    AuthorizationPolicy(AuthorizationPolicy),
    /// Roots of a trust domain; its name is the trust domain.
    TrustBundle(TrustBundle),
    /// Certificates of a secret.
    Credential(Credential),
    /// A RateLimitPolicy.
    RateLimitPolicy(RateLimitPolicy),
}

/// Kinds of [`Resource`], in the order in which a proxy should receive them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Kind {
    /// [`Resource::MeshSettings`].
    MeshSettings,
    /// [`Resource::Service`].
    Service,
    /// [`Resource::Workload`].
    Workload,
    /// [`Resource::TrafficPolicy`].
    TrafficPolicy,
    /// [`Resource::SidecarScope`].
    SidecarScope,
    /// [`Resource::RouteTable`].
    RouteTable,
    /// [`Resource::TrustBundle`].
    TrustBundle,
    /// [`Resource::PeerAuthentication`].
    PeerAuthentication,
    /// [`Resource::RequestAuthentication`].
    RequestAuthentication,
    /// [`Resource::AuthorizationPolicy`].
    AuthorizationPolicy,
    /// [`Resource::Credential`].
    Credential,
    /// [`Resource::RateLimitPolicy`].
    RateLimitPolicy,
    /// [`Resource::Gateway`].
    Gateway,
}

impl Kind {
    /// Every kind, in push order: what is referred to comes before what refers.
    pub const ALL: [Self; 13] = [
        Self::MeshSettings,
        Self::TrustBundle,
        Self::PeerAuthentication,
        Self::RequestAuthentication,
        Self::AuthorizationPolicy,
        Self::Credential,
        Self::RateLimitPolicy,
        Self::Service,
        Self::Workload,
        Self::TrafficPolicy,
        Self::SidecarScope,
        Self::RouteTable,
        Self::Gateway,
    ];
}

/// A resource's identity on the wire: unique within the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// `namespace/name`, a service key, a workload uid, or `default`.
    pub name: Str,
}

impl Resource {
    /// The resource's key.
    pub fn key(&self) -> Key {
        let of =
            |origin: &Origin| -> Str { format!("{}/{}", origin.namespace, origin.name).into() };
        let (kind, name) = match self {
            Self::Service(s) => (Kind::Service, s.key.to_string().into()),
            Self::Workload(w) => (Kind::Workload, w.uid.clone()),
            Self::RouteTable(r) => (Kind::RouteTable, of(&r.origin)),
            Self::TrafficPolicy(t) => (Kind::TrafficPolicy, of(&t.origin)),
            Self::Gateway(g) => (Kind::Gateway, of(&g.origin)),
            Self::SidecarScope(s) => (Kind::SidecarScope, of(&s.origin)),
            Self::MeshSettings(_) => (Kind::MeshSettings, "default".into()),
            Self::TrustBundle(t) => (Kind::TrustBundle, t.trust_domain.clone()),
            Self::PeerAuthentication(p) => (Kind::PeerAuthentication, of(&p.origin)),
            Self::RequestAuthentication(r) => (Kind::RequestAuthentication, of(&r.origin)),
            Self::AuthorizationPolicy(a) => (Kind::AuthorizationPolicy, of(&a.origin)),
            Self::Credential(c) => (Kind::Credential, of(&c.origin)),
            Self::RateLimitPolicy(r) => (Kind::RateLimitPolicy, of(&r.origin)),
        };
        Key { kind, name }
    }
}
