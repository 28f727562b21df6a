//! Structural OpenAPI v3 schemas, as CRDs carry them: unknown fields, pruning, defaulting, validation, CEL rules.
//!
//! A schema is compiled once ([`Structural::compile`]) and then asked about objects. `apiVersion`, `kind` and
//! `metadata` of the object and of embedded resources are left alone: the server checks those itself. The
//! built-in kinds have their own, simpler types (`crate::shape`); `$ref` is therefore refused, as Kubernetes does.

mod cel;
mod check;
mod compile;
mod fields;
mod format;

pub(crate) use cel::{Budget, Expression, plain as cel_value};

use crate::error::Cause;
use regex::Regex;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A compiled schema.
#[derive(Debug)]
pub struct Structural {
    root: Node,
}

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// The field, such as `spec.ports[0].name`; empty for the whole object.
    pub path: String,
    /// Kubernetes' cause, such as `FieldValueRequired`.
    pub reason: &'static str,
    /// The sentence without the path, such as `Required value`.
    pub message: String,
}

/// One place in a schema.
#[derive(Debug, Default)]
struct Node {
    /// Absent: any type, or number-or-string with `int_or_string`.
    kind: Option<Type>,
    nullable: bool,
    int_or_string: bool,
    /// `x-kubernetes-preserve-unknown-fields`
    preserve: bool,
    /// `x-kubernetes-embedded-resource`, and the root itself.
    resource: bool,
    properties: BTreeMap<String, Node>,
    additional: Additional,
    items: Option<Box<Node>>,
    default: Option<Value>,
    list: ListType,
    limits: Limits,
    format: Option<String>,
    all_of: Vec<Node>,
    any_of: Vec<Node>,
    one_of: Vec<Node>,
    not: Option<Box<Node>>,
    rules: Vec<cel::Rule>,
    /// Whether there are rules here or below.
    ruled: bool,
}

/// JSON types as OpenAPI names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

/// Fields besides the named ones.
#[derive(Debug, Default)]
enum Additional {
    #[default]
    None,
    Any,
    Of(Box<Node>),
}

/// `x-kubernetes-list-type`
#[derive(Debug, Default)]
enum ListType {
    #[default]
    Atomic,
    Set,
    Map(Vec<String>),
}

/// Value checks of one place.
#[derive(Debug, Default)]
struct Limits {
    required: Vec<String>,
    allowed: Vec<Value>,
    pattern: Option<Regex>,
    minimum: Option<Bound>,
    maximum: Option<Bound>,
    multiple_of: Option<f64>,
    length: Range,
    items: Range,
    properties: Range,
    unique: bool,
}

/// A numeric bound.
#[derive(Debug, Clone, Copy)]
struct Bound {
    value: f64,
    exclusive: bool,
}

/// Least and most of a count.
#[derive(Debug, Default, Clone, Copy)]
struct Range {
    least: Option<u64>,
    most: Option<u64>,
}

/// What a key of an object means to a node.
enum Child<'a> {
    Known(&'a Node),
    /// Kept as it is: metadata, or preserved.
    Kept,
    Unknown,
}

// === impl Structural ===

impl Structural {
    /// Compiles `openAPIV3Schema` of a CRD version. The error lists every fault with its place in the schema,
    /// such as `properties[spec].type: Required value: must not be empty for specified object fields`.
    pub fn compile(schema: &Value) -> Result<Self, String> {
        compile::root(schema)
            .map(|root| Self { root })
            .map_err(|errors| {
                let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
                all.join(", ")
            })
    }

    /// Paths of fields that the schema does not know, such as `spec.foo` and `spec.list[0].bar`, at most 100.
    pub fn unknown_fields(&self, value: &Value) -> Vec<String> {
        let mut found = BTreeSet::new();
        fields::unknown(&self.root, value, &mut String::new(), &mut found);
        found.into_iter().collect()
    }

    /// Removes the fields that the schema does not know.
    pub fn prune(&self, value: &mut Value) {
        fields::prune(&self.root, value);
    }

    /// Fills in defaults; a null where null is not allowed counts as absent if there is a default.
    pub fn default(&self, value: &mut Value) {
        fields::default(&self.root, value);
    }

    /// Checks an object, already pruned and defaulted. `old` is the stored object on updates: faults in parts
    /// that did not change are let pass (Kubernetes: ratcheting), and transition rules (`oldSelf`) run.
    /// CEL rules run only if everything else is right, and within a bound of work and time.
    pub fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = check::Checker::default();
        errors.node(&self.root, new, old, &mut String::new());
        if !errors.found.is_empty() {
            return errors.found;
        }
        cel::validate(&self.root, new, old)
    }
}

impl Node {
    fn child(&self, key: &str) -> Child<'_> {
        if self.resource && matches!(key, "apiVersion" | "kind" | "metadata") {
            return Child::Kept;
        }
        match (self.properties.get(key), &self.additional) {
            (Some(node), _) => Child::Known(node),
            (None, Additional::Of(node)) => Child::Known(node),
            (None, Additional::Any) => Child::Kept,
            (None, Additional::None) if self.preserve => Child::Kept,
            (None, Additional::None) => Child::Unknown,
        }
    }

    /// Whether nothing below needs looking at.
    fn is_free(&self) -> bool {
        self.kind.is_none() && self.properties.is_empty() && self.items.is_none()
    }
}

impl Type {
    fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

// === impl FieldError ===

impl FieldError {
    fn new(path: &str, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            reason,
            message: message.into(),
        }
    }

    /// `Invalid value: <value>: <why>`; `value` as JSON.
    fn invalid(path: &str, value: &Value, why: impl std::fmt::Display) -> Self {
        Self::new(
            path,
            "FieldValueInvalid",
            format!("Invalid value: {value}: {why}"),
        )
    }

    fn required(path: &str, why: &str) -> Self {
        let message = if why.is_empty() {
            "Required value".into()
        } else {
            format!("Required value: {why}")
        };
        Self::new(path, "FieldValueRequired", message)
    }

    fn forbidden(path: &str, why: &str) -> Self {
        Self::new(path, "FieldValueForbidden", format!("Forbidden: {why}"))
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Go prints the root's nil path this way, and scripts know it.
        let path = if self.path.is_empty() {
            "<nil>"
        } else {
            &self.path
        };
        write!(f, "{path}: {}", self.message)
    }
}

impl From<FieldError> for Cause {
    fn from(error: FieldError) -> Self {
        let path = if error.path.is_empty() {
            "<nil>".to_owned()
        } else {
            error.path
        };
        Self::new(error.reason, path, error.message)
    }
}

/// Runs `visit` with `.key` appended to the path.
fn with_key<R>(path: &mut String, key: &str, visit: impl FnOnce(&mut String) -> R) -> R {
    let length = path.len();
    if length > 0 {
        path.push('.');
    }
    path.push_str(key);
    let result = visit(path);
    path.truncate(length);
    result
}

/// Runs `visit` with `[index]` appended to the path.
fn with_index<R>(
    path: &mut String,
    index: impl std::fmt::Display,
    visit: impl FnOnce(&mut String) -> R,
) -> R {
    use std::fmt::Write;
    let length = path.len();
    // Writing to a String cannot fail.
    let _ = write!(path, "[{index}]");
    let result = visit(path);
    path.truncate(length);
    result
}

#[cfg(test)]
mod tests;
