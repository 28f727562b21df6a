//! Objects of every kind, decoded from JSON: the typed Istio kinds, Kubernetes' kinds, and the rest by name.

use crate::authorization_policy::AuthorizationPolicy;
use crate::check::{Unknown, check, unknown_field};
use crate::crd::spec_schema;
use crate::destination_rule::DestinationRule;
use crate::gateway::Gateway;
use crate::kinds::{self, Kind, Support};
use crate::meta::{Config, Meta};
use crate::notice::{Notice, Subject, any_error};
use crate::peer_authentication::PeerAuthentication;
use crate::rate_limit_policy::RateLimitPolicy;
use crate::request_authentication::RequestAuthentication;
use crate::service_entry::ServiceEntry;
use crate::sidecar::Sidecar;
use crate::virtual_service::VirtualService;
use crate::workload_entry::WorkloadEntry;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// One object.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// An Istio Gateway.
    Gateway(Config<Gateway>),
    /// A VirtualService.
    VirtualService(Config<VirtualService>),
    /// A DestinationRule.
    DestinationRule(Config<DestinationRule>),
    /// A ServiceEntry.
    ServiceEntry(Config<ServiceEntry>),
    /// A Sidecar.
    Sidecar(Config<Sidecar>),
    /// A WorkloadEntry.
    WorkloadEntry(Config<WorkloadEntry>),
    /// A PeerAuthentication.
    PeerAuthentication(Config<PeerAuthentication>),
    /// A RequestAuthentication.
    RequestAuthentication(Config<RequestAuthentication>),
    /// An AuthorizationPolicy.
    AuthorizationPolicy(Config<AuthorizationPolicy>),
    /// A RateLimitPolicy.
    RateLimitPolicy(Config<RateLimitPolicy>),
    /// An object of a Kubernetes kind.
    Kubernetes(Untyped),
    /// An object of a kind that has no effect yet, or that Lateen does not know.
    Unsupported(Untyped),
}

/// An object kept as JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct Untyped {
    /// `apiVersion` as written.
    pub api_version: String,
    /// `kind` as written.
    pub kind: String,
    /// Names, labels, annotations, age.
    pub meta: Meta,
    /// The whole object as written.
    pub value: Value,
}

impl Object {
    /// The object's kind, such as `VirtualService`.
    pub fn kind(&self) -> &str {
        match self {
            Self::Gateway(_) => "Gateway",
            Self::VirtualService(_) => "VirtualService",
            Self::DestinationRule(_) => "DestinationRule",
            Self::ServiceEntry(_) => "ServiceEntry",
            Self::Sidecar(_) => "Sidecar",
            Self::WorkloadEntry(_) => "WorkloadEntry",
            Self::PeerAuthentication(_) => "PeerAuthentication",
            Self::RequestAuthentication(_) => "RequestAuthentication",
            Self::AuthorizationPolicy(_) => "AuthorizationPolicy",
            Self::RateLimitPolicy(_) => "RateLimitPolicy",
            Self::Kubernetes(object) | Self::Unsupported(object) => &object.kind,
        }
    }

    /// Its metadata.
    pub fn meta(&self) -> &Meta {
        match self {
            Self::Gateway(object) => &object.meta,
            Self::VirtualService(object) => &object.meta,
            Self::DestinationRule(object) => &object.meta,
            Self::ServiceEntry(object) => &object.meta,
            Self::Sidecar(object) => &object.meta,
            Self::WorkloadEntry(object) => &object.meta,
            Self::PeerAuthentication(object) => &object.meta,
            Self::RequestAuthentication(object) => &object.meta,
            Self::AuthorizationPolicy(object) => &object.meta,
            Self::RateLimitPolicy(object) => &object.meta,
            Self::Kubernetes(object) | Self::Unsupported(object) => &object.meta,
        }
    }

    /// What notices call it.
    pub fn subject(&self) -> Subject {
        Subject::new(self.kind(), self.meta())
    }
}

/// Fields that every object may have beside its own.
const TOP: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];

/// Fields of `metadata` (Kubernetes: `ObjectMeta`).
const META: [&str; 15] = [
    "name",
    "generateName",
    "namespace",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
    "managedFields",
];

/// Decodes one object. No object comes back when a notice is an error; what is wrong in one field never hides what
/// is wrong in another. Nulls count as absent (protobuf JSON).
pub fn from_json(mut value: Value) -> (Option<Object>, Vec<Notice>) {
    strip_nulls(&mut value);
    let kind_name = value["kind"].as_str().unwrap_or_default().to_owned();
    let api_version = value["apiVersion"].as_str().unwrap_or_default().to_owned();
    let meta = Meta::of(&value);
    let subject = Subject::new(&kind_name, &meta);
    let mut notices = frame(&value, &subject);
    if any_error(&notices) {
        return (None, notices);
    }
    let untyped = |value| Untyped {
        api_version: api_version.clone(),
        kind: kind_name.clone(),
        meta: meta.clone(),
        value,
    };
    let object = match kinds::find(&api_version, &kind_name) {
        Some(kind) if kind.support == Support::Typed => {
            return typed(kind, &meta, value, notices);
        }
        Some(kind) if kind.support == Support::Kubernetes => Object::Kubernetes(untyped(value)),
        known => {
            notices.push(unsupported(known, &api_version, &subject));
            Object::Unsupported(untyped(value))
        }
    };
    (Some(object), notices)
}

/// Checks what every object needs: a kind, a version, a name.
fn frame(value: &Value, subject: &Subject) -> Vec<Notice> {
    let mut notices = Vec::new();
    let mut error = |field: &str, message: &str| {
        notices.push(Notice::error(subject, field, message));
    };
    if !value.is_object() {
        error("", "expected a mapping with apiVersion, kind and metadata");
        return notices;
    }
    for field in ["apiVersion", "kind"] {
        match value[field].as_str() {
            Some(text) if !text.is_empty() => {}
            _ => error(field, "is missing or not a string: add it"),
        }
    }
    let meta = &value["metadata"];
    for field in ["name", "namespace"] {
        // YAML reads a bare `n`, `no` or `1` as something else than a string.
        if !matches!(meta[field], Value::Null | Value::String(_)) {
            error(
                &format!("metadata.{field}"),
                "is not a string; put it in quotes",
            );
        }
    }
    let named = |key: &str| meta[key].as_str().is_some_and(|name| !name.is_empty());
    if meta["name"].is_null() && !named("generateName") || meta["name"] == "" {
        error("metadata.name", "is missing: add it");
    }
    for field in ["labels", "annotations"] {
        for (key, text) in meta[field].as_object().into_iter().flatten() {
            if !text.is_string() {
                let path = crate::path::key(&format!("metadata.{field}"), key);
                error(&path, "is not a string; put it in quotes");
            }
        }
        if !matches!(meta[field], Value::Null | Value::Object(_)) {
            error(&format!("metadata.{field}"), "expected a mapping");
        }
    }
    notices
}

/// What a field is that the kind does not have. Without it, what is left of a policy could mean less than its author
/// meant: `rules: [{form: …}]` would match everything.
fn unknown(kind: &Kind) -> Unknown {
    match kind.group {
        "security.istio.io" | kinds::LATEEN => Unknown::Error,
        _ => Unknown::Warning,
    }
}

/// Decodes an object of a typed kind.
fn typed(
    kind: &Kind,
    meta: &Meta,
    mut value: Value,
    mut notices: Vec<Notice>,
) -> (Option<Object>, Vec<Notice>) {
    let subject = Subject::new(kind.kind, meta);
    for (below, known) in [("", &TOP[..]), ("metadata", &META[..])] {
        let map = if below.is_empty() {
            &value
        } else {
            &value[below]
        };
        for name in map.as_object().into_iter().flatten().map(|(name, _)| name) {
            if !known.contains(&name.as_str()) {
                let known = known.iter().copied();
                notices.push(unknown_field(&subject, below, name, known));
            }
        }
    }
    let mut spec = value["spec"].take();
    if spec.is_null() {
        spec = Value::Object(serde_json::Map::new());
    }
    if let Some(schema) = spec_schema(kind.kind) {
        notices.extend(check(schema, &spec, "spec", &subject, unknown(kind)));
    }
    if any_error(&notices) {
        return (None, notices);
    }
    let meta = meta.clone();
    let object = match kind.kind {
        "Gateway" => decode(meta, spec).map(Object::Gateway),
        "VirtualService" => decode(meta, spec).map(Object::VirtualService),
        "DestinationRule" => decode(meta, spec).map(Object::DestinationRule),
        "ServiceEntry" => decode(meta, spec).map(Object::ServiceEntry),
        "Sidecar" => decode(meta, spec).map(Object::Sidecar),
        "PeerAuthentication" => decode(meta, spec).map(Object::PeerAuthentication),
        "RequestAuthentication" => decode(meta, spec).map(Object::RequestAuthentication),
        "AuthorizationPolicy" => decode(meta, spec).map(Object::AuthorizationPolicy),
        "RateLimitPolicy" => decode(meta, spec).map(Object::RateLimitPolicy),
        _ => decode(meta, spec).map(Object::WorkloadEntry),
    };
    match object {
        Ok(object) => (Some(object), notices),
        Err(e) => {
            notices.push(Notice::error(&subject, "spec", e.to_string()));
            (None, notices)
        }
    }
}

fn decode<T: DeserializeOwned>(meta: Meta, spec: Value) -> Result<Config<T>, serde_json::Error> {
    let spec = serde_json::from_value(spec)?;
    Ok(Config { meta, spec })
}

/// The notice about a kind that has no effect.
fn unsupported(known: Option<&Kind>, api_version: &str, subject: &Subject) -> Notice {
    if known.is_some() {
        let message = format!(
            "{} of {api_version} is not supported yet: the object is kept and has no effect",
            subject.kind
        );
        return Notice::warning(subject, "kind", message);
    }
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let message = match kinds::of_group(group, &subject.kind) {
        Some(kind) => {
            let message = format!(
                "version {version:?} is not served, so the object has no effect; use {}",
                kind.versions
                    .iter()
                    .map(|v| kind.api_version(v))
                    .collect::<Vec<_>>()
                    .join(" or ")
            );
            return Notice::warning(subject, "apiVersion", message);
        }
        None => format!(
            "{} of {api_version} is not a kind that the mesh knows: the object has no effect on it",
            subject.kind
        ),
    };
    Notice::warning(subject, "kind", message)
}

/// Removes null members of mappings, at every depth.
fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, below| !below.is_null());
            map.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
