//! Checks a value against a structural schema: unknown fields are warnings, wrong types and values are errors.
//! It says what users can do about each; Kubernetes' own error texts are the API server's business.

use crate::fields::DurationText;
use crate::notice::{Notice, Severity, Subject};
use crate::path;
use serde_json::{Map, Value};

/// More notices than this about one object help nobody.
const MOST: usize = 50;

/// What a field is that the schema does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// Without effect: said, and passed over.
    Warning,
    /// A reason to refuse the object: what is left could mean the opposite of what is meant.
    Error,
}

/// Checks `value`, found at `path`, against `schema`. At most 50 notices.
pub fn check(
    schema: &Value,
    value: &Value,
    path: &str,
    subject: &Subject,
    unknown: Unknown,
) -> Vec<Notice> {
    let mut check = Check {
        subject,
        unknown,
        notices: Vec::new(),
    };
    check.value(schema, value, path);
    check.notices
}

/// A warning about a field that the kind does not have, naming the nearest one that it has.
pub fn unknown_field<'a>(
    subject: &Subject,
    path: &str,
    name: &str,
    known: impl Iterator<Item = &'a str>,
) -> Notice {
    let hint = match nearest(name, known) {
        Some(near) => format!("; did you mean {near:?}?"),
        None => "; remove it or look it up with kubectl explain".to_owned(),
    };
    Notice::warning(
        subject,
        path::key(path, name),
        format!("unknown field, it has no effect{hint}"),
    )
}

/// The same notice for an object that is refused because of the field.
fn refused_field(notice: Notice) -> Notice {
    let message = notice.message.replacen(
        "unknown field, it has no effect",
        "unknown field, so the object could mean something else than it says",
        1,
    );
    Notice {
        severity: Severity::Error,
        message,
        ..notice
    }
}

/// The name among `known` that is most like `name`, if any is close.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.replace(['_', '-'], "").to_ascii_lowercase();
    let wanted = plain(name);
    known
        .map(|k| (distance(&wanted, &plain(k)), k))
        .min()
        .filter(|(distance, k)| *distance <= 1 + k.len().min(name.len()) / 4)
        .map(|(_, k)| k)
}

/// Edit distance, with a swap of neighbours as one edit.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let mut before = Vec::new();
    let mut last = (0..=b.len()).collect::<Vec<_>>();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let change = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = change.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                let swap: &Vec<usize> = &before;
                row[j] = row[j].min(swap[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

struct Check<'a> {
    subject: &'a Subject,
    unknown: Unknown,
    notices: Vec<Notice>,
}

impl Check<'_> {
    fn push(&mut self, notice: Notice) {
        if self.notices.len() < MOST {
            self.notices.push(notice);
        }
    }

    fn error(&mut self, path: &str, message: String) {
        let notice = Notice::error(self.subject, path, message);
        self.push(notice);
    }

    fn value(&mut self, schema: &Value, value: &Value, path: &str) {
        if let Some(message) = wrong_type(schema, value) {
            self.error(path, message);
            return;
        }
        match value {
            Value::Object(map) => self.object(schema, map, path),
            Value::Array(items) => self.list(schema, items, path),
            Value::String(text) => self.text(schema, text, path),
            Value::Number(number) => self.number(schema, number.as_f64().unwrap_or(f64::NAN), path),
            Value::Bool(_) | Value::Null => {}
        }
    }

    fn object(&mut self, schema: &Value, map: &Map<String, Value>, path: &str) {
        for name in schema["required"].as_array().into_iter().flatten() {
            if let Some(name) = name.as_str()
                && !map.contains_key(name)
            {
                self.error(&path::key(path, name), "is missing: add it".into());
            }
        }
        if let Some(most) = schema["maxProperties"].as_u64()
            && map.len() as u64 > most
        {
            let message = format!("has {} entries; at most {most} are allowed", map.len());
            self.error(path, message);
        }
        let properties = schema["properties"].as_object();
        let values = schema.get("additionalProperties");
        for (name, below) in map {
            if let Some(known) = properties.and_then(|p| p.get(name)) {
                self.value(known, below, &path::key(path, name));
            } else if let Some(values) = values {
                self.value(values, below, &path::key(path, name));
            } else if let Some(properties) = properties {
                let known = properties.keys().map(String::as_str);
                let notice = unknown_field(self.subject, path, name, known);
                self.push(match self.unknown {
                    Unknown::Warning => notice,
                    Unknown::Error => refused_field(notice),
                });
            }
        }
    }

    fn list(&mut self, schema: &Value, items: &[Value], path: &str) {
        let count = items.len() as u64;
        if let Some(least) = schema["minItems"].as_u64()
            && count < least
        {
            self.error(path, format!("is too short: at least {least} needed"));
        }
        if let Some(most) = schema["maxItems"].as_u64()
            && count > most
        {
            self.error(
                path,
                format!("has {count} entries; at most {most} are allowed"),
            );
            return;
        }
        for (i, item) in items.iter().enumerate() {
            self.value(&schema["items"], item, &path::index(path, i));
        }
    }

    fn text(&mut self, schema: &Value, text: &str, path: &str) {
        if let Some(values) = schema["enum"].as_array()
            && !values.iter().any(|v| v == text)
        {
            let known = || values.iter().filter_map(Value::as_str);
            let message = match nearest(text, known()) {
                Some(near) => format!("{text:?} is not a known value; did you mean {near:?}?"),
                None => format!(
                    "{text:?} is not a known value; use one of {}",
                    known().collect::<Vec<_>>().join(", ")
                ),
            };
            self.error(path, message);
        }
        let count = text.chars().count() as u64;
        if schema["minLength"]
            .as_u64()
            .is_some_and(|least| count < least)
        {
            self.error(path, "is empty: give it a value".into());
        }
        if let Some(most) = schema["maxLength"].as_u64()
            && count > most
        {
            self.error(
                path,
                format!("is {count} characters long; at most {most} are allowed"),
            );
        }
        // Durations are the only pattern that this crate's schemas have.
        if schema["pattern"] == DurationText::PATTERN
            && let Err(bad) = DurationText(text.to_owned()).parse()
        {
            self.error(path, bad.to_string());
        }
    }

    fn number(&mut self, schema: &Value, number: f64, path: &str) {
        if let Some(least) = schema["minimum"].as_f64()
            && number < least
        {
            self.error(
                path,
                format!("{number} is too small; the least value is {least}"),
            );
        }
        if let Some(most) = schema["maximum"].as_f64()
            && number > most
        {
            self.error(
                path,
                format!("{number} is too large; the greatest value is {most}"),
            );
        }
    }
}

/// The sentence about a value whose type is not the schema's. Absent: the type is right or not prescribed.
fn wrong_type(schema: &Value, value: &Value) -> Option<String> {
    let want = schema["type"].as_str()?;
    let right = match want {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => true,
    };
    if right {
        return None;
    }
    let cure = match (want, value) {
        ("integer" | "number" | "boolean", Value::String(text))
            if serde_json::from_str::<Value>(text).is_ok_and(|v| !v.is_string()) =>
        {
            "; remove the quotes"
        }
        ("string", Value::Number(_) | Value::Bool(_)) => "; put it in quotes",
        ("array", _) => "; start each entry with \"- \"",
        _ => "",
    };
    Some(format!(
        "expected {}, found {}{cure}",
        article(want),
        describe(value)
    ))
}

fn article(kind: &str) -> String {
    match kind {
        "array" => "a list".into(),
        "object" => "a mapping".into(),
        "integer" => "an integer".into(),
        kind => format!("a {kind}"),
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::Bool(b) => format!("the boolean {b}"),
        Value::Number(n) => format!("the number {n}"),
        Value::String(s) if s.chars().count() <= 40 => format!("the string {s:?}"),
        Value::String(_) => "a string".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a mapping".into(),
    }
}
