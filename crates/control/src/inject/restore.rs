//! Takes an earlier injection back, so that injecting again starts from what the user wrote.

use super::metadata::{OVERRIDES, STATUS};
use super::{InjectError, PROXY};
use serde::Deserialize;
use serde_json::Value;

/// What an earlier injection recorded in `sidecar.istio.io/status`.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    init_containers: Option<Vec<String>>,
    containers: Option<Vec<String>>,
    volumes: Option<Vec<String>>,
}

/// The user's own containers with reserved names, with their positions.
#[derive(Deserialize, serde::Serialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Overrides {
    /// From `spec.initContainers`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) init_containers: Vec<Value>,
    /// From `spec.containers`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) containers: Vec<Value>,
}

/// The pod without what was injected, and the application's own Prometheus settings if they were recorded.
pub(super) fn undo(pod: &Value) -> Result<(Value, Option<String>), InjectError> {
    let mut pod = pod.clone();
    let annotation = |key: &str| pod["metadata"]["annotations"][key].as_str();
    let Some(status) = annotation(STATUS) else {
        return Ok((pod, None));
    };
    // A record that cannot be read was not written by injection: nothing is taken back.
    let Ok(status) = serde_json::from_str::<Status>(status) else {
        return Ok((pod, None));
    };
    let overrides: Overrides = match annotation(OVERRIDES) {
        Some(text) => serde_json::from_str(text).map_err(|e| InjectError::BadAnnotation {
            key: OVERRIDES.to_owned(),
            value: e.to_string(),
            expected: "what injection wrote",
        })?,
        None => Overrides::default(),
    };
    let prometheus = recorded(&pod, "ISTIO_PROMETHEUS_ANNOTATIONS");
    if let Some(record) = recorded(&pod, super::probes::RECORD) {
        super::probes::undo(&mut pod, &record);
    }
    let spec = &mut pod["spec"];
    take_back(
        &mut spec["initContainers"],
        status.init_containers,
        overrides.init_containers,
    );
    take_back(
        &mut spec["containers"],
        status.containers,
        overrides.containers,
    );
    take_back(&mut spec["volumes"], status.volumes, Vec::new());
    if let Some(spec) = spec.as_object_mut() {
        spec.retain(|_, value| !value.is_null());
    }
    if let Some(annotations) = pod["metadata"]["annotations"].as_object_mut() {
        annotations.remove(STATUS);
        annotations.remove(OVERRIDES);
    }
    Ok((pod, prometheus))
}

/// The value of an environment variable of the injected proxy.
fn recorded(pod: &Value, variable: &str) -> Option<String> {
    let spec = &pod["spec"];
    let lists = [&spec["initContainers"], &spec["containers"]];
    let proxy = lists
        .iter()
        .filter_map(|list| list.as_array())
        .flatten()
        .find(|container| container["name"] == PROXY)?;
    let env = proxy["env"].as_array()?.iter();
    let mut found = env.filter(|env| env["name"] == variable);
    found.next()?["value"].as_str().map(str::to_owned)
}

/// Removes the injected items called `names`. The user's own items come back where theirs were, else last.
fn take_back(list: &mut Value, names: Option<Vec<String>>, mut own: Vec<Value>) {
    let names = names.unwrap_or_default();
    let mut kept = Vec::new();
    for item in list.as_array_mut().map(std::mem::take).unwrap_or_default() {
        let injected = item["name"]
            .as_str()
            .is_some_and(|name| names.iter().any(|n| n == name));
        match own.iter().position(|own| own["name"] == item["name"]) {
            Some(at) => kept.push(own.remove(at)),
            None if injected => {}
            None => kept.push(item),
        }
    }
    kept.extend(own);
    *list = match kept.is_empty() {
        true => Value::Null,
        false => Value::Array(kept),
    };
}
