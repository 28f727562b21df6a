//! Cases of `object`: text in, observable result out.

use super::*;
use serde_json::json;

#[test]
fn every_version_gives_the_same_type() {
    for version in ["v1", "v1beta1", "v1alpha3"] {
        let (object, notices) = from_json(json!({
            "apiVersion": format!("networking.istio.io/{version}"),
            "kind": "DestinationRule",
            "metadata": { "name": "a", "namespace": "n", "creationTimestamp": "2026-01-01T00:00:00Z" },
            "spec": { "host": "a", "subsets": [{ "name": "v1", "labels": { "version": "v1" } }] },
        }));
        assert_eq!(notices, []);
        let Some(Object::DestinationRule(rule)) = object else {
            panic!("not a DestinationRule");
        };
        assert_eq!(rule.meta.created, 1_767_225_600_000);
        assert_eq!(rule.spec.subsets[0].labels["version"], "v1");
    }
}

#[test]
fn annotations_leave_out_kubectls_copy() {
    let (object, _) = from_json(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "a", "annotations": {
            "kubectl.kubernetes.io/last-applied-configuration": "{}", "x": "y" } },
    }));
    let annotations = object.expect("read").meta().annotations.clone();
    assert_eq!(annotations.into_keys().collect::<Vec<_>>(), ["x"]);
}

/// What the API server sends beside the user's fields makes no notice.
#[test]
fn status_and_server_fields_are_known() {
    let (object, notices) = from_json(json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": { "name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7", "generation": 2,
            "managedFields": [], "finalizers": [] },
        "spec": { "hosts": ["a"] },
        "status": { "conditions": [] },
    }));
    assert_eq!(notices, []);
    assert_eq!(object.expect("read").meta().resource_version, "7");
}

/// A policy that lost its misspelt half could mean the opposite of what it says.
#[test]
fn an_unknown_field_refuses_a_policy() {
    let (object, notices) = from_json(json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": { "name": "a", "namespace": "n" },
        "spec": { "rules": [{ "form": [{ "source": { "principals": ["x"] } }] }] },
    }));
    assert_eq!(object, None);
    let said = notices.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        said,
        [
            "Error: AuthorizationPolicy n/a: spec.rules[0].form: unknown field, so the object could mean something else than it says; did you mean \"from\"?"
        ]
    );
}
