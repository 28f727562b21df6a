//! One rule of `x-kubernetes-validations`, and the walk that runs all rules of a schema over an object.

use super::super::{Child, FieldError, ListType, Node, check, with_index, with_key};
use super::{Budget, Expression, RunError, typing, value};
use kube_cel::cel::Value as Cel;
use serde_json::Value;
use std::collections::HashMap;

/// A compiled rule.
#[derive(Debug)]
pub(in super::super) struct Rule {
    expression: Expression,
    message: Option<String>,
    message_expression: Option<Expression>,
    reason: &'static str,
    /// Appended to the node's path in errors, with its dot or bracket; empty for none.
    field: String,
    optional_old: bool,
    transition: bool,
}

impl Rule {
    /// Compiles a rule of a node; `path` is where the rule stands in the schema.
    pub(in super::super) fn compile(
        rule: &Value,
        node: &Node,
        path: &str,
    ) -> Result<Self, FieldError> {
        let text = |key: &str| rule[key].as_str();
        let at = |key: &str| format!("{path}.{key}");
        let variables = ["self", "oldSelf"];
        let source = text("rule").unwrap_or_default();
        if source.trim().is_empty() {
            return Err(FieldError::required(&at("rule"), "rule is not specified"));
        }
        let parse = |key: &str, source: &str| {
            let wrong = |why: String| FieldError::invalid(&at(key), &source.into(), why);
            let expression = Expression::compile(source, &variables).map_err(wrong)?;
            let typed = typing::check(&expression.tree, node);
            typed.map_err(|why| wrong(format!("compilation failed: {why}")))?;
            Ok(expression)
        };
        let expression = parse("rule", source)?;
        let message_expression = text("messageExpression")
            .map(|source| parse("messageExpression", source))
            .transpose()?;
        let message = text("message")
            .map(str::trim)
            .filter(|message| !message.is_empty());
        if message.is_none() && source.trim().contains('\n') && message_expression.is_none() {
            return Err(FieldError::required(
                &at("message"),
                "message must be specified if rule contains line breaks",
            ));
        }
        let reason = match text("reason") {
            None | Some("FieldValueInvalid") => "FieldValueInvalid",
            Some("FieldValueForbidden") => "FieldValueForbidden",
            Some("FieldValueRequired") => "FieldValueRequired",
            Some("FieldValueDuplicate") => "FieldValueDuplicate",
            Some(other) => {
                let known = r#""FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired""#;
                let message = format!("Unsupported value: {other:?}: supported values: {known}");
                return Err(FieldError::new(
                    &at("reason"),
                    "FieldValueNotSupported",
                    message,
                ));
            }
        };
        let transition = expression.uses("oldSelf");
        let optional_old = rule["optionalOldSelf"].as_bool().unwrap_or_default();
        Ok(Self {
            transition,
            expression,
            message: message.map(str::to_owned),
            message_expression,
            reason,
            field: field_suffix(text("fieldPath").unwrap_or_default()),
            optional_old,
        })
    }

    fn run(&self, new: &Cel, old: Option<&Cel>) -> Result<Outcome, RunError> {
        let old = match (old, self.transition) {
            (_, false) => None,
            (old, true) if self.optional_old => Some(optional(old)?),
            (Some(old), true) => Some(old.clone()),
            (None, true) => return Ok(Outcome::Passed),
        };
        let mut variables = vec![("self", new)];
        variables.extend(old.as_ref().map(|old| ("oldSelf", old)));
        match self.expression.run(&variables)? {
            Cel::Bool(true) => Ok(Outcome::Passed),
            Cel::Bool(false) => Ok(Outcome::Failed(self.sentence(&variables))),
            _ => Err(RunError::Failed(
                "cel expression must evaluate to a bool".into(),
            )),
        }
    }

    fn sentence(&self, variables: &[(&str, &Cel)]) -> String {
        let computed = self.message_expression.as_ref().and_then(|expression| {
            match expression.run(variables) {
                // Kubernetes falls back to the fixed message when the computed one is empty or has line breaks.
                Ok(Cel::String(text)) if !text.trim().is_empty() && !text.contains('\n') => {
                    Some(text.trim().to_owned())
                }
                _ => None,
            }
        });
        computed.unwrap_or_else(|| self.fixed_sentence())
    }

    fn fixed_sentence(&self) -> String {
        self.message
            .clone()
            .unwrap_or_else(|| format!("failed rule: {}", self.expression.source.trim()))
    }

    fn error(&self, node: &Node, path: &str, why: &str) -> FieldError {
        let path = match (path, self.field.as_str()) {
            ("", field) => field.trim_start_matches('.').to_owned(),
            (path, field) => format!("{path}{field}"),
        };
        let kind = node.kind.map_or("", |kind| kind.name());
        match self.reason {
            "FieldValueRequired" => FieldError::required(&path, why),
            "FieldValueForbidden" => FieldError::forbidden(&path, why),
            "FieldValueDuplicate" => {
                FieldError::new(&path, self.reason, format!("Duplicate value: \"{kind}\""))
            }
            _ => FieldError::invalid(&path, &kind.into(), why),
        }
    }
}

enum Outcome {
    Passed,
    Failed(String),
}

/// `oldSelf` under `optionalOldSelf`: an optional.
fn optional(old: Option<&Cel>) -> Result<Cel, RunError> {
    let none = Cel::Null;
    let source = if old.is_some() {
        "optional.of(value)"
    } else {
        "optional.none()"
    };
    let expression = Expression::compile(source, &["value"]).map_err(RunError::Failed)?;
    expression.run(&[("value", old.unwrap_or(&none))])
}

/// `.a.b`, `a.b` and `['a']` as they are appended to a path.
fn field_suffix(field: &str) -> String {
    let field = field.trim();
    if field.is_empty() || field.starts_with(['.', '[']) {
        field.to_owned()
    } else {
        format!(".{field}")
    }
}

/// Runs every rule of a schema.
pub(in super::super) fn validate(root: &Node, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut walk = Walk {
        found: Vec::new(),
        stopped: false,
    };
    if root.ruled {
        let _budget = Budget::start();
        walk.node(root, new, old, &mut String::new());
    }
    walk.found
}

struct Walk {
    found: Vec<FieldError>,
    stopped: bool,
}

impl Walk {
    fn node(&mut self, node: &Node, new: &Value, old: Option<&Value>, path: &mut String) {
        if new.is_null() || !node.ruled {
            return;
        }
        if !node.rules.is_empty() {
            self.rules(node, new, old, path);
        }
        match new {
            Value::Object(fields) => {
                for (key, value) in fields {
                    if let Child::Known(child) = node.child(key) {
                        let old = old.and_then(|old| old.get(key));
                        if node.properties.contains_key(key) {
                            with_key(path, key, |path| self.node(child, value, old, path));
                        } else {
                            with_index(path, key, |path| self.node(child, value, old, path));
                        }
                    }
                }
            }
            Value::Array(items) => self.items(node, items, old, path),
            _ => {}
        }
    }

    /// Items of a list with keys have an old self; those of other lists have none (Kubernetes: correlatable).
    fn items(&mut self, node: &Node, items: &[Value], old: Option<&Value>, path: &mut String) {
        let Some(child) = &node.items else { return };
        let mut previous = HashMap::new();
        if let ListType::Map(keys) = &node.list {
            for item in old.and_then(Value::as_array).into_iter().flatten() {
                previous.insert(check::identity(node, keys, item).to_string(), item);
            }
        }
        for (index, item) in items.iter().enumerate() {
            let old = match &node.list {
                ListType::Map(keys) => previous
                    .get(&check::identity(node, keys, item).to_string())
                    .copied(),
                _ => None,
            };
            with_index(path, index, |path| self.node(child, item, old, path));
        }
    }

    fn rules(&mut self, node: &Node, new: &Value, old: Option<&Value>, path: &str) {
        let seen = value::typed(new, node);
        let seen_old = old
            .filter(|old| !old.is_null())
            .map(|old| value::typed(old, node));
        for rule in &node.rules {
            if self.stopped {
                return;
            }
            // A part that did not change may stay as it is (Kubernetes: ratcheting).
            if !rule.transition && old == Some(new) {
                continue;
            }
            match rule.run(&seen, seen_old.as_ref()) {
                Ok(Outcome::Passed) => {}
                Ok(Outcome::Failed(why)) => self.found.push(rule.error(node, path, &why)),
                Err(RunError::Budget) => {
                    self.found
                        .push(rule.error(node, path, &RunError::Budget.to_string()));
                    self.stopped = true;
                }
                Err(RunError::Failed(why)) => {
                    let why = format!("{why} evaluating rule: {}", rule.fixed_sentence());
                    self.found.push(rule.error(node, path, &why));
                }
            }
        }
    }
}
