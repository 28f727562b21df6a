//! Puts the built containers and volumes into the pod; what the user wrote for the same names wins.

use super::metadata::{OVERRIDES, section};
use super::restore::Overrides;
use super::{INIT, InjectError, PROXY, Parts};
use k8s_openapi::api::core::v1::Container;
use serde_json::{Value, json};

/// Lists that Kubernetes merges by a key of their items.
const KEYED: [(&str, &str); 4] = [
    ("env", "name"),
    ("ports", "containerPort"),
    ("volumeMounts", "mountPath"),
    ("volumeDevices", "devicePath"),
];

/// Adds `parts` to the pod.
pub(super) fn apply(pod: &mut Value, parts: &Parts) -> Result<(), InjectError> {
    let spec = &mut pod["spec"];
    let mut own = Overrides::default();
    let own_init = take(&mut spec["initContainers"], INIT);
    let own_proxy_init = take(&mut spec["initContainers"], PROXY);
    own.init_containers.extend(
        own_init
            .iter()
            .chain(&own_proxy_init)
            .map(|(_, c)| c.clone()),
    );
    let own_proxy = take(&mut spec["containers"], PROXY);
    own.containers
        .extend(own_proxy.iter().map(|(_, c)| c.clone()));

    let position = own_proxy.as_ref().map(|(at, _)| *at);
    let wish = own_proxy.or(own_proxy_init).map(|(_, container)| container);
    let proxy = merged(&parts.proxy, wish)?;
    let mut first = Vec::new();
    if let Some(init) = &parts.init {
        first.push(merged(init, own_init.map(|(_, container)| container))?);
    }
    if parts.native {
        first.push(proxy);
    } else {
        let containers = array(&mut spec["containers"]);
        let at = position.unwrap_or(containers.len());
        containers.insert(at.min(containers.len()), proxy);
    }
    if !first.is_empty() {
        array(&mut spec["initContainers"]).splice(0..0, first);
    } else if spec["initContainers"].as_array().is_none_or(Vec::is_empty)
        && let Some(spec) = spec.as_object_mut()
    {
        spec.remove("initContainers");
    }
    let volumes = parts.volumes.iter();
    array(&mut spec["volumes"])
        .extend(volumes.map(|v| serde_json::to_value(v).expect("Kubernetes types serialise")));
    if !own.containers.is_empty() || !own.init_containers.is_empty() {
        let text = serde_json::to_string(&own).expect("plain JSON values serialise");
        section(pod, "annotations").insert(OVERRIDES.to_owned(), json!(text));
    }
    Ok(())
}

fn array(value: &mut Value) -> &mut Vec<Value> {
    if !value.is_array() {
        *value = Value::Array(Vec::new());
    }
    value.as_array_mut().expect("it is an array by now")
}

/// Takes the container called `name` out of a list, with its position.
fn take(list: &mut Value, name: &str) -> Option<(usize, Value)> {
    let items = list.as_array_mut()?;
    let at = items.iter().position(|item| item["name"] == name)?;
    Some((at, items.remove(at)))
}

/// The built container with the user's laid over it. Image `auto` means the built one.
fn merged(built: &Container, own: Option<Value>) -> Result<Value, InjectError> {
    let name = if built.name == INIT { INIT } else { PROXY };
    let mut out = serde_json::to_value(built).expect("Kubernetes types serialise");
    let Some(mut own) = own else {
        return Ok(out);
    };
    if own["image"] == "auto" {
        own.as_object_mut().map(|own| own.remove("image"));
    }
    lay_over(&mut out, &own);
    // The result must still be a container: a wrong type here would come back as a puzzling server error.
    serde_json::from_value::<Container>(out.clone())
        .map_err(|e| InjectError::BadOverride(name, e.to_string()))?;
    Ok(out)
}

/// Objects merge field by field, keyed lists item by item, everything else is replaced.
fn lay_over(base: &mut Value, top: &Value) {
    let (Some(base), Some(top)) = (base.as_object_mut(), top.as_object()) else {
        *base = top.clone();
        return;
    };
    for (field, value) in top {
        let slot = base.entry(field.clone()).or_insert(Value::Null);
        let key = KEYED.iter().find(|(list, _)| list == field);
        match (key, value) {
            (_, Value::Null) => {}
            (Some((_, key)), Value::Array(items)) => lay_list(array(slot), items, key),
            (None, Value::Object(_)) if slot.is_object() => lay_over(slot, value),
            _ => *slot = value.clone(),
        }
        if slot.is_null() {
            base.remove(field);
        }
    }
}

fn lay_list(base: &mut Vec<Value>, top: &[Value], key: &str) {
    for item in top {
        match base.iter_mut().find(|own| own[key] == item[key]) {
            // An env value replaces a reference and the other way round: no field-wise merge.
            Some(own) => *own = item.clone(),
            None => base.push(item.clone()),
        }
    }
}
