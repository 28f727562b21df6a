//! `Table` answers: the columns that `kubectl get` prints, chosen per kind as Kubernetes chooses them.

mod columns;
mod jsonpath;
mod workloads;

use crate::kinds::Kind;
use crate::meta;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

/// A column of a built-in kind.
struct Column {
    name: &'static str,
    /// Shown with `-o wide` only.
    wide: bool,
    cell: fn(&Value) -> Value,
}

/// A column that is always shown.
const fn shown(name: &'static str, cell: fn(&Value) -> Value) -> Column {
    Column {
        name,
        wide: false,
        cell,
    }
}

/// A column for `-o wide`.
const fn wide(name: &'static str, cell: fn(&Value) -> Value) -> Column {
    Column {
        name,
        wide: true,
        cell,
    }
}

/// The table of some objects. `include` is the parameter `includeObject`.
pub fn render(
    kind: &Kind,
    objects: &[Arc<Value>],
    include: Option<&str>,
    metadata: Value,
) -> Value {
    let rows = |cells: &dyn Fn(&Value) -> Vec<Value>| -> Vec<Value> {
        objects
            .iter()
            .map(|found| json!({"cells": cells(found), "object": object(found, include)}))
            .collect()
    };
    let (definitions, rows) = match &kind.custom {
        Some(custom) => {
            let columns = custom_columns(&custom.columns);
            let definitions = columns
                .iter()
                .map(|column| column.definition.clone())
                .collect::<Vec<_>>();
            (
                definitions,
                rows(&|found| columns.iter().map(|column| column.cell(found)).collect()),
            )
        }
        None => {
            let columns = columns::of(kind);
            let definitions = columns.iter().map(definition).collect();
            (
                definitions,
                rows(&|found| columns.iter().map(|column| (column.cell)(found)).collect()),
            )
        }
    };
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": definitions, "rows": rows,
    })
}

fn definition(column: &Column) -> Value {
    let name = column.name;
    let format = if name == "Name" { "name" } else { "" };
    json!({
        "name": name, "type": "string", "format": format, "description": name, "priority": i32::from(column.wide),
    })
}

fn object(object: &Value, include: Option<&str>) -> Value {
    match include {
        Some("None") => Value::Null,
        Some("Object") => object.clone(),
        _ => {
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
        }
    }
}

struct CustomColumn {
    definition: Value,
    path: Option<jsonpath::Path>,
    is_date: bool,
}

impl CustomColumn {
    fn cell(&self, object: &Value) -> Value {
        let Some(path) = &self.path else {
            return json!(meta::text(object, "name"));
        };
        match path.find(object) {
            None | Some(Value::Null) => Value::Null,
            Some(Value::String(time)) if self.is_date => json!(age(time)),
            Some(Value::Array(items)) => json!(Value::Array(items.clone()).to_string()),
            Some(value) => value.clone(),
        }
    }
}

fn custom_columns(columns: &[Value]) -> Vec<CustomColumn> {
    let name = json!({"name": "Name", "type": "string", "format": "name", "description": "Name", "priority": 0});
    let mut all = vec![CustomColumn {
        definition: name,
        path: None,
        is_date: false,
    }];
    let age = json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"});
    let default = [age];
    for column in if columns.is_empty() {
        &default[..]
    } else {
        columns
    } {
        let text = |key: &str| column[key].as_str().unwrap_or_default();
        let is_date = text("type") == "date";
        let definition = json!({
            "name": text("name"), "type": if is_date { "string" } else { text("type") }, "format": text("format"),
            "description": text("description"), "priority": column["priority"].as_i64().unwrap_or(0),
        });
        all.push(CustomColumn {
            definition,
            path: Some(jsonpath::Path::parse(text("jsonPath"))),
            is_date,
        });
    }
    all
}

/// Time since an RFC 3339 time as Kubernetes prints it (`5s`, `3m12s`, `4h`, `2d`).
fn age(time: &str) -> String {
    match time.parse::<Timestamp>() {
        Ok(time) => duration(Timestamp::now().duration_since(time).as_secs()),
        Err(_) => "<unknown>".to_owned(),
    }
}

/// Kubernetes' `HumanDuration`: two units at most, fewer as it grows.
fn duration(seconds: i64) -> String {
    let pair = |major: i64, unit: char, minor: i64, small: char| {
        if minor == 0 {
            format!("{major}{unit}")
        } else {
            format!("{major}{unit}{minor}{small}")
        }
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => pair(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, 'd', hours % 24, 'h'),
        691_200..63_072_000 => format!("{days}d"),
        _ => pair(days / 365, 'y', days % 365, 'd'),
    }
}

#[cfg(test)]
mod tests;
