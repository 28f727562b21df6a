//! Value checks: types, limits, combinations, uniqueness in lists. The sentences are those of kube-openapi's
//! validator and of Kubernetes' `field.Error`.

use super::{Additional, Child, FieldError, ListType, Node, Type, format, with_index, with_key};
use serde_json::{Map, Value, json};
use std::collections::{HashMap, HashSet};

/// More faults than this are not worth telling.
const MOST_ERRORS: usize = 100;

/// Collects faults on a walk.
#[derive(Default)]
pub(super) struct Checker {
    pub(super) found: Vec<FieldError>,
}

impl Checker {
    fn report(&mut self, error: FieldError) {
        if self.found.len() < MOST_ERRORS {
            self.found.push(error);
        }
    }

    /// `Invalid value: …: <path> in body <why>`
    fn in_body(&mut self, path: &str, value: &Value, why: impl std::fmt::Display) {
        self.report(FieldError::invalid(
            path,
            value,
            format_args!("{} in body {why}", subject(path)),
        ));
    }

    /// Checks a value against a node. What is the same in `old` is not checked again.
    pub(super) fn node(
        &mut self,
        node: &Node,
        value: &Value,
        old: Option<&Value>,
        path: &mut String,
    ) {
        if old == Some(value) || !self.kind(node, value, path) {
            return;
        }
        if value.is_null() && node.nullable {
            return;
        }
        self.limits(node, value, path);
        self.combinations(node, value, path);
        match value {
            Value::Object(fields) => self.fields(node, fields, old, path),
            Value::Array(items) => self.items(node, items, old, path),
            _ => {}
        }
    }

    /// Whether the value is of the node's type; if not, that is the only fault worth telling.
    fn kind(&mut self, node: &Node, value: &Value, path: &str) -> bool {
        if value.is_null() && (node.nullable || (node.kind.is_none() && !node.int_or_string)) {
            return true;
        }
        let name = type_name(value);
        let wanted = match node.kind {
            _ if node.int_or_string => {
                if is_integer(value) || value.is_string() {
                    return true;
                }
                "integer,string"
            }
            None => return true,
            Some(Type::Number) if value.is_number() => return true,
            Some(Type::Integer) if is_integer(value) => return true,
            Some(kind) if kind.name() == name && kind != Type::Integer => return true,
            Some(kind) => kind.name(),
        };
        let message = format!(
            "Invalid value: \"{name}\": {} in body must be of type {wanted}: \"{name}\"",
            subject(path)
        );
        self.report(FieldError::new(path, "FieldValueTypeInvalid", message));
        false
    }

    fn limits(&mut self, node: &Node, value: &Value, path: &str) {
        let limits = &node.limits;
        if !limits.allowed.is_empty() && !limits.allowed.contains(value) {
            let all: Vec<String> = limits.allowed.iter().map(Value::to_string).collect();
            let message = format!(
                "Unsupported value: {value}: supported values: {}",
                all.join(", ")
            );
            self.report(FieldError::new(path, "FieldValueNotSupported", message));
        }
        match value {
            Value::String(text) => self.text(node, text, value, path),
            Value::Number(number) => {
                self.number(node, number.as_f64().unwrap_or(f64::NAN), value, path)
            }
            Value::Array(items) => {
                let (count, range) = (items.len() as u64, limits.items);
                if let Some(least) = range.least.filter(|least| count < *least) {
                    self.in_body(
                        path,
                        &json!(count),
                        format_args!("should have at least {least} items"),
                    );
                }
                if let Some(most) = range.most.filter(|most| count > *most) {
                    self.too_many(path, count, most);
                }
            }
            Value::Object(fields) => {
                let (count, range) = (fields.len() as u64, limits.properties);
                if let Some(least) = range.least.filter(|least| count < *least) {
                    self.in_body(
                        path,
                        value,
                        format_args!("should have at least {least} properties"),
                    );
                }
                if let Some(most) = range.most.filter(|most| count > *most) {
                    self.too_many(path, count, most);
                }
                for key in limits
                    .required
                    .iter()
                    .filter(|key| !fields.contains_key(*key))
                {
                    let field = if path.is_empty() {
                        key.clone()
                    } else {
                        format!("{path}.{key}")
                    };
                    self.report(FieldError::required(&field, ""));
                }
            }
            _ => {}
        }
    }

    fn too_many(&mut self, path: &str, count: u64, most: u64) {
        let message = format!("Too many: {count}: must have at most {most} items");
        self.report(FieldError::new(path, "FieldValueTooMany", message));
    }

    fn text(&mut self, node: &Node, text: &str, value: &Value, path: &str) {
        let limits = &node.limits;
        let length = text.chars().count() as u64;
        if let Some(most) = limits.length.most.filter(|most| length > *most) {
            let message = format!("Too long: may not be more than {most} bytes");
            self.report(FieldError::new(path, "FieldValueTooLong", message));
        }
        if let Some(least) = limits.length.least.filter(|least| length < *least) {
            self.in_body(
                path,
                value,
                format_args!("should be at least {least} chars long"),
            );
        }
        if let Some(pattern) = limits
            .pattern
            .as_ref()
            .filter(|pattern| !pattern.is_match(text))
        {
            self.in_body(path, value, format_args!("should match '{pattern}'"));
        }
        if let Some(name) = node
            .format
            .as_deref()
            .filter(|name| !format::fits(name, text))
        {
            self.in_body(path, value, format_args!("must be of type {name}: {value}"));
        }
    }

    fn number(&mut self, node: &Node, number: f64, value: &Value, path: &str) {
        let limits = &node.limits;
        if let Some(bound) = limits.minimum {
            if bound.exclusive && number <= bound.value {
                self.in_body(
                    path,
                    value,
                    format_args!("should be greater than {}", bound.value),
                );
            } else if number < bound.value {
                self.in_body(
                    path,
                    value,
                    format_args!("should be greater than or equal to {}", bound.value),
                );
            }
        }
        if let Some(bound) = limits.maximum {
            if bound.exclusive && number >= bound.value {
                self.in_body(
                    path,
                    value,
                    format_args!("should be less than {}", bound.value),
                );
            } else if number > bound.value {
                self.in_body(
                    path,
                    value,
                    format_args!("should be less than or equal to {}", bound.value),
                );
            }
        }
        if let Some(step) = limits.multiple_of {
            let times = number / step;
            if (times - times.round()).abs() > 1e-9 {
                self.in_body(path, value, format_args!("should be a multiple of {step}"));
            }
        }
        let whole = value.as_i64();
        if node.format.as_deref() == Some("int32")
            && whole.is_none_or(|whole| i32::try_from(whole).is_err())
        {
            self.in_body(path, value, "must be of type int32");
        }
    }

    fn combinations(&mut self, node: &Node, value: &Value, path: &mut String) {
        for branch in &node.all_of {
            self.node(branch, value, None, path);
        }
        if !node.any_of.is_empty() {
            let attempts: Vec<_> = node
                .any_of
                .iter()
                .map(|branch| attempt(branch, value, path))
                .collect();
            if attempts.iter().all(|errors| !errors.is_empty()) {
                self.branch(path, value, "must validate at least one schema (anyOf)");
                self.add_best(attempts);
            }
        }
        if !node.one_of.is_empty() {
            let attempts: Vec<_> = node
                .one_of
                .iter()
                .map(|branch| attempt(branch, value, path))
                .collect();
            match attempts.iter().filter(|errors| errors.is_empty()).count() {
                1 => {}
                0 => {
                    self.branch(
                        path,
                        value,
                        "must validate one and only one schema (oneOf). Found none valid",
                    );
                    self.add_best(attempts);
                }
                many => {
                    let why = format!(
                        "must validate one and only one schema (oneOf). Found {many} valid alternatives"
                    );
                    self.branch(path, value, &why);
                }
            }
        }
        if node
            .not
            .as_ref()
            .is_some_and(|branch| attempt(branch, value, path).is_empty())
        {
            self.branch(path, value, "must not validate the schema (not)");
        }
    }

    fn branch(&mut self, path: &str, value: &Value, why: &str) {
        // Kubernetes shows no value here; scalars are short enough to help.
        let shown = if value.is_object() || value.is_array() {
            &Value::String(String::new())
        } else {
            value
        };
        self.report(FieldError::invalid(
            path,
            shown,
            format_args!("\"{path}\" {why}"),
        ));
    }

    /// The faults of the branch that came nearest.
    fn add_best(&mut self, attempts: Vec<Vec<FieldError>>) {
        if let Some(best) = attempts.into_iter().min_by_key(Vec::len) {
            best.into_iter().for_each(|error| self.report(error));
        }
    }

    fn fields(
        &mut self,
        node: &Node,
        fields: &Map<String, Value>,
        old: Option<&Value>,
        path: &mut String,
    ) {
        if node.properties.is_empty()
            && matches!(node.additional, Additional::None | Additional::Any)
        {
            return;
        }
        for (key, value) in fields {
            if let Child::Known(child) = node.child(key) {
                let old = old.and_then(|old| old.get(key));
                with_key(path, key, |path| self.node(child, value, old, path));
            }
        }
    }

    fn items(&mut self, node: &Node, items: &[Value], old: Option<&Value>, path: &mut String) {
        let mut previous = HashMap::new();
        match &node.list {
            ListType::Set => self.distinct(items, Value::clone, path),
            ListType::Atomic if node.limits.unique => self.distinct(items, Value::clone, path),
            ListType::Atomic => {}
            ListType::Map(keys) => {
                self.distinct(items, |item| identity(node, keys, item), path);
                for item in old.and_then(Value::as_array).into_iter().flatten() {
                    previous.insert(identity(node, keys, item).to_string(), item);
                }
            }
        }
        let Some(child) = &node.items else { return };
        for (index, item) in items.iter().enumerate() {
            let old = match &node.list {
                ListType::Map(keys) if !previous.is_empty() => previous
                    .get(&identity(node, keys, item).to_string())
                    .copied(),
                _ => None,
            };
            with_index(path, index, |path| self.node(child, item, old, path));
        }
    }

    fn distinct(&mut self, items: &[Value], identity: impl Fn(&Value) -> Value, path: &mut String) {
        let mut seen = HashSet::new();
        for (index, item) in items.iter().enumerate() {
            let identity = identity(item);
            let text = identity.to_string();
            if !seen.insert(text) {
                let message = format!("Duplicate value: {identity}");
                with_index(path, index, |path| {
                    self.report(FieldError::new(path, "FieldValueDuplicate", message));
                });
            }
        }
    }
}

/// The key fields of a list item; an absent key with a default counts as the default.
pub(super) fn identity(list: &Node, keys: &[String], item: &Value) -> Value {
    let default = |key: &String| list.items.as_ref()?.properties.get(key)?.default.clone();
    let pairs = keys.iter().filter_map(|key| {
        let value = item.get(key).cloned().or_else(|| default(key))?;
        Some((key.clone(), value))
    });
    Value::Object(pairs.collect())
}

fn attempt(node: &Node, value: &Value, path: &mut String) -> Vec<FieldError> {
    let mut checker = Checker::default();
    checker.node(node, value, None, path);
    checker.found
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_integer(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn subject(path: &str) -> &str {
    if path.is_empty() { "<nil>" } else { path }
}
