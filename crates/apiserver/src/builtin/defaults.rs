//! Defaults of the built-in kinds, as the API reference tells them.

mod pods;

use crate::kinds::Kind;
use pods::{pod, pod_object};
use serde_json::{Map, Value, json};

/// Fills in what Kubernetes fills in. `old` is the stored state on updates.
pub fn defaults(kind: &Kind, object: &mut Value, old: Option<&Value>) {
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "pods") => {
            pod(&mut object["spec"]);
            pod_object(object);
        }
        ("", "services") => service(object, old),
        ("", "namespaces") => namespace(object, old),
        ("", "secrets") => secret(object),
        ("", "replicationcontrollers") => replication_controller(object),
        ("", "persistentvolumeclaims") => {
            put(&mut object["spec"], &[("volumeMode", json!("Filesystem"))])
        }
        ("apps", "deployments") => deployment(&mut object["spec"]),
        ("apps", "replicasets") => {
            put(&mut object["spec"], &[("replicas", json!(1))]);
            template(&mut object["spec"]);
        }
        ("apps", "statefulsets") => stateful_set(&mut object["spec"]),
        ("apps", "daemonsets") => daemon_set(&mut object["spec"]),
        ("batch", "jobs") => job(object, old),
        ("batch", "cronjobs") => cron_job(&mut object["spec"]),
        ("admissionregistration.k8s.io", _) => webhooks(object),
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => bindings(object),
        ("discovery.k8s.io", "endpointslices") => endpoint_slice(object),
        ("autoscaling", _) => put(&mut object["spec"], &[("minReplicas", json!(1))]),
        ("networking.k8s.io", "networkpolicies") => network_policy(&mut object["spec"]),
        _ => {}
    }
}

/// Sets fields that are absent. A value that is no object is left alone.
fn put(target: &mut Value, fields: &[(&str, Value)]) {
    if target.is_null() {
        *target = Value::Object(Map::new());
    }
    let Some(map) = target.as_object_mut() else {
        return;
    };
    for (name, value) in fields {
        let found = map.entry(*name).or_insert(Value::Null);
        if found.is_null() {
            *found = value.clone();
        }
    }
}

fn each<'a>(value: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    value
        .get_mut(field)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

fn template(spec: &mut Value) {
    if spec["template"].is_object() {
        put(
            &mut spec["template"],
            &[
                ("metadata", json!({"creationTimestamp": null})),
                ("spec", json!({})),
            ],
        );
        if let Some(metadata) = spec["template"]["metadata"].as_object_mut() {
            metadata.retain(|_, value| !value.is_null());
        }
        pod(&mut spec["template"]["spec"]);
    }
}

fn deployment(spec: &mut Value) {
    put(
        spec,
        &[
            ("replicas", json!(1)),
            ("revisionHistoryLimit", json!(10)),
            ("progressDeadlineSeconds", json!(600)),
            ("strategy", json!({"type": "RollingUpdate"})),
        ],
    );
    put(&mut spec["strategy"], &[("type", json!("RollingUpdate"))]);
    if spec["strategy"]["type"] == "RollingUpdate" {
        put(
            &mut spec["strategy"]["rollingUpdate"],
            &[("maxUnavailable", json!("25%")), ("maxSurge", json!("25%"))],
        );
    }
    template(spec);
}

fn stateful_set(spec: &mut Value) {
    put(
        spec,
        &[
            ("replicas", json!(1)),
            ("revisionHistoryLimit", json!(10)),
            ("podManagementPolicy", json!("OrderedReady")),
            ("updateStrategy", json!({"type": "RollingUpdate"})),
            (
                "persistentVolumeClaimRetentionPolicy",
                json!({"whenDeleted": "Retain", "whenScaled": "Retain"}),
            ),
        ],
    );
    put(
        &mut spec["updateStrategy"],
        &[("type", json!("RollingUpdate"))],
    );
    if spec["updateStrategy"]["type"] == "RollingUpdate" {
        put(
            &mut spec["updateStrategy"]["rollingUpdate"],
            &[("partition", json!(0))],
        );
    }
    template(spec);
}

fn daemon_set(spec: &mut Value) {
    put(
        spec,
        &[
            ("revisionHistoryLimit", json!(10)),
            ("updateStrategy", json!({"type": "RollingUpdate"})),
        ],
    );
    put(
        &mut spec["updateStrategy"],
        &[("type", json!("RollingUpdate"))],
    );
    if spec["updateStrategy"]["type"] == "RollingUpdate" {
        put(
            &mut spec["updateStrategy"]["rollingUpdate"],
            &[("maxUnavailable", json!(1)), ("maxSurge", json!(0))],
        );
    }
    template(spec);
}

fn replication_controller(object: &mut Value) {
    put(&mut object["spec"], &[("replicas", json!(1))]);
    let labels = object["spec"]["template"]["metadata"]["labels"].clone();
    if labels.is_object() {
        put(&mut object["spec"], &[("selector", labels)]);
    }
    template(&mut object["spec"]);
}

fn job_spec(spec: &mut Value) {
    put(
        spec,
        &[
            ("backoffLimit", json!(6)),
            ("completionMode", json!("NonIndexed")),
            ("suspend", json!(false)),
            ("podReplacementPolicy", json!("TerminatingOrFailed")),
        ],
    );
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        spec["completions"] = json!(1);
    }
    put(spec, &[("parallelism", json!(1))]);
    template(spec);
}

/// A job's selector is generated: its pods carry the job's uid.
fn job(object: &mut Value, old: Option<&Value>) {
    job_spec(&mut object["spec"]);
    if object["spec"]["manualSelector"] == true {
        return;
    }
    if let Some(old) = old {
        put(
            &mut object["spec"],
            &[("selector", old["spec"]["selector"].clone())],
        );
    }
    let uid = object["metadata"]["uid"].clone();
    if !uid.is_string() || !object["spec"]["selector"].is_null() {
        return;
    }
    let name = object["metadata"]["name"].clone();
    object["spec"]["selector"] =
        json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
    put(
        &mut object["spec"]["template"]["metadata"]["labels"],
        &[
            ("batch.kubernetes.io/controller-uid", uid.clone()),
            ("batch.kubernetes.io/job-name", name.clone()),
            ("controller-uid", uid),
            ("job-name", name),
        ],
    );
}

fn cron_job(spec: &mut Value) {
    put(
        spec,
        &[
            ("concurrencyPolicy", json!("Allow")),
            ("suspend", json!(false)),
            ("successfulJobsHistoryLimit", json!(3)),
            ("failedJobsHistoryLimit", json!(1)),
        ],
    );
    if spec["jobTemplate"]["spec"].is_object() {
        let inner = &mut spec["jobTemplate"]["spec"];
        template(inner);
    }
}

fn service(object: &mut Value, old: Option<&Value>) {
    let spec = &mut object["spec"];
    put(
        spec,
        &[
            ("type", json!("ClusterIP")),
            ("sessionAffinity", json!("None")),
        ],
    );
    if spec["type"] == "ExternalName" {
        return;
    }
    put(spec, &[("internalTrafficPolicy", json!("Cluster"))]);
    if spec["sessionAffinity"] == "ClientIP" {
        put(
            &mut spec["sessionAffinityConfig"]["clientIP"],
            &[("timeoutSeconds", json!(10800))],
        );
    }
    if matches!(spec["type"].as_str(), Some("NodePort" | "LoadBalancer")) {
        put(spec, &[("externalTrafficPolicy", json!("Cluster"))]);
    }
    if spec["type"] == "LoadBalancer" {
        put(spec, &[("allocateLoadBalancerNodePorts", json!(true))]);
    }
    put(
        spec,
        &[
            ("ipFamilies", json!(["IPv4"])),
            ("ipFamilyPolicy", json!("SingleStack")),
        ],
    );
    for port in each(spec, "ports") {
        put(port, &[("protocol", json!("TCP"))]);
        let number = port["port"].clone();
        if port["targetPort"].is_null() || port["targetPort"] == 0 || port["targetPort"] == "" {
            port["targetPort"] = number;
        }
    }
    if old.is_none() {
        put(object, &[("status", json!({"loadBalancer": {}}))]);
    }
}

fn namespace(object: &mut Value, old: Option<&Value>) {
    let name = object["metadata"]["name"].clone();
    if name.is_string() {
        put(&mut object["metadata"]["labels"], &[]);
        object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
    }
    if old.is_none() {
        put(
            &mut object["spec"],
            &[("finalizers", json!(["kubernetes"]))],
        );
    } else {
        // Finalizers of the spec change through the `finalize` subresource; an update that leaves them out means none.
        put(object, &[("spec", json!({}))]);
    }
    put(&mut object["status"], &[("phase", json!("Active"))]);
}

/// `stringData` is written into `data`, base64 as everything there.
fn secret(object: &mut Value) {
    use base64::Engine;
    put(object, &[("type", json!("Opaque"))]);
    let plain = object
        .as_object_mut()
        .and_then(|map| map.remove("stringData"));
    for (key, value) in plain
        .as_ref()
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let text = value.as_str().unwrap_or_default();
        put(&mut object["data"], &[]);
        object["data"][key] = json!(base64::engine::general_purpose::STANDARD.encode(text));
    }
}

fn webhooks(object: &mut Value) {
    let mutating = object["kind"] == "MutatingWebhookConfiguration";
    for hook in each(object, "webhooks") {
        put(
            hook,
            &[
                ("failurePolicy", json!("Fail")),
                ("matchPolicy", json!("Equivalent")),
                ("namespaceSelector", json!({})),
                ("objectSelector", json!({})),
                ("timeoutSeconds", json!(10)),
            ],
        );
        if mutating {
            put(hook, &[("reinvocationPolicy", json!("Never"))]);
        }
        each(hook, "rules").for_each(|rule| put(rule, &[("scope", json!("*"))]));
        if hook["clientConfig"]["service"].is_object() {
            put(
                &mut hook["clientConfig"]["service"],
                &[("port", json!(443))],
            );
        }
    }
}

fn bindings(object: &mut Value) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    put(&mut object["roleRef"], &[("apiGroup", json!(GROUP))]);
    for subject in each(object, "subjects") {
        if subject["kind"] != "ServiceAccount" {
            put(subject, &[("apiGroup", json!(GROUP))]);
        }
    }
}

fn endpoint_slice(object: &mut Value) {
    for port in each(object, "ports") {
        put(port, &[("name", json!("")), ("protocol", json!("TCP"))]);
    }
}

fn network_policy(spec: &mut Value) {
    if spec["policyTypes"].is_null() {
        let egress = spec["egress"].is_array();
        spec["policyTypes"] = if egress {
            json!(["Ingress", "Egress"])
        } else {
            json!(["Ingress"])
        };
    }
}
