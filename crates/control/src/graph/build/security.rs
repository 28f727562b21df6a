//! The part of the graph that is about security: broken policies, keys of token issuers, credentials of gateways.

use super::super::ObjectId;
use super::super::made::Made;
use super::{InForce, Outcome};
use crate::credentials::needs::{self, Ask};
use crate::credentials::{Found, Needs};
use crate::jwks::Keys;
use crate::source::{Id, IstioKind, Written};
use lateen_api::meta::Meta;
use lateen_api::notice::{Notice, Subject, any_error};
use lateen_api::object::Object;
use lateen_base::Str;
use lateen_collections::{Collection, Fetch, Graph};
use lateen_model::resource::{Key, Resource};
use lateen_translate::mesh::Mesh;
use lateen_translate::pod::Pod;
use lateen_translate::policy;
use lateen_translate::request_authentication::{self, Supply};
use lateen_xds::encoded::Encoded;
use serde_json::Value;
use std::collections::BTreeSet;
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
    /// The resources of an object that is in force.
    pub(super) fn resources(
        self,
        fetch: &mut Fetch<'_>,
        object: &ObjectId,
        made: &[Made],
    ) -> Vec<(Key, Arc<Encoded>)> {
        if !is_about_tokens(object) {
            return made.iter().map(|made| keyed(made.seal())).collect();
        }
        let open = made.iter().filter_map(Made::resource).collect();
        let (resources, _) = self.supplied(fetch, object, open);
        resources.iter().map(sealed).collect()
    }

    /// What is to be said of keys that such an object needs.
    pub(super) fn notices(
        self,
        fetch: &mut Fetch<'_>,
        object: &ObjectId,
        made: &[Made],
    ) -> Vec<Notice> {
        if !is_about_tokens(object) {
            return Vec::new();
        }
        let open = made.iter().filter_map(Made::resource).collect();
        self.supplied(fetch, object, open).1
    }

    /// The resources of an object that is refused and never had a good value.
    pub(super) fn closed(
        self,
        fetch: &mut Fetch<'_>,
        object: &ObjectId,
        outcome: &Outcome,
    ) -> Vec<(Key, Arc<Encoded>)> {
        let closed = self.is_closed(fetch, object, outcome);
        let (resources, _) = self.supplied(fetch, object, copies(closed));
        resources.iter().map(sealed).collect()
    }

    /// What is to be said of such an object.
    pub(super) fn notices_of_closed(
        self,
        fetch: &mut Fetch<'_>,
        object: &ObjectId,
        outcome: &Outcome,
    ) -> Vec<Notice> {
        let closed = self.is_closed(fetch, object, outcome);
        let told = said_of_closed(&subject(object), closed);
        let (_, of_keys) = self.supplied(fetch, object, copies(closed));
        told.into_iter().chain(of_keys).collect()
    }

    /// What the object means in its closed form; empty when that is not in force.
    fn is_closed<'o>(
        self,
        fetch: &mut Fetch<'_>,
        object: &ObjectId,
        outcome: &'o Outcome,
    ) -> &'o [Arc<Resource>] {
        let refused = !outcome.closed.is_empty() && any_error(&outcome.notices);
        match refused && fetch.get(self.in_force, object).is_none() {
            true => &outcome.closed,
            false => &[],
        }
    }

    /// Rules for tokens with the keys that were fetched for them, and what is to be said of those.
    fn supplied(
        self,
        fetch: &mut Fetch<'_>,
        object: &ObjectId,
        mut resources: Vec<Resource>,
    ) -> (Vec<Resource>, Vec<Notice>) {
        if resources.is_empty() || !is_about_tokens(object) {
            return (resources, Vec::new());
        }
        let find = |uri: &str| {
            let keys = fetch.get(self.keys, &Id::new("", uri))?;
            Some(Supply {
                set: keys.set.clone(),
                problem: keys.problem.clone(),
            })
        };
        let told = request_authentication::supply(&subject(object), &mut resources, find);
        (resources, told)
    }
}

fn is_about_tokens(object: &ObjectId) -> bool {
    object.kind == IstioKind::RequestAuthentication.name()
}

fn copies(resources: &[Arc<Resource>]) -> Vec<Resource> {
    resources.iter().map(|r| Resource::clone(r)).collect()
}

fn sealed(resource: &Resource) -> (Key, Arc<Encoded>) {
    keyed(Arc::new(Encoded::of(resource)))
}

fn keyed(encoded: Arc<Encoded>) -> (Key, Arc<Encoded>) {
    (encoded.key().clone(), encoded)
}

fn subject(object: &ObjectId) -> Subject {
    Subject {
        kind: object.kind.to_owned(),
        namespace: object.id.namespace.to_string(),
        name: object.id.name.to_string(),
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
        let resources = resources.iter().filter_map(Made::open);
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
) -> Collection<Key, Arc<Encoded>> {
    graph.derive("credentials", found, |_, _, found| {
        let resource = found.credential.clone().map(Resource::Credential);
        resource.iter().map(sealed).collect()
    })
}

/// Which credentials objects ask for.
pub(super) fn asks(graph: &mut Graph, in_force: InForce) -> Collection<ObjectId, Ask> {
    graph.map("credentials asked for", in_force, |_, _, resources| {
        resources.iter().filter_map(Made::open).find_map(needs::ask)
    })
}

/// Credentials that proxies need.
pub(super) fn needs(
    graph: &mut Graph,
    pods: Collection<Id, Pod>,
    asks: Collection<ObjectId, Ask>,
) -> Collection<(), Needs> {
    // From those who ask to pods: they are few, and without any nothing is kept of a pod.
    let gateways = graph.derive("pods of gateways", asks, move |fetch, _, ask| {
        let Some(meant) = ask.pods().filter(|_| ask.is_of_gateway()) else {
            return Vec::new();
        };
        let found = fetch.filter(pods, move |_, pod| meant(pod)).into_iter();
        found.map(|(id, _)| (id.clone(), ())).collect()
    });
    let of_objects = graph.map(
        "credentials needed by object",
        asks,
        move |fetch, _, ask| {
            ask.names().next()?;
            let found = match ask.pods() {
                Some(meant) => fetch.filter(pods, move |_, pod| meant(pod)),
                None => {
                    let ids = fetch.all(gateways).into_iter();
                    ids.filter_map(|(id, ())| Some((id, fetch.get(pods, id)?)))
                        .collect()
                }
            };
            Some(needs::of(ask, found.into_iter()))
        },
    );
    graph.single("credentials needed", move |fetch| {
        let all = fetch.all(of_objects).into_iter();
        Some(needs::all(all.map(|(_, needs)| needs)))
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
        let subject = subject(object);
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
