//! The two controllers that belong to the server: garbage collection by owner references, and the emptying of
//! deleted namespaces and definitions.

use crate::api::{Api, Call};
use crate::crd;
use crate::kinds::Kind;
use crate::meta;
use crate::store::Resource;
use crate::verbs::delete::{self, FOREGROUND, ORPHAN, Options};
use crate::verbs::write::{self, Ownership, Part};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// A pass happens on every removal and mark; this is only for what no event tells.
const IDLE: Duration = Duration::from_secs(60);

/// Runs until the server stops.
pub async fn run(api: Arc<Api>) {
    let mut stopping = api.stopping.subscribe();
    loop {
        pass(&api).await;
        forget_old_events(&api).await;
        tokio::select! {
            () = api.collect.notified() => {}
            () = tokio::time::sleep(IDLE) => {}
            _ = stopping.changed() => return,
        }
    }
}

struct View {
    kinds: HashMap<Resource, Arc<Kind>>,
    objects: Vec<(Resource, Arc<Value>)>,
}

impl View {
    fn of(api: &Api) -> Self {
        let kinds = api
            .registry
            .resources()
            .into_iter()
            .map(|kind| (kind.resource.clone(), kind))
            .collect();
        Self {
            kinds,
            objects: api.store.everything(),
        }
    }

    fn each(&self) -> impl Iterator<Item = (&Arc<Kind>, &Arc<Value>)> {
        self.objects
            .iter()
            .filter_map(|(resource, object)| Some((self.kinds.get(resource)?, object)))
    }
}

async fn pass(api: &Api) {
    let view = View::of(api);
    let uids: HashSet<&str> = view
        .objects
        .iter()
        .map(|(_, object)| meta::text(object, "uid"))
        .collect();
    let orphaning = with_finalizer(&view, ORPHAN);
    let foreground = with_finalizer(&view, FOREGROUND);
    let mut blocking: HashSet<&str> = HashSet::new();
    for (kind, object) in view.each() {
        let owners = owners(object);
        if owners.is_empty() {
            continue;
        }
        let uid_of = |owner: &Value| owner["uid"].as_str().unwrap_or_default().to_owned();
        let gone = owners
            .iter()
            .filter(|owner| !uids.contains(uid_of(owner).as_str()))
            .count();
        let forgetting = owners
            .iter()
            .any(|owner| orphaning.contains(uid_of(owner).as_str()));
        let doomed = owners
            .iter()
            .any(|owner| foreground.contains(uid_of(owner).as_str()));
        if doomed {
            let blocks = owners
                .iter()
                .filter(|owner| owner["blockOwnerDeletion"] == true);
            blocking.extend(blocks.filter_map(|owner| owner["uid"].as_str()));
        }
        let all_going = owners.iter().all(|owner| {
            let uid = uid_of(owner);
            !uids.contains(uid.as_str()) || foreground.contains(uid.as_str())
        });
        if forgetting || gone > 0 && gone < owners.len() && !all_going {
            let keep = |owner: &Value| {
                uids.contains(uid_of(owner).as_str()) && !orphaning.contains(uid_of(owner).as_str())
            };
            forget_owners(api, kind, object, keep).await;
        } else if all_going && !meta::is_deleting(object) {
            remove(api, kind, object).await;
        }
    }
    // Their dependents have forgotten them in this pass.
    for (kind, object) in view.each() {
        let uid = meta::text(object, "uid");
        if orphaning.contains(uid) {
            release(api, kind, object, ORPHAN).await;
        } else if foreground.contains(uid) && !blocking.contains(uid) {
            release(api, kind, object, FOREGROUND).await;
        }
    }
    for (kind, object) in view.each().filter(|(_, object)| meta::is_deleting(object)) {
        if kind.is("", "namespaces") {
            empty_namespace(api, &view, kind, object).await;
        } else if kind.is("apiextensions.k8s.io", "customresourcedefinitions") {
            empty_definition(api, &view, kind, object).await;
        }
    }
}

/// Kubernetes keeps Events for an hour.
const EVENT_LIFE: SignedDuration = SignedDuration::from_hours(1);

async fn forget_old_events(api: &Api) {
    let Some(kind) = api.registry.find("", "v1", "events") else {
        return;
    };
    let too_old = Timestamp::now() - EVENT_LIFE;
    for event in api.store.all(&kind.resource, None).0 {
        let last = event["series"]["lastObservedTime"]
            .as_str()
            .or(event["lastTimestamp"].as_str());
        let last = last
            .unwrap_or(meta::text(&event, "creationTimestamp"))
            .parse::<Timestamp>();
        if last.is_ok_and(|last| last < too_old) {
            remove(api, &kind, &event).await;
        }
    }
}

fn owners(object: &Value) -> &[Value] {
    object["metadata"]["ownerReferences"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
}

fn with_finalizer<'a>(view: &'a View, finalizer: &str) -> HashSet<&'a str> {
    let holds = |object: &Value| {
        let list = object["metadata"]["finalizers"]
            .as_array()
            .into_iter()
            .flatten();
        meta::is_deleting(object) && list.into_iter().any(|entry| entry == finalizer)
    };
    view.objects
        .iter()
        .filter(|(_, object)| holds(object))
        .map(|(_, object)| meta::text(object, "uid"))
        .collect()
}

fn call(kind: &Arc<Kind>, object: &Value) -> Call {
    let namespace = Some(meta::text(object, "namespace")).filter(|text| !text.is_empty());
    Call::internal(kind, namespace, Some(meta::text(object, "name")))
}

async fn remove(api: &Api, kind: &Arc<Kind>, object: &Value) {
    // The uid guards against an object made anew under the same name.
    let options = Options {
        uid: Some(meta::text(object, "uid").to_owned()),
        ..Options::default()
    };
    if let Err(error) = delete::delete(api, &call(kind, object), &options).await
        && !matches!(error.code, 404 | 409)
    {
        tracing::warn!(%error, kind = kind.kind, name = meta::text(object, "name"), "garbage collection failed; tried again later");
    }
}

async fn forget_owners(
    api: &Api,
    kind: &Arc<Kind>,
    object: &Value,
    keep: impl Fn(&Value) -> bool + Sync,
) {
    change(api, kind, object, |next| {
        if let Some(list) = next["metadata"]["ownerReferences"].as_array_mut() {
            list.retain(&keep);
        }
        if owners(next).is_empty() {
            drop(
                next["metadata"]
                    .as_object_mut()
                    .map(|map| map.remove("ownerReferences")),
            );
        }
    })
    .await;
}

async fn release(api: &Api, kind: &Arc<Kind>, object: &Value, finalizer: &str) {
    change(api, kind, object, |next| {
        if let Some(list) = next["metadata"]["finalizers"].as_array_mut() {
            list.retain(|entry| entry != finalizer);
        }
    })
    .await;
}

async fn change(api: &Api, kind: &Arc<Kind>, object: &Value, edit: impl Fn(&mut Value) + Sync) {
    let uid = meta::text(object, "uid").to_owned();
    let call = call(kind, object);
    let changed = write::modify(api, &call, Part::Whole, |old| {
        let mut next = (**old).clone();
        if meta::text(old, "uid") == uid {
            edit(&mut next);
        }
        Ok((next, Ownership::Changes))
    });
    if let Err(error) = changed.await
        && error.code != 404
    {
        tracing::warn!(%error, kind = kind.kind, name = meta::text(object, "name"), "garbage collection failed; tried again later");
    }
}

async fn empty_namespace(api: &Api, view: &View, kind: &Arc<Kind>, namespace: &Arc<Value>) {
    let name = meta::text(namespace, "name");
    let mut left = false;
    for (kind, object) in view
        .each()
        .filter(|(_, object)| meta::text(object, "namespace") == name)
    {
        left = true;
        if !meta::is_deleting(object) {
            remove(api, kind, object).await;
        }
    }
    // What was removed at once is gone now; another pass follows each removal.
    if left {
        return;
    }
    change(api, kind, namespace, |next| next["spec"] = json!({})).await;
}

async fn empty_definition(api: &Api, view: &View, kind: &Arc<Kind>, definition: &Arc<Value>) {
    let spec = &definition["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let resource = Resource::new(&text(&spec["group"]), &text(&spec["names"]["plural"]));
    let mut left = false;
    for (kind, object) in view.each().filter(|(kind, _)| kind.resource == resource) {
        left = true;
        if !meta::is_deleting(object) {
            remove(api, kind, object).await;
        }
    }
    if !left {
        release(api, kind, definition, crd::CLEANUP).await;
    }
}
