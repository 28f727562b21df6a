//! Discovery: which groups, versions and resources are served, in the plain and the aggregated form.

use crate::kinds::{Kind, Registry};
use crate::negotiate;
use crate::wire::{self, Body};
use http::{HeaderMap, HeaderValue, Response, header};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Kubernetes' version that the behaviour follows.
pub const VERSION: &str = "v1.33.0";

/// Answers a discovery path; absent when the path is none.
pub fn answer(registry: &Registry, path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let aggregated = negotiate::accepted(headers)
        .iter()
        .find(|accepted| {
            accepted.wanted.is_none()
                || accepted.wanted == Some("APIGroupDiscoveryList")
                    && accepted.version == Some("v2")
        })
        .is_some_and(|accepted| accepted.wanted.is_some());
    let groups = groups(registry);
    let plain = |value: Value| Some(wire::json(200, &value));
    match parts.as_slice() {
        ["api"] if aggregated => Some(list(&groups, true)),
        ["apis"] if aggregated => Some(list(&groups, false)),
        ["api"] => plain(json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}],
        })),
        ["apis"] => {
            let all: Vec<Value> = groups
                .iter()
                .filter(|(name, _)| !name.is_empty())
                .map(|(name, versions)| group(name, versions))
                .collect();
            plain(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": all}))
        }
        ["api", version] => Some(resources(&groups, "", version)),
        ["apis", name] => {
            let mut value = group(name, groups.get(*name)?);
            (value["kind"], value["apiVersion"]) = (json!("APIGroup"), json!("v1"));
            plain(value)
        }
        ["apis", name, version] => Some(resources(&groups, name, version)),
        ["version"] => plain(json!({
            "major": "1", "minor": "33", "gitVersion": format!("{VERSION}+lateen"), "gitCommit": "", "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
            "platform": format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }),
        })),
        _ => None,
    }
}

/// Kinds per version, the preferred version first.
type Versions = Vec<(String, Vec<Arc<Kind>>)>;

fn groups(registry: &Registry) -> BTreeMap<String, Versions> {
    let mut groups: BTreeMap<String, Versions> = BTreeMap::new();
    for kind in registry.all().values() {
        let versions = groups.entry(kind.group.clone()).or_default();
        match versions
            .iter_mut()
            .find(|(version, _)| *version == kind.version)
        {
            Some((_, kinds)) => kinds.push(kind.clone()),
            None => versions.push((kind.version.clone(), vec![kind.clone()])),
        }
    }
    for versions in groups.values_mut() {
        versions.sort_by_key(|(version, _)| std::cmp::Reverse(crate::crd::priority(version)));
    }
    groups
}

fn group(name: &str, versions: &Versions) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(
            |(version, _)| json!({"groupVersion": format!("{name}/{version}"), "version": version}),
        )
        .collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions[0]})
}

fn resources(groups: &BTreeMap<String, Versions>, group: &str, version: &str) -> Response<Body> {
    let found = groups
        .get(group)
        .and_then(|versions| versions.iter().find(|(name, _)| name == version));
    let Some((_, kinds)) = found else {
        return wire::error(&crate::error::ApiError::not_served());
    };
    let mut list = Vec::new();
    for kind in kinds {
        let mut entry = json!({
            "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced, "kind": kind.kind,
            "verbs": kind.verbs(),
        });
        if !kind.short.is_empty() {
            entry["shortNames"] = json!(kind.short);
        }
        if !kind.categories.is_empty() {
            entry["categories"] = json!(kind.categories);
        }
        list.push(entry);
        for name in &kind.subresources {
            let sub = subresource(kind, name);
            let mut entry = json!({
                "name": format!("{}/{name}", kind.plural), "singularName": "", "namespaced": kind.namespaced,
                "kind": sub.kind, "verbs": sub.verbs,
            });
            if !sub.group.is_empty() {
                (entry["group"], entry["version"]) = (json!(sub.group), json!(sub.version));
            }
            list.push(entry);
        }
    }
    let group_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    wire::json(
        200,
        &json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list}),
    )
}

struct Subresource {
    kind: String,
    group: &'static str,
    version: &'static str,
    verbs: &'static [&'static str],
}

/// Kind and verbs of a subresource; the group is empty when it is the resource's own.
fn subresource(kind: &Kind, name: &str) -> Subresource {
    let own = |verbs| Subresource {
        kind: kind.kind.clone(),
        group: "",
        version: "",
        verbs,
    };
    let other = |kind: &str, group, version, verbs| Subresource {
        kind: kind.to_owned(),
        group,
        version,
        verbs,
    };
    match name {
        "scale" => other("Scale", "autoscaling", "v1", &["get", "patch", "update"]),
        "eviction" => other("Eviction", "policy", "v1", &["create"]),
        "token" => other("TokenRequest", "authentication.k8s.io", "v1", &["create"]),
        "binding" => other("Binding", "", "", &["create"]),
        "log" => own(&["get"]),
        "exec" => other("PodExecOptions", "", "", &["create", "get"]),
        "attach" => other("PodAttachOptions", "", "", &["create", "get"]),
        "portforward" => other("PodPortForwardOptions", "", "", &["create", "get"]),
        "finalize" => own(&["update"]),
        _ => own(&["get", "patch", "update"]),
    }
}

fn list(groups: &BTreeMap<String, Versions>, core: bool) -> Response<Body> {
    let items: Vec<Value> = groups
        .iter()
        .filter(|(name, _)| name.is_empty() == core)
        .map(|(name, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|(version, kinds)| aggregated(version, kinds))
                .collect();
            let metadata = if name.is_empty() {
                json!({"creationTimestamp": null})
            } else {
                json!({"name": name, "creationTimestamp": null})
            };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let body = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items,
    });
    let mut response = wire::json(200, &body);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(AGGREGATED));
    response
}

fn aggregated(version: &str, kinds: &[Arc<Kind>]) -> Value {
    let resources: Vec<Value> = kinds
        .iter()
        .map(|kind| {
            let own = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
            let subresources: Vec<Value> = kind
                .subresources
                .iter()
                .map(|name| {
                    let sub = subresource(kind, name);
                    let mut response = own.clone();
                    response["kind"] = json!(sub.kind);
                    if !sub.group.is_empty() {
                        (response["group"], response["version"]) = (json!(sub.group), json!(sub.version));
                    }
                    json!({"subresource": name, "responseKind": response, "verbs": sub.verbs})
                })
                .collect();
            let mut entry = json!({
                "resource": kind.plural, "responseKind": own, "singularResource": kind.singular, "verbs": kind.verbs(),
                "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
            });
            for (field, list) in [("shortNames", &kind.short), ("categories", &kind.categories)] {
                if !list.is_empty() {
                    entry[field] = json!(list);
                }
            }
            if !subresources.is_empty() {
                entry["subresources"] = json!(subresources);
            }
            entry
        })
        .collect();
    json!({"version": version, "freshness": "Current", "resources": resources})
}
