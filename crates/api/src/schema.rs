//! From Rust types to structural schemas as Kubernetes wants them: no references, one type each, plain enums.
//! Which kind has which schema is in [`crate::crd`].

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value};

/// Keywords that structural schemas may not carry, or that say nothing to Kubernetes.
const DROPPED: [&str; 4] = ["$schema", "title", "default", "$defs"];

/// The structural schema of `T`, with descriptions from its documentation.
pub fn structural<T: JsonSchema>() -> Value {
    let generator = SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator();
    let mut schema = generator.into_root_schema_for::<T>().to_value();
    rewrite(&mut schema);
    schema
}

/// Rewrites one schema and everything below it.
fn rewrite(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else {
        return;
    };
    for key in DROPPED {
        map.remove(key);
    }
    unwrap_optional(map);
    flatten_enum(map);
    one_type(map);
    if map
        .get("format")
        .and_then(Value::as_str)
        .is_some_and(|format| format.starts_with("uint"))
    {
        map.remove("format");
    }
    if let Some(Value::String(text)) = map.get_mut("description") {
        *text = text.replace('\n', " ");
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(rewrite);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(below) = map.get_mut(key) {
            rewrite(below);
        }
    }
}

/// `anyOf: [X, null]` becomes X; what stands beside it, such as a description, wins over X's own.
fn unwrap_optional(map: &mut Map<String, Value>) {
    let Some(Value::Array(choices)) = map.get("anyOf") else {
        return;
    };
    let real = choices
        .iter()
        .filter(|c| c["type"] != "null")
        .collect::<Vec<_>>();
    let [Value::Object(only)] = &real[..] else {
        return;
    };
    let only = only.clone();
    map.remove("anyOf");
    for (key, value) in only {
        map.entry(key).or_insert(value);
    }
    for key in DROPPED {
        map.remove(key);
    }
}

/// `oneOf` of constants becomes `enum`.
fn flatten_enum(map: &mut Map<String, Value>) {
    if let Some(Value::Array(choices)) = map.get("oneOf") {
        let constants = choices
            .iter()
            .filter_map(|c| c.get("const").cloned())
            .collect::<Vec<_>>();
        if constants.len() == choices.len() {
            map.remove("oneOf");
            map.insert("type".into(), "string".into());
            map.insert("enum".into(), Value::Array(constants));
        }
    }
    if let Some(Value::Array(values)) = map.get_mut("enum") {
        values.retain(|v| !v.is_null());
    }
}

/// `type: [X, null]` becomes `type: X`.
fn one_type(map: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = map.get("type")
        && let Some(real) = types.iter().find(|t| *t != "null")
    {
        let real = real.clone();
        map.insert("type".into(), real);
    }
}
