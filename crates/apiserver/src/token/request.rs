//! What a TokenRequest asks for: audiences, lifetime, and the object whose end is the token's end.

use super::{ISSUER, strings};
use crate::error::{ApiError, Cause};
use crate::lookup::Lookup;
use serde_json::{Value, json};
use std::sync::Arc;

/// Kubernetes: `expirationSeconds` defaults to an hour, is at least ten minutes and fits 32 bits.
const DEFAULT_SECONDS: i64 = 3600;
const LEAST_SECONDS: i64 = 600;
const MOST_SECONDS: i64 = 1 << 32;

/// The checked part of a TokenRequest's spec.
pub(super) struct Spec {
    pub(super) audiences: Vec<String>,
    pub(super) seconds: i64,
}

impl Spec {
    pub(super) fn read(spec: &Value, name: &str) -> Result<Self, ApiError> {
        let mut audiences = strings(&spec["audiences"]);
        if audiences.is_empty() {
            audiences.push(ISSUER.into());
        }
        let seconds = match &spec["expirationSeconds"] {
            Value::Null => DEFAULT_SECONDS,
            value => value.as_i64().unwrap_or(0),
        };
        let why = if seconds < LEAST_SECONDS {
            "may not specify a duration less than 10 minutes"
        } else if seconds > MOST_SECONDS {
            "may not specify a duration larger than 2^32 seconds"
        } else {
            return Ok(Self { audiences, seconds });
        };
        let cause = Cause::new(
            "FieldValueInvalid",
            "spec.expirationSeconds",
            format!("Invalid value: {seconds}: {why}"),
        );
        Err(ApiError::invalid(
            "authentication.k8s.io",
            "TokenRequest",
            name,
            vec![cause],
        ))
    }
}

/// What a token is bound to besides its account.
pub(super) enum Bound {
    Nothing,
    Pod(Arc<Value>),
    Secret(Arc<Value>),
}

impl Bound {
    pub(super) fn find(
        lookup: &dyn Lookup,
        namespace: &str,
        account: &str,
        reference: &Value,
    ) -> Result<Self, ApiError> {
        if reference.is_null() {
            return Ok(Self::Nothing);
        }
        let name = reference["name"].as_str().unwrap_or_default();
        let kind = reference["kind"].as_str().unwrap_or_default();
        let resource = match kind {
            "Pod" => "pods",
            "Secret" => "secrets",
            other => {
                return Err(ApiError::bad_request(format!(
                    "cannot bind token for serviceaccount \"{account}\" to object of kind \"{other}\": use Pod or Secret"
                )));
            }
        };
        let object = lookup
            .find("", resource, Some(namespace), name)
            .ok_or_else(|| ApiError::not_found("", resource, name))?;
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
        if let Some(wanted) = reference["uid"]
            .as_str()
            .filter(|wanted| !wanted.is_empty() && *wanted != uid)
        {
            let why = format!(
                "the UID in the bound object reference ({wanted}) does not match the UID in record ({uid})"
            );
            return Err(ApiError::conflict("", resource, name, &why));
        }
        if kind == "Secret" {
            return Ok(Self::Secret(object));
        }
        let runs_as = object["spec"]["serviceAccountName"]
            .as_str()
            .unwrap_or("default");
        if runs_as != account {
            return Err(ApiError::bad_request(format!(
                "cannot bind token for serviceaccount \"{account}\" to pod running with different serviceaccount name."
            )));
        }
        Ok(Self::Pod(object))
    }

    pub(super) fn describe(&self, lookup: &dyn Lookup, claim: &mut Value) {
        let reference = |object: &Value| json!({"name": object["metadata"]["name"], "uid": object["metadata"]["uid"]});
        match self {
            Self::Nothing => {}
            Self::Secret(secret) => claim["secret"] = reference(secret),
            Self::Pod(pod) => {
                claim["pod"] = reference(pod);
                if let Some(node) = pod["spec"]["nodeName"]
                    .as_str()
                    .filter(|node| !node.is_empty())
                {
                    let uid = lookup
                        .find("", "nodes", None, node)
                        .map(|node| node["metadata"]["uid"].clone());
                    claim["node"] = json!({"name": node, "uid": uid});
                }
            }
        }
    }
}
