//! The four kinds of patches: JSON patch, merge patch, strategic merge patch, server-side apply.

mod apply;
mod fields;
mod strategic;

pub use apply::{apply, own_applied, own_changes};

use crate::api::Call;
use crate::error::ApiError;
use crate::negotiate;
use http::HeaderMap;
use serde_json::Value;

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";
const APPLY_CBOR: &str = "application/apply-patch+cbor";

/// Kubernetes: no more operations in one JSON patch.
const MAX_OPERATIONS: usize = 10_000;

/// A patch as it came.
pub enum Patch {
    /// RFC 6902.
    Json(json_patch::Patch),
    /// RFC 7386.
    Merge(Value),
    /// Kubernetes' strategic merge patch.
    Strategic(Value),
    /// Server-side apply: the applied object.
    Apply(Value),
}

impl Patch {
    /// Reads a patch by its content type.
    ///
    /// # Errors
    /// 415 for a type that the kind does not take, 400 for an unreadable body.
    pub fn parse(call: &Call, headers: &HeaderMap, body: &[u8]) -> Result<Self, ApiError> {
        match negotiate::content_type(headers) {
            JSON => {
                let patch: json_patch::Patch = serde_json::from_slice(body).map_err(|error| {
                    ApiError::bad_request(format!("error decoding patch: {error}"))
                })?;
                if patch.0.len() > MAX_OPERATIONS {
                    let message = format!(
                        "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}"
                    );
                    return Err(ApiError::new(413, "RequestEntityTooLarge", message));
                }
                Ok(Self::Json(patch))
            }
            MERGE => Ok(Self::Merge(object(body)?)),
            STRATEGIC if call.kind.custom.is_none() => Ok(Self::Strategic(object(body)?)),
            APPLY => {
                if call.query.text("fieldManager").is_none() {
                    return Err(ApiError::bad_request(
                        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
                    ));
                }
                let applied = object(body)?;
                if applied["metadata"]["managedFields"]
                    .as_array()
                    .is_some_and(|list| !list.is_empty())
                {
                    return Err(ApiError::bad_request("metadata.managedFields must be nil"));
                }
                Ok(Self::Apply(applied))
            }
            _ if call.kind.custom.is_some() => {
                Err(ApiError::unsupported_media_type(&[JSON, MERGE, APPLY]))
            }
            APPLY_CBOR => Err(ApiError::unsupported_media_type(&[
                JSON, MERGE, STRATEGIC, APPLY,
            ])),
            _ => Err(ApiError::unsupported_media_type(&[
                JSON, MERGE, STRATEGIC, APPLY,
            ])),
        }
    }

    /// The changed object.
    ///
    /// # Errors
    /// 422 when a JSON patch does not fit the object, 400 for a malformed strategic patch.
    pub fn change(&self, call: &Call, old: &Value) -> Result<Value, ApiError> {
        let mut object = old.clone();
        match self {
            Self::Json(patch) => {
                json_patch::patch(&mut object, patch).map_err(|error| {
                    ApiError::new(422, "Invalid", format!("the server rejected our request due to an error in our request: {error}"))
                })?;
            }
            Self::Merge(patch) => json_patch::merge(&mut object, patch),
            Self::Strategic(patch) => {
                strategic::merge(Some(call.kind.typed()), &mut object, patch)?
            }
            Self::Apply(_) => {}
        }
        Ok(object)
    }
}

/// Reads a JSON or YAML document.
///
/// # Errors
/// 400 when it is neither.
pub fn document(bytes: &[u8]) -> Result<Value, ApiError> {
    let json_error = match serde_json::from_slice(bytes) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    // What begins like JSON is meant as JSON: its error is the telling one.
    if bytes.trim_ascii_start().starts_with(b"{") {
        return Err(ApiError::bad_request(format!(
            "the request body is not valid JSON: {json_error}"
        )));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|_| ApiError::bad_request("the request body is not UTF-8 text"))?;
    serde_saphyr::from_str(text).map_err(|error| {
        let error = error.to_string();
        ApiError::bad_request(format!(
            "the request body is not valid YAML: {}",
            error.lines().next().unwrap_or_default()
        ))
    })
}

fn object(body: &[u8]) -> Result<Value, ApiError> {
    let value = document(body)?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(ApiError::bad_request("a patch must be an object"))
    }
}

#[cfg(test)]
mod tests;
