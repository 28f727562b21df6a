//! Rules of pods and pod templates.

use super::{duplicate, one_of, port_number, text, unsupported};
use crate::error::Cause;
use crate::meta;
use serde_json::Value;

/// Checks a pod's spec at a path.
pub(super) fn spec(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    let containers = spec["containers"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    if containers.is_empty() {
        causes.push(meta::required(format!("{path}.containers"), ""));
    }
    one_of(
        spec,
        "restartPolicy",
        path,
        &["Always", "OnFailure", "Never"],
        causes,
    );
    one_of(
        spec,
        "dnsPolicy",
        path,
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
        causes,
    );
    let mut volumes = Vec::new();
    for (index, volume) in spec["volumes"].as_array().into_iter().flatten().enumerate() {
        let at = format!("{path}.volumes[{index}].name");
        name(text(volume, "name"), &at, &mut volumes, causes);
    }
    let mut names = Vec::new();
    let mut ports = Vec::new();
    for list in ["initContainers", "containers"] {
        for (index, one) in spec[list].as_array().into_iter().flatten().enumerate() {
            let at = format!("{path}.{list}[{index}]");
            name(text(one, "name"), &format!("{at}.name"), &mut names, causes);
            container(one, &at, &volumes, causes);
            if list == "containers" {
                container_ports(one, &at, &mut ports, causes);
            }
            let policy = text(one, "restartPolicy");
            if list == "initContainers" && !matches!(policy, "" | "Always") {
                causes.push(unsupported(
                    &format!("{at}.restartPolicy"),
                    policy,
                    &["Always"],
                ));
            }
        }
    }
    if spec["terminationGracePeriodSeconds"]
        .as_i64()
        .is_some_and(|seconds| seconds < 0)
    {
        let shown = spec["terminationGracePeriodSeconds"].to_string();
        causes.push(meta::invalid(
            format!("{path}.terminationGracePeriodSeconds"),
            &shown,
            "must be greater than or equal to 0",
        ));
    }
    let account = text(spec, "serviceAccountName");
    if !account.is_empty()
        && let Some(why) = meta::not_a_subdomain(account)
    {
        causes.push(meta::invalid(
            format!("{path}.serviceAccountName"),
            account,
            why,
        ));
    }
}

fn name<'a>(name: &'a str, path: &str, seen: &mut Vec<&'a str>, causes: &mut Vec<Cause>) {
    if name.is_empty() {
        causes.push(meta::required(path, ""));
    } else if let Some(why) = meta::not_a_label(name) {
        causes.push(meta::invalid(path, name, why));
    } else if seen.contains(&name) {
        causes.push(duplicate(path, name));
    }
    seen.push(name);
}

fn container(container: &Value, path: &str, volumes: &[&str], causes: &mut Vec<Cause>) {
    let image = text(container, "image");
    if image.is_empty() {
        causes.push(meta::required(format!("{path}.image"), ""));
    } else if image != image.trim() {
        causes.push(meta::invalid(
            format!("{path}.image"),
            image,
            "must not have leading or trailing whitespace",
        ));
    }
    one_of(
        container,
        "imagePullPolicy",
        path,
        &["Always", "IfNotPresent", "Never"],
        causes,
    );
    for (index, entry) in container["env"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        if text(entry, "name").is_empty() {
            causes.push(meta::required(format!("{path}.env[{index}].name"), ""));
        }
        if entry["valueFrom"].is_object() && !text(entry, "value").is_empty() {
            let why = "may not be specified when `value` is not empty";
            causes.push(meta::invalid(
                format!("{path}.env[{index}].valueFrom"),
                "",
                why,
            ));
        }
    }
    let mut paths = Vec::new();
    for (index, mount) in container["volumeMounts"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        let at = format!("{path}.volumeMounts[{index}]");
        let (volume, place) = (text(mount, "name"), text(mount, "mountPath"));
        if !volumes.contains(&volume) {
            causes.push(Cause::new(
                "FieldValueNotFound",
                format!("{at}.name"),
                format!("Not found: \"{volume}\""),
            ));
        }
        if place.is_empty() {
            causes.push(meta::required(format!("{at}.mountPath"), ""));
        } else if paths.contains(&place) {
            causes.push(meta::invalid(
                format!("{at}.mountPath"),
                place,
                "must be unique",
            ));
        }
        paths.push(place);
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        probe(&container[name], &format!("{path}.{name}"), name, causes);
    }
}

fn probe(probe: &Value, path: &str, name: &str, causes: &mut Vec<Cause>) {
    if !probe.is_object() {
        return;
    }
    let handlers = ["exec", "httpGet", "tcpSocket", "grpc"]
        .iter()
        .filter(|handler| probe[**handler].is_object())
        .count();
    match handlers {
        0 => causes.push(meta::required(path, "must specify a handler type")),
        1 => {}
        _ => {
            let message = "Forbidden: may not specify more than 1 handler type";
            causes.push(Cause::new("FieldValueForbidden", path, message));
        }
    }
    if name != "readinessProbe"
        && probe["successThreshold"]
            .as_i64()
            .is_some_and(|count| count != 1)
    {
        let shown = probe["successThreshold"].to_string();
        causes.push(meta::invalid(
            format!("{path}.successThreshold"),
            &shown,
            "must be 1",
        ));
    }
    for field in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "failureThreshold",
    ] {
        if probe[field].as_i64().is_some_and(|count| count < 0) {
            let shown = probe[field].to_string();
            causes.push(meta::invalid(
                format!("{path}.{field}"),
                &shown,
                "must be greater than or equal to 0",
            ));
        }
    }
}

fn container_ports<'a>(
    container: &'a Value,
    path: &str,
    seen: &mut Vec<&'a str>,
    causes: &mut Vec<Cause>,
) {
    for (index, port) in container["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        let at = format!("{path}.ports[{index}]");
        port_number(
            &port["containerPort"],
            &format!("{at}.containerPort"),
            causes,
        );
        one_of(port, "protocol", &at, &["SCTP", "TCP", "UDP"], causes);
        let name = text(port, "name");
        if name.len() > 15 {
            causes.push(meta::invalid(
                format!("{at}.name"),
                name,
                "must be no more than 15 characters",
            ));
        }
        if !name.is_empty() {
            if seen.contains(&name) {
                causes.push(duplicate(format!("{at}.name"), name));
            }
            seen.push(name);
        }
    }
}

/// Kubernetes: of a stored pod's spec only images, the deadline, tolerations and gates may change.
pub(super) fn update(object: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let bare = |object: &Value| {
        let mut spec = object["spec"].clone();
        for list in ["initContainers", "containers"] {
            for container in spec[list].as_array_mut().into_iter().flatten() {
                container["image"] = Value::Null;
                container["resources"] = Value::Null;
            }
        }
        for field in [
            "activeDeadlineSeconds",
            "tolerations",
            "schedulingGates",
            "terminationGracePeriodSeconds",
            "ephemeralContainers",
        ] {
            drop(spec.as_object_mut().map(|map| map.remove(field)));
        }
        // Binding gives a pod its node once.
        if old["spec"]["nodeName"].is_null() {
            drop(spec.as_object_mut().map(|map| map.remove("nodeName")));
        }
        spec
    };
    if bare(object) != bare(old) {
        let message = "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
        causes.push(Cause::new("FieldValueForbidden", "spec", message));
    }
}
