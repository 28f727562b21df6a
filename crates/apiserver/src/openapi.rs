//! OpenAPI v3 documents per group and version, as `kubectl explain` and server-side validation read them.

use crate::kinds::{Kind, Registry};
use crate::negotiate;
use crate::wire::{self, Body};
use http::{HeaderMap, Response};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Answers `/openapi/…`; absent for other paths.
pub fn answer(registry: &Registry, path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
    let rest = path.strip_prefix("/openapi/")?;
    match rest {
        "v3" => Some(wire::json(200, &index(registry))),
        "v2" => Some(second_version(headers)),
        _ => {
            let (group, version) = place(rest.strip_prefix("v3/")?)?;
            let all = registry.all();
            let kinds: Vec<&Arc<Kind>> = all
                .values()
                .filter(|kind| kind.group == group && kind.version == version)
                .collect();
            (!kinds.is_empty()).then(|| wire::json(200, &document(registry, &kinds)))
        }
    }
}

/// OpenAPI v2, which kubectl asks for when it finds a kind in no v3 document: an empty one, from which it concludes
/// that there is nothing to check, and goes on to say that the kind is unknown. kubectl wants it in protobuf.
fn second_version(headers: &HeaderMap) -> Response<Body> {
    const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    let version = crate::discovery::VERSION;
    let asked = negotiate::accepted(headers);
    if !asked
        .iter()
        .any(|entry| entry.media.contains("proto-openapi.spec.v2"))
    {
        let info = json!({"title": "Kubernetes", "version": version});
        return wire::json(200, &json!({"swagger": "2.0", "info": info, "paths": {}}));
    }
    // Document{swagger = 1, info = 2: Info{title = 1, version = 2}, paths = 8}; all lengths fit one byte.
    let text = |tag: u8, text: &[u8]| [&[tag, text.len() as u8], text].concat();
    let info = [text(0x0a, b"Kubernetes"), text(0x12, version.as_bytes())].concat();
    let document = [text(0x0a, b"2.0"), text(0x12, &info), text(0x42, b"")].concat();
    wire::text(200, PROTOBUF, document)
}

fn place(path: &str) -> Option<(&str, &str)> {
    match path.split('/').collect::<Vec<_>>().as_slice() {
        ["api", version] => Some(("", version)),
        ["apis", group, version] => Some((group, version)),
        _ => None,
    }
}

fn base(kind: &Kind) -> String {
    if kind.group.is_empty() {
        format!("api/{}", kind.version)
    } else {
        format!("apis/{}/{}", kind.group, kind.version)
    }
}

fn index(registry: &Registry) -> Value {
    let mut paths = Map::new();
    for kind in registry.all().values() {
        let base = base(kind);
        let url = format!("/openapi/v3/{base}");
        paths.insert(base, json!({"serverRelativeURL": url}));
    }
    json!({"paths": paths})
}

fn document(registry: &Registry, kinds: &[&Arc<Kind>]) -> Value {
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    let mut wanted = BTreeSet::new();
    for kind in kinds {
        let schema = match &kind.custom {
            Some(custom) => custom_schema(kind, &custom.schema),
            None => registry
                .definitions()
                .get(&kind.type_name)
                .cloned()
                .unwrap_or_else(|| json!({"type": "object"})),
        };
        references(&schema, &mut wanted);
        let mut schema = schema;
        schema["x-kubernetes-group-version-kind"] = json!([gvk(kind)]);
        schemas.insert(kind.type_name.clone(), schema);
        let prefix = format!(
            "/{}/{}",
            base(kind),
            if kind.namespaced {
                "namespaces/{namespace}/"
            } else {
                ""
            }
        );
        paths.insert(format!("{prefix}{}", kind.plural), collection(kind));
        paths.insert(format!("{prefix}{}/{{name}}", kind.plural), item(kind));
    }
    // Everything that is referred to, directly or not.
    while let Some(name) = wanted.pop_first() {
        if schemas.contains_key(&name) {
            continue;
        }
        if let Some(schema) = registry.definitions().get(&name) {
            references(schema, &mut wanted);
            schemas.insert(name, schema.clone());
        }
    }
    json!({
        "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": crate::discovery::VERSION},
        "paths": paths, "components": {"schemas": schemas},
    })
}

fn custom_schema(kind: &Kind, schema: &Value) -> Value {
    let mut schema = schema.clone();
    if !schema["properties"].is_object() {
        schema["properties"] = json!({});
    }
    let text = |description: &str| json!({"type": "string", "description": description});
    schema["properties"]["apiVersion"] = text("Group and version of the object's schema.");
    schema["properties"]["kind"] = text("Kind of the object.");
    schema["properties"]["metadata"] = json!({
        "description": "Standard object's metadata.", "allOf": [{"$ref": format!("#/components/schemas/{}", crate::kinds::META)}],
    });
    if schema["type"].is_null() {
        schema["type"] = json!("object");
    }
    if schema["description"].is_null() {
        schema["description"] = json!(format!("{} of the group {}.", kind.kind, kind.group));
    }
    schema
}

fn references(schema: &Value, wanted: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref") {
                wanted.insert(reference.rsplit('/').next().unwrap_or(reference).to_owned());
            }
            map.values().for_each(|value| references(value, wanted));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, wanted)),
        _ => {}
    }
}

fn gvk(kind: &Kind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

fn operation(kind: &Kind, action: &str, parameters: &[&str]) -> Value {
    let parameters: Vec<Value> = parameters
        .iter()
        .map(|name| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}}))
        .collect();
    let content = json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{}", kind.type_name)}}});
    json!({
        "x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk(kind), "parameters": parameters,
        "responses": {"200": {"description": "OK", "content": content}},
    })
}

const WRITE: &[&str] = &["dryRun", "fieldManager", "fieldValidation"];

fn collection(kind: &Kind) -> Value {
    let mut value = json!({"post": operation(kind, "post", WRITE)});
    if !kind.review {
        value["get"] = operation(
            kind,
            "list",
            &[
                "labelSelector",
                "fieldSelector",
                "limit",
                "continue",
                "resourceVersion",
                "watch",
            ],
        );
        value["delete"] = operation(kind, "deletecollection", &["dryRun"]);
    }
    value
}

fn item(kind: &Kind) -> Value {
    if kind.review {
        return json!({});
    }
    json!({
        "get": operation(kind, "get", &[]),
        "put": operation(kind, "put", WRITE),
        "patch": operation(kind, "patch", &["dryRun", "fieldManager", "fieldValidation", "force"]),
        "delete": operation(kind, "delete", &["dryRun", "gracePeriodSeconds", "propagationPolicy"]),
    })
}
