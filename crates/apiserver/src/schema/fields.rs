//! Walks over an object's fields: which are unknown, remove those, fill in defaults.

use super::{Child, Node, with_index, with_key};
use serde_json::Value;
use std::collections::BTreeSet;

/// More unknown fields than this are not worth telling.
const MOST_UNKNOWN: usize = 100;

pub(super) fn unknown(node: &Node, value: &Value, path: &mut String, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                if found.len() >= MOST_UNKNOWN {
                    return;
                }
                with_key(path, key, |path| match node.child(key) {
                    Child::Known(child) => unknown(child, value, path, found),
                    Child::Kept => {}
                    Child::Unknown if node.is_free() => {}
                    Child::Unknown => {
                        found.insert(path.clone());
                    }
                });
            }
        }
        Value::Array(items) => {
            if let Some(node) = &node.items {
                for (index, item) in items.iter().enumerate() {
                    with_index(path, index, |path| unknown(node, item, path, found));
                }
            }
        }
        _ => {}
    }
}

pub(super) fn prune(node: &Node, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, value| match node.child(key) {
                Child::Known(child) => {
                    prune(child, value);
                    true
                }
                Child::Kept => true,
                Child::Unknown => node.is_free(),
            });
        }
        Value::Array(items) => {
            if let Some(node) = &node.items {
                items.iter_mut().for_each(|item| prune(node, item));
            }
        }
        _ => {}
    }
}

pub(super) fn default(node: &Node, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, child) in &node.properties {
                if let Some(default) = &child.default {
                    match fields.get(key) {
                        Some(Value::Null) if child.nullable => {}
                        Some(Value::Null) | None => {
                            fields.insert(key.clone(), default.clone());
                        }
                        Some(_) => {}
                    }
                }
            }
            for (key, value) in fields.iter_mut() {
                if let Child::Known(child) = node.child(key) {
                    default_in_place(child, value);
                }
            }
        }
        Value::Array(items) => {
            if let Some(node) = &node.items {
                items
                    .iter_mut()
                    .for_each(|item| default_in_place(node, item));
            }
        }
        _ => {}
    }
}

fn default_in_place(node: &Node, value: &mut Value) {
    if let (Value::Null, false, Some(default)) = (&*value, node.nullable, &node.default) {
        *value = default.clone();
    }
    default(node, value);
}
