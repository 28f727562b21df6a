//! get and list, and how objects are rendered.

use crate::api::{Api, Call};
use crate::error::ApiError;
use crate::kinds::Kind;
use crate::lookup::Lookup;
use crate::negotiate::Format;
use crate::select::Selection;
use crate::store::revision_of;
use crate::{table, wire};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Response;
use serde_json::{Value, json};
use std::sync::Arc;

/// Answers `get`.
///
/// # Errors
/// 404 when there is no such object.
pub fn get(api: &Api, call: &Call) -> Result<Response<wire::Body>, ApiError> {
    let name = call.name()?;
    let object = api
        .store
        .object(&call.key(name))
        .ok_or_else(|| call.not_found(name))?;
    Ok(wire::json(200, &render(call, &object)))
}

/// One object in the wanted representation.
pub fn render(call: &Call, object: &Arc<Value>) -> Value {
    match call.format {
        Format::Plain => versioned(&call.kind, object),
        Format::Partial => partial(object),
        Format::Table => {
            let version = object["metadata"]["resourceVersion"].clone();
            let rows = std::slice::from_ref(object);
            table::render(
                &call.kind,
                rows,
                call.query.text("includeObject"),
                json!({"resourceVersion": version}),
            )
        }
    }
}

/// The object in the served version: versions of a CRD share one schema, so only `apiVersion` differs.
pub fn versioned(kind: &Kind, object: &Value) -> Value {
    let mut object = object.clone();
    if kind.custom.is_some() {
        object["apiVersion"] = json!(kind.api_version());
    }
    object
}

fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

/// Answers `list`.
///
/// # Errors
/// 400 for bad selectors or tokens, 410 for a token that is too old.
pub fn list(api: &Api, call: &Call) -> Result<Response<wire::Body>, ApiError> {
    let selection = Selection::parse(&call.kind, &call.query)?;
    let mut revision;
    let mut objects;
    if call.namespace() != ""
        && let Some(name) = selection.only_name()
    {
        (revision, objects) = (api.store.revision(), Vec::new());
        objects.extend(api.store.object(&call.key(name)));
    } else {
        (objects, revision) = api.store.all(&call.kind.resource, call.scope());
    }
    check_revision(call, revision)?;
    objects.retain(|object| selection.matches(object));
    if let Some(token) = call.query.text("continue") {
        let (place, first) = read_token(token)?;
        if api.store.events(&call.kind.resource, first, 1).is_none() {
            return Err(ApiError::gone(
                "The provided continue parameter is too old to display a consistent list result. You can start a new \
                 list without the continue parameter.",
            ));
        }
        objects.retain(|object| {
            (namespace_of(object), name_of(object)) > (place.0.as_str(), place.1.as_str())
        });
        // The revision of the first page: a watch from there sees whatever changed between the pages.
        revision = first;
    }
    let mut metadata = json!({"resourceVersion": revision.to_string()});
    if let Some(limit) = call.query.number("limit").filter(|limit| *limit > 0)
        && (objects.len() as u64) > limit
    {
        let rest = objects.split_off(usize::try_from(limit).unwrap_or(usize::MAX));
        metadata["remainingItemCount"] = json!(rest.len());
        metadata["continue"] = json!(
            objects
                .last()
                .map(|last| write_token(last, revision))
                .unwrap_or_default()
        );
    }
    Ok(wire::text(
        200,
        "application/json",
        body(call, &objects, &metadata),
    ))
}

fn body(call: &Call, objects: &[Arc<Value>], metadata: &Value) -> String {
    let kind = &call.kind;
    let (list_kind, api_version) = match call.format {
        Format::Table => {
            return table::render(
                kind,
                objects,
                call.query.text("includeObject"),
                metadata.clone(),
            )
            .to_string();
        }
        Format::Plain => (kind.list_kind.as_str(), kind.api_version()),
        Format::Partial => ("PartialObjectMetadataList", "meta.k8s.io/v1".to_owned()),
    };
    let items: Vec<String> = objects
        .iter()
        .map(|object| match call.format {
            Format::Partial => partial(object).to_string(),
            _ if object["apiVersion"] == api_version => object.to_string(),
            _ => versioned(kind, object).to_string(),
        })
        .collect();
    format!(
        r#"{{"kind":"{list_kind}","apiVersion":"{api_version}","metadata":{metadata},"items":[{}]}}"#,
        items.join(",")
    )
}

/// `resourceVersion` on a list: everything stored is newer than any revision handed out, except after a restart
/// without a disk.
fn check_revision(call: &Call, revision: u64) -> Result<(), ApiError> {
    let Some(wanted) = call.query.text("resourceVersion") else {
        return Ok(());
    };
    let wanted: u64 = wanted.parse().map_err(|_| {
        ApiError::bad_request(format!(
            "Invalid value: {wanted:?}: resourceVersion is a number"
        ))
    })?;
    if wanted > revision {
        return Err(ApiError::gone(format!(
            "Too large resource version: {wanted}, current: {revision}"
        )));
    }
    if call.query.text("resourceVersionMatch") == Some("Exact") && wanted != revision {
        return Err(ApiError::gone(format!(
            "resource version {wanted} is no longer kept; current: {revision}"
        )));
    }
    Ok(())
}

fn namespace_of(object: &Value) -> &str {
    crate::meta::text(object, "namespace")
}

fn name_of(object: &Value) -> &str {
    crate::meta::text(object, "name")
}

fn write_token(last: &Value, revision: u64) -> String {
    URL_SAFE_NO_PAD.encode(json!([revision, namespace_of(last), name_of(last)]).to_string())
}

fn read_token(token: &str) -> Result<((String, String), u64), ApiError> {
    let decoded = URL_SAFE_NO_PAD.decode(token).ok();
    let parts: Option<(u64, String, String)> =
        decoded.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let (revision, namespace, name) =
        parts.ok_or_else(|| ApiError::bad_request("continue key is not valid"))?;
    Ok(((namespace, name), revision))
}

/// Whether a namespace exists.
pub fn has_namespace(api: &Api, namespace: &str) -> bool {
    api.store.find("", "namespaces", None, namespace).is_some()
}

/// The revision of an object given by a client in `metadata.resourceVersion`; absent when it gave none.
///
/// # Errors
/// 400 when it is no number.
pub fn given_revision(object: &Value) -> Result<Option<u64>, ApiError> {
    match crate::meta::text(object, "resourceVersion") {
        "" | "0" => Ok(None),
        text if text.parse::<u64>().is_ok() => Ok(Some(revision_of(object))),
        text => Err(ApiError::bad_request(format!(
            "metadata.resourceVersion: Invalid value: {text:?}: must be a number; leave it out to overwrite"
        ))),
    }
}
