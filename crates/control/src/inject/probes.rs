//! Probes and lifecycle hooks of the application that a kubelet makes over the network. With mutual TLS
//! required, a kubelet could not make them: it asks the proxy instead, which asks the application.
//!
//! ```text
//! httpGet :8080/health  ->  httpGet :15020/app-health/<container>/readyz   + the original in the proxy's environment
//! ```
//! Istio: `sidecar.istio.io/rewriteAppHTTPProbers`, on by default. Probes by command stay as they are.

use super::annotations::Annotations;
use super::{INIT, InjectError, PROXY};
use serde_json::{Map, Value, json};

/// The proxy's environment variable that keeps the originals (Istio: `ISTIO_KUBE_APP_PROBERS`): an object from
/// path to `{"httpGet"|"tcpSocket"|"grpc": …, "timeoutSeconds": n}`.
pub(super) const RECORD: &str = "ISTIO_KUBE_APP_PROBERS";

/// Where the proxy makes them.
const PORT: u16 = 15020;

/// Fields of a container that hold an action, and the path each is asked for by.
const PLACES: [(&[&str], &str, &str); 5] = [
    (&["readinessProbe"], "app-health", "readyz"),
    (&["livenessProbe"], "app-health", "livez"),
    (&["startupProbe"], "app-health", "startupz"),
    (&["lifecycle", "preStop"], "app-lifecycle", "prestopz"),
    (&["lifecycle", "postStart"], "app-lifecycle", "poststartz"),
];

/// Actions that go over the network.
const ACTIONS: [&str; 3] = ["httpGet", "tcpSocket", "grpc"];

/// Leads the pod's probes to the proxy and returns the originals; absent when there are none or the pod does
/// not want it.
pub(super) fn rewrite(
    pod: &mut Value,
    annotations: &Annotations,
) -> Result<Option<String>, InjectError> {
    let wanted = annotations.flag("sidecar.istio.io/rewriteAppHTTPProbers", true)?;
    if !wanted || annotations.number("status.sidecar.istio.io/port", i32::from(PORT))? == 0 {
        return Ok(None);
    }
    let mut record = Map::new();
    for container in applications(pod) {
        let name = container["name"].as_str().unwrap_or_default().to_owned();
        let ports = container["ports"].clone();
        for (place, folder, file) in PLACES {
            let path = format!("/{folder}/{name}/{file}");
            let Some(holder) = at(container, place) else {
                continue;
            };
            if let Some(original) = lead(holder, &ports, &path) {
                record.insert(path, original);
            }
        }
    }
    Ok((!record.is_empty()).then(|| Value::Object(record).to_string()))
}

/// Puts the originals back. A record that cannot be read was not written by injection.
pub(super) fn undo(pod: &mut Value, record: &str) {
    let Ok(record) = serde_json::from_str::<Map<String, Value>>(record) else {
        return;
    };
    for container in applications(pod) {
        let name = container["name"].as_str().unwrap_or_default().to_owned();
        for (place, folder, file) in PLACES {
            let path = format!("/{folder}/{name}/{file}");
            let (Some(original), Some(holder)) = (record.get(&path), at(container, place)) else {
                continue;
            };
            // Only where it still leads to the proxy: the pod may have been edited since.
            if holder["httpGet"]["path"] != path.as_str() {
                continue;
            }
            let action = ACTIONS.iter().find(|&&kind| original[kind].is_object());
            if let (Some(&kind), Some(holder)) = (action, holder.as_object_mut()) {
                holder.remove("httpGet");
                holder.insert(kind.to_owned(), original[kind].clone());
            }
        }
    }
}

/// The user's containers.
fn applications(pod: &mut Value) -> impl Iterator<Item = &mut Value> {
    let spec = pod["spec"].as_object_mut();
    let lists = spec.into_iter().flat_map(|spec| {
        spec.iter_mut()
            .filter(|(name, _)| ["initContainers", "containers"].contains(&name.as_str()))
            .filter_map(|(_, list)| list.as_array_mut())
    });
    lists
        .flatten()
        .filter(|container| container["name"] != PROXY && container["name"] != INIT)
}

/// A nested object, if it is there.
fn at<'v>(container: &'v mut Value, place: &[&str]) -> Option<&'v mut Value> {
    let found = place
        .iter()
        .try_fold(container, |value, field| value.get_mut(field))?;
    found.is_object().then_some(found)
}

/// Replaces a holder's action by one that asks the proxy; returns the original with its named port resolved.
fn lead(holder: &mut Value, ports: &Value, path: &str) -> Option<Value> {
    let kind = *ACTIONS.iter().find(|&&kind| holder[kind].is_object())?;
    let fields = holder.as_object_mut()?;
    let mut action = fields.get(kind)?.clone();
    let port = number(&action["port"], ports)?;
    // Already at the proxy, by the user's own hand.
    if port == u64::from(PORT) {
        return None;
    }
    action["port"] = json!(port);
    fields.remove(kind);
    fields.insert(
        "httpGet".to_owned(),
        json!({ "path": path, "port": PORT, "scheme": "HTTP" }),
    );
    let mut original = json!({ kind: action });
    if let Some(timeout) = fields.get("timeoutSeconds") {
        original["timeoutSeconds"] = timeout.clone();
    }
    Some(original)
}

/// A port by number or by the name that the container gives it; absent when there is none of that name.
fn number(port: &Value, ports: &Value) -> Option<u64> {
    let Some(name) = port.as_str() else {
        return port.as_u64();
    };
    let named = ports.as_array().into_iter().flatten();
    named
        .into_iter()
        .find(|port| port["name"] == name)
        .and_then(|port| port["containerPort"].as_u64())
        .or_else(|| name.parse().ok())
}
