//! From sources to resources: which collections there are and what is derived from what.
//!
//! ```text
//! namespaces, services, slices, pods, MeshConfig, Istio kinds
//!   --translate--> outcomes (resources, notices) --hold--> last good --encode--> resources by key
//!                  outcomes + what objects mean together (question, answer) --> notices by object
//! ```
//! Nothing here waits or does IO. What depends on what is found out by `collections`, never listed.

mod build;
mod made;
#[cfg(test)]
mod tests;
mod together;

use crate::credentials::{self, Needs};
use crate::jwks::Keys;
use crate::pages::Counts;
use crate::source::{Delta, Id, IstioKind, Written};
use k8s_openapi::api::core::v1::Service;
use lateen_api::mesh_config::MeshConfig;
use lateen_api::notice::Notice;
use lateen_base::Str;
use lateen_collections::{Change, Collection, Graph, NodeStats, Value};
use lateen_model::resource::{Key, Kind, Resource};
use lateen_translate::mesh::Mesh;
use lateen_translate::pod::Pod;
use lateen_translate::service_entry::Allocated;
use lateen_translate::slice::Slice;
use lateen_xds::encoded::Encoded;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) use together::{Found, Question};

/// An object of the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObjectId {
    /// Kind, such as `VirtualService`; `MeshConfig` for the mesh's settings.
    pub(crate) kind: &'static str,
    /// Namespace and name.
    pub(crate) id: Id,
}

impl ObjectId {
    pub(crate) fn istio(kind: IstioKind, id: Id) -> Self {
        Self {
            kind: kind.name(),
            id,
        }
    }

    /// The Istio kind, when it is one.
    pub(crate) fn istio_kind(&self) -> Option<IstioKind> {
        IstioKind::ALL
            .into_iter()
            .find(|kind| kind.name() == self.kind)
    }
}

impl Ord for ObjectId {
    /// By kind, then by id. Texts of kinds are the program's own: most often it is the very same.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let kinds = match std::ptr::eq(self.kind, other.kind) {
            true => std::cmp::Ordering::Equal,
            false => self.kind.cmp(other.kind),
        };
        kinds.then_with(|| self.id.cmp(&other.id))
    }
}

impl PartialOrd for ObjectId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.id)
    }
}

/// Where changes enter.
#[derive(Clone, Copy)]
pub(crate) struct Sources {
    pub(crate) services: Collection<Id, Service>,
    pub(crate) slices: Collection<Id, Slice>,
    /// Where nodes are, as `region/zone/subzone`.
    pub(crate) nodes: Collection<Id, Str>,
    pub(crate) pods: Collection<Id, Pod>,
    pub(crate) mesh_text: Collection<Id, String>,
    /// Keys of token issuers; the address is the name.
    pub(crate) keys: Collection<Id, Keys>,
    /// What became of the credentials that are needed.
    pub(crate) credentials: Collection<Id, credentials::Found>,
    /// Addresses that were allocated to ServiceEntries.
    pub(crate) allocated: Collection<Id, Allocated>,
    /// What several objects mean together, found elsewhere.
    together: Collection<ObjectId, Vec<Notice>>,
    istio: [Collection<Id, Written>; IstioKind::ALL.len()],
}

impl Sources {
    /// The source of one Istio kind.
    pub(crate) fn istio(&self, kind: IstioKind) -> Collection<Id, Written> {
        self.istio[kind as usize]
    }
}

/// What comes out.
struct Results {
    mesh: Collection<(), Mesh>,
    in_force: build::InForce,
    resources: Collection<Key, Arc<Encoded>>,
    notices: Collection<ObjectId, Vec<Notice>>,
    /// Objects that are not in force as written.
    refused: Collection<ObjectId, ()>,
    /// Addresses that keys are fetched from.
    wanted_keys: Collection<(), BTreeSet<Str>>,
    /// Credentials that proxies need.
    needs: Collection<(), Needs>,
}

/// What one commit changed.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) changed: Vec<Arc<Encoded>>,
    pub(crate) removed: Vec<Key>,
    pub(crate) noticed: Vec<Change<ObjectId, Vec<Notice>>>,
}

/// The graph of the mesh.
pub(crate) struct MeshGraph {
    graph: Graph,
    pub(crate) sources: Sources,
    results: Results,
    /// Filled by observers during a commit.
    changes: Arc<Mutex<Changes>>,
    /// Resources by kind.
    counts: Arc<Mutex<BTreeMap<Kind, usize>>>,
    /// Whether something changed since what objects mean together was looked at.
    is_stale: Arc<AtomicBool>,
}

impl MeshGraph {
    /// An empty mesh in cluster domain `domain`.
    pub(crate) fn new(domain: &str) -> Self {
        let mut graph = Graph::new();
        let (sources, results) = build::build(&mut graph, domain);
        let changes: Arc<Mutex<Changes>> = Arc::default();
        let counts: Arc<Mutex<BTreeMap<Kind, usize>>> = Arc::default();
        let (out, count) = (Arc::clone(&changes), Arc::clone(&counts));
        graph.observe(results.resources, move |batch| {
            let (mut out, mut count) = (out.lock(), count.lock());
            for change in batch {
                let count = count.entry(change.key.kind).or_default();
                match &change.new {
                    Some(new) => out.changed.push(Arc::clone(new)),
                    None => out.removed.push(change.key.clone()),
                }
                *count += usize::from(change.new.is_some());
                *count -= usize::from(change.old.is_some());
            }
        });
        let out = Arc::clone(&changes);
        graph.observe(results.notices, move |batch| {
            let batch = batch.iter().map(|change| Change {
                key: change.key.clone(),
                old: change.old.clone(),
                new: change.new.clone(),
            });
            out.lock().noticed.extend(batch);
        });
        let is_stale = Arc::default();
        watch_for_staleness(&mut graph, &sources, &results, &is_stale);
        Self {
            graph,
            sources,
            results,
            changes,
            counts,
            is_stale,
        }
    }

    /// Takes a change of a source; whether it was its whole content.
    pub(crate) fn take<T: Value>(&mut self, source: Collection<Id, T>, delta: Delta<T>) -> bool {
        match delta {
            Delta::Set(id, value) => self.graph.set(source, id, value),
            Delta::Remove(id) => self.graph.remove(source, id),
            Delta::Replace(rows) => {
                self.graph.replace(source, rows);
                return true;
            }
        }
        false
    }

    /// Derives everything that is concerned and tells what changed.
    pub(crate) fn commit(&mut self) -> Changes {
        self.graph.commit();
        std::mem::take(&mut *self.changes.lock())
    }

    /// Notices about one object.
    pub(crate) fn notices_of(&self, object: &ObjectId) -> &[Notice] {
        let notices = self.graph.find(self.results.notices, object);
        notices
            .map(|notices| notices.as_slice())
            .unwrap_or_default()
    }

    /// Objects with notices.
    pub(crate) fn noticed(&self) -> impl Iterator<Item = (&ObjectId, &Arc<Vec<Notice>>)> {
        self.graph.entries(self.results.notices)
    }

    /// Whether the object as written is not in force.
    pub(crate) fn is_refused(&self, object: &ObjectId) -> bool {
        let refused = self.graph.find(self.results.refused, object);
        refused.is_some()
    }

    /// Whether a value of the object, perhaps an older one, is in force.
    pub(crate) fn is_in_force(&self, object: &ObjectId) -> bool {
        let held = self.graph.find(self.results.in_force, object);
        held.is_some_and(|resources| !resources.is_empty())
    }

    /// The resources of one kind, decoded from what is sent.
    pub(crate) fn resources(&self, kind: Kind) -> impl Iterator<Item = Resource> {
        let all = self.graph.entries(self.results.resources);
        all.filter(move |(key, _)| key.kind == kind)
            .filter_map(|(_, encoded)| encoded.decode())
    }

    /// Whether what objects mean together may differ from what was found; from now on it counts as looked at.
    pub(crate) fn take_stale(&self) -> bool {
        self.is_stale.swap(false, Ordering::Relaxed)
    }

    /// Addresses that keys are to be fetched from.
    pub(crate) fn wanted_keys(&self) -> Arc<BTreeSet<Str>> {
        let wanted = self.graph.find(self.results.wanted_keys, &());
        wanted.cloned().unwrap_or_default()
    }

    /// Credentials that proxies need.
    pub(crate) fn needs(&self) -> Arc<Needs> {
        let needs = self.graph.find(self.results.needs, &());
        needs.cloned().unwrap_or_default()
    }

    /// MeshConfig in force.
    pub(crate) fn mesh_config(&self) -> Option<&MeshConfig> {
        self.graph
            .find(self.results.mesh, &())
            .map(|mesh| &mesh.config)
    }

    /// Sizes for metrics.
    pub(crate) fn counts(&self) -> Counts {
        let counts = self.counts.lock();
        let of = |kind| counts.get(&kind).copied().unwrap_or_default();
        Counts {
            services: of(Kind::Service),
            virtual_services: of(Kind::RouteTable),
        }
    }

    /// Figures about every collection.
    pub(crate) fn stats(&self) -> Vec<NodeStats> {
        self.graph.stats()
    }
}

/// Has `is_stale` set when something changes that [`MeshGraph::question`] looks at.
fn watch_for_staleness(
    graph: &mut Graph,
    sources: &Sources,
    results: &Results,
    is_stale: &Arc<AtomicBool>,
) {
    fn any<K: lateen_collections::Key, V: Value>(
        graph: &mut Graph,
        of: Collection<K, V>,
        is_stale: &Arc<AtomicBool>,
    ) {
        let is_stale = Arc::clone(is_stale);
        graph.observe(of, move |_| is_stale.store(true, Ordering::Relaxed));
    }
    any(graph, sources.services, is_stale);
    any(graph, results.mesh, is_stale);
    any(graph, results.refused, is_stale);
    for kind in IstioKind::ALL {
        any(graph, sources.istio(kind), is_stale);
    }
    let of_pods = Arc::clone(is_stale);
    graph.observe(sources.pods, move |batch| {
        // Labels change with deployments, the rest with every restart.
        let labels = |pod: &Option<Arc<Pod>>| {
            let alive = pod.as_ref().filter(|pod| pod.is_alive());
            alive.map(|pod| Arc::clone(&pod.labels))
        };
        if batch.iter().any(|c| labels(&c.old) != labels(&c.new)) {
            of_pods.store(true, Ordering::Relaxed);
        }
    });
}
