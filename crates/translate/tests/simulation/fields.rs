//! Field paths: those of schemas, those in objects, and objects without one of them.

use serde_json::Value;
use std::collections::BTreeSet;

/// Every leaf of a kind's schema, with `[]` after lists. Mappings with names of the user's choice are leaves.
pub fn leaves(kind: &str) -> BTreeSet<String> {
    let schema = lateen_api::crd::spec_schema(kind).expect("a typed kind");
    let mut found = BTreeSet::new();
    below(schema, "", &mut found);
    found
}

fn below(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    let Some(properties) = schema["properties"].as_object() else {
        found.insert(path.to_owned());
        return;
    };
    for (name, part) in properties {
        let dot = if path.is_empty() { "" } else { "." };
        let own = format!("{path}{dot}{name}");
        match part.get("items") {
            Some(items) if items["properties"].is_object() => {
                below(items, &format!("{own}[]"), found)
            }
            Some(_) => _ = found.insert(own),
            None => below(part, &own, found),
        }
    }
}

/// Leaves below `prefix` that the specs of these objects contain.
pub fn contained(leaves: &BTreeSet<String>, prefix: &str, objects: &[&Value]) -> Vec<String> {
    let inside = |leaf: &&String| {
        let rest = leaf.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let there = |leaf: &&String| objects.iter().any(|o| contains(&o["spec"], leaf));
    leaves
        .iter()
        .filter(inside)
        .filter(there)
        .cloned()
        .collect()
}

/// Whether something is at the path.
pub fn contains(value: &Value, path: &str) -> bool {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    let list = first.ends_with("[]");
    let part = &value[first.trim_end_matches("[]")];
    if part.is_null() || rest.is_empty() {
        return !part.is_null();
    }
    match (list, part) {
        (true, Value::Array(items)) => items.iter().any(|item| contains(item, rest)),
        (false, part) => contains(part, rest),
        (true, _) => false,
    }
}

/// Removes what is at the path, wherever it occurs.
pub fn remove(value: &mut Value, path: &str) {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    let name = first.trim_end_matches("[]");
    let Some(object) = value.as_object_mut() else {
        return;
    };
    if rest.is_empty() {
        object.remove(name);
        return;
    }
    match object.get_mut(name) {
        Some(Value::Array(items)) if first.ends_with("[]") => {
            for item in items {
                remove(item, rest);
            }
        }
        Some(part) => remove(part, rest),
        None => {}
    }
}

/// `spec.http[0].match[1].uri` as `http[].match[].uri`.
pub fn general(field: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for c in field.trim_start_matches("spec.").chars() {
        match c {
            '[' => (inside, _) = (true, out.push('[')),
            ']' => (inside, _) = (false, out.push(']')),
            _ if inside => {}
            c => out.push(c),
        }
    }
    out
}
