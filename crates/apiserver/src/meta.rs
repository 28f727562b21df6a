//! Small facts about `metadata`: times, uids, generated names, and Kubernetes' rules for names and labels.

use crate::error::Cause;
use jiff::Timestamp;
use serde_json::Value;

/// The time as Kubernetes writes it in `metadata`: RFC 3339, whole seconds, UTC.
pub fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A new random uid.
pub fn new_uid() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// Five random characters as `generateName` appends them: no vowels, no look-alikes.
pub fn random_suffix() -> String {
    const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let bytes = *uuid::Uuid::new_v4().as_bytes();
    // The bytes that carry the uuid's version and variant (6 and 8) are not used.
    bytes[..5]
        .iter()
        .map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]))
        .collect()
}

/// A field of `metadata` as text; empty when absent.
pub fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// Whether deletion was asked for.
pub fn is_deleting(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// Whether finalizers hold the object back.
pub fn has_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"]
        .as_array()
        .is_some_and(|list| !list.is_empty())
}

const LABEL_RULE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN_RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const SERVICE_RULE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED_RULE: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE_RULE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// RFC 1123 label: why a name is none; absent when it is one.
pub fn not_a_label(name: &str) -> Option<&'static str> {
    if name.len() > 63 {
        return Some("must be no more than 63 characters");
    }
    (!is_label(name)).then_some(LABEL_RULE)
}

/// RFC 1123 subdomain: why a name is none; absent when it is one.
pub fn not_a_subdomain(name: &str) -> Option<&'static str> {
    if name.len() > 253 {
        return Some("must be no more than 253 characters");
    }
    (name.is_empty() || !name.split('.').all(is_label)).then_some(SUBDOMAIN_RULE)
}

/// RFC 1035 label, as Service names: why a name is none; absent when it is one.
pub fn not_a_service_name(name: &str) -> Option<&'static str> {
    if name.len() > 63 {
        return Some("must be no more than 63 characters");
    }
    (!is_label(name) || !name.starts_with(|c: char| c.is_ascii_lowercase())).then_some(SERVICE_RULE)
}

fn is_label(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    bytes.first().copied().is_some_and(plain)
        && bytes.last().copied().is_some_and(plain)
        && bytes.iter().all(|byte| plain(*byte) || *byte == b'-')
}

fn is_word(name: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

/// Why a label or annotation key is no good; absent when it is.
pub fn not_a_qualified_name(key: &str) -> Option<&'static str> {
    let (prefix, name) = key
        .split_once('/')
        .map_or((None, key), |(prefix, name)| (Some(prefix), name));
    if prefix.is_some_and(|prefix| not_a_subdomain(prefix).is_some()) {
        return Some(SUBDOMAIN_RULE);
    }
    match name {
        "" => Some("name part must be non-empty"),
        name if name.len() > 63 => Some("name part must be no more than 63 characters"),
        name => (!is_word(name)).then_some(QUALIFIED_RULE),
    }
}

/// Why a label value is no good; absent when it is.
pub fn not_a_label_value(value: &str) -> Option<&'static str> {
    if value.len() > 63 {
        return Some("must be no more than 63 characters");
    }
    (!value.is_empty() && !is_word(value)).then_some(LABEL_VALUE_RULE)
}

/// A cause for a bad value in Kubernetes' words.
pub fn invalid(field: impl Into<String>, value: &str, why: &str) -> Cause {
    Cause::new(
        "FieldValueInvalid",
        field,
        format!("Invalid value: \"{value}\": {why}"),
    )
}

/// A cause for a missing value in Kubernetes' words.
pub fn required(field: impl Into<String>, why: &str) -> Cause {
    let message = if why.is_empty() {
        "Required value".to_owned()
    } else {
        format!("Required value: {why}")
    };
    Cause::new("FieldValueRequired", field, message)
}

/// Checks labels, annotations, finalizers and owner references.
pub fn check(object: &Value) -> Vec<Cause> {
    let metadata = &object["metadata"];
    let mut causes = labels(&metadata["labels"], "metadata.labels");
    let mut size = 0;
    for (key, value) in metadata["annotations"].as_object().into_iter().flatten() {
        if let Some(why) = not_a_qualified_name(&key.to_lowercase()) {
            causes.push(invalid("metadata.annotations", key, why));
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > 256 * 1024 {
        let message = "Too long: may not be more than 262144 bytes";
        causes.push(Cause::new(
            "FieldValueTooLong",
            "metadata.annotations",
            message,
        ));
    }
    for (index, owner) in metadata["ownerReferences"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().unwrap_or_default().is_empty() {
                causes.push(required(
                    format!("metadata.ownerReferences[{index}].{field}"),
                    "must not be empty",
                ));
            }
        }
    }
    for finalizer in metadata["finalizers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        if let Some(why) = not_a_qualified_name(finalizer) {
            causes.push(invalid("metadata.finalizers", finalizer, why));
        }
    }
    causes
}

/// Checks a map of labels at a path.
pub fn labels(labels: &Value, path: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (key, value) in labels.as_object().into_iter().flatten() {
        if let Some(why) = not_a_qualified_name(key) {
            causes.push(invalid(path, key, why));
        }
        let value = value.as_str().unwrap_or_default();
        if let Some(why) = not_a_label_value(value) {
            causes.push(invalid(path, value, why));
        }
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_kubernetes_rules() {
        let good = |name: &str| not_a_subdomain(name).is_none();
        assert!(good("a") && good("a-b.c1") && good("1a"));
        assert!(
            !good("")
                && !good("A")
                && !good("-a")
                && !good("a..b")
                && !good("a_b")
                && !good(&"a".repeat(254))
        );
        assert!(not_a_service_name("1a").is_some() && not_a_service_name("a1").is_none());
        assert!(
            not_a_qualified_name("istio.io/rev").is_none()
                && not_a_qualified_name("a/b/c").is_some()
        );
        assert!(not_a_label_value("v1.2_x").is_none() && not_a_label_value("a b").is_some());
    }

    #[test]
    fn generated_suffixes_differ() {
        assert_ne!(random_suffix(), random_suffix());
        assert_eq!(random_suffix().len(), 5);
    }
}
