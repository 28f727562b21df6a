//! JSON values as CEL sees them, with and without a schema.

use super::super::{Additional, Child, Node, Type};
use super::{Expression, RunError};
use base64::Engine;
use kube_cel::cel::Value as Cel;
use kube_cel::cel::objects::{Key, Map};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

/// Names that CEL keeps for itself (Kubernetes: escaping of field names).
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// A value without a schema: keys as they are, as admission expressions see objects.
pub(crate) fn plain(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(flag) => Cel::Bool(*flag),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Cel::Int(number),
            (None, Some(number)) => Cel::UInt(number),
            (None, None) => Cel::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => Cel::String(Arc::new(text.clone())),
        Value::Array(items) => Cel::List(Arc::new(items.iter().map(plain).collect())),
        Value::Object(fields) => map(fields
            .iter()
            .map(|(key, value)| (key.clone(), plain(value)))),
    }
}

/// A value with the types of its schema; fields that the schema does not name are out of sight.
pub(super) fn typed(value: &Value, node: &Node) -> Cel {
    match value {
        Value::Number(number) if node.kind == Some(Type::Number) => {
            Cel::Float(number.as_f64().unwrap_or(f64::NAN))
        }
        // 1.0 is an integer in JSON.
        Value::Number(number) if node.kind == Some(Type::Integer) && number.is_f64() => {
            Cel::Int(number.as_f64().unwrap_or_default() as i64)
        }
        Value::String(text) => string(text, node),
        Value::Array(items) => match &node.items {
            Some(child) => Cel::List(Arc::new(
                items.iter().map(|item| typed(item, child)).collect(),
            )),
            None => plain(value),
        },
        Value::Object(fields) => {
            let is_map = !matches!(node.additional, Additional::None);
            let mut seen: HashMap<String, Cel> = HashMap::with_capacity(fields.len());
            for (key, value) in fields {
                let name = if is_map { key.clone() } else { escape(key) };
                match node.child(key) {
                    Child::Known(child) => seen.insert(name, typed(value, child)),
                    Child::Kept => seen.insert(name, plain(value)),
                    Child::Unknown => None,
                };
            }
            map(seen)
        }
        _ => plain(value),
    }
}

/// A field's name in CEL (Kubernetes: `cel.Escape`).
pub(super) fn escape(name: &str) -> String {
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    name.replace("__", "__underscores__")
        .replace('.', "__dot__")
        .replace('-', "__dash__")
        .replace('/', "__slash__")
}

fn map(entries: impl IntoIterator<Item = (String, Cel)>) -> Cel {
    let map = entries
        .into_iter()
        .map(|(key, value)| (Key::String(Arc::new(key)), value))
        .collect();
    Cel::Map(Map { map: Arc::new(map) })
}

fn string(text: &str, node: &Node) -> Cel {
    // The interpreter makes its own times; their type is not ours to construct.
    static TIMESTAMP: LazyLock<Option<Expression>> =
        LazyLock::new(|| Expression::compile("timestamp(text)", &["text"]).ok());
    static DURATION: LazyLock<Option<Expression>> =
        LazyLock::new(|| Expression::compile("duration(text)", &["text"]).ok());
    let plain = Cel::String(Arc::new(text.to_owned()));
    let through = |expression: &Option<Expression>| -> Option<Result<Cel, RunError>> {
        expression
            .as_ref()
            .map(|expression| expression.run(&[("text", &plain)]))
    };
    let converted = match node.format.as_deref() {
        Some("date-time") => through(&TIMESTAMP),
        Some("date") => {
            let midnight = Cel::String(Arc::new(format!("{text}T00:00:00Z")));
            TIMESTAMP
                .as_ref()
                .map(|expression| expression.run(&[("text", &midnight)]))
        }
        Some("duration") => through(&DURATION),
        Some("byte") => base64::engine::general_purpose::STANDARD
            .decode(text)
            .ok()
            .map(|bytes| Ok(Cel::Bytes(Arc::new(bytes)))),
        _ => None,
    };
    match converted {
        Some(Ok(value)) => value,
        _ => plain,
    }
}
