//! Builds the graph. Each function makes one part; what it fetches is what it depends on.

mod routes;
mod security;

use super::made::Made;
use super::{ObjectId, Results, Sources};
use crate::credentials::needs::Ask;
use crate::source::{Id, IstioKind, Written};
use k8s_openapi::api::core::v1::Service;
use lateen_api::mesh_config::{self, MeshConfig};
use lateen_api::meta::Config;
use lateen_api::notice::{Notice, any_error};
use lateen_api::object::Object;
use lateen_api::service_entry::ServiceEntry;
use lateen_api::validate;
use lateen_base::Str;
use lateen_collections::{Collection, Fetch, Graph, Held, Index, Value};
use lateen_model::resource::Resource;
use lateen_model::workload::Health;
use lateen_translate::mesh::Mesh;
use lateen_translate::pod::Pod;
use lateen_translate::service_entry::Allocated;
use lateen_translate::slice::Slice;
use lateen_translate::workload::Backing;
use lateen_translate::{
    Translated, endpoint_slice, mesh, service, service_entry, workload, workload_entry,
};
use security::Means;
use std::sync::Arc;

/// What became of one object.
#[derive(Debug, PartialEq)]
struct Outcome {
    resources: Arc<[Made]>,
    notices: Vec<Notice>,
    /// What it means when it is refused and never had a good value. Empty for all but security policies.
    closed: Vec<Arc<Resource>>,
}

impl From<Translated> for Outcome {
    fn from((resources, notices): Translated) -> Self {
        Self {
            resources: resources.into_iter().map(Made::of).collect(),
            notices,
            closed: Vec::new(),
        }
    }
}

type Outcomes = Collection<ObjectId, Outcome>;
pub(super) type InForce = Collection<ObjectId, Arc<[Made]>>;
type Entries = Collection<Id, Config<ServiceEntry>>;

/// Makes every collection.
pub(super) fn build(graph: &mut Graph, domain: &str) -> (Sources, Results) {
    let sources = Sources {
        services: graph.source("services"),
        slices: graph.source("endpoint slices"),
        nodes: graph.source("nodes"),
        pods: graph.source("pods"),
        mesh_text: graph.source("mesh config text"),
        keys: graph.source("keys of token issuers"),
        credentials: graph.source("credentials found"),
        allocated: graph.source("allocated addresses"),
        together: graph.source("notices of several objects together"),
        istio: IstioKind::ALL.map(|kind| graph.source(kind.name())),
    };
    let (mesh, mesh_outcome) = mesh_of(graph, sources.mesh_text, domain);
    let entries = good_entries(graph, sources.istio(IstioKind::ServiceEntry));
    let mut outcomes = vec![
        mesh_outcome,
        services(graph, sources.services, mesh),
        pods(graph, &sources, entries, mesh),
        slices(graph, &sources, mesh),
        workload_entries(graph, &sources, entries, mesh),
        service_entries(graph, &sources, mesh),
    ];
    outcomes.push(routes::tables(graph, &sources, mesh));
    // What depends on other objects, or on its addresses, is translated above.
    let alone = IstioKind::ALL.into_iter().filter(|kind| {
        use IstioKind::{ServiceEntry, VirtualService, WorkloadEntry};
        !matches!(kind, WorkloadEntry | VirtualService | ServiceEntry)
    });
    outcomes.extend(alone.map(|kind| istio(graph, &sources, kind, mesh)));
    // Each is about objects of one kind.
    let outcomes = graph.union("outcomes", &outcomes);
    // An object that is broken now keeps what it meant when it was last in order.
    let in_force = graph.hold("in force", outcomes, |outcome| {
        match any_error(&outcome.notices) {
            true => Held::Keep,
            false => Held::Take(outcome.resources.clone()),
        }
    });
    let means = Means {
        in_force,
        keys: sources.keys,
    };
    let resources = graph.derive(
        "resources of objects",
        in_force,
        move |fetch, object, made| means.resources(fetch, object, made),
    );
    let closed = graph.derive(
        "resources of closed objects",
        outcomes,
        move |fetch, object, outcome| means.closed(fetch, object, outcome),
    );
    let credentials = security::credentials(graph, sources.credentials);
    let resources = graph.join("resources", &[resources, closed, credentials]);
    let refused = graph.map("refused", outcomes, |_, _, outcome| {
        any_error(&outcome.notices).then_some(())
    });
    let asks = security::asks(graph, in_force);
    let notices = notices(graph, &sources, (outcomes, means, asks));
    let results = Results {
        mesh,
        in_force,
        resources,
        notices,
        refused,
        wanted_keys: security::wanted_keys(graph, in_force),
        needs: security::needs(graph, sources.pods, asks),
    };
    (sources, results)
}

/// Everything that is to be said about objects.
fn notices(
    graph: &mut Graph,
    sources: &Sources,
    (outcomes, means, asks): (Outcomes, Means, Collection<ObjectId, Ask>),
) -> Collection<ObjectId, Vec<Notice>> {
    let some = |notices: Vec<Notice>| (!notices.is_empty()).then_some(notices);
    let own = graph.map("notices of objects", outcomes, move |_, _, outcome| {
        some(outcome.notices.clone())
    });
    let closed = graph.map(
        "notices of closed objects",
        outcomes,
        move |fetch, object, outcome| some(means.notices_of_closed(fetch, object, outcome)),
    );
    let keys = graph.map(
        "notices of keys",
        means.in_force,
        move |fetch, object, made| some(means.notices(fetch, object, made)),
    );
    let lacking = security::lacking(graph, sources.credentials, asks);
    graph.concat("notices", &[own, closed, keys, lacking, sources.together])
}

/// The mesh's settings: the last good MeshConfig, Istio's defaults without one.
fn mesh_of(
    graph: &mut Graph,
    text: Collection<Id, String>,
    domain: &str,
) -> (Collection<(), Mesh>, Outcomes) {
    let read = graph.single("mesh config", move |fetch| {
        let text = fetch.all(text).into_iter().next();
        Some(match text {
            Some((_, text)) => mesh_config::parse(text),
            None => (Some(MeshConfig::default()), Vec::new()),
        })
    });
    let good = graph.hold("good mesh config", read, |(config, _)| match config {
        Some(config) => Held::Take(config.clone()),
        None => Held::Keep,
    });
    let domain: Str = domain.into();
    let mesh = graph.single("mesh", move |fetch| {
        Some(Mesh {
            domain: Str::clone(&domain),
            config: fetch.get(good, &()).cloned().unwrap_or_default(),
        })
    });
    let outcome = graph.derive("mesh settings", mesh, move |fetch, (), mesh| {
        let (resources, mut notices) = mesh::settings(mesh);
        let read = fetch.get(read, &()).map(|(_, notices)| notices.clone());
        notices.extend(read.unwrap_or_default());
        let object = ObjectId {
            kind: "MeshConfig",
            id: Id::new("", "istio"),
        };
        vec![(object, Outcome::from((resources, notices)))]
    });
    (mesh, outcome)
}

/// The name of an object of `kind`.
fn named(kind: &'static str) -> impl Fn(&Id) -> ObjectId {
    move |id| ObjectId {
        kind,
        id: id.clone(),
    }
}

/// Translates every entry of `source`, as objects of `kind`.
fn translated<T: Value>(
    graph: &mut Graph,
    (name, kind): (&'static str, &'static str),
    source: Collection<Id, T>,
    mesh: Collection<(), Mesh>,
    translate: impl Fn(&mut Fetch<'_>, &T, &Mesh) -> Outcome + Send + 'static,
) -> Outcomes {
    graph.map_as(name, source, named(kind), move |fetch, _, value| {
        let mesh = fetch.get(mesh, &())?;
        Some(translate(fetch, value, mesh))
    })
}

/// Translates the objects of one Istio kind that depend on nothing but the mesh's settings.
fn istio(
    graph: &mut Graph,
    sources: &Sources,
    kind: IstioKind,
    mesh: Collection<(), Mesh>,
) -> Outcomes {
    let name = match kind {
        IstioKind::Gateway => "gateways meant",
        IstioKind::VirtualService => "route tables",
        IstioKind::DestinationRule => "traffic policies",
        IstioKind::ServiceEntry => "service entries",
        IstioKind::Sidecar => "sidecar scopes",
        IstioKind::WorkloadEntry => "workload entries meant",
        IstioKind::PeerAuthentication => "modes of mutual TLS",
        IstioKind::RequestAuthentication => "rules for tokens",
        IstioKind::AuthorizationPolicy => "authorization policies",
        IstioKind::RateLimitPolicy => "rate limits",
    };
    let source = sources.istio(kind);
    translated(
        graph,
        (name, kind.name()),
        source,
        mesh,
        move |_, written, mesh| {
            let translated = with_notices(written, |object| meaning(object, mesh));
            let mut outcome = Outcome::from(translated);
            if kind.is_security() && any_error(&outcome.notices) {
                outcome.closed = security::closed(kind, written, mesh);
            }
            outcome
        },
    )
}

/// What an object that stands alone means. WorkloadEntries, VirtualServices and ServiceEntries do not.
fn meaning(object: &Object, mesh: &Mesh) -> Translated {
    match object {
        Object::WorkloadEntry(_) | Object::VirtualService(_) | Object::ServiceEntry(_) => {
            Translated::default()
        }
        object => lateen_translate::alone(object, mesh),
    }
}

/// Translates what could be decoded; what decoding said comes first.
fn with_notices(written: &Written, translate: impl FnOnce(&Object) -> Translated) -> Translated {
    let mut notices = written.notices.clone();
    let Some(object) = &written.object else {
        return (Vec::new(), notices);
    };
    let (resources, more) = translate(object);
    // Decoding and translating may find the same.
    for notice in more {
        if !notices.contains(&notice) {
            notices.push(notice);
        }
    }
    (resources, notices)
}

fn services(
    graph: &mut Graph,
    source: Collection<Id, Service>,
    mesh: Collection<(), Mesh>,
) -> Outcomes {
    translated(
        graph,
        ("services meant", "Service"),
        source,
        mesh,
        |_, service, mesh| service::service(service::Inputs { service, mesh }).into(),
    )
}

/// ServiceEntries as last in order: workloads that they select must not drop out while one is broken.
fn good_entries(graph: &mut Graph, source: Collection<Id, Written>) -> Entries {
    graph.hold("good service entries", source, |written| {
        match &written.object {
            Some(Object::ServiceEntry(config)) if !any_error(&validate::service_entry(config)) => {
                Held::Take(config.clone())
            }
            _ => Held::Keep,
        }
    })
}

/// Namespace of an entry: the index that selectors are looked up by.
fn by_namespace<T: Value>(
    graph: &mut Graph,
    name: &'static str,
    of: Collection<Id, T>,
) -> Index<Str, Id, T> {
    graph.index(name, of, |id, _| vec![Str::clone(&id.namespace)])
}

fn selecting_entries(graph: &mut Graph, entries: Entries) -> Index<Str, Id, Config<ServiceEntry>> {
    graph.index("selecting entries by namespace", entries, |id, entry| {
        let selects = entry.spec.workload_selector.is_some();
        selects
            .then(|| Str::clone(&id.namespace))
            .into_iter()
            .collect()
    })
}

fn service_of(slice: &Slice) -> Option<Id> {
    Some(Id {
        namespace: Str::clone(&slice.namespace),
        name: Str::clone(slice.service.as_ref()?),
    })
}

fn pods(
    graph: &mut Graph,
    sources: &Sources,
    entries: Entries,
    mesh: Collection<(), Mesh>,
) -> Outcomes {
    let slices_by_pod = graph.index("slices by pod", sources.slices, |_, slice| {
        let pods = slice.pods.iter().map(|pod| Id {
            namespace: Str::clone(&pod.namespace),
            name: Str::clone(&pod.name),
        });
        pods.collect()
    });
    let selecting = selecting_entries(graph, entries);
    let services = sources.services;
    let nodes = sources.nodes;
    let transform = move |fetch: &mut Fetch<'_>, id: &Id, pod: &Pod| {
        let mesh = fetch.get(mesh, &())?;
        let slices = fetch.matching(slices_by_pod, id);
        let backings: Vec<Backing<'_>> = slices
            .into_iter()
            .filter_map(|(_, slice)| {
                let service = fetch.get(services, &service_of(slice)?)?;
                Some(Backing { service, slice })
            })
            .collect();
        let selecting = fetch.matching(selecting, &id.namespace);
        let selecting: Vec<&Config<ServiceEntry>> = selecting.into_iter().map(|(_, e)| e).collect();
        let node = (!pod.node.is_empty()).then(|| Id {
            namespace: "".into(),
            name: Str::clone(&pod.node),
        });
        let outcome = workload::pod(workload::Inputs {
            node_locality: node.and_then(|id| fetch.get(nodes, &id).cloned()),
            pod,
            backings: &backings,
            service_entries: &selecting,
            mesh,
        });
        Some(Outcome::from(outcome))
    };
    graph.map_as("workloads of pods", sources.pods, named("Pod"), transform)
}

/// Endpoints that are not pods.
fn slices(graph: &mut Graph, sources: &Sources, mesh: Collection<(), Mesh>) -> Outcomes {
    let services = sources.services;
    graph.map_as(
        "workloads of slices",
        sources.slices,
        named("EndpointSlice"),
        move |fetch, _, slice| {
            // Nearly all are of pods only.
            if slice.others.is_empty() {
                return None;
            }
            let service = fetch.get(services, &service_of(slice)?)?;
            let mesh = fetch.get(mesh, &())?;
            let backing = Backing { service, slice };
            let outcome = endpoint_slice::endpoint_slice(endpoint_slice::Inputs { backing, mesh });
            Some(Outcome::from(outcome))
        },
    )
}

fn service_entries(graph: &mut Graph, sources: &Sources, mesh: Collection<(), Mesh>) -> Outcomes {
    let kind = IstioKind::ServiceEntry;
    let allocated = sources.allocated;
    graph.map_as(
        "service entries meant",
        sources.istio(kind),
        named(kind.name()),
        move |fetch, id, written| {
            let mesh = fetch.get(mesh, &())?;
            let none = Allocated::new();
            let allocated = fetch.get(allocated, id).unwrap_or(&none);
            let outcome = with_notices(written, |object| {
                let Object::ServiceEntry(config) = object else {
                    return Translated::default();
                };
                service_entry::service_entry(service_entry::Inputs {
                    config,
                    allocated,
                    mesh,
                })
            });
            Some(Outcome::from(outcome))
        },
    )
}

fn workload_entries(
    graph: &mut Graph,
    sources: &Sources,
    entries: Entries,
    mesh: Collection<(), Mesh>,
) -> Outcomes {
    let selecting = selecting_entries(graph, entries);
    let services = by_namespace(graph, "services by namespace", sources.services);
    let kind = IstioKind::WorkloadEntry;
    let names = ("workload entries", kind.name());
    let source = sources.istio(kind);
    translated(graph, names, source, mesh, move |fetch, written, mesh| {
        Outcome::from(with_notices(written, |object| {
            let Object::WorkloadEntry(config) = object else {
                return Translated::default();
            };
            let namespace: Str = config.meta.namespace.as_str().into();
            let selecting = fetch.matching(selecting, &namespace);
            let service_entries: Vec<_> = selecting.into_iter().map(|(_, entry)| entry).collect();
            let services = fetch.matching(services, &namespace);
            let services: Vec<&Service> = services.into_iter().map(|(_, s)| s).collect();
            workload_entry::workload_entry(workload_entry::Inputs {
                config,
                service_entries: &service_entries,
                services: &services,
                health: match written.healthy {
                    true => Health::Ready,
                    false => Health::Unready,
                },
                mesh,
            })
        }))
    })
}
