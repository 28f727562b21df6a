//! CustomResourceDefinitions, generated from the types of this crate with their documentation as descriptions.

use crate::authorization_policy::AuthorizationPolicy;
use crate::kinds::{KINDS, Kind, Support};
use crate::peer_authentication::PeerAuthentication;
use crate::rate_limit_policy::RateLimitPolicy;
use crate::request_authentication::RequestAuthentication;
use crate::schema::structural;
use crate::{destination_rule, gateway, service_entry, sidecar, virtual_service, workload_entry};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::LazyLock;

static SPECS: LazyLock<BTreeMap<&'static str, Value>> = LazyLock::new(|| {
    BTreeMap::from([
        ("Gateway", structural::<gateway::Gateway>()),
        (
            "VirtualService",
            structural::<virtual_service::VirtualService>(),
        ),
        (
            "DestinationRule",
            structural::<destination_rule::DestinationRule>(),
        ),
        ("ServiceEntry", structural::<service_entry::ServiceEntry>()),
        ("Sidecar", structural::<sidecar::Sidecar>()),
        ("WorkloadEntry", workload_entry_spec()),
        (
            "PeerAuthentication",
            keeping_unknown(structural::<PeerAuthentication>()),
        ),
        (
            "RequestAuthentication",
            keeping_unknown(structural::<RequestAuthentication>()),
        ),
        (
            "AuthorizationPolicy",
            keeping_unknown(structural::<AuthorizationPolicy>()),
        ),
        (
            "RateLimitPolicy",
            keeping_unknown(structural::<RateLimitPolicy>()),
        ),
    ])
});

/// A WorkloadEntry must say where it is; the same type inside a ServiceEntry has no such rule in the schema,
/// where it would cost too much on 4,096 endpoints.
fn workload_entry_spec() -> Value {
    let mut spec = structural::<workload_entry::WorkloadEntry>();
    spec["x-kubernetes-validations"] = json!([{
        "rule": "has(self.address) || has(self.network)",
        "message": "address is missing: give an address, or a network whose gateway is used",
    }]);
    spec
}

/// Lets the API server keep fields that the schema does not have, instead of silently removing them: a policy without
/// its misspelt half could allow what it was written to forbid. The admission webhook refuses such fields by name.
fn keeping_unknown(mut schema: Value) -> Value {
    fn walk(schema: &mut Value) {
        let Some(map) = schema.as_object_mut() else {
            return;
        };
        if let Some(Value::Object(properties)) = map.get_mut("properties") {
            properties.values_mut().for_each(walk);
            map.insert("x-kubernetes-preserve-unknown-fields".into(), true.into());
        }
        for key in ["items", "additionalProperties"] {
            if let Some(below) = map.get_mut(key) {
                walk(below);
            }
        }
    }
    walk(&mut schema);
    schema
}

/// The structural schema of `spec` for a typed Istio kind. Absent for every other kind.
pub fn spec_schema(kind: &str) -> Option<&'static Value> {
    SPECS.get(kind)
}

/// One CustomResourceDefinition for every typed Istio kind: all versions served, `v1` stored.
pub fn crds() -> Vec<Value> {
    KINDS
        .iter()
        .filter(|kind| kind.support == Support::Typed)
        .map(crd)
        .collect()
}

/// [`crds`] as one YAML text of several documents.
pub fn crds_yaml() -> String {
    crds()
        .iter()
        .map(|crd| format!("---\n{}", crate::yaml::render(crd)))
        .collect()
}

fn crd(kind: &Kind) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{}.{}", kind.plural, kind.group),
            "labels": { "app.kubernetes.io/part-of": "lateen" },
        },
        "spec": {
            "group": kind.group,
            "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
            "names": names(kind),
            "versions": kind.versions.iter().map(|v| version(kind, v)).collect::<Vec<_>>(),
        },
    })
}

fn names(kind: &Kind) -> Value {
    let mut names = json!({
        "kind": kind.kind,
        "listKind": format!("{}List", kind.kind),
        "plural": kind.plural,
        "singular": kind.singular,
        "categories": kind.categories,
    });
    if !kind.short_names.is_empty() {
        names["shortNames"] = json!(kind.short_names);
    }
    names
}

fn version(kind: &Kind, version: &str) -> Value {
    let columns = kind
        .columns
        .iter()
        .map(|c| {
            json!({
                "name": c.name,
                "type": c.data_type,
                "jsonPath": c.json_path,
                "description": c.description,
            })
        })
        .collect::<Vec<_>>();
    json!({
        "name": version,
        "served": true,
        "storage": version == kind.storage,
        "subresources": { "status": {} },
        "additionalPrinterColumns": columns,
        "schema": { "openAPIV3Schema": {
            "type": "object",
            "properties": {
                "spec": spec_schema(kind.kind),
                "status": {
                    "type": "object",
                    "description": "What the mesh made of the object.",
                    "x-kubernetes-preserve-unknown-fields": true,
                },
            },
        }},
    })
}

#[cfg(test)]
mod tests;
