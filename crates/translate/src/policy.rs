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

/// The selection of a policy that cannot be understood, as far as it can be read. A part that cannot be read selects
/// more, never less.
pub(crate) fn salvaged_selection(spec: &Value) -> Selection {
    let selector = &spec["selector"]["matchLabels"];
    let labels: Option<Labels> = serde_json::from_value(selector.clone()).ok();
    let one = spec.get("targetRef").into_iter();
    let many = spec["targetRefs"].as_array().into_iter().flatten();
    let targets: Option<Vec<TargetReference>> = one
        .chain(many)
        .map(|target| serde_json::from_value(target.clone()).ok())
        .collect();
    let labels = MatchLabels {
        match_labels: labels.unwrap_or_default(),
    };
    selection(Some(&labels), None, &targets.unwrap_or_default())
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
