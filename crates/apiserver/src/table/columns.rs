//! Columns of the built-in kinds.

use super::workloads as work;
use super::{Column, age, shown, wide};
use crate::kinds::Kind;
use serde_json::{Value, json};

/// Text at a path; empty when there is none.
pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Text at a path, or `<none>`.
pub(super) fn or_none(object: &Value, pointer: &str) -> Value {
    match text(object, pointer) {
        "" => json!("<none>"),
        found => json!(found),
    }
}

/// Number at a path; 0 when there is none.
pub(super) fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// A list at a path.
pub(super) fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// Joined text, or `<none>`.
pub(super) fn joined(parts: Vec<String>) -> Value {
    if parts.is_empty() {
        json!("<none>")
    } else {
        json!(parts.join(","))
    }
}

pub(super) fn name(object: &Value) -> Value {
    json!(text(object, "/metadata/name"))
}

pub(super) fn created(object: &Value) -> Value {
    json!(age(text(object, "/metadata/creationTimestamp")))
}

fn entries(object: &Value, pointer: &str) -> usize {
    object.pointer(pointer).map_or(0, |value| match value {
        Value::Object(map) => map.len(),
        Value::Array(items) => items.len(),
        _ => 0,
    })
}

pub(super) const NAME: Column = shown("Name", name);
pub(super) const AGE: Column = shown("Age", created);

static DEFAULT: &[Column] = &[
    NAME,
    shown("Created At", |o| {
        json!(text(o, "/metadata/creationTimestamp"))
    }),
];
static CONFIGMAPS: &[Column] = &[
    NAME,
    shown("Data", |o| {
        json!(entries(o, "/data") + entries(o, "/binaryData"))
    }),
    AGE,
];
static SECRETS: &[Column] = &[
    NAME,
    shown("Type", |o| json!(text(o, "/type"))),
    shown("Data", |o| json!(entries(o, "/data"))),
    AGE,
];
static ACCOUNTS: &[Column] = &[
    NAME,
    shown("Secrets", |o| json!(entries(o, "/secrets"))),
    AGE,
];
static NAMESPACES: &[Column] = &[
    NAME,
    shown("Status", |o| json!(text(o, "/status/phase"))),
    AGE,
];
static NODES: &[Column] = &[
    NAME,
    shown("Status", node_status),
    shown("Roles", node_roles),
    AGE,
    shown("Version", |o| {
        json!(text(o, "/status/nodeInfo/kubeletVersion"))
    }),
    wide("Internal-IP", |o| node_address(o, "InternalIP")),
    wide("External-IP", |o| node_address(o, "ExternalIP")),
    wide("OS-Image", |o| json!(text(o, "/status/nodeInfo/osImage"))),
    wide("Kernel-Version", |o| {
        json!(text(o, "/status/nodeInfo/kernelVersion"))
    }),
    wide("Container-Runtime", |o| {
        json!(text(o, "/status/nodeInfo/containerRuntimeVersion"))
    }),
];
static SERVICES: &[Column] = &[
    NAME,
    shown("Type", |o| json!(text(o, "/spec/type"))),
    shown("Cluster-IP", |o| or_none(o, "/spec/clusterIP")),
    shown("External-IP", external_ip),
    shown("Port(s)", service_ports),
    AGE,
    wide("Selector", |o| labels(o, "/spec/selector")),
];
static ENDPOINTS: &[Column] = &[NAME, shown("Endpoints", endpoints), AGE];
static SLICES: &[Column] = &[
    NAME,
    shown("AddressType", |o| json!(text(o, "/addressType"))),
    shown("Ports", |o| {
        some(
            list(o, "/ports")
                .iter()
                .map(|port| port["port"].to_string())
                .collect(),
        )
    }),
    shown("Endpoints", |o| {
        some(
            list(o, "/endpoints")
                .iter()
                .flat_map(|e| list(e, "/addresses"))
                .filter_map(|a| a.as_str().map(str::to_owned))
                .collect(),
        )
    }),
    AGE,
];
static EVENTS: &[Column] = &[
    shown("Last Seen", |o| {
        let seen = [
            "/series/lastObservedTime",
            "/lastTimestamp",
            "/eventTime",
            "/metadata/creationTimestamp",
        ];
        json!(
            seen.iter()
                .map(|path| text(o, path))
                .find(|time| !time.is_empty())
                .map(age)
        )
    }),
    shown("Type", |o| json!(text(o, "/type"))),
    shown("Reason", |o| json!(text(o, "/reason"))),
    shown("Object", |o| {
        let kind = text(o, "/involvedObject/kind").to_lowercase();
        json!(format!("{kind}/{}", text(o, "/involvedObject/name")))
    }),
    wide("Subobject", |o| json!(text(o, "/involvedObject/fieldPath"))),
    wide("Source", |o| json!(text(o, "/source/component"))),
    shown("Message", |o| json!(text(o, "/message").trim())),
    wide("First Seen", |o| json!(age(text(o, "/firstTimestamp")))),
    wide("Count", |o| json!(number(o, "/count").max(1))),
    wide("Name", name),
];
static CLAIMS: &[Column] = &[
    NAME,
    shown("Status", |o| json!(text(o, "/status/phase"))),
    shown("Volume", |o| json!(text(o, "/spec/volumeName"))),
    shown("Capacity", |o| json!(text(o, "/status/capacity/storage"))),
    shown("StorageClass", |o| json!(text(o, "/spec/storageClassName"))),
    AGE,
];
static BINDINGS: &[Column] = &[
    NAME,
    shown("Role", |o| {
        json!(format!(
            "{}/{}",
            text(o, "/roleRef/kind"),
            text(o, "/roleRef/name")
        ))
    }),
    AGE,
    wide("Users", |o| json!(subjects(o, "User"))),
    wide("Groups", |o| json!(subjects(o, "Group"))),
    wide("ServiceAccounts", |o| json!(subjects(o, "ServiceAccount"))),
];
static WEBHOOKS: &[Column] = &[
    NAME,
    shown("Webhooks", |o| json!(entries(o, "/webhooks"))),
    AGE,
];
static DEFINITIONS: &[Column] = &[
    NAME,
    shown("Created At", |o| {
        json!(text(o, "/metadata/creationTimestamp"))
    }),
];
static LEASES: &[Column] = &[
    NAME,
    shown("Holder", |o| json!(text(o, "/spec/holderIdentity"))),
    AGE,
];
static INGRESSES: &[Column] = &[
    NAME,
    shown("Class", |o| or_none(o, "/spec/ingressClassName")),
    shown("Hosts", |o| {
        let hosts: Vec<String> = list(o, "/spec/rules")
            .iter()
            .map(|rule| text(rule, "/host"))
            .filter(|h| !h.is_empty())
            .map(str::to_owned)
            .collect();
        if hosts.is_empty() {
            json!("*")
        } else {
            json!(hosts.join(","))
        }
    }),
    shown("Address", |o| json!(ingress_addresses(o).join(","))),
    shown("Ports", |o| {
        json!(if list(o, "/spec/tls").is_empty() {
            "80"
        } else {
            "80, 443"
        })
    }),
    AGE,
];
static BUDGETS: &[Column] = &[
    NAME,
    shown("Min Available", |o| either(o, "/spec/minAvailable")),
    shown("Max Unavailable", |o| either(o, "/spec/maxUnavailable")),
    shown("Allowed Disruptions", |o| {
        json!(number(o, "/status/disruptionsAllowed"))
    }),
    AGE,
];
static SCALERS: &[Column] = &[
    NAME,
    shown("Reference", |o| {
        json!(format!(
            "{}/{}",
            text(o, "/spec/scaleTargetRef/kind"),
            text(o, "/spec/scaleTargetRef/name")
        ))
    }),
    shown("Targets", |o| {
        json!(if list(o, "/spec/metrics").is_empty() {
            "<none>"
        } else {
            "<unknown>"
        })
    }),
    shown("MinPods", |o| json!(number(o, "/spec/minReplicas"))),
    shown("MaxPods", |o| json!(number(o, "/spec/maxReplicas"))),
    shown("Replicas", |o| json!(number(o, "/status/currentReplicas"))),
    AGE,
];
static POLICIES: &[Column] = &[
    NAME,
    shown("Pod-Selector", |o| {
        labels(o, "/spec/podSelector/matchLabels")
    }),
    AGE,
];
static AGED: &[Column] = &[NAME, AGE];

/// Columns of a built-in kind.
pub(super) fn of(kind: &Kind) -> &'static [Column] {
    match kind.plural.as_str() {
        "pods" => work::PODS,
        "deployments" => work::DEPLOYMENTS,
        "replicasets" | "replicationcontrollers" => work::REPLICA_SETS,
        "statefulsets" => work::STATEFUL_SETS,
        "daemonsets" => work::DAEMON_SETS,
        "jobs" => work::JOBS,
        "cronjobs" => work::CRON_JOBS,
        "configmaps" => CONFIGMAPS,
        "secrets" => SECRETS,
        "serviceaccounts" => ACCOUNTS,
        "namespaces" => NAMESPACES,
        "nodes" => NODES,
        "services" => SERVICES,
        "endpoints" => ENDPOINTS,
        "endpointslices" => SLICES,
        "events" => EVENTS,
        "persistentvolumeclaims" => CLAIMS,
        "rolebindings" | "clusterrolebindings" => BINDINGS,
        "mutatingwebhookconfigurations" | "validatingwebhookconfigurations" => WEBHOOKS,
        "customresourcedefinitions" | "clusterroles" | "roles" => DEFINITIONS,
        "leases" => LEASES,
        "ingresses" => INGRESSES,
        "poddisruptionbudgets" => BUDGETS,
        "horizontalpodautoscalers" => SCALERS,
        "networkpolicies" => POLICIES,
        "priorityclasses" => PRIORITIES,
        "resourcequotas" => QUOTAS,
        "limitranges" | "controllerrevisions" | "podtemplates" => AGED,
        _ => DEFAULT,
    }
}

static PRIORITIES: &[Column] = &[
    NAME,
    shown("Value", |o| json!(number(o, "/value"))),
    shown("Global-Default", |o| json!(o["globalDefault"] == true)),
    AGE,
    shown("PreemptionPolicy", |o| json!(text(o, "/preemptionPolicy"))),
];
static QUOTAS: &[Column] = &[
    NAME,
    shown("Request", |o| {
        json!(quota(o, |name| !name.starts_with("limits.")))
    }),
    shown("Limit", |o| {
        json!(quota(o, |name| name.starts_with("limits.")))
    }),
    AGE,
];

/// `name: used/hard` of some of a quota's resources.
fn quota(object: &Value, wanted: fn(&str) -> bool) -> String {
    let hard = object.pointer("/spec/hard").and_then(Value::as_object);
    let parts = hard.into_iter().flatten().filter(|(name, _)| wanted(name));
    let parts = parts.map(|(name, hard)| {
        let used = match &object["status"]["used"][name] {
            Value::String(used) => used.clone(),
            _ => "0".to_owned(),
        };
        format!("{name}: {used}/{}", hard.as_str().unwrap_or_default())
    });
    parts.collect::<Vec<_>>().join(", ")
}

pub(super) fn labels(object: &Value, pointer: &str) -> Value {
    let map = object.pointer(pointer).and_then(Value::as_object);
    joined(
        map.into_iter()
            .flatten()
            .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
            .collect(),
    )
}

/// At most three, as Kubernetes prints lists of endpoints.
fn some(parts: Vec<String>) -> Value {
    match parts.len() {
        0 => json!("<unset>"),
        1..=3 => json!(parts.join(",")),
        more => json!(format!("{} + {} more...", parts[..3].join(","), more - 3)),
    }
}

fn either(object: &Value, pointer: &str) -> Value {
    match object.pointer(pointer) {
        Some(Value::String(text)) => json!(text),
        Some(Value::Number(number)) => json!(number.to_string()),
        _ => json!("N/A"),
    }
}

fn node_status(node: &Value) -> Value {
    let ready = list(node, "/status/conditions")
        .iter()
        .find(|condition| condition["type"] == "Ready");
    let mut status = match ready.map(|condition| text(condition, "/status")) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if node["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    json!(status)
}

fn node_roles(node: &Value) -> Value {
    let labels = node["metadata"]["labels"].as_object().into_iter().flatten();
    joined(
        labels
            .filter_map(|(key, _)| {
                key.strip_prefix("node-role.kubernetes.io/")
                    .map(str::to_owned)
            })
            .collect(),
    )
}

fn node_address(node: &Value, kind: &str) -> Value {
    let found = list(node, "/status/addresses")
        .iter()
        .find(|address| address["type"] == kind);
    json!(found.map_or("<none>", |address| text(address, "/address")))
}

fn ingress_addresses(object: &Value) -> Vec<String> {
    let entries = list(object, "/status/loadBalancer/ingress").iter();
    entries
        .map(|entry| {
            if text(entry, "/ip").is_empty() {
                text(entry, "/hostname")
            } else {
                text(entry, "/ip")
            }
        })
        .map(str::to_owned)
        .collect()
}

fn external_ip(service: &Value) -> Value {
    let mut all: Vec<String> = list(service, "/spec/externalIPs")
        .iter()
        .filter_map(|ip| ip.as_str().map(str::to_owned))
        .collect();
    match text(service, "/spec/type") {
        "LoadBalancer" => {
            all.extend(ingress_addresses(service));
            if all.is_empty() {
                json!("<pending>")
            } else {
                json!(all.join(","))
            }
        }
        "ExternalName" => json!(text(service, "/spec/externalName")),
        _ => joined(all),
    }
}

fn service_ports(service: &Value) -> Value {
    let ports = list(service, "/spec/ports").iter().map(|port| {
        let node = number(port, "/nodePort");
        let node = if node > 0 {
            format!(":{node}")
        } else {
            String::new()
        };
        format!(
            "{}{node}/{}",
            number(port, "/port"),
            text(port, "/protocol")
        )
    });
    joined(ports.collect())
}

fn endpoints(object: &Value) -> Value {
    let mut all = Vec::new();
    for subset in list(object, "/subsets") {
        for address in list(subset, "/addresses") {
            match list(subset, "/ports") {
                [] => all.push(text(address, "/ip").to_owned()),
                ports => all.extend(
                    ports
                        .iter()
                        .map(|port| format!("{}:{}", text(address, "/ip"), number(port, "/port"))),
                ),
            }
        }
    }
    match some(all) {
        Value::String(text) if text == "<unset>" => json!("<none>"),
        text => text,
    }
}

fn subjects(binding: &Value, kind: &str) -> String {
    let subjects = list(binding, "/subjects")
        .iter()
        .filter(|subject| subject["kind"] == kind);
    let names = subjects.map(|subject| match text(subject, "/namespace") {
        "" => text(subject, "/name").to_owned(),
        namespace => format!("{namespace}/{}", text(subject, "/name")),
    });
    names.collect::<Vec<_>>().join(", ")
}
