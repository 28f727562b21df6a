//! Pods as they are read from the API server: only the fields that mean something are built. Pods are most of what a
//! control plane reads, and nine tenths of each are of no interest. What the fields mean is not known here.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A pod in which most is absent. Annotations are there, but empty.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "Read")]
pub(super) struct Pod(pub(super) core::Pod);

#[derive(Deserialize)]
struct Read {
    #[serde(default)]
    metadata: Meta,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Meta {
    name: Option<String>,
    namespace: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, IgnoredAny>>,
    deletion_timestamp: Option<Time>,
    owner_references: Option<Vec<OwnerReference>>,
    resource_version: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    containers: Vec<Container>,
    init_containers: Option<Vec<Container>>,
    node_name: Option<String>,
    service_account_name: Option<String>,
}

#[derive(Deserialize)]
struct Container {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<core::PodIP>>,
    conditions: Option<Vec<Condition>>,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl From<Read> for Pod {
    fn from(read: Read) -> Self {
        Self(core::Pod {
            metadata: meta(read.metadata),
            spec: read.spec.map(spec),
            status: read.status.map(status),
        })
    }
}

fn meta(read: Meta) -> ObjectMeta {
    let annotations = read.annotations.map(|annotations| {
        let keys = annotations.into_keys();
        keys.map(|key| (key, String::new())).collect()
    });
    ObjectMeta {
        name: read.name,
        namespace: read.namespace,
        labels: read.labels,
        annotations,
        deletion_timestamp: read.deletion_timestamp,
        owner_references: read.owner_references,
        resource_version: read.resource_version,
        ..ObjectMeta::default()
    }
}

fn spec(read: Spec) -> core::PodSpec {
    let named = |container: Container| core::Container {
        name: container.name,
        ..core::Container::default()
    };
    let init_containers = read.init_containers;
    core::PodSpec {
        containers: read.containers.into_iter().map(named).collect(),
        init_containers: init_containers.map(|list| list.into_iter().map(named).collect()),
        node_name: read.node_name,
        service_account_name: read.service_account_name,
        ..core::PodSpec::default()
    }
}

fn status(read: Status) -> core::PodStatus {
    let condition = |condition: Condition| core::PodCondition {
        type_: condition.kind,
        status: condition.status,
        ..core::PodCondition::default()
    };
    let conditions = read.conditions;
    core::PodStatus {
        phase: read.phase,
        pod_ip: read.pod_ip,
        pod_ips: read.pod_ips,
        conditions: conditions.map(|list| list.into_iter().map(condition).collect()),
        ..core::PodStatus::default()
    }
}

impl Resource for Pod {
    type DynamicType = ();
    type Scope = <core::Pod as Resource>::Scope;

    fn kind(dt: &()) -> Cow<'_, str> {
        core::Pod::kind(dt)
    }

    fn group(dt: &()) -> Cow<'_, str> {
        core::Pod::group(dt)
    }

    fn version(dt: &()) -> Cow<'_, str> {
        core::Pod::version(dt)
    }

    fn plural(dt: &()) -> Cow<'_, str> {
        core::Pod::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.0.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.0.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lateen_translate::pod::{Pod as Slim, Words};
    use serde_json::json;

    #[test]
    fn a_pod_means_the_same_when_most_of_it_is_not_read() {
        let object = json!({
            "metadata": {
                "name": "p", "namespace": "shop", "labels": { "app": "p", "pod-template-hash": "1" },
                "annotations": { "sidecar.istio.io/status": "{\"containers\":[]}", "other": "x" },
                "managedFields": [{ "fieldsV1": { "f:a": {} } }], "resourceVersion": "7",
                "deletionTimestamp": "2026-01-01T00:00:00Z",
                "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "u", "controller": true }],
            },
            "spec": {
                "nodeName": "n", "serviceAccountName": "sa", "volumes": [{ "name": "v" }],
                "containers": [{ "name": "c", "image": "i", "env": [{ "name": "A" }] }],
                "initContainers": [{ "name": "istio-proxy", "restartPolicy": "Always" }],
            },
            "status": {
                "phase": "Running", "podIP": "10.0.0.1", "podIPs": [{ "ip": "10.0.0.1" }, { "ip": "fd00::1" }],
                "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" }],
            },
        });
        let whole: core::Pod = serde_json::from_value(object.clone()).expect("a pod");
        let lean: Pod = serde_json::from_value(object).expect("a pod");
        assert_eq!(lean.meta().resource_version.as_deref(), Some("7"));
        let mut words = Words::default();
        let slim = Slim::of(&lean.0, &mut words);
        assert_eq!(slim, Slim::of(&whole, &mut words));
        assert!(slim.has_sidecar && slim.addresses.len() == 2 && &*slim.owner == "web");
    }
}
