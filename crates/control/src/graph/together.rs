//! What several objects mean together, by the object that a notice is about.
//!
//! It looks at the whole mesh and changes nothing that proxies are sent, so it is done beside the graph: its inputs are
//! taken from there by reference, looked at on another thread, and what is found comes back as a source.

use super::made::Made;
use super::{MeshGraph, ObjectId};
use crate::source::{Id, IstioKind, Written};
use k8s_openapi::api::core::v1::Service;
use lateen_api::notice::Notice;
use lateen_base::Str;
use lateen_model::resource::Resource;
use lateen_translate::mesh::Mesh;
use lateen_translate::pod::Labels;
use lateen_translate::review;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Notices by object.
pub(crate) type Found = BTreeMap<ObjectId, Vec<Notice>>;

/// Kinds whose objects select workloads: without any, nobody asks which there are.
const SELECTING: [IstioKind; 6] = [
    IstioKind::Gateway,
    IstioKind::Sidecar,
    IstioKind::PeerAuthentication,
    IstioKind::RequestAuthentication,
    IstioKind::AuthorizationPolicy,
    IstioKind::RateLimitPolicy,
];

/// Everything that is looked at, as it was at one commit.
pub(crate) struct Question {
    mesh: Arc<Mesh>,
    services: Vec<Arc<Service>>,
    /// Objects that are in force as written.
    written: BTreeMap<IstioKind, Vec<Arc<Written>>>,
    /// Namespaces and labels of workloads.
    labels: Vec<(Str, Labels)>,
    /// Workloads that are no pods.
    others: Vec<Arc<[Made]>>,
}

impl MeshGraph {
    /// What is to be looked at together; none before there are settings of the mesh.
    pub(crate) fn question(&self) -> Option<Question> {
        let graph = &self.graph;
        let mesh = Arc::clone(graph.find(self.results.mesh, &())?);
        let mut written: BTreeMap<IstioKind, Vec<Arc<Written>>> = BTreeMap::new();
        for kind in IstioKind::ALL {
            let all = graph.entries(self.sources.istio(kind));
            let good = all.filter(|(id, _)| {
                let object = ObjectId::istio(kind, Id::clone(id));
                !self.is_refused(&object)
            });
            written.insert(kind, good.map(|(_, written)| Arc::clone(written)).collect());
        }
        let selects = SELECTING.iter().any(|kind| !written[kind].is_empty());
        let services = graph.entries(self.sources.services);
        Some(Question {
            mesh,
            services: services.map(|(_, service)| Arc::clone(service)).collect(),
            written,
            labels: if selects { self.labels() } else { Vec::new() },
            others: if selects { self.others() } else { Vec::new() },
        })
    }

    /// Namespaces and labels of pods, and of endpoints without a pod, which have none.
    fn labels(&self) -> Vec<(Str, Labels)> {
        let pods = self.graph.entries(self.sources.pods);
        let alive = pods.filter(|(_, pod)| pod.is_alive());
        let pods = alive.map(|(_, pod)| (Str::clone(&pod.namespace), Arc::clone(&pod.labels)));
        let slices = self.graph.entries(self.sources.slices);
        let alone = slices.filter(|(_, slice)| !slice.others.is_empty());
        let none = Labels::default();
        let alone = alone.map(|(id, _)| (Str::clone(&id.namespace), Arc::clone(&none)));
        pods.chain(alone).collect()
    }

    fn others(&self) -> Vec<Arc<[Made]>> {
        let kinds = [IstioKind::ServiceEntry, IstioKind::WorkloadEntry];
        let objects = kinds.into_iter().flat_map(|kind| {
            let all = self.graph.entries(self.sources.istio(kind));
            all.map(move |(id, _)| ObjectId::istio(kind, id.clone()))
        });
        let held = objects.filter_map(|object| self.graph.find(self.results.in_force, &object));
        held.map(|made| Arc::clone(&**made)).collect()
    }

    /// Takes what was found; it counts from the next commit.
    pub(crate) fn take_found(&mut self, found: Found) {
        self.graph.replace(self.sources.together, found);
    }
}

impl Question {
    /// Looks at everything. It may take a while.
    pub(crate) fn answer(&self) -> Found {
        let made = self.others.iter().flat_map(|made| made.iter());
        let others: Vec<_> = made.filter_map(Made::resource).collect();
        let of_others = others.iter().filter_map(|resource| match resource {
            Resource::Workload(workload) => Some((&*workload.namespace, &workload.labels)),
            _ => None,
        });
        let labels = self.labels.iter();
        let labels = labels.map(|(namespace, labels)| (&**namespace, &**labels));
        let labels: BTreeSet<_> = labels.chain(of_others).collect();
        let written = self.written.values().flatten();
        let objects: Vec<_> = written.filter_map(|w| w.object.as_ref()).collect();
        let notices = review::together(&review::Inputs {
            mesh: &self.mesh,
            objects: &objects,
            services: &self.services.iter().map(|s| &**s).collect::<Vec<_>>(),
            workloads: Some(&labels.into_iter().collect::<Vec<_>>()),
        });
        let mut found = Found::new();
        for notice in notices {
            if let Some(object) = object_of(&notice) {
                found.entry(object).or_default().push(notice);
            }
        }
        found
    }
}

/// The object that a notice is about.
fn object_of(notice: &Notice) -> Option<ObjectId> {
    let subject = &notice.subject;
    let kinds = IstioKind::ALL.into_iter().map(IstioKind::name);
    let kind = kinds
        .chain(["Service"])
        .find(|kind| *kind == subject.kind)?;
    Some(ObjectId {
        kind,
        id: Id::new(&subject.namespace, &subject.name),
    })
}
