//! How lists and maps of the built-in types merge: Kubernetes' struct tags, which the generated schemas lack.
//! Source: the `+listType`, `+listMapKey`, `+mapType`, `patchStrategy` and `patchMergeKey` markers of the API reference.

use serde_json::{Map, Value, json};

/// (type, field, keys for server-side apply, key for strategic merge). An empty strategic key: replaced.
const KEYED: &[(&str, &str, &[&str], &str)] = &[
    ("PodSpec", "containers", &["name"], "name"),
    ("PodSpec", "initContainers", &["name"], "name"),
    ("PodSpec", "ephemeralContainers", &["name"], "name"),
    ("PodSpec", "volumes", &["name"], "name"),
    ("PodSpec", "imagePullSecrets", &["name"], "name"),
    ("PodSpec", "hostAliases", &["ip"], "ip"),
    (
        "PodSpec",
        "topologySpreadConstraints",
        &["topologyKey", "whenUnsatisfiable"],
        "topologyKey",
    ),
    ("PodSpec", "schedulingGates", &["name"], "name"),
    ("PodSpec", "resourceClaims", &["name"], "name"),
    ("Container", "env", &["name"], "name"),
    (
        "Container",
        "ports",
        &["containerPort", "protocol"],
        "containerPort",
    ),
    ("Container", "volumeMounts", &["mountPath"], "mountPath"),
    ("Container", "volumeDevices", &["devicePath"], "devicePath"),
    ("EphemeralContainer", "env", &["name"], "name"),
    (
        "EphemeralContainer",
        "ports",
        &["containerPort", "protocol"],
        "containerPort",
    ),
    (
        "EphemeralContainer",
        "volumeMounts",
        &["mountPath"],
        "mountPath",
    ),
    ("ResourceRequirements", "claims", &["name"], ""),
    ("PodStatus", "conditions", &["type"], "type"),
    ("PodStatus", "podIPs", &["ip"], "ip"),
    ("ObjectMeta", "ownerReferences", &["uid"], "uid"),
    ("ServiceSpec", "ports", &["port", "protocol"], "port"),
    ("ServiceStatus", "conditions", &["type"], "type"),
    ("ServiceAccount", "secrets", &["name"], "name"),
    ("NodeStatus", "conditions", &["type"], "type"),
    ("NodeStatus", "addresses", &["type"], "type"),
    ("NamespaceStatus", "conditions", &["type"], "type"),
    (
        "PersistentVolumeClaimStatus",
        "conditions",
        &["type"],
        "type",
    ),
    (
        "ReplicationControllerStatus",
        "conditions",
        &["type"],
        "type",
    ),
    ("DeploymentStatus", "conditions", &["type"], "type"),
    ("ReplicaSetStatus", "conditions", &["type"], "type"),
    ("StatefulSetStatus", "conditions", &["type"], "type"),
    ("DaemonSetStatus", "conditions", &["type"], "type"),
    ("JobStatus", "conditions", &[], "type"),
    ("PodDisruptionBudgetStatus", "conditions", &["type"], "type"),
    (
        "HorizontalPodAutoscalerStatus",
        "conditions",
        &["type"],
        "type",
    ),
    (
        "MutatingWebhookConfiguration",
        "webhooks",
        &["name"],
        "name",
    ),
    (
        "ValidatingWebhookConfiguration",
        "webhooks",
        &["name"],
        "name",
    ),
    ("MutatingWebhook", "matchConditions", &["name"], "name"),
    ("ValidatingWebhook", "matchConditions", &["name"], "name"),
    (
        "CustomResourceDefinitionStatus",
        "conditions",
        &["type"],
        "",
    ),
];

/// Lists of unique scalars: (type, field, whether strategic merge unites them).
const SETS: &[(&str, &str, bool)] = &[
    ("ObjectMeta", "finalizers", true),
    ("NodeSpec", "podCIDRs", true),
    ("CustomResourceDefinitionStatus", "storedVersions", false),
];

/// Types that server-side apply owns as a whole.
const ATOMIC_TYPES: &[&str] = &[
    "LabelSelector",
    "ObjectReference",
    "LocalObjectReference",
    "TypedLocalObjectReference",
    "SecretKeySelector",
    "ConfigMapKeySelector",
    "ObjectFieldSelector",
    "ResourceFieldSelector",
    "NodeSelector",
    "NodeSelectorTerm",
    "OwnerReference",
    "SecretReference",
    "RoleRef",
    "Subject",
    "EndpointAddress",
    "ScopeSelector",
];

/// Maps that server-side apply owns as a whole.
const ATOMIC_MAPS: &[(&str, &str)] = &[
    ("ServiceSpec", "selector"),
    ("PodSpec", "nodeSelector"),
    ("ReplicationControllerSpec", "selector"),
];

/// Writes the rules into the definitions as OpenAPI extensions.
pub fn annotate(definitions: &mut Map<String, Value>) {
    for (name, schema) in definitions.iter_mut() {
        let short = name.rsplit('.').next().unwrap_or(name).to_owned();
        if ATOMIC_TYPES.contains(&short.as_str()) {
            schema["x-kubernetes-map-type"] = json!("atomic");
        }
        if short == "DeploymentStrategy" || short == "StatefulSetUpdateStrategy" {
            schema["x-kubernetes-patch-strategy"] = json!("retainKeys");
        }
        if short == "Volume" {
            schema["x-kubernetes-patch-strategy"] = json!("retainKeys");
        }
        // Their schemas say "object" where any JSON value is meant.
        if matches!(short.as_str(), "JSON" | "RawExtension" | "FieldsV1") {
            schema["x-kubernetes-preserve-unknown-fields"] = json!(true);
        }
        if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
            properties
                .iter_mut()
                .for_each(|(field, schema)| rules(&short, field, schema));
        }
    }
}

fn rules(type_name: &str, field: &str, schema: &mut Value) {
    if let Some((.., keys, merge_key)) = KEYED
        .iter()
        .find(|(of, name, ..)| *of == type_name && *name == field)
    {
        if !keys.is_empty() {
            schema["x-kubernetes-list-type"] = json!("map");
            schema["x-kubernetes-list-map-keys"] = json!(keys);
        }
        if !merge_key.is_empty() {
            schema["x-kubernetes-patch-strategy"] = json!("merge");
            schema["x-kubernetes-patch-merge-key"] = json!(merge_key);
        }
    } else if let Some((.., unite)) = SETS
        .iter()
        .find(|(of, name, _)| *of == type_name && *name == field)
    {
        schema["x-kubernetes-list-type"] = json!("set");
        if *unite {
            schema["x-kubernetes-patch-strategy"] = json!("merge");
        }
    } else if ATOMIC_MAPS.contains(&(type_name, field)) {
        schema["x-kubernetes-map-type"] = json!("atomic");
    } else if schema["type"] == "array" {
        schema["x-kubernetes-list-type"] = json!("atomic");
    }
}
