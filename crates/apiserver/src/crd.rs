//! CustomResourceDefinitions: their defaults, their validation, and serving what they define.

use crate::api::Api;
use crate::error::Cause;
use crate::kinds::{Custom, Kind};
use crate::meta;
use crate::schema::Structural;
use serde_json::{Map, Value, json};

/// Finalizer that holds a definition until its objects are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Defaults, accepted names, conditions and finalizer: definitions are established as soon as they are stored.
pub fn fill(crd: &mut Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if !crd["spec"]["names"].is_object() || !crd["spec"]["versions"].is_array() {
        return;
    }
    let kind = text(&crd["spec"]["names"]["kind"]);
    let names = &mut crd["spec"]["names"];
    if text(&names["singular"]).is_empty() {
        names["singular"] = json!(kind.to_lowercase());
    }
    if text(&names["listKind"]).is_empty() {
        names["listKind"] = json!(format!("{kind}List"));
    }
    let names = names.clone();
    if crd["spec"]["conversion"].is_null() {
        crd["spec"]["conversion"] = json!({"strategy": "None"});
    }
    let versions = crd["spec"]["versions"].as_array().into_iter().flatten();
    let stored = versions
        .filter(|version| version["storage"] == true)
        .map(|version| version["name"].clone())
        .next();
    if !meta::is_deleting(crd) {
        let finalizers = &mut crd["metadata"]["finalizers"];
        if !finalizers.is_array() {
            *finalizers = json!([]);
        }
        if let Some(list) = finalizers.as_array_mut()
            && !list.iter().any(|entry| entry == CLEANUP)
        {
            list.push(json!(CLEANUP));
        }
    }
    let status = &mut crd["status"];
    if !status.is_object() {
        *status = Value::Object(Map::new());
    }
    status["acceptedNames"] = names;
    if !status["storedVersions"].is_array() {
        status["storedVersions"] = json!([]);
    }
    if let (Some(stored), Some(list)) = (stored, status["storedVersions"].as_array_mut())
        && !list.contains(&stored)
    {
        list.push(stored);
    }
    condition(status, "NamesAccepted", "NoConflicts", "no conflicts found");
    condition(
        status,
        "Established",
        "InitialNamesAccepted",
        "the initial names have been accepted",
    );
}

fn condition(status: &mut Value, kind: &str, reason: &str, message: &str) {
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(conditions) = status["conditions"].as_array_mut() else {
        return;
    };
    if conditions
        .iter()
        .any(|condition| condition["type"] == kind && condition["status"] == "True")
    {
        return;
    }
    conditions.retain(|condition| condition["type"] != kind);
    conditions.push(json!({
        "type": kind, "status": "True", "lastTransitionTime": meta::now(), "reason": reason, "message": message,
    }));
}

/// Broken rules of a definition.
pub fn check(crd: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let spec = &crd["spec"];
    let (group, plural) = (
        spec["group"].as_str().unwrap_or_default(),
        spec["names"]["plural"].as_str().unwrap_or_default(),
    );
    let expected = format!("{plural}.{group}");
    if meta::text(crd, "name") != expected {
        let why = "must be spec.names.plural+\".\"+spec.group";
        causes.push(meta::invalid("metadata.name", meta::text(crd, "name"), why));
    }
    if !group.contains('.') || meta::not_a_subdomain(group).is_some() {
        causes.push(meta::invalid(
            "spec.group",
            group,
            "should be a domain with at least one dot",
        ));
    }
    if spec["names"]["kind"]
        .as_str()
        .unwrap_or_default()
        .is_empty()
    {
        causes.push(meta::required("spec.names.kind", ""));
    }
    if !matches!(spec["scope"].as_str(), Some("Namespaced" | "Cluster")) {
        let message = format!(
            "Unsupported value: {}: supported values: \"Cluster\", \"Namespaced\"",
            spec["scope"]
        );
        causes.push(Cause::new("FieldValueNotSupported", "spec.scope", message));
    }
    if let Some(old) = old {
        for field in ["group", "scope"] {
            if spec[field] != old["spec"][field] {
                causes.push(meta::invalid(
                    format!("spec.{field}"),
                    &spec[field].to_string(),
                    "field is immutable",
                ));
            }
        }
    }
    let versions = spec["versions"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    if versions
        .iter()
        .filter(|version| version["storage"] == true)
        .count()
        != 1
    {
        let why = "must have exactly one version marked as storage version";
        causes.push(meta::invalid(
            "spec.versions",
            &versions.len().to_string(),
            why,
        ));
    }
    if spec["conversion"]["strategy"] == "Webhook" {
        let why = "conversion webhooks are not supported; versions must share one schema";
        causes.push(meta::invalid("spec.conversion.strategy", "Webhook", why));
    }
    for (index, version) in versions.iter().enumerate() {
        check_version(version, &format!("spec.versions[{index}]"), causes);
    }
}

fn check_version(version: &Value, path: &str, causes: &mut Vec<Cause>) {
    let name = version["name"].as_str().unwrap_or_default();
    if let Some(why) = meta::not_a_label(name) {
        causes.push(meta::invalid(format!("{path}.name"), name, why));
    }
    let schema = &version["schema"]["openAPIV3Schema"];
    let path = format!("{path}.schema.openAPIV3Schema");
    if !schema.is_object() {
        causes.push(meta::required(path, "schemas are required"));
    } else if let Err(why) = Structural::compile(schema) {
        causes.push(Cause::new(
            "FieldValueInvalid",
            path,
            format!("Invalid value: {why}"),
        ));
    }
}

/// Serves a stored definition in place of its former state.
pub fn serve(api: &Api, crd: &Value) {
    let spec = &crd["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let versions = spec["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|version| version["served"] == true);
    let mut ordered: Vec<&Value> = versions.collect();
    ordered.sort_by_key(|version| {
        std::cmp::Reverse(priority(version["name"].as_str().unwrap_or_default()))
    });
    let kinds: Vec<Kind> = ordered
        .into_iter()
        .enumerate()
        .filter_map(|(rank, version)| {
            let schema = version["schema"]["openAPIV3Schema"].clone();
            let structural = Structural::compile(&schema)
                .inspect_err(|why| {
                    tracing::warn!(
                        name = meta::text(crd, "name"),
                        why,
                        "a stored definition cannot be served"
                    )
                })
                .ok()?;
            let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
            let scale = version["subresources"]["scale"]
                .is_object()
                .then(|| version["subresources"]["scale"].clone());
            let selectable = list(&version["selectableFields"])
                .iter()
                .map(|field| text(&field["jsonPath"]))
                .collect();
            let columns = list(&version["additionalPrinterColumns"]);
            Some(api.registry.custom(
                crd,
                version,
                Custom {
                    schema,
                    structural,
                    columns,
                    scale,
                    selectable,
                    rank,
                },
            ))
        })
        .collect();
    api.registry.replace(
        &text(&spec["group"]),
        &text(&spec["names"]["plural"]),
        kinds,
    );
}

/// Stops serving a removed definition.
pub fn forget(api: &Api, crd: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    api.registry.replace(
        &text(&crd["spec"]["group"]),
        &text(&crd["spec"]["names"]["plural"]),
        Vec::new(),
    );
}

/// Kubernetes' order of versions: stable before beta before alpha, then the higher number, then the rest by name.
pub fn priority(version: &str) -> (u8, u32, u32) {
    let Some(rest) = version.strip_prefix('v') else {
        return (0, 0, 0);
    };
    let number = |text: &str| text.parse::<u32>().ok();
    let level = |word: &str, rank: u8| {
        let (major, minor) = rest.split_once(word)?;
        Some((
            rank,
            number(major)?,
            if minor.is_empty() { 0 } else { number(minor)? },
        ))
    };
    number(rest)
        .map(|major| (3, major, 0))
        .or_else(|| level("beta", 2))
        .or_else(|| level("alpha", 1))
        .unwrap_or((0, 0, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_kubernetes_does() {
        let mut versions = ["v1alpha3", "v1beta1", "foo", "v1", "v2", "v1alpha1", "v10"];
        versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
        assert_eq!(
            versions,
            ["v10", "v2", "v1", "v1beta1", "v1alpha3", "v1alpha1", "foo"]
        );
    }
}
