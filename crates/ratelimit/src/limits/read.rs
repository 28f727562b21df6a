//! The file format of envoyproxy/ratelimit → [`Limits`]. A text that is wrong somewhere is refused as a whole: half of
//! its limits would be another configuration.

use super::{Limit, Limits, Node, Values};
use crate::stats::Stats;
use crate::window::Unit;
use lateen_api::yaml;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Deepest nesting of descriptors.
const DEEPEST: usize = 16;

/// What is wrong with a configuration: where, what, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {field}: {message}")]
pub struct Broken {
    /// The file.
    pub file: String,
    /// Its line, from 1.
    pub line: usize,
    /// The field, such as `descriptors[0].rate_limit.unit`.
    pub field: String,
    /// A sentence that says the cure.
    pub message: String,
}

/// Reads one text. `file` is only for what is said about it.
///
/// # Errors
/// The first thing that is wrong.
pub fn read_file(file: &str, text: &str, stats: &Stats) -> Result<Limits, Broken> {
    read_texts(&[(file.to_owned(), text.to_owned())], stats)
}

/// Reads several texts of one domain each, with their files' names.
///
/// # Errors
/// The first thing that is wrong; also a domain that two files have.
pub fn read_texts(texts: &[(String, String)], stats: &Stats) -> Result<Limits, Broken> {
    let mut limits = Limits::default();
    for (file, text) in texts {
        let (value, lines) = yaml::plain(text).map_err(|(line, message)| Broken {
            file: file.clone(),
            line,
            field: "the file".to_owned(),
            message: format!("{message}; see docs/rate-limits.md for the format"),
        })?;
        if value.is_null() {
            continue;
        }
        let reading = Reading { stats };
        let (domain, node) = reading
            .domain(&value)
            .and_then(|(domain, node)| match limits.has(&domain) {
                true => Err(wrong(
                    "domain",
                    format!("{domain:?} is in another file, too: write all of a domain into one"),
                )),
                false => Ok((domain, node)),
            })
            .map_err(|(field, message)| Broken {
                file: file.clone(),
                line: lines(&field),
                field,
                message,
            })?;
        limits.domains.insert(domain, node);
    }
    Ok(limits)
}

type Wrong = (String, String);

fn wrong(field: impl Into<String>, message: impl Into<String>) -> Wrong {
    (field.into(), message.into())
}

struct Reading<'a> {
    stats: &'a Stats,
}

/// Where a descriptor is written.
struct Place<'a> {
    domain: &'a str,
    /// Field path, such as `descriptors[0].`.
    field: String,
    /// Keys and values above, as the metrics name them.
    above: String,
    depth: usize,
}

impl Reading<'_> {
    fn domain(&self, value: &Value) -> Result<(String, Node), Wrong> {
        let Some(map) = value.as_object() else {
            let message = "is no map: begin with domain: and descriptors:";
            return Err(wrong("the file", message));
        };
        known(map, "", &["domain", "descriptors"])?;
        let domain = text(map, "", "domain")?.unwrap_or_default();
        if domain.is_empty() {
            return Err(wrong("domain", "is missing: give the domain a name"));
        }
        let place = Place {
            domain: &domain,
            field: String::new(),
            above: String::new(),
            depth: 0,
        };
        let node = Node {
            limit: None,
            below: self.descriptors(map, &place)?,
        };
        Ok((domain, node))
    }

    fn descriptors(
        &self,
        map: &Map<String, Value>,
        place: &Place<'_>,
    ) -> Result<std::collections::BTreeMap<String, Values>, Wrong> {
        let mut below = std::collections::BTreeMap::<String, Values>::new();
        let field = format!("{}descriptors", place.field);
        let list = match map.get("descriptors") {
            None | Some(Value::Null) => return Ok(below),
            Some(Value::Array(list)) => list,
            Some(_) => {
                return Err(wrong(
                    field,
                    "is no list: begin each descriptor with - key:",
                ));
            }
        };
        if place.depth >= DEEPEST {
            let message = format!("is nested deeper than {DEEPEST}: shorten it");
            return Err(wrong(field, message));
        }
        for (i, one) in list.iter().enumerate() {
            let field = format!("{field}[{i}]");
            let Some(one) = one.as_object() else {
                return Err(wrong(field, "is no map: write key: and what follows it"));
            };
            let (key, value, node) = self.descriptor(one, place, &field)?;
            let values = below.entry(key.clone()).or_default();
            if !insert(values, &value, node) {
                let message = format!("{key:?} is there twice with this value: remove one");
                return Err(wrong(format!("{field}.key"), message));
            }
        }
        Ok(below)
    }

    fn descriptor(
        &self,
        map: &Map<String, Value>,
        place: &Place<'_>,
        field: &str,
    ) -> Result<(String, String, Node), Wrong> {
        const KNOWN: &[&str] = &[
            "key",
            "value",
            "rate_limit",
            "shadow_mode",
            "detailed_metric",
            "descriptors",
        ];
        let prefix = format!("{field}.");
        known(map, &prefix, KNOWN)?;
        let key = text(map, &prefix, "key")?.unwrap_or_default();
        if key.is_empty() {
            return Err(wrong(field, "has no key: give it one"));
        }
        let value = text(map, &prefix, "value")?.unwrap_or_default();
        let mut name = match place.above.is_empty() {
            true => key.clone(),
            false => format!("{}.{key}", place.above),
        };
        if !value.is_empty() {
            name = format!("{name}_{value}");
        }
        if flag(map, &prefix, "detailed_metric")? {
            tracing::warn!(
                "{}: {prefix}detailed_metric is not in force: its hits are counted under {name}",
                place.domain
            );
        }
        let shadow = flag(map, &prefix, "shadow_mode")?;
        let limit = match map.get("rate_limit") {
            None | Some(Value::Null) => None,
            Some(Value::Object(limit)) => {
                let limit = rate_limit(limit, &format!("{prefix}rate_limit."))?;
                Some(Limit {
                    shadow,
                    counters: self.stats.of(place.domain, &name),
                    ..limit
                })
            }
            Some(_) => {
                let message = "is no map: write unit: and requests_per_unit:";
                return Err(wrong(format!("{prefix}rate_limit"), message));
            }
        };
        let place = Place {
            domain: place.domain,
            field: prefix,
            above: name,
            depth: place.depth + 1,
        };
        let below = self.descriptors(map, &place)?;
        Ok((key, value, Node { limit, below }))
    }
}

/// Whether there was nothing yet for this value.
fn insert(values: &mut Values, value: &str, node: Node) -> bool {
    if value.is_empty() {
        let is_new = values.any.is_none();
        values.any = Some(Box::new(node));
        return is_new;
    }
    match value.strip_suffix('*') {
        Some(prefix) => {
            let is_new = !values.prefixes.iter().any(|(same, _)| same == prefix);
            values.prefixes.push((prefix.to_owned(), node));
            is_new
        }
        None => values.exact.insert(value.to_owned(), node).is_none(),
    }
}

fn rate_limit(map: &Map<String, Value>, prefix: &str) -> Result<Limit, Wrong> {
    const KNOWN: &[&str] = &["unit", "requests_per_unit", "unlimited", "name", "replaces"];
    known(map, prefix, KNOWN)?;
    let unlimited = flag(map, prefix, "unlimited")?;
    let unit = text(map, prefix, "unit")?;
    let unit = match (unit, unlimited) {
        (None, true) => Unit::Second,
        (Some(_), true) => {
            let message = "has no meaning where unlimited is true: remove one of them";
            return Err(wrong(format!("{prefix}unit"), message));
        }
        (None, false) => {
            let message = "has no unit: add one of second, minute, hour, day, month or year";
            return Err(wrong(prefix.trim_end_matches('.'), message));
        }
        (Some(name), false) => Unit::named(&name).ok_or_else(|| {
            let message =
                format!("{name:?} is no unit: use second, minute, hour, day, month or year");
            wrong(format!("{prefix}unit"), message)
        })?,
    };
    let requests = match map.get("requests_per_unit") {
        // envoyproxy/ratelimit: absent is 0, which refuses everything.
        None | Some(Value::Null) => 0,
        Some(number) => number
            .as_u64()
            .and_then(|n| u32::try_from(n).ok())
            .ok_or_else(|| {
                let message = format!("{number} is no number of requests: use 0 to {}", u32::MAX);
                wrong(format!("{prefix}requests_per_unit"), message)
            })?,
    };
    let name: Arc<str> = text(map, prefix, "name")?.unwrap_or_default().into();
    Ok(Limit {
        requests,
        unit,
        unlimited,
        shadow: false,
        replaces: replaces(map, prefix, &name)?,
        name,
        counters: Arc::default(),
    })
}

fn replaces(
    map: &Map<String, Value>,
    prefix: &str,
    own: &Arc<str>,
) -> Result<Vec<Arc<str>>, Wrong> {
    let field = format!("{prefix}replaces");
    let list = match map.get("replaces") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(wrong(field, "is no list: write each as - name:")),
    };
    let mut names = Vec::new();
    for (i, one) in list.iter().enumerate() {
        let field = format!("{field}[{i}]");
        let name = one["name"].as_str().unwrap_or_default();
        if name.is_empty() {
            return Err(wrong(field, "has no name: name the limit that it replaces"));
        }
        if name == &**own {
            return Err(wrong(field, "names its own limit: remove it"));
        }
        names.push(name.into());
    }
    Ok(names)
}

fn known(map: &Map<String, Value>, prefix: &str, names: &[&str]) -> Result<(), Wrong> {
    match map.keys().find(|key| !names.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => {
            let message = format!("is no known field: use {}", names.join(", "));
            Err(wrong(format!("{prefix}{key}"), message))
        }
    }
}

/// A text. YAML makes numbers and booleans of some, which are meant as texts here.
fn text(map: &Map<String, Value>, prefix: &str, name: &str) -> Result<Option<String>, Wrong> {
    match map.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        Some(Value::Bool(flag)) => Ok(Some(flag.to_string())),
        Some(_) => Err(wrong(
            format!("{prefix}{name}"),
            "is no text: write one value",
        )),
    }
}

fn flag(map: &Map<String, Value>, prefix: &str, name: &str) -> Result<bool, Wrong> {
    match map.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(wrong(
            format!("{prefix}{name}"),
            "is neither true nor false: write one of them",
        )),
    }
}
