//! Sets of fields as `managedFields` stores them (`FieldsV1`): a tree whose keys are `f:name`, `k:{"key":…}`
//! for list items by key, `v:value` for set members, and `.` for the node itself.

use crate::shape::{ListKind, Shape, Typed};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A set of fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    /// This node itself is in the set.
    pub member: bool,
    /// Deeper ones.
    pub children: BTreeMap<String, Fields>,
}

impl Fields {
    /// A set of one: the node itself.
    pub fn leaf() -> Self {
        Self {
            member: true,
            children: BTreeMap::new(),
        }
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    /// Reads `fieldsV1`; what is not understood is left out.
    pub fn read(value: &Value) -> Self {
        let map = value.as_object();
        let mut fields = Self {
            member: map.is_none_or(Map::is_empty),
            children: BTreeMap::new(),
        };
        for (key, value) in map.into_iter().flatten() {
            if key == "." {
                fields.member = true;
            } else {
                fields.children.insert(key.clone(), Self::read(value));
            }
        }
        fields
    }

    /// Reads the whole set of a manager: the root is no member.
    pub fn read_root(value: &Value) -> Self {
        Self {
            member: false,
            ..Self::read(value)
        }
    }

    /// Writes `fieldsV1`.
    pub fn write(&self) -> Value {
        let mut map = Map::new();
        if self.member && !self.children.is_empty() {
            map.insert(".".to_owned(), json!({}));
        }
        for (key, child) in &self.children {
            map.insert(key.clone(), child.write());
        }
        Value::Object(map)
    }

    /// Both sets together.
    pub fn unite(&mut self, other: &Self) {
        self.member |= other.member;
        for (key, child) in &other.children {
            self.children.entry(key.clone()).or_default().unite(child);
        }
    }

    /// Takes the members of another set out.
    pub fn subtract(&mut self, other: &Self) {
        self.member &= !other.member;
        for (key, child) in &other.children {
            if let Some(own) = self.children.get_mut(key) {
                own.subtract(child);
                if own.is_empty() {
                    self.children.remove(key);
                }
            }
        }
    }

    /// Takes nodes out together with all below them.
    pub fn cut(&mut self, gone: &Self) {
        for (key, child) in &gone.children {
            if let Some(own) = self.children.get_mut(key) {
                if child.member {
                    self.children.remove(key);
                    continue;
                }
                own.cut(child);
                if own.is_empty() {
                    self.children.remove(key);
                }
            }
        }
    }

    /// Members that are in both sets.
    pub fn common(&self, other: &Self) -> Self {
        let mut both = Self {
            member: self.member && other.member,
            children: BTreeMap::new(),
        };
        for (key, child) in &self.children {
            if let Some(found) = other.children.get(key) {
                let child = child.common(found);
                if !child.is_empty() {
                    both.children.insert(key.clone(), child);
                }
            }
        }
        both
    }

    /// Paths of all members as people write them, such as `.spec.replicas`.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect(String::new(), &mut paths);
        paths
    }

    fn collect(&self, path: String, paths: &mut Vec<String>) {
        if self.member && !path.is_empty() {
            paths.push(path.clone());
        }
        for (key, child) in &self.children {
            child.collect(format!("{path}{}", pretty(key)), paths);
        }
    }
}

fn pretty(key: &str) -> String {
    match key.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("k", keys)) => match serde_json::from_str::<Value>(keys) {
            Ok(Value::Object(map)) => {
                let parts: Vec<String> = map
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                format!("[{}]", parts.join(","))
            }
            _ => format!("[{keys}]"),
        },
        Some((_, value)) => format!("[={value}]"),
        None => key.to_owned(),
    }
}

/// Key of a list item in a set, if its list tells items apart.
pub fn item_key(kind: &ListKind, item: &Value) -> Option<String> {
    match kind {
        ListKind::Atomic => None,
        ListKind::Set => Some(format!("v:{item}")),
        ListKind::Map(keys) => {
            // Sorted keys, as the format demands; protocol is the one key with a default.
            let sorted: BTreeMap<&str, Value> = keys
                .iter()
                .filter_map(|key| {
                    let default = (key == "protocol").then(|| json!("TCP"));
                    Some((key.as_str(), item.get(key).cloned().or(default)?))
                })
                .collect();
            serde_json::to_string(&sorted)
                .ok()
                .map(|text| format!("k:{text}"))
        }
    }
}

/// Whether a value is owned as a whole.
fn is_atomic(typed: Typed<'_>) -> bool {
    match typed.shape() {
        Shape::Object(fields) => fields.atomic,
        Shape::Map(_, atomic) => *atomic,
        Shape::List(list) => list.kind == ListKind::Atomic,
        Shape::Scalar(_) => true,
        Shape::Any | Shape::Ref(_) => false,
    }
}

/// All fields that a value sets.
pub fn of(typed: Typed<'_>, value: &Value) -> Fields {
    let mut fields = Fields::default();
    if is_atomic(typed) {
        return Fields::leaf();
    }
    match value {
        Value::Object(map) => {
            fields.member = map.is_empty();
            for (key, value) in map {
                let Some(field) = typed.field(key) else {
                    continue;
                };
                fields.children.insert(format!("f:{key}"), of(field, value));
            }
        }
        Value::Array(items) => {
            let Some(list) = typed.list() else {
                return Fields::leaf();
            };
            fields.member = items.is_empty();
            for item in items {
                let Some(key) = item_key(&list.kind, item) else {
                    continue;
                };
                let mut child = if list.kind == ListKind::Set {
                    Fields::leaf()
                } else {
                    of(typed.items(), item)
                };
                // A list item is owned itself, beside its fields.
                child.member = true;
                fields.children.insert(key, child);
            }
        }
        _ => return Fields::leaf(),
    }
    fields
}

/// What changed from one value to another: fields set or altered, and fields gone (topmost only).
pub fn changes(typed: Typed<'_>, old: &Value, new: &Value) -> (Fields, Fields) {
    let (mut set, mut gone) = (Fields::default(), Fields::default());
    if old == new {
        return (set, gone);
    }
    if is_atomic(typed) {
        return (Fields::leaf(), gone);
    }
    match (old, new) {
        (Value::Object(before), Value::Object(after)) => {
            for (key, value) in after {
                let Some(field) = typed.field(key) else {
                    continue;
                };
                let previous = before.get(key);
                place(
                    &mut set,
                    &mut gone,
                    format!("f:{key}"),
                    field,
                    (previous, value),
                );
            }
            for key in before.keys().filter(|key| !after.contains_key(*key)) {
                gone.children.insert(format!("f:{key}"), Fields::leaf());
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            let Some(list) = typed.list() else {
                return (Fields::leaf(), gone);
            };
            let keyed = |items: &[Value]| -> BTreeMap<String, Value> {
                items
                    .iter()
                    .filter_map(|item| Some((item_key(&list.kind, item)?, item.clone())))
                    .collect()
            };
            let (before, after) = (keyed(before), keyed(after));
            for (key, value) in &after {
                let previous = before.get(key);
                place(
                    &mut set,
                    &mut gone,
                    key.clone(),
                    typed.items(),
                    (previous, value),
                );
                if previous.is_none()
                    && let Some(child) = set.children.get_mut(key)
                {
                    child.member = true;
                }
            }
            for key in before.into_keys().filter(|key| !after.contains_key(key)) {
                gone.children.insert(key, Fields::leaf());
            }
        }
        _ => return (of(typed, new), gone),
    }
    (set, gone)
}

fn place(
    set: &mut Fields,
    gone: &mut Fields,
    key: String,
    typed: Typed<'_>,
    (old, new): (Option<&Value>, &Value),
) {
    let (changed, lost) = match old {
        Some(old) => changes(typed, old, new),
        None => (of(typed, new), Fields::default()),
    };
    if !changed.is_empty() {
        set.children.insert(key.clone(), changed);
    }
    if !lost.is_empty() {
        gone.children.insert(key, lost);
    }
}

/// The value at a key of the set inside an object or list.
pub fn child<'a>(typed: Typed<'_>, value: &'a Value, key: &str) -> Option<&'a Value> {
    match (key.split_once(':')?, value) {
        (("f", name), Value::Object(map)) => map.get(name),
        (("k" | "v", _), Value::Array(items)) => {
            let list = typed.list()?;
            items
                .iter()
                .find(|item| item_key(&list.kind, item).as_deref() == Some(key))
        }
        _ => None,
    }
}

/// Type of what a key of the set names.
pub fn child_type<'a>(typed: Typed<'a>, key: &str) -> Option<Typed<'a>> {
    match key.split_once(':')? {
        ("f", name) => typed.field(name),
        _ => Some(typed.items()),
    }
}

/// Removes everything in the set from a value. A node that is kept for another reason stays with what is left.
pub fn remove(typed: Typed<'_>, value: &mut Value, fields: &Fields) {
    for (key, sub) in &fields.children {
        let Some(field) = child_type(typed, key) else {
            continue;
        };
        let Some((place, _)) = key.split_once(':') else {
            continue;
        };
        match value {
            Value::Object(map) if place == "f" => {
                let name = &key[2..];
                let Some(found) = map.get_mut(name) else {
                    continue;
                };
                if sub.children.is_empty() && sub.member {
                    map.remove(name);
                    continue;
                }
                remove(field, found, sub);
                if is_hollow(found) {
                    map.remove(name);
                }
            }
            Value::Array(items) => {
                let Some(list) = typed.list() else { continue };
                let Some(index) = items
                    .iter()
                    .position(|item| item_key(&list.kind, item).as_deref() == Some(key))
                else {
                    continue;
                };
                if sub.member {
                    items.remove(index);
                } else {
                    remove(field, &mut items[index], sub);
                }
            }
            _ => {}
        }
    }
}

fn is_hollow(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}
