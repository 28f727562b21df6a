//! What the three security kinds share: selections, who sees a policy, and what a broken one means until it is mended.

use crate::mesh::{Mesh, root_namespace};
use crate::names::labels;
use lateen_api::fields::{Labels, MatchLabels, TargetReference};
use lateen_api::meta::Meta;
use lateen_model::name::Visibility;
use lateen_model::resource::Resource;
use lateen_model::security::{Selection, TargetRef};
use serde_json::Value;

/// What a policy is attached to.
pub(crate) fn selection(
    selector: Option<&MatchLabels>,
    target_ref: Option<&TargetReference>,
    target_refs: &[TargetReference],
) -> Selection {
    Selection {
        labels: selector
            .map(|s| labels(&s.match_labels))
            .unwrap_or_default(),
        targets: target_ref
            .into_iter()
            .chain(target_refs)
            .map(|target| TargetRef {
                kind: target.kind.as_str().into(),
                name: target.name.as_str().into(),
            })
            .collect(),
    }
}

/// Which proxies get a policy: all when it is in the root namespace, else those of its namespace.
pub(crate) fn visibility(meta: &Meta, mesh: &Mesh) -> Visibility {
    if is_in_root(meta, mesh) {
        Visibility::Public
    } else {
        Visibility::Namespaces(vec![meta.namespace.as_str().into()])
    }
}

pub(crate) fn is_in_root(meta: &Meta, mesh: &Mesh) -> bool {
    meta.namespace == root_namespace(&mesh.config)
}

/// Kinds that a policy can be attached to.
const TARGETS: [&str; 4] = ["Gateway", "GatewayClass", "Service", "ServiceEntry"];

/// The selection of a policy that cannot be understood, as far as it can be read. A part that cannot be read selects
/// more, never less; so does one that selects nobody, such as `app: "*"`, and a selector beside targets.
pub(crate) fn salvaged_selection(spec: &Value) -> Selection {
    let Some(targets) = salvaged_targets(spec) else {
        return Selection::default();
    };
    match (spec.get("selector"), targets.is_empty()) {
        (None, _) => selection(None, None, &targets),
        (Some(_), false) => Selection::default(),
        (Some(selector), true) => {
            let labels = selector["matchLabels"].clone();
            let labels: Option<Labels> = serde_json::from_value(labels).ok();
            let mut match_labels = labels.unwrap_or_default();
            match_labels.retain(|key, value| may_be_label(key, value));
            selection(Some(&MatchLabels { match_labels }), None, &[])
        }
    }
}

/// Absent: there is a target that cannot be read, or cannot be.
fn salvaged_targets(spec: &Value) -> Option<Vec<TargetReference>> {
    let none = Vec::new();
    let many = spec.get("targetRefs");
    let many = many.map_or(Some(&none), Value::as_array)?;
    let read = |target: &Value| {
        let target: TargetReference = serde_json::from_value(target.clone()).ok()?;
        let may_be = TARGETS.contains(&target.kind.as_str()) && may_be_name(&target.name);
        may_be.then_some(target)
    };
    spec.get("targetRef")
        .into_iter()
        .chain(many)
        .map(read)
        .collect()
}

/// Whether an object may have such a name (Kubernetes: names are DNS names).
fn may_be_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
    !name.is_empty() && name.bytes().all(plain)
}

/// Whether a workload may have such a label (Kubernetes: names of labels; their values have 63 characters at most).
fn may_be_label(key: &str, value: &str) -> bool {
    !key.is_empty() && !key.contains('*') && !value.contains('*') && value.len() <= 63
}

/// What an object of a security kind means that cannot be put in force and that had no good value before: what lets
/// the least through. Nothing for other kinds.
///
/// `spec` is the object's as written, however broken.
pub fn closed(kind: &str, meta: &Meta, spec: &Value, mesh: &Mesh) -> Vec<Resource> {
    let mut spec = spec.clone();
    // Nulls count as absent (protobuf JSON).
    if let Value::Object(fields) = &mut spec {
        fields.retain(|_, value| !value.is_null());
    }
    let spec = &spec;
    match kind {
        "PeerAuthentication" => crate::peer_authentication::closed(meta, spec, mesh),
        "RequestAuthentication" => crate::request_authentication::closed(meta, spec, mesh),
        "AuthorizationPolicy" => crate::authorization_policy::closed(meta, spec, mesh),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
