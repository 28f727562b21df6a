//! The part of the graph that is about security: broken policies, keys of token issuers, credentials of gateways.

use super::super::ObjectId;
use super::{InForce, Outcome};
use crate::credentials::needs::{self, Ask};
use crate::credentials::{Found, Needs};
use crate::jwks::Keys;
use crate::source::{Id, IstioKind, Written};
use k8s_openapi::api::core::v1::Pod;
use lateen_api::meta::Meta;
use lateen_api::notice::{Notice, Subject, any_error};
use lateen_api::object::Object;
use lateen_base::Str;
use lateen_collections::{Collection, Fetch, Graph};
use lateen_model::resource::{Key, Resource};
use lateen_translate::mesh::Mesh;
use lateen_translate::policy;
use lateen_translate::request_authentication::{self, Supply};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a refused object of a security kind means as long as it never had a good value.
pub(super) fn closed(kind: IstioKind, written: &Written, mesh: &Mesh) -> Vec<Arc<Resource>> {
    let resources = match (&written.object, &written.broken) {
        (Some(object), _) => policy::closed(kind.name(), object.meta(), &spec(object), mesh),
        (None, Some(broken)) => policy::closed(kind.name(), &broken.meta, &broken.spec, mesh),
        (None, None) => policy::closed(kind.name(), &Meta::default(), &Value::Null, mesh),
    };
    resources.into_iter().map(Arc::new).collect()
}

/// The spec as it was written, but for its spelling.
fn spec(object: &Object) -> Value {
    let spec = match object {
        Object::PeerAuthentication(config) => serde_json::to_value(&config.spec),
        Object::RequestAuthentication(config) => serde_json::to_value(&config.spec),
        Object::AuthorizationPolicy(config) => serde_json::to_value(&config.spec),
        _ => Ok(Value::Null),
    };
    spec.unwrap_or_default()
}

/// How it is found out what an object means now.
#[derive(Clone, Copy)]
pub(super) struct Means {
    pub(super) in_force: InForce,
    pub(super) keys: Collection<Id, Keys>,
}

impl Means {
    /// The resources of an object, and what is to be said beside what its translation says.
    pub(super) fn of(
        self,
        fetch: &mut Fetch<'_>,
        object: &ObjectId,
        outcome: &Outcome,
    ) -> (Vec<Arc<Resource>>, Vec<Notice>) {
        let subject = Subject {
            kind: object.kind.to_owned(),
            namespace: object.id.namespace.to_string(),
            name: object.id.name.to_string(),
        };
        let mut notices = Vec::new();
        let held = fetch.get(self.in_force, object).cloned();
        if held.is_none() && any_error(&outcome.notices) {
            notices.extend(said_of_closed(&subject, &outcome.closed));
        }
        let resources = held.unwrap_or_else(|| outcome.closed.clone());
        if object.kind != IstioKind::RequestAuthentication.name() {
            return (resources, notices);
        }
        let mut resources: Vec<Resource> = resources.iter().map(|r| Resource::clone(r)).collect();
        let find = |uri: &str| {
            let keys = fetch.get(self.keys, &Id::new("", uri))?;
            Some(Supply {
                set: keys.set.clone(),
                problem: keys.problem.clone(),
            })
        };
        notices.extend(request_authentication::supply(
            &subject,
            &mut resources,
            find,
        ));
        (resources.into_iter().map(Arc::new).collect(), notices)
    }
}

/// What users are told when a broken policy is in force in its closed form.
fn said_of_closed(subject: &Subject, closed: &[Arc<Resource>]) -> Option<Notice> {
    let message = match closed.first().map(|resource| &**resource)? {
        Resource::AuthorizationPolicy(policy) if policy.rules.is_empty() => {
            "until it is corrected it counts as an ALLOW policy that allows nothing"
        }
        Resource::AuthorizationPolicy(_) => {
            "until it is corrected it denies everything that it selects"
        }
        Resource::RequestAuthentication(_) => {
            "until it is corrected every token of its issuers is refused"
        }
        _ => "until it is corrected it counts as STRICT",
    };
    Some(Notice::warning(subject, "", message))
}

/// Addresses that keys are to be fetched from.
pub(super) fn wanted_keys(graph: &mut Graph, in_force: InForce) -> Collection<(), BTreeSet<Str>> {
    let of_objects = graph.map("keys wanted by object", in_force, |_, object, resources| {
        if object.kind != IstioKind::RequestAuthentication.name() {
            return None;
        }
        let resources = resources.iter().map(|resource| &**resource);
        let uris: BTreeSet<Str> = request_authentication::wanted(resources).cloned().collect();
        (!uris.is_empty()).then_some(uris)
    });
    graph.single("keys wanted", move |fetch| {
        let all = fetch.all(of_objects).into_iter();
        Some(all.flat_map(|(_, uris)| uris.iter().cloned()).collect())
    })
}

/// Certificates as resources.
pub(super) fn credentials(
    graph: &mut Graph,
    found: Collection<Id, Found>,
) -> Collection<Key, Arc<Resource>> {
    graph.derive("credentials", found, |_, _, found| {
        let resource = found.credential.clone().map(Resource::Credential);
        let keyed = resource.map(|r| (r.key(), Arc::new(r)));
        keyed.into_iter().collect()
    })
}

/// Which credentials objects ask for.
pub(super) fn asks(graph: &mut Graph, in_force: InForce) -> Collection<ObjectId, Ask> {
    graph.map("credentials asked for", in_force, |_, _, resources| {
        resources.iter().find_map(|resource| needs::ask(resource))
    })
}

/// Credentials that proxies need.
pub(super) fn needs(
    graph: &mut Graph,
    pods: Collection<Id, Pod>,
    asks: Collection<ObjectId, Ask>,
) -> Collection<(), Needs> {
    let of_pods = graph.map("credentials needed by pod", pods, move |fetch, _, pod| {
        let asks: Vec<&Ask> = fetch.all(asks).into_iter().map(|(_, ask)| ask).collect();
        let (names, account) = needs::of_pod(pod, asks.into_iter());
        (!names.is_empty()).then_some((names, account))
    });
    graph.single("credentials needed", move |fetch| {
        Some(needs::all(fetch.all(of_pods).into_iter()))
    })
}

/// What is wrong with credentials, by the object that asks for them.
pub(super) fn lacking(
    graph: &mut Graph,
    found: Collection<Id, Found>,
    asks: Collection<ObjectId, Ask>,
) -> Collection<ObjectId, Vec<Notice>> {
    let problems = graph.map("credentials with problems", found, |_, _, found| {
        found.problem.clone()
    });
    let by_name = graph.index("problems by credential", problems, |id, _| {
        vec![Str::clone(&id.name)]
    });
    graph.map("credentials lacking", asks, move |fetch, object, ask| {
        let subject = Subject {
            kind: object.kind.to_owned(),
            namespace: object.id.namespace.to_string(),
            name: object.id.name.to_string(),
        };
        let field = match object.kind {
            "Gateway" => "spec.servers",
            _ => "spec.trafficPolicy",
        };
        let mut notices = Vec::new();
        for name in ask.names() {
            for (_, problem) in fetch.matching(by_name, name) {
                notices.push(Notice::warning(&subject, field, &**problem));
            }
        }
        (!notices.is_empty()).then_some(notices)
    })
}

/// Sets of labels that workloads carry, by namespace: it changes with deployments, not with every pod.
pub(super) fn labels(
    graph: &mut Graph,
    in_force: InForce,
) -> Collection<(Str, BTreeMap<Str, Str>), ()> {
    graph.derive("labels of workloads", in_force, |_, _, resources| {
        let workloads = resources.iter().filter_map(|resource| match &**resource {
            Resource::Workload(w) => Some((Str::clone(&w.namespace), w.labels.clone())),
            _ => None,
        });
        let mut sets: Vec<_> = workloads.map(|set| (set, ())).collect();
        sets.sort();
        sets.dedup();
        sets
    })
}
