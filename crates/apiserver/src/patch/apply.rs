//! Server-side apply and the upkeep of `metadata.managedFields`.
//! Source: "Server-Side Apply" of Kubernetes' documentation; the merge itself is our own.

use super::fields::{self, Fields};
use crate::api::Call;
use crate::error::{ApiError, Cause};
use crate::meta;
use crate::shape::{ListKind, Typed};
use crate::verbs::write::Part;
use serde_json::{Map, Value, json};

#[derive(Debug, Clone)]
struct Manager {
    name: String,
    /// Server-side apply, as opposed to any other write.
    applies: bool,
    subresource: String,
    version: String,
    time: String,
    fields: Fields,
}

impl Manager {
    fn read(entry: &Value) -> Self {
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        Self {
            name: text("manager"),
            applies: entry["operation"] == "Apply",
            subresource: text("subresource"),
            version: text("apiVersion"),
            time: text("time"),
            fields: Fields::read_root(&entry["fieldsV1"]),
        }
    }

    fn write(&self) -> Value {
        let mut entry = json!({
            "manager": self.name, "operation": if self.applies { "Apply" } else { "Update" },
            "apiVersion": self.version, "time": self.time, "fieldsType": "FieldsV1", "fieldsV1": self.fields.write(),
        });
        if !self.subresource.is_empty() {
            entry["subresource"] = json!(self.subresource);
        }
        entry
    }

    fn is(&self, call: &Call, applies: bool) -> bool {
        self.name == call.manager
            && self.applies == applies
            && self.subresource == call.target.subresource
    }
}

/// Kubernetes: more managers of updates than this share one entry.
const MAX_UPDATERS: usize = 10;

fn managers(object: &Value) -> Vec<Manager> {
    object["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten()
        .map(Manager::read)
        .collect()
}

fn store(object: &mut Value, mut managers: Vec<Manager>) {
    managers.retain(|manager| !manager.fields.is_empty());
    while managers.iter().filter(|manager| !manager.applies).count() > MAX_UPDATERS {
        let mut updaters = managers
            .iter()
            .enumerate()
            .filter(|(_, manager)| !manager.applies)
            .map(|(index, _)| index);
        let (Some(first), Some(second)) = (updaters.next(), updaters.next()) else {
            break;
        };
        let merged = managers.remove(first);
        let target = &mut managers[second - 1];
        target.fields.unite(&merged.fields);
        target.name = "ancient-changes".to_owned();
    }
    match managers.is_empty() {
        true => drop(
            object["metadata"]
                .as_object_mut()
                .map(|map| map.remove("managedFields")),
        ),
        false => {
            object["metadata"]["managedFields"] = managers.iter().map(Manager::write).collect()
        }
    }
}

/// The part of an object that managers can own.
fn ownable(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(map) = object.as_object_mut() {
        map.remove("apiVersion");
        map.remove("kind");
        if let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut) {
            for field in [
                "name",
                "namespace",
                "uid",
                "creationTimestamp",
                "selfLink",
                "generation",
                "managedFields",
                "resourceVersion",
                "deletionTimestamp",
                "deletionGracePeriodSeconds",
            ] {
                metadata.remove(field);
            }
            if metadata.is_empty() {
                map.remove("metadata");
            }
        }
    }
    object
}

/// After a write that was no apply: the manager owns what it changed, nobody owns what is gone.
pub fn own_changes(
    call: &Call,
    old: Option<(&std::sync::Arc<Value>, Part)>,
    object: &mut Value,
    time: &str,
) {
    let typed = call.kind.typed();
    let before = old.map_or(json!({}), |(old, _)| ownable(old));
    let after = ownable(object);
    // A client may only clear the list (as `managedFields: [{}]`), never write it.
    let given = &object["metadata"]["managedFields"];
    let cleared = given
        .as_array()
        .is_some_and(|list| list.is_empty() || list.len() == 1 && list[0] == json!({}));
    let mut all = match old {
        Some((old, _)) if !cleared || old["metadata"]["managedFields"].is_null() => managers(old),
        _ => Vec::new(),
    };
    let (set, gone) = fields::changes(typed, &before, &after);
    for manager in &mut all {
        manager.fields.cut(&gone);
        if !manager.is(call, false) {
            manager.fields.subtract(&set);
        }
    }
    if !set.is_empty() {
        let position = all.iter().position(|manager| manager.is(call, false));
        let index = position.unwrap_or_else(|| {
            all.push(fresh(call, false));
            all.len() - 1
        });
        let own = &mut all[index];
        own.fields.unite(&set);
        (own.time, own.version) = (time.to_owned(), call.kind.api_version());
    }
    store(object, all);
}

fn fresh(call: &Call, applies: bool) -> Manager {
    Manager {
        name: call.manager.clone(),
        applies,
        subresource: call.target.subresource.clone(),
        version: call.kind.api_version(),
        time: meta::now(),
        fields: Fields::default(),
    }
}

/// After a create by apply: the manager owns exactly what it applied.
pub fn own_applied(call: &Call, applied: &Value, object: &mut Value) {
    let mut own = fresh(call, true);
    own.fields = fields::of(call.kind.typed(), &ownable(applied));
    own.fields.member = false;
    store(object, vec![own]);
}

/// Merges an applied object into the stored one; the result carries the new `managedFields`.
///
/// # Errors
/// 409 naming the managers of fields that the applied object would change, unless `force=true`.
pub fn apply(call: &Call, old: &Value, applied: Value, part: Part) -> Result<Value, ApiError> {
    let typed = call.kind.typed();
    let mut config = ownable(&applied);
    if let Some(map) = config.as_object_mut() {
        match part {
            Part::Status => map.retain(|key, _| key == "status" || key == "metadata"),
            Part::Main if call.kind.serves("status") => drop(map.remove("status")),
            Part::Main | Part::Whole => {}
        }
    }
    let mut wanted = fields::of(typed, &config);
    wanted.member = false;
    let mut all = managers(old);
    let changed = differing(typed, old, &config, &wanted);
    resolve(call, &mut all, &changed)?;

    let mut object = old.clone();
    merge(typed, &mut object, &config);
    let position = all.iter().position(|manager| manager.is(call, true));
    let mut dropped = position
        .map(|index| all[index].fields.clone())
        .unwrap_or_default();
    dropped.subtract(&wanted);
    // What somebody else owns too, or what lies above something that stays, is kept.
    for (index, other) in all.iter().enumerate() {
        if Some(index) != position {
            dropped.subtract(&other.fields);
            shelter(&mut dropped, &other.fields);
        }
    }
    shelter(&mut dropped, &wanted);
    fields::remove(typed, &mut object, &dropped);

    let index = position.unwrap_or_else(|| {
        all.push(fresh(call, true));
        all.len() - 1
    });
    let own = &mut all[index];
    if own.fields != wanted || !changed.is_empty() {
        own.time = meta::now();
    }
    (own.fields, own.version) = (wanted, call.kind.api_version());
    store(&mut object, all);
    Ok(object)
}

/// Nodes with something in `kept` below them are not removed as wholes.
fn shelter(dropped: &mut Fields, kept: &Fields) {
    for (key, child) in &mut dropped.children {
        if let Some(below) = kept.children.get(key) {
            child.member = false;
            shelter(child, below);
        }
    }
    dropped.children.retain(|_, child| !child.is_empty());
}

/// The wanted fields whose stored value is another one or missing.
fn differing(typed: Typed<'_>, old: &Value, config: &Value, wanted: &Fields) -> Fields {
    let mut result = Fields::default();
    for (key, sub) in &wanted.children {
        let Some(field) = fields::child_type(typed, key) else {
            continue;
        };
        let Some(new) = fields::child(typed, config, key) else {
            continue;
        };
        let previous = fields::child(typed, old, key);
        let child = match previous {
            None => sub.clone(),
            Some(previous) if sub.children.is_empty() => {
                if previous == new {
                    Fields::default()
                } else {
                    Fields::leaf()
                }
            }
            Some(previous) => differing(field, previous, new, sub),
        };
        if !child.is_empty() {
            result.children.insert(key.clone(), child);
        }
    }
    result
}

/// Refuses conflicts, or with `force` takes the fields away from their managers.
fn resolve(call: &Call, all: &mut [Manager], changed: &Fields) -> Result<(), ApiError> {
    let force = call.query.flag("force");
    let mut causes = Vec::new();
    let mut who = Vec::new();
    for manager in all.iter_mut().filter(|manager| !manager.is(call, true)) {
        let common = manager.fields.common(changed);
        if common.is_empty() {
            continue;
        }
        if force {
            manager.fields.subtract(&common);
            continue;
        }
        let mut label = format!("\"{}\"", manager.name);
        if !manager.subresource.is_empty() {
            label.push_str(&format!(" with subresource \"{}\"", manager.subresource));
        }
        if !manager.applies {
            label.push_str(&format!(" using {}", manager.version));
        }
        for path in common.paths() {
            causes.push(Cause::new(
                "FieldManagerConflict",
                path,
                format!("conflict with {label}"),
            ));
        }
        who.push(label);
    }
    if causes.is_empty() {
        return Ok(());
    }
    let message = match causes.as_slice() {
        [one] => format!(
            "Apply failed with 1 conflict: {}: {}",
            one.message, one.field
        ),
        many => {
            let list: Vec<String> = who
                .iter()
                .map(|label| {
                    let mine = many
                        .iter()
                        .filter(|cause| cause.message == format!("conflict with {label}"));
                    format!(
                        "conflicts with {label}:\n{}",
                        mine.map(|cause| format!("- {}", cause.field))
                            .collect::<Vec<_>>()
                            .join("\n")
                    )
                })
                .collect();
            format!(
                "Apply failed with {} conflicts: {}",
                many.len(),
                list.join("\n")
            )
        }
    };
    let mut error = ApiError::new(409, "Conflict", message);
    error.details = Some(Box::new(crate::error::Details {
        causes,
        ..Default::default()
    }));
    Err(error)
}

/// Lays the applied values over the stored ones.
fn merge(typed: Typed<'_>, target: &mut Value, config: &Value) {
    match (&mut *target, config) {
        (Value::Object(map), Value::Object(new)) if !is_whole(typed) => merge_map(typed, map, new),
        (Value::Array(list), Value::Array(new)) if !is_whole(typed) => {
            let Some(kind) = typed.list().map(|list| &list.kind) else {
                *target = config.clone();
                return;
            };
            merge_list(typed, kind, list, new);
        }
        _ => *target = config.clone(),
    }
}

fn merge_map(typed: Typed<'_>, map: &mut Map<String, Value>, new: &Map<String, Value>) {
    for (key, value) in new {
        match (map.get_mut(key), typed.field(key)) {
            (Some(found), Some(field)) => merge(field, found, value),
            (None, Some(_)) => drop(map.insert(key.clone(), value.clone())),
            (_, None) => {}
        }
    }
}

/// Applied items come in their order; stored items that are not applied stay behind the item they followed.
fn merge_list(typed: Typed<'_>, kind: &ListKind, list: &mut Vec<Value>, new: &[Value]) {
    let key = |item: &Value| fields::item_key(kind, item);
    let old = std::mem::take(list);
    for item in new {
        let mut merged = old.iter().find(|found| key(found) == key(item)).cloned();
        match &mut merged {
            Some(found) => merge(typed.items(), found, item),
            None => merged = Some(item.clone()),
        }
        list.extend(merged);
    }
    let mut previous: Option<String> = None;
    for item in old {
        let own = key(&item);
        if !list.iter().any(|found| key(found) == own) {
            let at = previous.as_ref().and_then(|before| {
                list.iter()
                    .position(|found| key(found).as_ref() == Some(before))
            });
            list.insert(at.map_or(0, |at| at + 1), item);
        }
        previous = own;
    }
}

fn is_whole(typed: Typed<'_>) -> bool {
    use crate::shape::Shape;
    match typed.shape() {
        Shape::Object(fields) => fields.atomic,
        Shape::Map(_, atomic) => *atomic,
        Shape::List(list) => list.kind == ListKind::Atomic,
        Shape::Scalar(_) => true,
        Shape::Any | Shape::Ref(_) => false,
    }
}
