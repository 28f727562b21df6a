//! From a schema's JSON to nodes, with Kubernetes' rules for structural schemas.

use super::{
    Additional, Bound, FieldError, Limits, ListType, Node, Range, Type, cel, fields, with_index,
    with_key,
};
use regex::Regex;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Deepest nesting of a schema.
const MOST_DEPTH: usize = 64;
/// Most faults told at once.
const MOST_ERRORS: usize = 20;

/// Compiles a whole schema, or returns every fault.
pub(super) fn root(schema: &Value) -> Result<Node, Vec<FieldError>> {
    let mut compiler = Compiler {
        errors: Vec::new(),
        depth: 0,
    };
    let mut path = String::new();
    let mut node = compiler.node(schema, &mut path, Place::Structural);
    if node.kind != Some(Type::Object) {
        compiler.report(FieldError::invalid(
            "type",
            &schema["type"],
            "must be object at the root",
        ));
    }
    node.resource = true;
    compiler.rules(&mut node, schema, &mut path);
    if compiler.errors.is_empty() {
        Ok(node)
    } else {
        Err(compiler.errors)
    }
}

/// Where a schema stands.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// In the skeleton: must have a type.
    Structural,
    /// Below allOf, anyOf, oneOf or not: value checks only.
    Nested,
}

struct Compiler {
    errors: Vec<FieldError>,
    depth: usize,
}

impl Compiler {
    fn report(&mut self, error: FieldError) {
        if self.errors.len() < MOST_ERRORS {
            self.errors.push(error);
        }
    }

    fn node(&mut self, schema: &Value, path: &mut String, place: Place) -> Node {
        let Some(fields) = schema.as_object() else {
            self.report(FieldError::invalid(path, schema, "must be a schema object"));
            return Node::default();
        };
        if self.depth >= MOST_DEPTH {
            self.report(FieldError::forbidden(
                path,
                "the schema nests more than 64 levels deep",
            ));
            return Node::default();
        }
        self.depth += 1;
        let flag = |key: &str| fields.get(key).and_then(Value::as_bool).unwrap_or_default();
        let mut node = Node {
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserve: flag("x-kubernetes-preserve-unknown-fields"),
            resource: flag("x-kubernetes-embedded-resource"),
            format: fields
                .get("format")
                .and_then(Value::as_str)
                .map(str::to_owned),
            ..Node::default()
        };
        self.kind(&mut node, fields, path, place);
        self.children(&mut node, fields, path, place);
        self.list_type(&mut node, fields, path);
        node.limits = self.limits(fields, path);
        for (key, list) in [
            ("allOf", &mut node.all_of),
            ("anyOf", &mut node.any_of),
            ("oneOf", &mut node.one_of),
        ] {
            *list = self.branches(fields, key, path);
        }
        node.not = fields.get("not").map(|schema| {
            Box::new(with_key(path, "not", |path| {
                self.node(schema, path, Place::Nested)
            }))
        });
        if let Some(default) = fields.get("default") {
            self.take_default(&mut node, default, path);
        }
        self.depth -= 1;
        node
    }

    fn kind(
        &mut self,
        node: &mut Node,
        fields: &Map<String, Value>,
        path: &mut String,
        place: Place,
    ) {
        if fields.contains_key("$ref") {
            self.report(FieldError::forbidden(
                path,
                "$ref is not supported: write the schema out",
            ));
        }
        node.kind = match fields.get("type").and_then(Value::as_str) {
            Some("object") => Some(Type::Object),
            Some("array") => Some(Type::Array),
            Some("string") => Some(Type::String),
            Some("integer") => Some(Type::Integer),
            Some("number") => Some(Type::Number),
            Some("boolean") => Some(Type::Boolean),
            Some("") | None => None,
            Some(other) => {
                let why = r#"supported values: "array", "boolean", "integer", "number", "object", "string""#;
                let message = format!("Unsupported value: {:?}: {why}", other);
                with_key(path, "type", |path| {
                    self.report(FieldError::new(path, "FieldValueNotSupported", message));
                });
                None
            }
        };
        let needs_type = place == Place::Structural && !node.int_or_string && !node.preserve;
        if node.kind.is_none() && needs_type && fields.get("type").is_none_or(|kind| kind == "") {
            let why = "must not be empty for specified object fields";
            with_key(path, "type", |path| {
                self.report(FieldError::required(path, why))
            });
        }
        if node.int_or_string && node.kind.is_some() {
            let why = "must be empty if x-kubernetes-int-or-string is true";
            with_key(path, "type", |path| {
                self.report(FieldError::invalid(path, &fields["type"], why))
            });
        }
        if node.resource && node.kind != Some(Type::Object) {
            let why = "must be object if x-kubernetes-embedded-resource is true";
            with_key(path, "type", |path| {
                self.report(FieldError::invalid(
                    path,
                    fields.get("type").unwrap_or(&Value::Null),
                    why,
                ));
            });
        }
    }

    fn children(
        &mut self,
        node: &mut Node,
        fields: &Map<String, Value>,
        path: &mut String,
        place: Place,
    ) {
        if let Some(properties) = fields.get("properties").and_then(Value::as_object) {
            for (key, schema) in properties {
                let child = with_key(path, "properties", |path| {
                    with_index(path, key, |path| self.node(schema, path, place))
                });
                node.properties.insert(key.clone(), child);
            }
        }
        match fields.get("additionalProperties") {
            None | Some(Value::Bool(false)) => {}
            Some(Value::Bool(true)) => node.additional = Additional::Any,
            Some(schema) => {
                let child = with_key(path, "additionalProperties", |path| {
                    self.node(schema, path, place)
                });
                node.additional = Additional::Of(Box::new(child));
            }
        }
        if !node.properties.is_empty()
            && fields
                .get("additionalProperties")
                .is_some_and(|one| *one != Value::Bool(false))
        {
            let why = "additionalProperties and properties are mutual exclusive";
            with_key(path, "additionalProperties", |path| {
                self.report(FieldError::forbidden(path, why))
            });
        }
        match fields.get("items") {
            Some(schema) => {
                let child = with_key(path, "items", |path| self.node(schema, path, place));
                node.items = Some(Box::new(child));
            }
            None if node.kind == Some(Type::Array) && place == Place::Structural => {
                with_key(path, "items", |path| {
                    self.report(FieldError::required(path, "must be specified"))
                });
            }
            None => {}
        }
    }

    fn list_type(&mut self, node: &mut Node, fields: &Map<String, Value>, path: &mut String) {
        let kind = fields.get("x-kubernetes-list-type").and_then(Value::as_str);
        match kind {
            None | Some("atomic") => {}
            Some("set") => node.list = ListType::Set,
            Some("map") => {
                let keys = fields
                    .get("x-kubernetes-list-map-keys")
                    .and_then(Value::as_array);
                let keys: Vec<String> = keys
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect();
                if keys.is_empty() {
                    let why = "must not be empty if x-kubernetes-list-type is map";
                    with_key(path, "x-kubernetes-list-map-keys", |path| {
                        self.report(FieldError::required(path, why));
                    });
                }
                for key in &keys {
                    if node
                        .items
                        .as_ref()
                        .is_none_or(|items| !items.properties.contains_key(key))
                    {
                        let why = "entries must all be names of item properties";
                        with_key(path, "x-kubernetes-list-map-keys", |path| {
                            self.report(FieldError::invalid(path, &key.as_str().into(), why));
                        });
                    }
                }
                node.list = ListType::Map(keys);
            }
            Some(other) => {
                let message = format!(
                    r#"Unsupported value: "{other}": supported values: "atomic", "map", "set""#
                );
                with_key(path, "x-kubernetes-list-type", |path| {
                    self.report(FieldError::new(path, "FieldValueNotSupported", message));
                });
            }
        }
    }

    fn limits(&mut self, fields: &Map<String, Value>, path: &mut String) -> Limits {
        let number = |key: &str| fields.get(key).and_then(Value::as_f64);
        let count = |key: &str| fields.get(key).and_then(Value::as_u64);
        let flag = |key: &str| fields.get(key).and_then(Value::as_bool).unwrap_or_default();
        let bound = |key: &str, exclusive: &str| {
            number(key).map(|value| Bound {
                value,
                exclusive: flag(exclusive),
            })
        };
        let list = |key: &str| {
            fields
                .get(key)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
        };
        let pattern =
            fields
                .get("pattern")
                .and_then(Value::as_str)
                .and_then(|text| match Regex::new(text) {
                    Ok(pattern) => Some(pattern),
                    Err(error) => {
                        let why = format!("must be a valid regular expression, but isn't: {error}");
                        with_key(path, "pattern", |path| {
                            self.report(FieldError::invalid(path, &text.into(), why))
                        });
                        None
                    }
                });
        Limits {
            required: list("required")
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            allowed: list("enum").cloned().collect(),
            pattern,
            minimum: bound("minimum", "exclusiveMinimum"),
            maximum: bound("maximum", "exclusiveMaximum"),
            multiple_of: number("multipleOf").filter(|step| *step > 0.0),
            length: Range {
                least: count("minLength"),
                most: count("maxLength"),
            },
            items: Range {
                least: count("minItems"),
                most: count("maxItems"),
            },
            properties: Range {
                least: count("minProperties"),
                most: count("maxProperties"),
            },
            unique: flag("uniqueItems"),
        }
    }

    fn branches(&mut self, fields: &Map<String, Value>, key: &str, path: &mut String) -> Vec<Node> {
        let schemas = fields
            .get(key)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .enumerate();
        schemas
            .map(|(index, schema)| {
                with_key(path, key, |path| {
                    with_index(path, index, |path| self.node(schema, path, Place::Nested))
                })
            })
            .collect()
    }

    /// A default must itself be valid and have no unknown fields.
    fn take_default(&mut self, node: &mut Node, default: &Value, path: &mut String) {
        let mut unknown = BTreeSet::new();
        fields::unknown(node, default, &mut String::new(), &mut unknown);
        let mut full = default.clone();
        fields::default(node, &mut full);
        let mut checker = super::check::Checker::default();
        checker.node(node, &full, None, &mut String::new());
        let faults = unknown
            .into_iter()
            .map(|field| format!("unknown field \"{field}\""));
        let faults = faults
            .chain(checker.found.iter().map(|error| error.message.clone()))
            .collect::<Vec<_>>();
        with_key(path, "default", |path| {
            for fault in faults {
                self.report(FieldError::invalid(path, default, fault));
            }
        });
        node.default = Some(default.clone());
    }

    /// Compiles the CEL rules of a node and of those below it; done last, because rules look at whole nodes.
    fn rules(&mut self, node: &mut Node, schema: &Value, path: &mut String) {
        if let Some(rules) = schema
            .get("x-kubernetes-validations")
            .and_then(Value::as_array)
        {
            let mut compiled = Vec::new();
            with_key(path, "x-kubernetes-validations", |path| {
                for (index, rule) in rules.iter().enumerate() {
                    with_index(path, index, |path| {
                        match cel::Rule::compile(rule, node, path) {
                            Ok(rule) => compiled.push(rule),
                            Err(error) => self.report(error),
                        }
                    });
                }
            });
            node.rules = compiled;
        }
        for (key, child) in &mut node.properties {
            with_key(path, "properties", |path| {
                with_index(path, key, |path| {
                    self.rules(child, &schema["properties"][key], path)
                });
            });
        }
        if let Additional::Of(child) = &mut node.additional {
            with_key(path, "additionalProperties", |path| {
                self.rules(child, &schema["additionalProperties"], path)
            });
        }
        if let Some(child) = &mut node.items {
            with_key(path, "items", |path| {
                self.rules(child, &schema["items"], path)
            });
        }
        let additional = match &node.additional {
            Additional::Of(child) => Some(child),
            _ => None,
        };
        let below = node.properties.values();
        let mut below = below
            .chain(node.items.as_deref())
            .chain(additional.map(AsRef::as_ref));
        node.ruled = !node.rules.is_empty() || below.any(|child| child.ruled);
    }
}
