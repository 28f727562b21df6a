//! Objects cut down to what means something to the mesh.

use super::{Books, Broken, Id, IstioKind, Written};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod as FullPod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DynamicObject;
use lateen_api::meta::Meta;
use lateen_api::object::from_json;
use lateen_base::Str;
use lateen_translate::pod::{Pod, Words};
use lateen_translate::slice::Slice;
use serde_json::Value;
use std::collections::BTreeMap;

/// A namespace's labels.
pub(crate) fn namespace(object: Namespace) -> (Id, BTreeMap<String, String>) {
    let id = id(&object.metadata);
    (id, object.metadata.labels.unwrap_or_default())
}

/// Where a node is: `region/zone/subzone` (Istio: from the well-known labels); empty when nobody says.
pub(crate) fn node(object: Node) -> (Id, Str) {
    let id = id(&object.metadata);
    let labels = object.metadata.labels.unwrap_or_default();
    let first = |names: [&str; 2]| {
        let mut found = names.into_iter().filter_map(|name| labels.get(name));
        found.next().map_or("", String::as_str)
    };
    let places = [
        first([
            "topology.kubernetes.io/region",
            "failure-domain.beta.kubernetes.io/region",
        ]),
        first([
            "topology.kubernetes.io/zone",
            "failure-domain.beta.kubernetes.io/zone",
        ]),
        first(["topology.istio.io/subzone"; 2]),
    ];
    (id, places.join("/").trim_end_matches('/').into())
}

/// A Service without its status.
pub(crate) fn service(mut object: Service) -> (Id, Service) {
    object.status = None;
    object.metadata = meta(object.metadata);
    (id(&object.metadata), object)
}

/// An EndpointSlice; texts that `words` knows are shared.
pub(crate) fn endpoint_slice(object: &EndpointSlice, words: &mut Words) -> (Id, Slice) {
    let slice = Slice::of(object, words);
    let id = Id {
        namespace: Str::clone(&slice.namespace),
        name: Str::clone(&slice.name),
    };
    (id, slice)
}

/// A pod; texts that `words` knows are shared.
pub(crate) fn pod(object: &FullPod, words: &mut Words) -> (Id, Pod) {
    let pod = Pod::of(object, words);
    let id = Id {
        namespace: Str::clone(&pod.namespace),
        name: Str::clone(&pod.name),
    };
    (id, pod)
}

/// MeshConfig's text.
pub(crate) fn mesh_config(object: ConfigMap) -> (Id, String) {
    let text = object.data.unwrap_or_default().remove("mesh");
    (id(&object.metadata), text.unwrap_or_default())
}

/// An Istio object, typed, and its books.
pub(crate) fn istio(kind: IstioKind, object: DynamicObject) -> (Id, (Written, Books)) {
    let id = id(&object.metadata);
    let mut value = serde_json::to_value(&object).unwrap_or_default();
    drop(object);
    let resource = kind.resource();
    // Items of a list come without their kind.
    value["apiVersion"] = Value::String(resource.api_version);
    value["kind"] = Value::String(resource.kind);
    let books = Books {
        generation: value["metadata"]["generation"].as_i64().unwrap_or_default(),
        uid: value["metadata"]["uid"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        status: value["status"].take(),
    };
    let healthy = kind != IstioKind::WorkloadEntry || is_healthy(&value, &books.status);
    let written = Written {
        healthy,
        ..written(value)
    };
    (id, (written, books))
}

/// What a WorkloadEntry's condition `Healthy` says. Without one it is healthy, unless health checks are enabled for it
/// (Istio: `proxy.istio.io/health-checks-enabled`), which then have not passed yet.
fn is_healthy(object: &Value, status: &Value) -> bool {
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    match conditions.find(|condition| condition["type"] == "Healthy") {
        Some(condition) => condition["status"] == "True",
        None => {
            let annotation = "proxy.istio.io/health-checks-enabled";
            object["metadata"]["annotations"][annotation] != "true"
        }
    }
}

/// Decodes an object and keeps of its metadata what means something.
pub(crate) fn written(mut value: Value) -> Written {
    if let Some(meta) = value["metadata"].as_object_mut() {
        let dropped = ["managedFields", "resourceVersion", "generation", "uid"];
        meta.retain(|key, _| !dropped.contains(&key.as_str()));
        if let Some(annotations) = meta.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.retain(|key, _| means_something(key));
        }
    }
    let group = value["apiVersion"].as_str().unwrap_or_default();
    let mut broken = group.starts_with("security.istio.io/").then(|| {
        Box::new(Broken {
            meta: Meta::of(&value),
            spec: value["spec"].clone(),
        })
    });
    let (object, notices) = from_json(value);
    if object.is_some() {
        broken = None;
    }
    Written {
        object,
        notices,
        healthy: true,
        broken,
    }
}

fn id(meta: &ObjectMeta) -> Id {
    Id::new(
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default(),
    )
}

/// The metadata that counts: names, labels, meaningful annotations, age, controller, and that it is going.
fn meta(meta: ObjectMeta) -> ObjectMeta {
    let annotations = meta.annotations.map(|mut annotations| {
        annotations.retain(|key, _| means_something(key));
        annotations
    });
    let owners = meta.owner_references.map(|mut owners| {
        owners.retain(|owner| owner.controller == Some(true));
        owners
    });
    ObjectMeta {
        name: meta.name,
        namespace: meta.namespace,
        labels: meta.labels,
        annotations: annotations.filter(|annotations| !annotations.is_empty()),
        creation_timestamp: meta.creation_timestamp,
        deletion_timestamp: meta.deletion_timestamp,
        owner_references: owners,
        ..ObjectMeta::default()
    }
}

/// Annotations that the mesh reads: Istio's own and Kubernetes' topology settings.
fn means_something(key: &str) -> bool {
    let domain = key.split('/').next().unwrap_or_default();
    domain == "istio.io" || domain.ends_with(".istio.io") || domain == "service.kubernetes.io"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn route(meta: Value) -> Value {
        let mut meta = meta;
        meta["name"] = json!("reviews");
        meta["namespace"] = json!("shop");
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": meta,
            "spec": { "hosts": ["reviews"], "http": [{ "route": [{ "destination": { "host": "reviews" } }] }] },
        })
    }

    #[test]
    fn an_edit_of_metadata_that_means_nothing_is_no_change() {
        let before = written(route(json!({ "labels": { "a": "1" } })));
        assert!(before.object.is_some(), "{:?}", before.notices);
        let touched = |meta| written(route(meta)) == before;
        let labels = json!({ "a": "1" });
        assert!(touched(
            json!({ "labels": labels, "resourceVersion": "9", "generation": 3 })
        ));
        assert!(touched(
            json!({ "labels": labels, "managedFields": [{}], "annotations": { "me": "x" } })
        ));
        assert!(!touched(json!({ "labels": { "a": "2" } })));
        assert!(!touched(
            json!({ "labels": labels, "annotations": { "galley.istio.io/analyze-suppress": "*" } })
        ));
    }

    #[test]
    fn a_status_says_whether_a_workload_entry_is_healthy() {
        let healthy = |annotations: Value, status: Value| {
            let object = json!({
                "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
                "metadata": { "name": "vm", "namespace": "shop", "annotations": annotations },
                "spec": { "address": "192.0.2.1" }, "status": status,
            });
            let object = serde_json::from_value(object).expect("valid");
            istio(IstioKind::WorkloadEntry, object).1.0.healthy
        };
        let says =
            |status: &str| json!({ "conditions": [{ "type": "Healthy", "status": status }] });
        let checked = json!({ "proxy.istio.io/health-checks-enabled": "true" });
        assert!(healthy(json!({}), Value::Null));
        assert!(healthy(json!({}), says("True")));
        assert!(!healthy(json!({}), says("False")));
        assert!(
            !healthy(checked.clone(), Value::Null),
            "no check has passed yet"
        );
        assert!(healthy(checked.clone(), says("True")));
        assert!(!healthy(checked, says("Unknown")));
    }
}
