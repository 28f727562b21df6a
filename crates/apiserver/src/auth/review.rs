//! The review APIs about permissions: SubjectAccessReview and its relatives, and SelfSubjectReview (`whoami`).
//! Each takes the request's body and returns the object to answer with (HTTP 201). TokenReview is in
//! [`crate::token`], beside the keys it needs.

use super::{Attributes, User, rbac};
use crate::error::ApiError;
use crate::lookup::Lookup;
use serde_json::{Value, json};

const GROUP: &str = "authorization.k8s.io";

/// SubjectAccessReview: may the user named in `spec` do what `spec` says?
pub fn subject_access_review(lookup: &dyn Lookup, mut body: Value) -> Result<Value, ApiError> {
    let user = named_user(&body["spec"], "SubjectAccessReview")?;
    answer(lookup, &user, &mut body, "SubjectAccessReview")?;
    Ok(body)
}

/// LocalSubjectAccessReview: the same, within the namespace of the request's path.
pub fn local_subject_access_review(
    lookup: &dyn Lookup,
    namespace: &str,
    mut body: Value,
) -> Result<Value, ApiError> {
    let kind = "LocalSubjectAccessReview";
    let user = named_user(&body["spec"], kind)?;
    let wanted = body["spec"]["resourceAttributes"]["namespace"].as_str();
    if wanted != Some(namespace) {
        return Err(ApiError::bad_request(format!(
            "spec.resourceAttributes.namespace must be \"{namespace}\", the namespace of the request"
        )));
    }
    answer(lookup, &user, &mut body, kind)?;
    Ok(body)
}

/// SelfSubjectAccessReview: may the asking user do what `spec` says? (`kubectl auth can-i`)
pub fn self_subject_access_review(
    lookup: &dyn Lookup,
    user: &User,
    mut body: Value,
) -> Result<Value, ApiError> {
    answer(lookup, user, &mut body, "SelfSubjectAccessReview")?;
    Ok(body)
}

/// SelfSubjectReview: who am I? (`kubectl auth whoami`)
pub fn self_subject_review(user: &User, mut body: Value) -> Result<Value, ApiError> {
    expect_kind(&mut body, "authentication.k8s.io", "SelfSubjectReview")?;
    body["status"] = json!({"userInfo": user.info()});
    Ok(body)
}

/// SelfSubjectRulesReview: everything the asking user may do in a namespace (`kubectl auth can-i --list`).
pub fn self_subject_rules_review(
    lookup: &dyn Lookup,
    user: &User,
    mut body: Value,
) -> Result<Value, ApiError> {
    expect_kind(&mut body, GROUP, "SelfSubjectRulesReview")?;
    let namespace = body["spec"]["namespace"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    if namespace.is_empty() {
        return Err(ApiError::bad_request(
            "no namespace on request: set spec.namespace",
        ));
    }
    let (mut resource, mut plain) = (Vec::new(), Vec::new());
    for rule in rbac::rules_for(lookup, user, Some(&namespace)) {
        if rule["resources"].is_array() {
            let mut one = json!({});
            for key in ["verbs", "apiGroups", "resources", "resourceNames"] {
                if rule[key].is_array() {
                    one[key] = rule[key].clone();
                }
            }
            resource.push(one);
        }
        if rule["nonResourceURLs"].is_array() {
            plain.push(json!({"verbs": rule["verbs"], "nonResourceURLs": rule["nonResourceURLs"]}));
        }
    }
    body["status"] =
        json!({"resourceRules": resource, "nonResourceRules": plain, "incomplete": false});
    Ok(body)
}

/// Checks what the body says it is, and says it where the body did not.
pub(crate) fn expect_kind(body: &mut Value, group: &str, kind: &str) -> Result<(), ApiError> {
    if !body.is_object() {
        return Err(ApiError::bad_request(format!(
            "the body must be a {kind} object"
        )));
    }
    let api_version = format!("{group}/v1");
    for (key, wanted) in [("kind", kind), ("apiVersion", api_version.as_str())] {
        match &body[key] {
            Value::Null => body[key] = wanted.into(),
            Value::String(text) if text == wanted => {}
            other => {
                return Err(ApiError::bad_request(format!(
                    "the body's {key} must be {wanted}, not {other}"
                )));
            }
        }
    }
    if !body["metadata"].is_object() {
        body["metadata"] = json!({});
    }
    Ok(())
}

fn named_user(spec: &Value, kind: &str) -> Result<User, ApiError> {
    let strings = |value: &Value| -> Vec<String> {
        value
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    let name = spec["user"].as_str().unwrap_or_default().to_owned();
    let groups = strings(&spec["groups"]);
    if name.is_empty() && groups.is_empty() {
        return Err(ApiError::bad_request(format!(
            "{kind} is invalid: spec.user: at least one of user or group must be specified"
        )));
    }
    let extra = spec["extra"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, values)| (key.clone(), strings(values)));
    let uid = spec["uid"].as_str().unwrap_or_default().to_owned();
    Ok(User {
        name,
        uid,
        groups,
        extra: extra.collect(),
    })
}

fn answer(lookup: &dyn Lookup, user: &User, body: &mut Value, kind: &str) -> Result<(), ApiError> {
    expect_kind(body, GROUP, kind)?;
    let spec = &body["spec"];
    let (resource, plain) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let text = |from: &Value, key: &str| from[key].as_str().unwrap_or_default().to_owned();
    let optional = |from: &Value, key: &str| Some(text(from, key)).filter(|text| !text.is_empty());
    let decision = match (resource.is_object(), plain.is_object()) {
        (true, false) => {
            let (verb, group, version) = (
                text(resource, "verb"),
                text(resource, "group"),
                text(resource, "version"),
            );
            let (name, namespace) = (optional(resource, "name"), optional(resource, "namespace"));
            let (kind, subresource) = (text(resource, "resource"), text(resource, "subresource"));
            let attributes = Attributes {
                verb: &verb,
                group: &group,
                version: &version,
                resource: if kind.is_empty() { "*" } else { &kind },
                subresource: &subresource,
                namespace: namespace.as_deref(),
                name: name.as_deref(),
                path: "",
            };
            rbac::decide(lookup, user, &attributes)
        }
        (false, true) => {
            let (verb, path) = (text(plain, "verb"), text(plain, "path"));
            rbac::decide(
                lookup,
                user,
                &Attributes {
                    verb: &verb,
                    path: &path,
                    ..Attributes::default()
                },
            )
        }
        _ => {
            return Err(ApiError::bad_request(format!(
                "{kind} is invalid: spec: exactly one of nonResourceAttributes or resourceAttributes must be specified"
            )));
        }
    };
    body["status"] = match decision {
        Ok(reason) if reason.is_empty() => json!({"allowed": true}),
        Ok(reason) => {
            let whom = if user.name.is_empty() {
                format!("groups {:?}", user.groups)
            } else {
                format!("User \"{}\"", user.name)
            };
            json!({"allowed": true, "reason": format!("{reason} to {whom}")})
        }
        Err(_) => json!({"allowed": false}),
    };
    Ok(())
}
