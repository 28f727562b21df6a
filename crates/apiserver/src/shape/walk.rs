//! Field checks: unknown fields (found and dropped) and values of the wrong JSON type.

use super::{MAX_DEPTH, Scalar, Shape, Typed};
use serde_json::{Number, Value};

/// What a walk over an object found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Paths of unknown fields, such as `spec.foo`; they are dropped from the object.
    pub unknown: Vec<String>,
    /// Sentences about values of the wrong type.
    pub mistyped: Vec<String>,
}

/// Checks an object against its type, drops unknown fields and `null`s of known fields, and writes quantities given
/// as numbers as text.
pub fn inspect(typed: Typed<'_>, value: &mut Value) -> Findings {
    let mut findings = Findings::default();
    walk(typed, value, &mut String::new(), 0, &mut findings);
    findings
}

fn walk(
    typed: Typed<'_>,
    value: &mut Value,
    path: &mut String,
    depth: usize,
    findings: &mut Findings,
) {
    if depth > MAX_DEPTH {
        findings
            .mistyped
            .push(format!("{path} nests deeper than {MAX_DEPTH} levels"));
        return;
    }
    let wrong = |found: &Value, wanted: &str| {
        format!("{path}: cannot use {} as {wanted}", type_name(found))
    };
    match (typed.shape(), &mut *value) {
        (_, Value::Null) | (Shape::Any | Shape::Ref(_), _) => {}
        (Shape::Object(fields), Value::Object(map)) => {
            map.retain(|key, value| {
                if value.is_null() {
                    return fields.open;
                }
                let known = typed.field(key).is_some();
                if !known {
                    findings.unknown.push(join(path, key));
                }
                known
            });
            enter(typed, map, path, depth, findings);
        }
        (Shape::Map(..), Value::Object(map)) => enter(typed, map, path, depth, findings),
        (Shape::List(_), Value::Array(items)) => {
            for (index, item) in items.iter_mut().enumerate() {
                let length = path.len();
                path.push_str(&format!("[{index}]"));
                walk(typed.items(), item, path, depth + 1, findings);
                path.truncate(length);
            }
        }
        (Shape::Object(_) | Shape::Map(..), other) => {
            findings.mistyped.push(wrong(other, "an object"))
        }
        (Shape::List(_), other) => findings.mistyped.push(wrong(other, "a list")),
        (Shape::Scalar(scalar), other) => {
            if let Some(wanted) = mismatch(*scalar, other) {
                findings.mistyped.push(wrong(other, wanted));
            }
        }
    }
}

fn enter(
    typed: Typed<'_>,
    map: &mut serde_json::Map<String, Value>,
    path: &mut String,
    depth: usize,
    findings: &mut Findings,
) {
    for (key, value) in map.iter_mut() {
        let Some(field) = typed.field(key) else {
            continue;
        };
        let length = path.len();
        *path = join(path, key);
        walk(field, value, path, depth + 1, findings);
        path.truncate(length);
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

fn mismatch(scalar: Scalar, value: &mut Value) -> Option<&'static str> {
    match (scalar, &*value) {
        (Scalar::Text, Value::String(_))
        | (Scalar::Boolean, Value::Bool(_))
        | (Scalar::Number, Value::Number(_)) => None,
        (Scalar::IntOrText, Value::Number(_) | Value::String(_)) => None,
        (Scalar::Integer, Value::Number(number)) if number.is_i64() || number.is_u64() => None,
        (Scalar::Integer, Value::Number(number)) => match number
            .as_f64()
            .filter(|f| f.fract() == 0.0 && f.abs() < 9e15)
        {
            // `1.0` is a whole number in JSON; it is kept as one.
            Some(whole) => {
                *value = Value::Number(Number::from(whole as i64));
                None
            }
            None => Some("a whole number"),
        },
        (Scalar::Text, _) => Some("a string"),
        (Scalar::Boolean, _) => Some("a boolean"),
        (Scalar::Number, _) => Some("a number"),
        (Scalar::Integer, _) => Some("a whole number"),
        (Scalar::IntOrText, _) => Some("a number or string"),
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}
