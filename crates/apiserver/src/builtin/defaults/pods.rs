//! Defaults of pods and pod templates.

use super::{each, put};
use serde_json::{Value, json};

/// Defaults of a pod's spec, also in templates.
pub(super) fn pod(spec: &mut Value) {
    put(
        spec,
        &[
            ("restartPolicy", json!("Always")),
            ("terminationGracePeriodSeconds", json!(30)),
            ("dnsPolicy", json!("ClusterFirst")),
            ("securityContext", json!({})),
            ("schedulerName", json!("default-scheduler")),
        ],
    );
    let account = spec["serviceAccountName"]
        .as_str()
        .or(spec["serviceAccount"].as_str())
        .map(str::to_owned);
    if let Some(account) = account.filter(|name| !name.is_empty()) {
        spec["serviceAccountName"] = json!(account);
        spec["serviceAccount"] = json!(account);
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        each(spec, list).for_each(container);
    }
    each(spec, "volumes").for_each(volume);
}

/// Defaults of pods themselves, not of templates.
pub(super) fn pod_object(object: &mut Value) {
    put(
        &mut object["spec"],
        &[
            ("enableServiceLinks", json!(true)),
            ("preemptionPolicy", json!("PreemptLowerPriority")),
            ("priority", json!(0)),
        ],
    );
    let seconds = 300;
    if object["spec"]["tolerations"].is_null() {
        object["spec"]["tolerations"] = ["not-ready", "unreachable"]
            .iter()
            .map(|key| {
                let key = format!("node.kubernetes.io/{key}");
                json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds})
            })
            .collect();
    }
    put(&mut object["status"], &[("phase", json!("Pending"))]);
    // Anew each time: webhooks add containers.
    object["status"]["qosClass"] = json!(quality_of_service(&object["spec"]));
}

/// Kubernetes' quality-of-service classes: all limits equal requests, some are set, none is.
fn quality_of_service(spec: &Value) -> &'static str {
    let all: Vec<&Value> = ["initContainers", "containers"]
        .iter()
        .flat_map(|list| spec[*list].as_array().into_iter().flatten())
        .map(|container| &container["resources"])
        .collect();
    let set = |resources: &Value, kind: &str| {
        resources[kind]
            .as_object()
            .is_some_and(|map| !map.is_empty())
    };
    if !all
        .iter()
        .any(|resources| set(resources, "limits") || set(resources, "requests"))
    {
        return "BestEffort";
    }
    let guaranteed = all.iter().all(|resources| {
        ["cpu", "memory"].iter().all(|name| {
            let (limit, request) = (&resources["limits"][*name], &resources["requests"][*name]);
            !limit.is_null() && (request.is_null() || request == limit)
        })
    });
    if guaranteed {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

fn container(container: &mut Value) {
    let image = container["image"].as_str().unwrap_or_default();
    let tag = image
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .split_once(':')
        .map(|(_, tag)| tag);
    let pull = if image.contains('@') || tag.is_some_and(|tag| tag != "latest") {
        "IfNotPresent"
    } else {
        "Always"
    };
    put(
        container,
        &[
            ("imagePullPolicy", json!(pull)),
            ("terminationMessagePath", json!("/dev/termination-log")),
            ("terminationMessagePolicy", json!("File")),
            ("resources", json!({})),
        ],
    );
    each(container, "ports").for_each(|port| put(port, &[("protocol", json!("TCP"))]));
    for entry in each(container, "env") {
        if entry["valueFrom"]["fieldRef"].is_object() {
            put(
                &mut entry["valueFrom"]["fieldRef"],
                &[("apiVersion", json!("v1"))],
            );
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if container[name].is_object() {
            probe(&mut container[name]);
        }
    }
    for hook in ["postStart", "preStop"] {
        if container["lifecycle"][hook]["httpGet"].is_object() {
            put(
                &mut container["lifecycle"][hook]["httpGet"],
                &[("path", json!("/")), ("scheme", json!("HTTP"))],
            );
        }
    }
    // Kubernetes: a limit without a request is the request too.
    let limits = container["resources"]["limits"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    if !limits.is_empty() {
        let fields: Vec<(&str, Value)> = limits
            .iter()
            .map(|(name, value)| (name.as_str(), value.clone()))
            .collect();
        put(&mut container["resources"]["requests"], &fields);
    }
}

fn probe(probe: &mut Value) {
    put(
        probe,
        &[
            ("timeoutSeconds", json!(1)),
            ("periodSeconds", json!(10)),
            ("successThreshold", json!(1)),
            ("failureThreshold", json!(3)),
        ],
    );
    if probe["httpGet"].is_object() {
        put(
            &mut probe["httpGet"],
            &[("path", json!("/")), ("scheme", json!("HTTP"))],
        );
    }
    if probe["grpc"].is_object() {
        put(&mut probe["grpc"], &[("service", json!(""))]);
    }
}

fn volume(volume: &mut Value) {
    for (source, field) in [
        ("configMap", "defaultMode"),
        ("secret", "defaultMode"),
        ("projected", "defaultMode"),
        ("downwardAPI", "defaultMode"),
    ] {
        if volume[source].is_object() {
            put(&mut volume[source], &[(field, json!(420))]);
        }
    }
    if volume["hostPath"].is_object() {
        put(&mut volume["hostPath"], &[("type", json!(""))]);
    }
    let downward = |items: &mut Value| {
        for item in each(items, "items") {
            if item["fieldRef"].is_object() {
                put(&mut item["fieldRef"], &[("apiVersion", json!("v1"))]);
            }
        }
    };
    if let Some(items) = volume.get_mut("downwardAPI") {
        downward(items);
    }
    if let Some(projected) = volume.get_mut("projected") {
        for source in each(projected, "sources") {
            if let Some(items) = source.get_mut("downwardAPI") {
                downward(items);
            }
            if let Some(token) = source.get_mut("serviceAccountToken") {
                put(token, &[("expirationSeconds", json!(3600))]);
            }
        }
    }
    // A volume without any source is an empty directory.
    if volume.as_object().is_some_and(|map| map.len() == 1) {
        volume["emptyDir"] = json!({});
    }
}
