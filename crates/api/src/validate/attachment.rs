//! What security policies are attached to: a selector or target references, one of them.

use super::{Findings, is_label};
use crate::fields::{MatchLabels, TargetReference};
use crate::path;

/// Most labels of a selector (Istio: 4096; an object of Kubernetes never has as many).
const MOST_LABELS: usize = 4096;

/// Kinds that a policy can be attached to, with their API groups (Istio: `targetRefs`).
const KINDS: [(&str, &str); 5] = [
    ("gateway.networking.k8s.io", "Gateway"),
    ("gateway.networking.k8s.io", "GatewayClass"),
    ("", "Service"),
    ("core", "Service"),
    ("networking.istio.io", "ServiceEntry"),
];

/// Where a policy is.
pub(super) struct Place<'a> {
    pub namespace: &'a str,
    pub selector: Option<&'a MatchLabels>,
    pub target_ref: Option<&'a TargetReference>,
    pub target_refs: &'a [TargetReference],
}

pub(super) fn attachment(f: &mut Findings, place: &Place<'_>) {
    let given = [
        place.selector.is_some(),
        place.target_ref.is_some(),
        !place.target_refs.is_empty(),
    ];
    if given.into_iter().filter(|given| *given).count() > 1 {
        f.error(
            "spec",
            "selector, targetRef and targetRefs exclude each other: keep one of them",
        );
    }
    if let Some(labels) = place.selector {
        selector(f, labels);
    }
    if let Some(one) = place.target_ref {
        target(f, "spec.targetRef", one, place.namespace);
    }
    for (i, one) in place.target_refs.iter().enumerate() {
        let field = path::index("spec.targetRefs", i);
        target(f, &field, one, place.namespace);
    }
}

pub(super) fn selector(f: &mut Findings, selector: &MatchLabels) {
    let field = "spec.selector.matchLabels";
    let count = selector.match_labels.len();
    if count > MOST_LABELS {
        let message = format!("has {count} labels; at most {MOST_LABELS} are allowed");
        f.error(field, message);
        return;
    }
    for (key, value) in &selector.match_labels {
        let field = path::key(field, key);
        if key.is_empty() || key.contains('*') {
            f.error(&field, "is not a label: give its full key");
        }
        if value.contains('*') {
            f.error(&field, "wildcards do not work in selectors");
        } else if value.len() > 63 {
            f.error(&field, "is too long: label values have 63 characters");
        }
    }
}

fn target(f: &mut Findings, field: &str, target: &TargetReference, namespace: &str) {
    let group = target.group.as_deref().unwrap_or_default();
    if !KINDS.contains(&(group, target.kind.as_str())) {
        f.error(
            field,
            format!(
                "{:?} of group {group:?} cannot have policies; use Gateway or GatewayClass of gateway.networking.k8s.io, Service, or ServiceEntry of networking.istio.io",
                target.kind
            ),
        );
    }
    if target.name.is_empty() || !target.name.split('.').all(is_label) {
        let message = format!("{:?} is not a name of an object", target.name);
        f.error(format!("{field}.name"), message);
    }
    let other = target.namespace.as_deref().unwrap_or_default();
    if !other.is_empty() && other != namespace {
        f.error(
            format!("{field}.namespace"),
            "is another namespace: a policy is for objects of its own; leave it out",
        );
    }
}
