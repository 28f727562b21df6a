//! delete and deletecollection: grace periods, finalizers, and how dependents are treated.

use crate::admission::Operation;
use crate::api::{Api, Call};
use crate::error::ApiError;
use crate::kinds::Kind;
use crate::meta;
use crate::select::Selection;
use crate::store::{Expect, Refused, revision_of};
use crate::{admit, crd};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::sync::Arc;

/// Finalizer that holds an owner until its dependents are gone.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer that holds an owner until its dependents have forgotten it.
pub const ORPHAN: &str = "orphan";

/// `meta/v1 DeleteOptions`, from body or query.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Seconds; absent: the kind's own.
    pub grace: Option<i64>,
    /// `Background`, `Foreground` or `Orphan`; absent: background.
    pub propagation: Option<String>,
    /// `preconditions.uid`.
    pub uid: Option<String>,
    /// `preconditions.resourceVersion`.
    pub revision: Option<String>,
}

impl Options {
    /// Reads body and query; the body wins.
    ///
    /// # Errors
    /// 400 for an unreadable body or an unknown propagation policy.
    pub fn parse(call: &mut Call, body: &[u8]) -> Result<Self, ApiError> {
        let body: Value = match body {
            [] => Value::Null,
            bytes => crate::patch::document(bytes)?,
        };
        if body["dryRun"]
            .as_array()
            .is_some_and(|list| list.iter().any(|entry| entry == "All"))
        {
            call.dry_run = true;
        }
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let query = |key: &str| call.query.text(key).map(str::to_owned);
        let mut options = Self {
            grace: body["gracePeriodSeconds"]
                .as_i64()
                .or_else(|| query("gracePeriodSeconds")?.parse().ok()),
            propagation: text(&body["propagationPolicy"]).or_else(|| query("propagationPolicy")),
            uid: text(&body["preconditions"]["uid"]),
            revision: text(&body["preconditions"]["resourceVersion"]),
        };
        if body["orphanDependents"] == true {
            options.propagation = Some("Orphan".to_owned());
        }
        match options.propagation.as_deref() {
            None | Some("Background" | "Foreground" | "Orphan") => Ok(options),
            Some(other) => Err(ApiError::bad_request(format!(
                "invalid propagationPolicy {other:?}; use Background, Foreground or Orphan"
            ))),
        }
    }
}

/// What a delete came to.
pub enum Deleted {
    /// Gone; its last state.
    Gone(Arc<Value>),
    /// Marked; somebody has to finish.
    Marked(Arc<Value>),
}

impl Deleted {
    /// The object's newest state.
    pub fn object(&self) -> &Arc<Value> {
        match self {
            Self::Gone(object) | Self::Marked(object) => object,
        }
    }

    /// Kubernetes' answer: `Status` for what is gone, the object for what is only marked.
    pub fn answer(&self, kind: &Kind) -> Value {
        match self {
            Self::Marked(object) => (**object).clone(),
            Self::Gone(object) => json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                "details": {
                    "name": meta::text(object, "name"), "group": kind.group, "kind": kind.plural,
                    "uid": meta::text(object, "uid"),
                },
            }),
        }
    }
}

/// Deletes the target object.
///
/// # Errors
/// 404, 409 for a broken precondition, and refusals of webhooks.
pub async fn delete(
    api: &Api,
    call: &Call,
    options: &Options,
) -> Result<(Deleted, Vec<String>), ApiError> {
    let name = call.name()?;
    let kind = &call.kind;
    let mut warnings = Vec::new();
    for attempt in 0..10 {
        let object = api
            .store
            .object(&call.key(name))
            .ok_or_else(|| call.not_found(name))?;
        preconditions(call, &object, options)?;
        protect(call, name)?;
        if attempt == 0 {
            warnings = admit::validate(api, call, Operation::Delete, None, Some(&object)).await?;
        }
        let (next, waits) = marked(kind, &object, options);
        if call.dry_run {
            return Ok((
                if waits {
                    Deleted::Marked(object)
                } else {
                    Deleted::Gone(object)
                },
                warnings,
            ));
        }
        let expect = Expect::Revision(revision_of(&object));
        if !waits {
            match remove_expecting(api, call, name, expect).await? {
                Some(last) => return Ok((Deleted::Gone(last), warnings)),
                None => continue,
            }
        }
        if next == *object {
            return Ok((Deleted::Marked(object), warnings));
        }
        match api.store.put(&call.key(name), expect, next) {
            Ok(committed) => {
                let object = committed.durable().await?;
                api.collect.notify_one();
                return Ok((Deleted::Marked(object), warnings));
            }
            Err(Refused::Missing) => return Err(call.not_found(name)),
            Err(Refused::Changed | Refused::Exists) => {}
        }
    }
    Err(ApiError::modified(&kind.group, &kind.plural, name))
}

/// Deletes everything selected.
///
/// # Errors
/// 400 for bad selectors; the first refusal of a single object.
pub async fn delete_collection(
    api: &Api,
    call: &Call,
    options: &Options,
) -> Result<Value, ApiError> {
    let selection = Selection::parse(&call.kind, &call.query)?;
    let (objects, _) = api.store.all(&call.kind.resource, call.scope());
    let mut deleted = Vec::new();
    for object in objects.iter().filter(|object| selection.matches(object)) {
        let (namespace, name) = (meta::text(object, "namespace"), meta::text(object, "name"));
        let mut one = Call::internal(
            &call.kind,
            Some(namespace).filter(|text| !text.is_empty()),
            Some(name),
        );
        (one.user, one.dry_run) = (call.user.clone(), call.dry_run);
        match Box::pin(delete(api, &one, options)).await {
            Ok((result, _)) => deleted.push(result.object().clone()),
            Err(error) if error.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    let metadata = json!({"resourceVersion": api.store.revision().to_string()});
    Ok(json!({
        "kind": call.kind.list_kind, "apiVersion": call.kind.api_version(), "metadata": metadata, "items": deleted,
    }))
}

fn preconditions(call: &Call, object: &Value, options: &Options) -> Result<(), ApiError> {
    let kind = &call.kind;
    for (wanted, field, label) in [
        (&options.uid, "uid", "UID"),
        (&options.revision, "resourceVersion", "ResourceVersion"),
    ] {
        let found = meta::text(object, field);
        if let Some(wanted) = wanted
            && wanted != found
        {
            let why = format!(
                "Precondition failed: {label} in precondition: {wanted}, {label} in object meta: {found}"
            );
            return Err(ApiError::conflict(
                &kind.group,
                &kind.plural,
                meta::text(object, "name"),
                &why,
            ));
        }
    }
    Ok(())
}

/// Kubernetes: its own namespaces cannot be deleted.
fn protect(call: &Call, name: &str) -> Result<(), ApiError> {
    if call.kind.is("", "namespaces") && matches!(name, "default" | "kube-system" | "kube-public") {
        return Err(ApiError::forbidden(
            "",
            "namespaces",
            name,
            "this namespace may not be deleted",
        ));
    }
    Ok(())
}

/// The object marked for deletion, and whether it has to wait for anybody.
fn marked(kind: &Kind, object: &Value, options: &Options) -> (Value, bool) {
    let mut next = object.clone();
    let grace = grace(kind, object, options.grace);
    let finalizer = match options.propagation.as_deref() {
        Some("Foreground") => Some(FOREGROUND),
        Some("Orphan") => Some(ORPHAN),
        _ => None,
    };
    if let Some(finalizer) = finalizer
        && !meta::is_deleting(object)
    {
        let list = &mut next["metadata"]["finalizers"];
        if !list.is_array() {
            *list = json!([]);
        }
        if let Some(list) = list.as_array_mut()
            && !list.iter().any(|entry| entry == finalizer)
        {
            list.push(json!(finalizer));
        }
    }
    let waits = grace > 0 || meta::has_finalizers(&next) || has_spec_finalizers(kind, &next);
    let shorter = next["metadata"]["deletionGracePeriodSeconds"]
        .as_i64()
        .is_some_and(|current| grace < current);
    if !meta::is_deleting(object) || shorter {
        let until = Timestamp::now() + SignedDuration::from_secs(grace);
        next["metadata"]["deletionTimestamp"] =
            json!(until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        next["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        if let Some(generation) = next["metadata"]["generation"].as_u64() {
            next["metadata"]["generation"] = json!(generation + 1);
        }
        if kind.is("", "namespaces") {
            next["status"]["phase"] = json!("Terminating");
        }
    }
    (next, waits)
}

/// Only pods end gracefully. Kubernetes: at once when they never ran or have ended.
fn grace(kind: &Kind, object: &Value, wanted: Option<i64>) -> i64 {
    if !kind.is("", "pods") {
        return 0;
    }
    let ended = matches!(
        object["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    );
    if object["spec"]["nodeName"]
        .as_str()
        .unwrap_or_default()
        .is_empty()
        || ended
    {
        return 0;
    }
    let own = object["spec"]["terminationGracePeriodSeconds"]
        .as_i64()
        .unwrap_or(30);
    let grace = wanted.unwrap_or(own).max(0);
    match object["metadata"]["deletionGracePeriodSeconds"].as_i64() {
        Some(current) => grace.min(current),
        None => grace,
    }
}

fn has_spec_finalizers(kind: &Kind, object: &Value) -> bool {
    kind.is("", "namespaces")
        && object["spec"]["finalizers"]
            .as_array()
            .is_some_and(|list| !list.is_empty())
}

/// Whether an object that is marked and has no finalizers left is to be removed: a pod waits for its kubelet.
pub fn may_go(kind: &Kind, object: &Value) -> bool {
    object["metadata"]["deletionGracePeriodSeconds"]
        .as_i64()
        .unwrap_or(0)
        == 0
        && !has_spec_finalizers(kind, object)
}

/// Removes an object whatever its state.
///
/// # Errors
/// 500 when the disk refuses.
pub async fn remove_now(
    api: &Api,
    call: &Call,
    object: &Arc<Value>,
) -> Result<Arc<Value>, ApiError> {
    let expect = Expect::Revision(revision_of(object));
    let removed = remove_expecting(api, call, meta::text(object, "name"), expect).await?;
    Ok(removed.unwrap_or_else(|| object.clone()))
}

async fn remove_expecting(
    api: &Api,
    call: &Call,
    name: &str,
    expect: Expect,
) -> Result<Option<Arc<Value>>, ApiError> {
    match api.store.remove(&call.key(name), expect) {
        Ok(committed) => {
            let last = committed.durable().await?;
            if call
                .kind
                .is("apiextensions.k8s.io", "customresourcedefinitions")
            {
                crd::forget(api, &last);
            }
            api.collect.notify_one();
            Ok(Some(last))
        }
        Err(Refused::Missing) => Err(call.not_found(name)),
        Err(Refused::Changed | Refused::Exists) => Ok(None),
    }
}
