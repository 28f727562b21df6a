//! Reads request bodies in Kubernetes' protobuf encoding: kubectl sends them for built-in kinds (`create namespace`,
//! `auth can-i`). Answers are always JSON, which every client accepts.
//!
//! The wire format knows numbers only; names come from `protobuf/fields.txt` and types from the OpenAPI definitions.

use crate::error::ApiError;
use crate::kinds::Registry;
use base64::Engine;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::LazyLock;

/// Media type of such bodies.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// Kubernetes: marks an envelope (`runtime.Unknown`).
const MAGIC: &[u8] = b"k8s\0";
const MAX_DEPTH: usize = 64;

/// Fields whose zero means absent; of other numbers and truth values zero says something (`replicas: 0`).
/// Source: fields of Kubernetes' Go types that are no pointers.
const PLAIN: &[&str] = &[
    "active",
    "currentReplicas",
    "currentNumberScheduled",
    "failed",
    "failureThreshold",
    "generation",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostPort",
    "initialDelaySeconds",
    "minReadySeconds",
    "nodePort",
    "numberAvailable",
    "numberReady",
    "observedGeneration",
    "paused",
    "periodSeconds",
    "publishNotReadyAddresses",
    "readOnly",
    "readyReplicas",
    "stdin",
    "stdinOnce",
    "succeeded",
    "successThreshold",
    "timeoutSeconds",
    "tty",
    "unavailableReplicas",
    "unschedulable",
    "updatedReplicas",
    "availableReplicas",
];

enum Field {
    Named(&'static str),
    /// The message's fields belong to the outer object.
    Inlined(&'static str),
}

/// By short type name (`core.v1.PodSpec`).
static FIELDS: LazyLock<HashMap<&'static str, HashMap<u32, Field>>> = LazyLock::new(|| {
    let lines = include_str!("protobuf/fields.txt")
        .lines()
        .filter(|line| !line.starts_with('#'));
    let field = |text: &'static str| {
        let (name, number) = text.split_once('=')?;
        let field = name
            .strip_prefix('~')
            .map_or(Field::Named(name), Field::Inlined);
        Some((number.parse().ok()?, field))
    };
    lines
        .filter_map(|line| {
            let (name, fields) = line.split_once(' ')?;
            Some((name, fields.split(' ').filter_map(field).collect()))
        })
        .collect()
});

/// The object in a body.
///
/// # Errors
/// 400 when the bytes are no envelope of a known type; 415 for types that are only read as JSON.
pub fn decode(registry: &Registry, body: &[u8]) -> Result<Value, ApiError> {
    let envelope = body
        .strip_prefix(MAGIC)
        .ok_or_else(|| bad("it does not begin with the mark of an envelope"))?;
    let (mut kind, mut version, mut raw) = (String::new(), String::new(), &[][..]);
    for part in Wire(envelope) {
        match part? {
            (1, Item::Bytes(type_meta)) => {
                for part in Wire(type_meta) {
                    match part? {
                        (1, Item::Bytes(bytes)) => version = text(bytes)?,
                        (2, Item::Bytes(bytes)) => kind = text(bytes)?,
                        _ => {}
                    }
                }
            }
            (2, Item::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let decoder = Decoder {
        definitions: registry.definitions(),
    };
    let name = decoder.type_name(&version, &kind).ok_or_else(|| {
        tracing::debug!(kind, version, "a body in protobuf is of an unknown type");
        ApiError::unsupported_media_type(&["application/json", "application/yaml"])
    })?;
    let mut object = decoder.message(&name, raw, 0)?;
    (object["apiVersion"], object["kind"]) = (json!(version), json!(kind));
    Ok(object)
}

struct Decoder<'a> {
    definitions: &'a Map<String, Value>,
}

impl Decoder<'_> {
    /// Name of a kind's definition.
    fn type_name(&self, version: &str, kind: &str) -> Option<String> {
        let (group, version) = version.rsplit_once('/').unwrap_or(("core", version));
        let package = group.split('.').next().unwrap_or_default();
        let own = format!("io.k8s.api.{package}.{version}.{kind}");
        let shared = format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}");
        [own, shared]
            .into_iter()
            .find(|name| self.definitions.contains_key(name) && FIELDS.contains_key(short(name)))
    }

    fn message(&self, name: &str, bytes: &[u8], depth: usize) -> Result<Value, ApiError> {
        let mut object = Map::new();
        let properties = self
            .definitions
            .get(name)
            .map_or(&Value::Null, |schema| &schema["properties"]);
        self.fill(&mut object, (short(name), properties), bytes, depth)?;
        Ok(Value::Object(object))
    }

    fn fill(
        &self,
        object: &mut Map<String, Value>,
        (name, properties): (&str, &Value),
        bytes: &[u8],
        depth: usize,
    ) -> Result<(), ApiError> {
        if depth > MAX_DEPTH {
            return Err(bad("it nests too deep"));
        }
        let fields = FIELDS
            .get(name)
            .ok_or_else(|| bad("a type in it is not known"))?;
        for part in Wire(bytes) {
            let (number, item) = part?;
            match (fields.get(&number), item) {
                (Some(Field::Inlined(inner)), Item::Bytes(bytes)) => {
                    self.fill(object, (inner, properties), bytes, depth + 1)?;
                }
                (Some(Field::Named(field)), item) => {
                    // A newer client's field is not known here; Kubernetes drops those too.
                    let Some(schema) = properties.get(*field) else {
                        continue;
                    };
                    self.set(object, (field, schema), item, depth + 1)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn set(
        &self,
        object: &mut Map<String, Value>,
        (field, schema): (&str, &Value),
        item: Item<'_>,
        depth: usize,
    ) -> Result<(), ApiError> {
        if schema["type"] == "array" {
            let value = self.value(&schema["items"], item, depth)?;
            if let Value::Array(list) = object.entry(field).or_insert_with(|| json!([])) {
                list.push(value);
            }
        } else if schema["additionalProperties"].is_object() {
            let Item::Bytes(entry) = item else {
                return Err(bad("a map entry is malformed"));
            };
            let (key, value) = self.entry(&schema["additionalProperties"], entry, depth)?;
            if let Value::Object(map) = object.entry(field).or_insert_with(|| json!({})) {
                map.insert(key, value);
            }
        } else {
            let value = self.value(schema, item, depth)?;
            // Empty texts and times stand for absent ones: the encoding writes fields that JSON leaves out.
            let is_zero = (value == false || value == 0) && PLAIN.contains(&field);
            if !(value.is_null() || value == "" || is_zero) {
                object.insert(field.to_owned(), value);
            }
        }
        Ok(())
    }

    fn entry(
        &self,
        schema: &Value,
        bytes: &[u8],
        depth: usize,
    ) -> Result<(String, Value), ApiError> {
        let (mut key, mut value) = (String::new(), json!(""));
        for part in Wire(bytes) {
            match part? {
                (1, Item::Bytes(bytes)) => key = text(bytes)?,
                // Lists in maps are wrapped in a message with the one field `items`.
                (2, Item::Bytes(bytes)) if schema["type"] == "array" => {
                    let items =
                        Wire(bytes).map(|part| self.value(&schema["items"], part?.1, depth));
                    value = Value::Array(items.collect::<Result<_, _>>()?);
                }
                (2, item) => value = self.value(schema, item, depth)?,
                _ => {}
            }
        }
        Ok((key, value))
    }

    fn value(&self, schema: &Value, item: Item<'_>, depth: usize) -> Result<Value, ApiError> {
        let reference = schema["$ref"]
            .as_str()
            .or_else(|| schema["allOf"][0]["$ref"].as_str());
        match (reference, item) {
            (Some(reference), Item::Bytes(bytes)) => self.named(
                reference.rsplit('/').next().unwrap_or(reference),
                bytes,
                depth,
            ),
            (None, Item::Bytes(bytes)) if schema["format"] == "byte" => Ok(json!(
                base64::engine::general_purpose::STANDARD.encode(bytes)
            )),
            (None, Item::Bytes(bytes)) => Ok(json!(text(bytes)?)),
            (None, Item::Number(number)) if schema["type"] == "boolean" => Ok(json!(number != 0)),
            // Negative numbers come as 64-bit two's complement.
            (None, Item::Number(number)) => Ok(json!(number.cast_signed())),
            (None, Item::Double(number)) => Ok(json!(number)),
            (Some(_), _) => Err(bad("a message is malformed")),
        }
    }

    fn named(&self, name: &str, bytes: &[u8], depth: usize) -> Result<Value, ApiError> {
        match name.rsplit('.').next().unwrap_or_default() {
            "Quantity" => first_text(bytes).map(|text| json!(text)),
            "Time" => time(bytes, "%Y-%m-%dT%H:%M:%SZ"),
            "MicroTime" => time(bytes, "%Y-%m-%dT%H:%M:%S%.6fZ"),
            "IntOrString" => int_or_text(bytes),
            "RawExtension" | "JSON" | "FieldsV1" => {
                let raw = first_text(bytes)?;
                serde_json::from_str(&raw).map_err(|_| bad("embedded JSON is malformed"))
            }
            _ => self.message(name, bytes, depth),
        }
    }
}

fn short(name: &str) -> &str {
    let name = name.strip_prefix("io.k8s.api.").unwrap_or(name);
    name.strip_prefix("io.k8s.apimachinery.pkg.apis.")
        .unwrap_or(name)
}

fn first_text(bytes: &[u8]) -> Result<String, ApiError> {
    for part in Wire(bytes) {
        if let (1, Item::Bytes(bytes)) = part? {
            return text(bytes);
        }
    }
    Ok(String::new())
}

fn time(bytes: &[u8], format: &str) -> Result<Value, ApiError> {
    let (mut seconds, mut nanos) = (0, 0);
    for part in Wire(bytes) {
        match part? {
            (1, Item::Number(number)) => seconds = number.cast_signed(),
            (2, Item::Number(number)) => nanos = i32::try_from(number.cast_signed()).unwrap_or(0),
            _ => {}
        }
    }
    // Go's zero time is in the year 1; an empty message is it too.
    if seconds <= 0 {
        return Ok(Value::Null);
    }
    let time = Timestamp::new(seconds, nanos).map_err(|_| bad("a time is out of range"))?;
    Ok(json!(time.strftime(format).to_string()))
}

fn int_or_text(bytes: &[u8]) -> Result<Value, ApiError> {
    let (mut is_text, mut number, mut string) = (false, 0, String::new());
    for part in Wire(bytes) {
        match part? {
            (1, Item::Number(kind)) => is_text = kind == 1,
            (2, Item::Number(value)) => number = value.cast_signed(),
            (3, Item::Bytes(bytes)) => string = text(bytes)?,
            _ => {}
        }
    }
    Ok(if is_text {
        json!(string)
    } else {
        json!(number)
    })
}

fn text(bytes: &[u8]) -> Result<String, ApiError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| bad("a text in it is not UTF-8"))
}

fn bad(why: &str) -> ApiError {
    ApiError::bad_request(format!(
        "the request body is not valid protobuf: {why}; send JSON instead"
    ))
}

enum Item<'a> {
    Number(u64),
    Double(f64),
    Bytes(&'a [u8]),
}

/// Fields of a message in their order (protobuf encoding: tag, then payload by wire type).
struct Wire<'a>(&'a [u8]);

impl<'a> Wire<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u32, Item<'a>)> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok()?;
        let item = match tag & 7 {
            0 => Item::Number(self.varint()?),
            1 => Item::Double(f64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Item::Bytes(self.take(length)?)
            }
            5 => Item::Double(f64::from(f32::from_le_bytes(
                self.take(4)?.try_into().ok()?,
            ))),
            _ => return None,
        };
        Some((number, item))
    }
}

impl<'a> Iterator for Wire<'a> {
    type Item = Result<(u32, Item<'a>), ApiError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            // Nothing after a malformed field can be told apart.
            self.0 = &[];
        }
        Some(field.ok_or_else(|| bad("it is cut off or malformed")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_map_in_protobuf() {
        // Envelope{typeMeta{v1, ConfigMap}, raw{metadata{name: "x"}, data{"a": "b"}}}
        let raw = b"\x0a\x03\x0a\x01x\x12\x06\x0a\x01a\x12\x01b";
        let mut body = MAGIC.to_vec();
        body.extend(b"\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12");
        body.push(u8::try_from(raw.len()).expect("short"));
        body.extend(raw);
        let registry = Registry::new();
        let object = decode(&registry, &body).expect("decoded");
        assert_eq!(
            object,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "b"}})
        );
        for length in 0..body.len() {
            // Whatever is cut off, nothing panics.
            let _ = decode(&registry, &body[..length]);
        }
        assert_eq!(
            decode(&registry, b"{}").map_err(|error| error.code),
            Err(400)
        );
    }

    #[test]
    fn every_line_of_the_table_names_a_type_and_numbers() {
        for (name, fields) in FIELDS.iter() {
            assert!(!fields.is_empty(), "{name}");
            for field in fields.values() {
                if let Field::Inlined(inner) = field {
                    assert!(FIELDS.contains_key(inner), "{name} inlines {inner}");
                }
            }
        }
    }
}
