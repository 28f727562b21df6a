//! What the control plane watches: objects in, slim values out. Nothing is interpreted here.
//!
//! ```text
//! API server --list/watch--> slim --> Event { delta, seen } --channel--> engine
//! ```
//! Only what means something enters: `managedFields`, versions, timestamps and foreign annotations stay out, so
//! that an edit of those ends here.

mod follow;
mod lean;
pub(crate) mod slim;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::watcher;
use kube::{Api, Client};
use lateen_api::kinds;
use lateen_api::meta::Meta;
use lateen_api::notice::Notice;
use lateen_api::object::Object;
use lateen_base::Str;
use lateen_translate::pod::{Pod, Words};
use lateen_translate::slice::Slice;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Events that may wait for the engine; a full channel slows the watches down.
const QUEUE: usize = 1024;

/// An object's namespace (empty for cluster-scoped objects) and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Id {
    pub(crate) namespace: Str,
    pub(crate) name: Str,
}

impl Id {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl Ord for Id {
    /// By namespace, then by name. Ids are compared more than anything else is done with them, mostly within one
    /// namespace, whose text they share.
    fn cmp(&self, other: &Self) -> Ordering {
        let namespaces = match Str::ptr_eq(&self.namespace, &other.namespace) {
            true => Ordering::Equal,
            false => self.namespace.cmp(&other.namespace),
        };
        namespaces.then_with(|| self.name.cmp(&other.name))
    }
}

impl PartialOrd for Id {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The Istio kinds that are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum IstioKind {
    Gateway,
    VirtualService,
    DestinationRule,
    ServiceEntry,
    Sidecar,
    WorkloadEntry,
    PeerAuthentication,
    RequestAuthentication,
    AuthorizationPolicy,
    RateLimitPolicy,
}

impl IstioKind {
    pub(crate) const ALL: [Self; 10] = [
        Self::Gateway,
        Self::VirtualService,
        Self::DestinationRule,
        Self::ServiceEntry,
        Self::Sidecar,
        Self::WorkloadEntry,
        Self::PeerAuthentication,
        Self::RequestAuthentication,
        Self::AuthorizationPolicy,
        Self::RateLimitPolicy,
    ];

    /// The kind as users write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gateway => "Gateway",
            Self::VirtualService => "VirtualService",
            Self::DestinationRule => "DestinationRule",
            Self::ServiceEntry => "ServiceEntry",
            Self::Sidecar => "Sidecar",
            Self::WorkloadEntry => "WorkloadEntry",
            Self::PeerAuthentication => "PeerAuthentication",
            Self::RequestAuthentication => "RequestAuthentication",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::RateLimitPolicy => "RateLimitPolicy",
        }
    }

    /// Whether the kind decides who may call whom: a broken object of such a kind must not open a door.
    pub(crate) fn is_security(self) -> bool {
        matches!(
            self,
            Self::PeerAuthentication | Self::RequestAuthentication | Self::AuthorizationPolicy
        )
    }

    fn group(self) -> &'static str {
        match self {
            Self::RateLimitPolicy => kinds::LATEEN,
            kind if kind.is_security() => "security.istio.io",
            _ => "networking.istio.io",
        }
    }

    /// How the API server names it.
    pub(crate) fn resource(self) -> ApiResource {
        let kind = kinds::of_group(self.group(), self.name())
            .expect("every watched kind is in the table of kinds");
        let version = GroupVersionKind::gvk(kind.group, kind.storage, kind.kind);
        ApiResource::from_gvk_with_plural(&version, kind.plural)
    }
}

/// An Istio object as its author wrote it: typed, or what is wrong with it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Written {
    /// Absent when the object cannot be decoded.
    pub(crate) object: Option<Object>,
    /// What decoding found.
    pub(crate) notices: Vec<Notice>,
    /// Whether a WorkloadEntry may get traffic, as its status says; `true` for other kinds.
    pub(crate) healthy: bool,
    /// What an object of a security kind says that cannot be decoded.
    pub(crate) broken: Option<Box<Broken>>,
}

/// An object that cannot be decoded: as much of it as may still be needed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Broken {
    pub(crate) meta: Meta,
    pub(crate) spec: serde_json::Value,
}

/// The bookkeeping of an Istio object, which means nothing to the mesh but is needed to write its status.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Books {
    /// `metadata.generation`.
    pub(crate) generation: i64,
    /// `metadata.uid`.
    pub(crate) uid: String,
    /// `status` as it is now.
    pub(crate) status: serde_json::Value,
}

/// A change of one source.
#[derive(Debug)]
pub(crate) enum Delta<T> {
    /// An object came or changed.
    Set(Id, T),
    /// An object went.
    Remove(Id),
    /// Everything that is there: after a (re)list.
    Replace(Vec<(Id, T)>),
}

/// A change of any source. The large ones are boxed.
#[derive(Debug)]
pub(crate) enum Event {
    Namespace(Delta<BTreeMap<String, String>>),
    Service(Box<Delta<Service>>),
    EndpointSlice(Delta<Slice>),
    Pod(Delta<Pod>),
    MeshConfig(Delta<String>),
    /// Where nodes are, as `region/zone/subzone`.
    Node(Delta<Str>),
    Istio(IstioKind, Box<Delta<(Written, Books)>>),
}

/// A change and when it was seen.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    pub(crate) event: Event,
}

/// How many sources there are: each reports [`Delta::Replace`] before the mesh is known.
pub(crate) const SOURCES: usize = 6 + IstioKind::ALL.len();

/// Starts every watch; they end with `shutdown`.
pub(crate) fn start(
    client: &Client,
    root_namespace: &str,
    mesh_config_map: &str,
    shutdown: &CancellationToken,
) -> mpsc::Receiver<Seen> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let out = follow::Out {
        sender,
        shutdown: shutdown.clone(),
    };
    let all = watcher::Config::default();
    let (mut of_slices, mut of_pods) = (Words::default(), Words::default());
    tokio::spawn(follow::follow(
        Api::<Namespace>::all(client.clone()),
        all.clone(),
        slim::namespace,
        Event::Namespace,
        out.clone(),
    ));
    tokio::spawn(follow::follow(
        Api::<Service>::all(client.clone()),
        all.clone(),
        slim::service,
        |delta| Event::Service(Box::new(delta)),
        out.clone(),
    ));
    tokio::spawn(follow::follow(
        Api::<EndpointSlice>::all(client.clone()),
        all.clone(),
        move |slice| slim::endpoint_slice(&slice, &mut of_slices),
        Event::EndpointSlice,
        out.clone(),
    ));
    tokio::spawn(follow::follow(
        Api::<lean::Pod>::all(client.clone()),
        all.clone(),
        move |pod: lean::Pod| slim::pod(&pod.0, &mut of_pods),
        Event::Pod,
        out.clone(),
    ));
    tokio::spawn(follow::follow(
        Api::<ConfigMap>::namespaced(client.clone(), root_namespace),
        all.clone()
            .fields(&format!("metadata.name={mesh_config_map}")),
        slim::mesh_config,
        Event::MeshConfig,
        out.clone(),
    ));
    tokio::spawn(follow::follow(
        Api::<Node>::all(client.clone()),
        all.clone(),
        slim::node,
        Event::Node,
        out.clone(),
    ));
    for kind in IstioKind::ALL {
        tokio::spawn(follow::follow(
            Api::<DynamicObject>::all_with(client.clone(), &kind.resource()),
            all.clone(),
            move |object| slim::istio(kind, object),
            move |delta| Event::Istio(kind, Box::new(delta)),
            out.clone(),
        ));
    }
    receiver
}
