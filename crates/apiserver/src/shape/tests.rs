//! Cases of `shape`: text in, observable result out.

use super::*;
use serde_json::json;

#[track_caller]
fn check(object: Value, unknown: &[&str], mistyped: usize) {
    let kinds = crate::kinds::Registry::new();
    let mut object = object;
    let findings = inspect(kinds.builtin().typed("io.k8s.api.core.v1.Pod"), &mut object);
    assert_eq!(findings.unknown, unknown);
    assert_eq!(findings.mistyped.len(), mistyped, "{:?}", findings.mistyped);
}

#[test]
fn unknown_fields_and_wrong_types_are_told_by_path() {
    check(
        json!({"metadata": {"name": "x", "labels": {"any": "thing"}}, "spec": {"containers": []}}),
        &[],
        0,
    );
    check(
        json!({"spec": {"containers": [{"name": "a", "imag": "b"}]}}),
        &["spec.containers[0].imag"],
        0,
    );
    check(json!({"spec": {"containers": [{"name": 1}]}}), &[], 1);
    check(
        json!({"spec": {"terminationGracePeriodSeconds": "soon", "containers": {}}}),
        &[],
        2,
    );
    check(
        json!({"spec": {"containers": [{"resources": {"limits": {"cpu": 1, "memory": "1Gi"}}}]}}),
        &[],
        0,
    );
}
