//! Object types compiled from OpenAPI v3 schemas: what strict field checks, strategic merge patches and
//! server-side apply need to know about a field. Rules on values (patterns, limits, CEL) are `schema`'s.

mod merge_rules;
mod walk;

pub use merge_rules::annotate;
pub use walk::{Findings, inspect};

use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// How deep a document may nest; deeper ones are refused.
pub const MAX_DEPTH: usize = 128;

/// Type of a value.
#[derive(Debug, Clone, Default)]
pub enum Shape {
    /// Anything goes, unknown fields included.
    #[default]
    Any,
    /// One value without fields.
    Scalar(Scalar),
    /// Known fields only; boxed to keep the enum small.
    Object(Arc<Fields>),
    /// Any key, values of one type.
    Map(Arc<Shape>, bool),
    /// A list.
    List(Arc<List>),
    /// A named type.
    Ref(Arc<str>),
}

/// Kind of scalar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scalar {
    /// Text.
    Text,
    /// Whole number.
    Integer,
    /// Number.
    Number,
    /// Truth value.
    Boolean,
    /// Number or text, as port names and quantities.
    IntOrText,
}

/// Fields of an object.
#[derive(Debug, Default)]
pub struct Fields {
    /// By name.
    pub known: BTreeMap<String, Shape>,
    /// Unknown fields are kept (`x-kubernetes-preserve-unknown-fields`).
    pub open: bool,
    /// Owned as a whole in server-side apply (`x-kubernetes-map-type: atomic`).
    pub atomic: bool,
    /// Strategic merge drops fields a patch does not name (`retainKeys`).
    pub retain_keys: bool,
}

/// A list type.
#[derive(Debug)]
pub struct List {
    /// Type of the items.
    pub items: Shape,
    /// How server-side apply merges it.
    pub kind: ListKind,
    /// How strategic merge patches merge it.
    pub patch: ListPatch,
}

/// `x-kubernetes-list-type`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListKind {
    /// Replaced as a whole.
    Atomic,
    /// Unique scalars.
    Set,
    /// Objects told apart by key fields.
    Map(Vec<String>),
}

/// `x-kubernetes-patch-strategy` of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListPatch {
    /// Replaced as a whole.
    Replace,
    /// Scalars are united.
    Union,
    /// Objects are merged by one key field.
    Merge(String),
}

/// Named types.
#[derive(Debug, Default)]
pub struct Shapes {
    own: HashMap<String, Shape>,
    shared: Option<Arc<Shapes>>,
}

/// A type together with the names it may refer to.
#[derive(Debug, Clone, Copy)]
pub struct Typed<'a> {
    shapes: &'a Shapes,
    shape: &'a Shape,
}

static ANY: Shape = Shape::Any;

impl Shapes {
    /// Compiles the definitions of an OpenAPI document (`components.schemas`).
    pub fn compile(definitions: &serde_json::Map<String, Value>) -> Self {
        let own = definitions
            .iter()
            .map(|(name, schema)| (name.clone(), compile(schema)))
            .collect();
        Self { own, shared: None }
    }

    /// One type of its own (as a CRD's version) that may refer to shared ones.
    pub fn single(name: &str, schema: &Value, shared: Arc<Self>) -> Self {
        Self {
            own: HashMap::from([(name.to_owned(), compile(schema))]),
            shared: Some(shared),
        }
    }

    /// A named type; anything when there is no such name.
    pub fn typed(&self, name: &str) -> Typed<'_> {
        Typed {
            shapes: self,
            shape: self.find(name),
        }
    }

    fn find(&self, name: &str) -> &Shape {
        match (self.own.get(name), &self.shared) {
            (Some(shape), _) => shape,
            (None, Some(shared)) => shared.find(name),
            (None, None) => &ANY,
        }
    }
}

impl<'a> Typed<'a> {
    /// The type behind references.
    pub fn shape(self) -> &'a Shape {
        let mut shape = self.shape;
        // References do not form chains of any length; the bound only guards against a cycle of bare references.
        for _ in 0..8 {
            match shape {
                Shape::Ref(name) => shape = self.shapes.find(name),
                found => return found,
            }
        }
        &ANY
    }

    /// Type of a field or map entry; absent when the field is unknown.
    pub fn field(self, name: &str) -> Option<Typed<'a>> {
        let shape = match self.shape() {
            Shape::Object(fields) => match fields.known.get(name) {
                Some(shape) => shape,
                None if fields.open => &ANY,
                None => return None,
            },
            Shape::Map(values, _) => values,
            Shape::Any => &ANY,
            Shape::Scalar(_) | Shape::List(_) | Shape::Ref(_) => return None,
        };
        Some(Typed {
            shapes: self.shapes,
            shape,
        })
    }

    /// Type of the items when this is a list.
    pub fn items(self) -> Typed<'a> {
        let shape = match self.shape() {
            Shape::List(list) => &list.items,
            _ => &ANY,
        };
        Typed {
            shapes: self.shapes,
            shape,
        }
    }

    /// The list type, when this is a list.
    pub fn list(self) -> Option<&'a List> {
        match self.shape() {
            Shape::List(list) => Some(list),
            _ => None,
        }
    }
}

fn compile(schema: &Value) -> Shape {
    let truth = |key: &str| schema[key].as_bool() == Some(true);
    if let Some(reference) = schema["$ref"].as_str() {
        return Shape::Ref(reference.rsplit('/').next().unwrap_or(reference).into());
    }
    if let Some([only]) = schema["allOf"].as_array().map(Vec::as_slice)
        && schema.get("properties").is_none()
    {
        return compile(only);
    }
    if truth("x-kubernetes-int-or-string") {
        return Shape::Scalar(Scalar::IntOrText);
    }
    let open = truth("x-kubernetes-preserve-unknown-fields");
    let atomic = schema["x-kubernetes-map-type"] == "atomic";
    match schema["type"].as_str() {
        Some("string") => Shape::Scalar(Scalar::Text),
        Some("integer") => Shape::Scalar(Scalar::Integer),
        Some("number") => Shape::Scalar(Scalar::Number),
        Some("boolean") => Shape::Scalar(Scalar::Boolean),
        Some("array") => Shape::List(Arc::new(list(schema))),
        _ => match (
            schema["properties"].as_object(),
            schema.get("additionalProperties"),
        ) {
            (Some(properties), _) => {
                let known = properties
                    .iter()
                    .map(|(name, schema)| (name.clone(), compile(schema)))
                    .collect();
                let retain_keys = schema["x-kubernetes-patch-strategy"]
                    .as_str()
                    .is_some_and(|text| text.contains("retainKeys"));
                Shape::Object(Arc::new(Fields {
                    known,
                    open,
                    atomic,
                    retain_keys,
                }))
            }
            (None, Some(Value::Object(values))) => {
                Shape::Map(Arc::new(compile(&Value::Object(values.clone()))), atomic)
            }
            (None, _) => Shape::Any,
        },
    }
}

fn list(schema: &Value) -> List {
    let strings = |value: &Value| -> Vec<String> {
        value
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|key| key.as_str().map(str::to_owned))
            .collect()
    };
    let kind = match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => ListKind::Set,
        Some("map") => ListKind::Map(strings(&schema["x-kubernetes-list-map-keys"])),
        _ => ListKind::Atomic,
    };
    let merges = schema["x-kubernetes-patch-strategy"]
        .as_str()
        .is_some_and(|text| text.contains("merge"));
    let patch = match (merges, schema["x-kubernetes-patch-merge-key"].as_str()) {
        (true, Some(key)) => ListPatch::Merge(key.to_owned()),
        (true, None) => ListPatch::Union,
        (false, _) => ListPatch::Replace,
    };
    List {
        items: compile(&schema["items"]),
        kind,
        patch,
    }
}

#[cfg(test)]
mod tests;
