//! What a body must be to be stored: its kind, its fields, its defaults and its rules.

use crate::api::{Call, Strictness};
use crate::error::ApiError;
use crate::{admit, builtin, crd, meta, shape};
use serde_json::{Value, json};

/// Checks kind and fields of a body; drops unknown fields. Returns warnings.
pub(super) fn accept(call: &Call, object: &mut Value) -> Result<Vec<String>, ApiError> {
    let kind = &call.kind;
    if !object.is_object() {
        return Err(ApiError::bad_request(
            "the request body is not a JSON object; send one Kubernetes object",
        ));
    }
    let api_version = kind.api_version();
    for (field, expected) in [
        ("apiVersion", api_version.as_str()),
        ("kind", kind.kind.as_str()),
    ] {
        match object[field].as_str() {
            None => object[field] = json!(expected),
            Some(given) if given == expected => {}
            Some(given) => {
                return Err(ApiError::bad_request(format!(
                    "the {field} in the data ({given}) does not match the expected {field} ({expected})"
                )));
            }
        }
    }
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    let given = meta::text(object, "namespace");
    if !given.is_empty() && given != call.namespace() {
        return Err(ApiError::bad_request(format!(
            "the namespace of the provided object does not match the namespace sent on the request ({given} is not {:?})",
            call.namespace()
        )));
    }
    let unknown = fields(call, object)?;
    let told: Vec<String> = unknown
        .iter()
        .map(|path| format!("unknown field \"{path}\""))
        .collect();
    match call.strictness {
        Strictness::Strict if !told.is_empty() => Err(ApiError::bad_request(format!(
            "{0} in version \"{1}\" cannot be handled as a {0}: strict decoding error: {2}",
            kind.kind,
            kind.version,
            told.join(", ")
        ))),
        Strictness::Warn => Ok(told),
        Strictness::Strict | Strictness::Ignore => Ok(Vec::new()),
    }
}

/// Unknown fields, dropped from the object.
fn fields(call: &Call, object: &mut Value) -> Result<Vec<String>, ApiError> {
    let kind = &call.kind;
    let mistyped = |sentences: &[String]| {
        let list = sentences.join("; ");
        Err(ApiError::bad_request(format!(
            "{0} in version \"{1}\" cannot be handled as a {0}: {list}",
            kind.kind, kind.version
        )))
    };
    let Some(custom) = &kind.custom else {
        let findings = shape::inspect(kind.typed(), object);
        return if findings.mistyped.is_empty() {
            Ok(findings.unknown)
        } else {
            mistyped(&findings.mistyped)
        };
    };
    let mut metadata = object["metadata"].take();
    let findings = shape::inspect(kind.metadata(), &mut metadata);
    object["metadata"] = metadata;
    if !findings.mistyped.is_empty() {
        return mistyped(&findings.mistyped);
    }
    let mut unknown: Vec<String> = findings
        .unknown
        .into_iter()
        .map(|path| format!("metadata.{path}"))
        .collect();
    unknown.extend(custom.structural.unknown_fields(object));
    custom.structural.prune(object);
    Ok(unknown)
}

/// Defaults and normal forms.
pub(super) fn fill(call: &Call, object: &mut Value, old: Option<&Value>) -> Result<(), ApiError> {
    match &call.kind.custom {
        Some(custom) => {
            custom.structural.prune(object);
            custom.structural.default(object);
        }
        None => {
            // Webhooks may have added anything.
            fields(call, object)?;
            builtin::defaults(&call.kind, object, old);
        }
    }
    if call
        .kind
        .is("apiextensions.k8s.io", "customresourcedefinitions")
    {
        crd::fill(object);
    }
    Ok(())
}

/// Validation. Returns warnings.
pub(super) fn check_rules(
    call: &Call,
    object: &Value,
    old: Option<&Value>,
) -> Result<Vec<String>, ApiError> {
    let kind = &call.kind;
    let name = meta::text(object, "name");
    if let Some(why) = builtin::refused(kind).filter(|_| old.is_none()) {
        return Err(ApiError::forbidden(&kind.group, &kind.plural, name, why).aloud());
    }
    let mut causes = Vec::new();
    if old.is_none()
        && let Some(why) = builtin::not_a_name(kind, name)
    {
        causes.push(meta::invalid("metadata.name", name, why));
    }
    causes.extend(meta::check(object));
    match &kind.custom {
        Some(custom) => {
            let found = custom.structural.validate(object, old);
            causes.extend(found.into_iter().map(admit::cause));
        }
        None => causes.extend(builtin::validate(kind, object, old)),
    }
    if causes.is_empty() {
        let inert = builtin::inert(kind).filter(|_| old.is_none());
        Ok(inert.into_iter().collect())
    } else {
        Err(ApiError::invalid(&kind.group, &kind.kind, name, causes))
    }
}
