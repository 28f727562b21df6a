//! Validation of the built-in kinds: the common mistakes, in Kubernetes' words. Values of the wrong JSON type and
//! unknown fields are found earlier.

mod pods;

use crate::error::Cause;
use crate::kinds::Kind;
use crate::{crd, meta};
use serde_json::Value;

/// Broken rules of an object; `old` is the stored state on updates.
pub fn validate(kind: &Kind, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let spec = &object["spec"];
    let mut causes = Vec::new();
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "pods") => match old {
            None => pods::spec(spec, "spec", &mut causes),
            Some(old) => pods::update(object, old, &mut causes),
        },
        ("", "services") => service(spec, &mut causes),
        ("", "configmaps") => configmap(object, old, &mut causes),
        ("", "secrets") => secret(object, old, &mut causes),
        ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets") => {
            workload(spec, &mut causes);
            if let Some(old) = old {
                immutable(spec, &old["spec"], "selector", &mut causes);
            }
        }
        ("batch", "jobs") => job(spec, old, &mut causes),
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => {
            if let Some(old) = old
                && object["roleRef"] != old["roleRef"]
            {
                causes.push(meta::invalid(
                    "roleRef",
                    &object["roleRef"].to_string(),
                    "cannot change roleRef",
                ));
            }
            if text(&object["roleRef"], "name").is_empty() {
                causes.push(meta::required("roleRef.name", ""));
            }
        }
        ("apiextensions.k8s.io", "customresourcedefinitions") => {
            crd::check(object, old, &mut causes)
        }
        ("admissionregistration.k8s.io", _) => webhooks(object, &mut causes),
        ("coordination.k8s.io", "leases")
            if spec["leaseDurationSeconds"]
                .as_i64()
                .is_some_and(|seconds| seconds <= 0) =>
        {
            let shown = spec["leaseDurationSeconds"].to_string();
            causes.push(meta::invalid(
                "spec.leaseDurationSeconds",
                &shown,
                "must be greater than 0",
            ));
        }
        ("discovery.k8s.io", "endpointslices") => one_of(
            object,
            "addressType",
            "",
            &["IPv4", "IPv6", "FQDN"],
            &mut causes,
        ),
        _ => {}
    }
    causes
}

/// What to say about a new object of a kind that is stored but that nothing here acts on; absent for the others.
pub fn inert(kind: &Kind) -> Option<String> {
    let what = match (kind.group.as_str(), kind.plural.as_str()) {
        ("networking.k8s.io", "networkpolicies") => "all traffic stays allowed",
        ("networking.k8s.io", "ingresses") => "use a Gateway and a VirtualService",
        ("policy", "poddisruptionbudgets") => "evictions are not held back",
        ("", "resourcequotas" | "limitranges") => "no limit is enforced",
        ("", "replicationcontrollers") => "use a Deployment",
        ("", "persistentvolumes") | ("storage.k8s.io", "storageclasses") => {
            "claims get a directory of the node"
        }
        _ => return None,
    };
    Some(format!(
        "nothing in this cluster acts on {} objects: {what}",
        kind.kind
    ))
}

/// Why no object of a kind can be created here; absent for the others. A kind that would quietly do nothing where
/// somebody counts on it is refused; for the less weighty ones see [`inert`].
pub fn refused(kind: &Kind) -> Option<&'static str> {
    (kind.group == "autoscaling").then_some(
        "nothing in this cluster measures load, so nothing would ever scale; \
         set the number of replicas with `kubectl scale`",
    )
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn unsupported(path: &str, value: &str, supported: &[&str]) -> Cause {
    let quoted: Vec<String> = supported
        .iter()
        .map(|value| format!("\"{value}\""))
        .collect();
    let message = format!(
        "Unsupported value: \"{value}\": supported values: {}",
        quoted.join(", ")
    );
    Cause::new("FieldValueNotSupported", path, message)
}

fn one_of(value: &Value, field: &str, path: &str, supported: &[&str], causes: &mut Vec<Cause>) {
    let found = text(value, field);
    if !found.is_empty() && !supported.contains(&found) {
        let path = if path.is_empty() {
            field.to_owned()
        } else {
            format!("{path}.{field}")
        };
        causes.push(unsupported(&path, found, supported));
    }
}

fn immutable(new: &Value, old: &Value, field: &str, causes: &mut Vec<Cause>) {
    if new[field] != old[field] {
        causes.push(meta::invalid(
            format!("spec.{field}"),
            &new[field].to_string().replace('"', ""),
            "field is immutable",
        ));
    }
}

fn port_number(value: &Value, path: &str, causes: &mut Vec<Cause>) {
    match value.as_i64() {
        Some(1..=65535) => {}
        None if value.is_null() => causes.push(meta::required(path, "")),
        _ => causes.push(meta::invalid(
            path,
            &value.to_string(),
            "must be between 1 and 65535, inclusive",
        )),
    }
}

/// Selector and template of a workload fit together, and the template is a valid pod.
fn workload(spec: &Value, causes: &mut Vec<Cause>) {
    if spec["replicas"].as_i64().is_some_and(|count| count < 0) {
        causes.push(meta::invalid(
            "spec.replicas",
            &spec["replicas"].to_string(),
            "must be greater than or equal to 0",
        ));
    }
    let selector = &spec["selector"];
    let empty = |value: &Value| {
        value.as_object().is_none_or(serde_json::Map::is_empty) && !value.is_array()
    };
    if selector.is_null() {
        causes.push(meta::required("spec.selector", ""));
    } else if empty(&selector["matchLabels"]) && empty(&selector["matchExpressions"]) {
        causes.push(meta::invalid(
            "spec.selector",
            "{}",
            "empty selector is invalid for deployment",
        ));
    }
    let labels = &spec["template"]["metadata"]["labels"];
    let wanted = selector["matchLabels"].as_object().into_iter().flatten();
    if wanted
        .into_iter()
        .any(|(key, value)| labels.get(key) != Some(value))
    {
        let shown = labels.to_string().replace('"', "");
        causes.push(meta::invalid(
            "spec.template.metadata.labels",
            &shown,
            "`selector` does not match template `labels`",
        ));
    }
    causes.extend(meta::labels(labels, "spec.template.metadata.labels"));
    pods::spec(&spec["template"]["spec"], "spec.template.spec", causes);
    let policy = text(&spec["template"]["spec"], "restartPolicy");
    if !matches!(policy, "" | "Always") {
        causes.push(unsupported(
            "spec.template.spec.restartPolicy",
            policy,
            &["Always"],
        ));
    }
    one_of(
        &spec["strategy"],
        "type",
        "spec.strategy",
        &["Recreate", "RollingUpdate"],
        causes,
    );
    if spec["strategy"]["type"] == "Recreate" && spec["strategy"]["rollingUpdate"].is_object() {
        let message = "Forbidden: may not be specified when strategy `type` is 'Recreate'";
        causes.push(Cause::new(
            "FieldValueForbidden",
            "spec.strategy.rollingUpdate",
            message,
        ));
    }
}

fn job(spec: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let template = &spec["template"]["spec"];
    pods::spec(template, "spec.template.spec", causes);
    let policy = text(template, "restartPolicy");
    if policy == "Always" {
        let message = "Required value: valid values: \"OnFailure\", \"Never\"";
        causes.push(Cause::new(
            "FieldValueRequired",
            "spec.template.spec.restartPolicy",
            message,
        ));
    }
    for field in [
        "completions",
        "parallelism",
        "backoffLimit",
        "activeDeadlineSeconds",
        "ttlSecondsAfterFinished",
    ] {
        if spec[field].as_i64().is_some_and(|count| count < 0) {
            causes.push(meta::invalid(
                format!("spec.{field}"),
                &spec[field].to_string(),
                "must be greater than or equal to 0",
            ));
        }
    }
    if let Some(old) = old {
        for field in ["selector", "completionMode"] {
            immutable(spec, &old["spec"], field, causes);
        }
        // A suspended job may still change; a running one keeps its template.
        if old["spec"]["suspend"] != true {
            immutable(spec, &old["spec"], "template", causes);
        }
    }
}

fn service(spec: &Value, causes: &mut Vec<Cause>) {
    one_of(
        spec,
        "type",
        "spec",
        &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
        causes,
    );
    one_of(
        spec,
        "sessionAffinity",
        "spec",
        &["ClientIP", "None"],
        causes,
    );
    causes.extend(meta::labels(&spec["selector"], "spec.selector"));
    let ports = spec["ports"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    if spec["type"] == "ExternalName" {
        let name = text(spec, "externalName").trim_end_matches('.');
        if let Some(why) = meta::not_a_subdomain(name) {
            causes.push(meta::invalid("spec.externalName", name, why));
        }
    } else if ports.is_empty() && spec["clusterIP"] != "None" {
        causes.push(meta::required("spec.ports", ""));
    }
    let mut names = Vec::new();
    let mut numbers = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{index}]");
        port_number(&port["port"], &format!("{path}.port"), causes);
        one_of(port, "protocol", &path, &["SCTP", "TCP", "UDP"], causes);
        match &port["targetPort"] {
            Value::String(name) if name.is_empty() || name.len() > 15 => {
                causes.push(meta::invalid(
                    format!("{path}.targetPort"),
                    name,
                    "must be no more than 15 characters",
                ));
            }
            Value::String(_) => {}
            number => port_number(number, &format!("{path}.targetPort"), causes),
        }
        let name = text(port, "name");
        if name.is_empty() && ports.len() > 1 {
            causes.push(meta::required(format!("{path}.name"), ""));
        } else if !name.is_empty() {
            if let Some(why) = meta::not_a_label(name) {
                causes.push(meta::invalid(format!("{path}.name"), name, why));
            }
            if names.contains(&name) {
                causes.push(duplicate(format!("{path}.name"), name));
            }
            names.push(name);
        }
        let number = (port["port"].clone(), text(port, "protocol"));
        if numbers.contains(&number) {
            causes.push(duplicate(path, &format!("{}/{}", number.0, number.1)));
        }
        numbers.push(number);
    }
}

fn duplicate(path: impl Into<String>, value: &str) -> Cause {
    Cause::new(
        "FieldValueDuplicate",
        path,
        format!("Duplicate value: \"{value}\""),
    )
}

fn data_keys(data: &Value, path: &str, causes: &mut Vec<Cause>) {
    let fits = |key: &str| {
        !key.is_empty()
            && key.len() <= 253
            && key
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            && !matches!(key, "." | "..")
    };
    for key in data
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key)
        .filter(|key| !fits(key))
    {
        let why = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
        causes.push(meta::invalid(format!("{path}[{key}]"), key, why));
    }
    let size: usize = data
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    if size > 1024 * 1024 {
        causes.push(Cause::new(
            "FieldValueTooLong",
            path,
            "Too long: may not be more than 1048576 bytes",
        ));
    }
}

fn frozen(object: &Value, old: Option<&Value>, fields: &[&str], causes: &mut Vec<Cause>) {
    let Some(old) = old.filter(|old| old["immutable"] == true) else {
        return;
    };
    for field in fields
        .iter()
        .filter(|field| object[**field] != old[**field])
    {
        causes.push(Cause::new(
            "FieldValueForbidden",
            *field,
            "Forbidden: field is immutable when `immutable` is set",
        ));
    }
}

fn configmap(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    data_keys(&object["data"], "data", causes);
    data_keys(&object["binaryData"], "binaryData", causes);
    frozen(object, old, &["data", "binaryData", "immutable"], causes);
}

fn secret(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    use base64::Engine;
    data_keys(&object["data"], "data", causes);
    frozen(object, old, &["data", "immutable"], causes);
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        if base64::engine::general_purpose::STANDARD
            .decode(value.replace(['\n', '\r'], ""))
            .is_err()
        {
            causes.push(meta::invalid(
                format!("data[{key}]"),
                "<value omitted>",
                "must be base64; use stringData for plain text",
            ));
        }
    }
    if let Some(old) = old
        && object["type"] != old["type"]
    {
        causes.push(meta::invalid(
            "type",
            text(object, "type"),
            "field is immutable",
        ));
    }
    let needed: &[&str] = match text(object, "type") {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        _ => &[],
    };
    for key in needed
        .iter()
        .filter(|key| object["data"].get(**key).is_none())
    {
        causes.push(meta::required(format!("data[{key}]"), ""));
    }
}

fn webhooks(object: &Value, causes: &mut Vec<Cause>) {
    for (index, hook) in object["webhooks"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        let path = format!("webhooks[{index}]");
        let name = text(hook, "name");
        if name.split('.').count() < 3 || meta::not_a_subdomain(name).is_some() {
            let why = "should be a domain with at least three segments separated by dots";
            causes.push(meta::invalid(format!("{path}.name"), name, why));
        }
        let config = &hook["clientConfig"];
        if config["url"].is_string() == config["service"].is_object() {
            causes.push(meta::required(
                format!("{path}.clientConfig"),
                "exactly one of url or service is required",
            ));
        }
        one_of(hook, "failurePolicy", &path, &["Fail", "Ignore"], causes);
        one_of(hook, "matchPolicy", &path, &["Equivalent", "Exact"], causes);
        let effects = text(hook, "sideEffects");
        if !matches!(effects, "None" | "NoneOnDryRun") {
            causes.push(unsupported(
                &format!("{path}.sideEffects"),
                effects,
                &["None", "NoneOnDryRun"],
            ));
        }
        let versions = hook["admissionReviewVersions"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        if !versions.iter().any(|version| version == "v1") {
            let shown = hook["admissionReviewVersions"].to_string();
            causes.push(meta::invalid(
                format!("{path}.admissionReviewVersions"),
                &shown,
                "must include at least one of v1",
            ));
        }
        if hook["timeoutSeconds"]
            .as_i64()
            .is_some_and(|seconds| !(1..=30).contains(&seconds))
        {
            let shown = hook["timeoutSeconds"].to_string();
            causes.push(meta::invalid(
                format!("{path}.timeoutSeconds"),
                &shown,
                "the timeout value must be between 1 and 30 seconds",
            ));
        }
    }
}
