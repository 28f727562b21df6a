//! What an update may not touch: fields of the server, and the other part of the object.

use crate::api::Call;
use crate::error::ApiError;
use crate::verbs::write::Part;
use crate::{builtin, meta};
use serde_json::{Value, json};

/// Fields that only the server sets survive any update; parts that this request may not touch come from the old state.
pub(super) fn keep_server_fields(
    call: &Call,
    old: &Value,
    object: &mut Value,
    part: Part,
) -> Result<(), ApiError> {
    let kind = &call.kind;
    let uid = meta::text(object, "uid");
    if !uid.is_empty() && uid != meta::text(old, "uid") {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            meta::text(old, "uid")
        );
        return Err(ApiError::conflict(
            &kind.group,
            &kind.plural,
            meta::text(old, "name"),
            &why,
        ));
    }
    if kind.namespaced
        && !matches!(meta::text(object, "namespace"), "")
        && meta::text(object, "namespace") != call.namespace()
    {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if part == Part::Status {
        let managed = object["metadata"]["managedFields"].clone();
        let status = object.get("status").cloned();
        let mut next = old.clone();
        match status {
            Some(status) => next["status"] = status,
            None => drop(next.as_object_mut().and_then(|map| map.remove("status"))),
        }
        if managed.is_array() {
            next["metadata"]["managedFields"] = managed;
        }
        *object = next;
        return Ok(());
    }
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "resourceVersion",
        "namespace",
        "selfLink",
    ] {
        restore(&old["metadata"], &mut object["metadata"], field);
    }
    if part == Part::Main && kind.is("", "namespaces") {
        // Its finalizers change through the `finalize` subresource only.
        restore(old, object, "spec");
    }
    if part == Part::Main && kind.serves("status") {
        restore(old, object, "status");
    }
    Ok(())
}

fn restore(old: &Value, object: &mut Value, field: &str) {
    match old.get(field) {
        Some(value) => object[field] = value.clone(),
        None => drop(object.as_object_mut().and_then(|map| map.remove(field))),
    }
}

/// `generation` counts changes outside of metadata and status.
pub(super) fn count_generation(call: &Call, old: &Value, object: &mut Value) {
    let generation = old["metadata"]["generation"].as_u64().unwrap_or(0);
    if !builtin::has_generation(&call.kind) && generation == 0 {
        return;
    }
    let counted = |value: &Value| -> Vec<(String, Value)> {
        let status_apart = call.kind.serves("status") || call.kind.custom.is_none();
        let fields = value.as_object().into_iter().flatten();
        let fields =
            fields.filter(|(key, _)| !matches!(key.as_str(), "apiVersion" | "kind" | "metadata"));
        let fields = fields.filter(|(key, _)| !(status_apart && key.as_str() == "status"));
        fields
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    let next = if counted(old) == counted(object) {
        generation
    } else {
        generation + 1
    };
    object["metadata"]["generation"] = json!(next);
}
