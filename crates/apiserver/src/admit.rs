//! Calls admission webhooks for a verb: turns a call into what [`crate::admission`] takes and back.

use crate::admission::{self, AdmissionInput, GroupVersionKind, GroupVersionResource, Operation};
use crate::api::{Api, Call};
use crate::error::{ApiError, Cause};
use crate::meta;
use crate::schema::FieldError;
use serde_json::Value;

/// Runs mutating webhooks over an object. Returns warnings.
///
/// # Errors
/// A webhook refused, or failed and must not.
pub async fn mutate(
    api: &Api,
    call: &Call,
    operation: Operation,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<Vec<String>, ApiError> {
    let mut input = input(call, operation, Some(object), old);
    let warnings = admission::mutate(&api.webhooks, &mut input).await?;
    let before = (
        meta::text(object, "name").to_owned(),
        meta::text(object, "namespace").to_owned(),
    );
    if let Some(changed) = input.object {
        *object = changed;
    }
    if before
        != (
            meta::text(object, "name").to_owned(),
            meta::text(object, "namespace").to_owned(),
        )
    {
        return Err(ApiError::internal(
            "a mutating webhook changed the object's name or namespace",
        ));
    }
    Ok(warnings)
}

/// Runs validating webhooks. Returns warnings.
///
/// # Errors
/// A webhook refused, or failed and must not.
pub async fn validate(
    api: &Api,
    call: &Call,
    operation: Operation,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<Vec<String>, ApiError> {
    admission::validate(&api.webhooks, &input(call, operation, object, old)).await
}

fn input(
    call: &Call,
    operation: Operation,
    object: Option<&Value>,
    old: Option<&Value>,
) -> AdmissionInput {
    let kind = &call.kind;
    let name = object
        .or(old)
        .map(|object| meta::text(object, "name").to_owned())
        .unwrap_or_default();
    let namespace = match call.namespace() {
        "" if kind.is("", "namespaces") => Some(name.clone()),
        "" => None,
        namespace => Some(namespace.to_owned()),
    };
    AdmissionInput {
        operation,
        kind: GroupVersionKind {
            group: kind.group.clone(),
            version: kind.version.clone(),
            kind: kind.kind.clone(),
        },
        resource: GroupVersionResource {
            group: kind.group.clone(),
            version: kind.version.clone(),
            resource: kind.plural.clone(),
        },
        subresource: call.target.subresource.clone(),
        namespace,
        name,
        user: call.user.clone(),
        object: object.cloned(),
        old_object: old.cloned(),
        dry_run: call.dry_run,
    }
}

/// A schema's complaint as a cause.
pub fn cause(error: FieldError) -> Cause {
    Cause::new(error.reason, error.path, error.message)
}
