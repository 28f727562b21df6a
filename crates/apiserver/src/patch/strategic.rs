//! Strategic merge patches: like merge patches, but lists of objects merge by key, with the directives
//! `$patch`, `$retainKeys`, `$setElementOrder/…` and `$deleteFromPrimitiveList/…`.
//! Source: "Strategic Merge Patch" of Kubernetes' API conventions.

use crate::error::ApiError;
use crate::shape::{ListPatch, Typed};
use serde_json::{Map, Value};

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE: &str = "$deleteFromPrimitiveList/";

/// Merges a patch into an object. Without a type, lists are replaced.
///
/// # Errors
/// 400 for a malformed directive or a list item without its key.
pub fn merge(typed: Option<Typed<'_>>, target: &mut Value, patch: &Value) -> Result<(), ApiError> {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return Ok(());
    };
    match patch.get(DIRECTIVE).and_then(Value::as_str) {
        Some("replace") => *target = Value::Object(Map::new()),
        Some("delete") => {
            *target = Value::Object(Map::new());
            return Ok(());
        }
        None | Some("merge") => {}
        Some(other) => return Err(bad(format!("unknown directive {DIRECTIVE}: {other}"))),
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(map) = target.as_object_mut() else {
        return Ok(());
    };
    if let Some(kept) = patch.get(RETAIN) {
        let kept = kept
            .as_array()
            .ok_or_else(|| bad(format!("{RETAIN} must be a list")))?;
        map.retain(|key, _| kept.iter().any(|name| name == key));
    }
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix(DELETE) {
            remove_scalars(map, field, value)?;
        } else if !key.starts_with('$') {
            merge_field(typed, map, key, value)?;
        }
    }
    // Orders concern what the lists have become.
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix(ORDER) {
            let order = value
                .as_array()
                .ok_or_else(|| bad(format!("{key} must be a list")))?;
            if let Some(Value::Array(list)) = map.get_mut(field) {
                sort(
                    list,
                    order,
                    merge_key(typed.and_then(|typed| typed.field(field))),
                );
            }
        }
    }
    Ok(())
}

fn merge_field(
    typed: Option<Typed<'_>>,
    map: &mut Map<String, Value>,
    key: &str,
    value: &Value,
) -> Result<(), ApiError> {
    let field = typed.and_then(|typed| typed.field(key));
    match value {
        Value::Null => {
            map.remove(key);
            Ok(())
        }
        Value::Object(_) => {
            let target = map.entry(key).or_insert_with(|| Value::Object(Map::new()));
            merge(field, target, value)
        }
        Value::Array(items) => {
            let target = map.entry(key).or_insert_with(|| Value::Array(Vec::new()));
            if !target.is_array() {
                *target = Value::Array(Vec::new());
            }
            let Some(list) = target.as_array_mut() else {
                return Ok(());
            };
            merge_list(field, list, items)
        }
        scalar => {
            map.insert(key.to_owned(), scalar.clone());
            Ok(())
        }
    }
}

fn merge_list(
    typed: Option<Typed<'_>>,
    list: &mut Vec<Value>,
    patch: &[Value],
) -> Result<(), ApiError> {
    let replaces = patch.iter().any(|item| item[DIRECTIVE] == "replace");
    let kind = typed.and_then(Typed::list).map(|list| &list.patch);
    match kind {
        Some(ListPatch::Union) if !replaces => {
            let new: Vec<Value> = patch
                .iter()
                .filter(|item| !list.contains(item))
                .cloned()
                .collect();
            list.extend(new);
            Ok(())
        }
        Some(ListPatch::Merge(key)) if !replaces => patch
            .iter()
            .try_for_each(|item| merge_item(typed.map(Typed::items), list, key, item)),
        _ => {
            list.clear();
            for item in patch.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
                let mut new = Value::Null;
                merge(typed.map(Typed::items), &mut new, item)?;
                list.push(new);
            }
            Ok(())
        }
    }
}

fn merge_item(
    typed: Option<Typed<'_>>,
    list: &mut Vec<Value>,
    key: &str,
    item: &Value,
) -> Result<(), ApiError> {
    let id = item.get(key).ok_or_else(|| {
        bad(format!(
            "map: {item} does not contain declared merge key: {key}"
        ))
    })?;
    if item[DIRECTIVE] == "delete" {
        list.retain(|found| found.get(key) != Some(id));
        return Ok(());
    }
    if let Some(found) = list.iter_mut().find(|found| found.get(key) == Some(id)) {
        return merge(typed, found, item);
    }
    let mut new = Value::Null;
    merge(typed, &mut new, item)?;
    list.push(new);
    Ok(())
}

fn remove_scalars(
    map: &mut Map<String, Value>,
    field: &str,
    values: &Value,
) -> Result<(), ApiError> {
    let values = values
        .as_array()
        .ok_or_else(|| bad(format!("{DELETE}{field} must be a list")))?;
    if let Some(Value::Array(list)) = map.get_mut(field) {
        list.retain(|item| !values.contains(item));
    }
    Ok(())
}

fn merge_key(typed: Option<Typed<'_>>) -> Option<String> {
    match typed?.list()?.patch {
        ListPatch::Merge(ref key) => Some(key.clone()),
        ListPatch::Replace | ListPatch::Union => None,
    }
}

/// Brings a list into the given order; items the order does not name stay behind the item they followed.
fn sort(list: &mut Vec<Value>, order: &[Value], key: Option<String>) {
    let place = |item: &Value| {
        order.iter().position(|entry| match &key {
            Some(key) => entry.get(key) == item.get(key),
            None => entry == item,
        })
    };
    let old = std::mem::take(list);
    let mut named: Vec<(usize, usize)> = old
        .iter()
        .enumerate()
        .filter_map(|(index, item)| Some((place(item)?, index)))
        .collect();
    named.sort_unstable();
    let mut sequence: Vec<usize> = named.into_iter().map(|(_, index)| index).collect();
    for index in (0..old.len()).filter(|index| place(&old[*index]).is_none()) {
        let after = index
            .checked_sub(1)
            .and_then(|before| sequence.iter().position(|placed| *placed == before));
        sequence.insert(after.map_or(0, |position| position + 1), index);
    }
    list.extend(sequence.into_iter().map(|index| old[index].clone()));
}

fn bad(message: String) -> ApiError {
    ApiError::bad_request(format!("invalid strategic merge patch: {message}"))
}
