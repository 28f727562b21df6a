//! Label and field selectors of list, watch and deletecollection.

use crate::error::ApiError;
use crate::kinds::Kind;
use crate::target::Query;
use serde_json::Value;

/// What a request selects.
#[derive(Debug, Default)]
pub struct Selection {
    labels: Vec<LabelRule>,
    fields: Vec<FieldRule>,
}

#[derive(Debug)]
enum LabelRule {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

#[derive(Debug)]
struct FieldRule {
    path: String,
    value: String,
    equal: bool,
}

impl Selection {
    /// Reads `labelSelector` and `fieldSelector`.
    ///
    /// # Errors
    /// 400 for a malformed selector or a field that the kind cannot select by.
    pub fn parse(kind: &Kind, query: &Query) -> Result<Self, ApiError> {
        let labels = match query.text("labelSelector") {
            Some(text) => labels(text)?,
            None => Vec::new(),
        };
        let mut fields = Vec::new();
        for term in query
            .text("fieldSelector")
            .unwrap_or_default()
            .split(',')
            .filter(|term| !term.is_empty())
        {
            let rule = field(term).ok_or_else(|| {
                ApiError::bad_request(format!(
                    "invalid field selector: {term:?}; use name=value or name!=value"
                ))
            })?;
            if !selectable(kind, &rule.path) {
                return Err(ApiError::bad_request(format!(
                    "field label not supported: {}",
                    rule.path
                )));
            }
            fields.push(rule);
        }
        Ok(Self { labels, fields })
    }

    /// Whether an object is selected.
    pub fn matches(&self, object: &Value) -> bool {
        self.labels
            .iter()
            .all(|rule| rule.matches(&object["metadata"]["labels"]))
            && self
                .fields
                .iter()
                .all(|rule| (value_at(object, &rule.path) == rule.value) == rule.equal)
    }

    /// The one name that is selected, as `metadata.name=x` does.
    pub fn only_name(&self) -> Option<&str> {
        let rule = self
            .fields
            .iter()
            .find(|rule| rule.equal && rule.path == "metadata.name")?;
        Some(&rule.value)
    }
}

impl LabelRule {
    fn matches(&self, labels: &Value) -> bool {
        match self {
            Self::In(key, values) => labels[key]
                .as_str()
                .is_some_and(|label| values.iter().any(|value| value == label)),
            Self::NotIn(key, values) => labels[key]
                .as_str()
                .is_none_or(|label| values.iter().all(|value| value != label)),
            Self::Exists(key) => labels.get(key).is_some(),
            Self::Absent(key) => labels.get(key).is_none(),
        }
    }
}

/// Whether a `LabelSelector` object selects labels. An absent selector selects nothing, an empty one everything.
pub fn fits(selector: &Value, found: &Value) -> bool {
    selector.is_object() && rules(selector).iter().all(|rule| rule.matches(found))
}

/// A `LabelSelector` object (or a plain map of labels) as text, as `scale` shows it.
pub fn write(selector: &Value) -> String {
    let plain = selector.get("matchLabels").is_none() && selector.get("matchExpressions").is_none();
    let nested = serde_json::json!({"matchLabels": selector});
    let parts = rules(if plain { &nested } else { selector })
        .into_iter()
        .map(|rule| match rule {
            LabelRule::In(key, values) if values.len() == 1 => format!("{key}={}", values[0]),
            LabelRule::In(key, values) => format!("{key} in ({})", values.join(",")),
            LabelRule::NotIn(key, values) => format!("{key} notin ({})", values.join(",")),
            LabelRule::Exists(key) => key,
            LabelRule::Absent(key) => format!("!{key}"),
        });
    parts.collect::<Vec<_>>().join(",")
}

fn rules(selector: &Value) -> Vec<LabelRule> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    let labels = labels.map(|(key, value)| LabelRule::In(key.clone(), vec![text(value)]));
    let expressions = selector["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|expression| {
            let key = text(&expression["key"]);
            let values = expression["values"]
                .as_array()
                .into_iter()
                .flatten()
                .map(text)
                .collect();
            match expression["operator"].as_str() {
                Some("In") => LabelRule::In(key, values),
                Some("NotIn") => LabelRule::NotIn(key, values),
                Some("DoesNotExist") => LabelRule::Absent(key),
                _ => LabelRule::Exists(key),
            }
        });
    labels.chain(expressions).collect()
}

/// Splits at commas outside parentheses.
fn terms(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut terms) = (0_u32, 0, Vec::new());
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                terms.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn labels(text: &str) -> Result<Vec<LabelRule>, ApiError> {
    let terms = terms(text)
        .into_iter()
        .map(str::trim)
        .filter(|term| !term.is_empty());
    terms
        .map(|term| {
            label(term).ok_or_else(|| {
                ApiError::bad_request(format!("unable to parse requirement: {term:?} in {text:?}"))
            })
        })
        .collect()
}

fn label(term: &str) -> Option<LabelRule> {
    let key = |text: &str| {
        let key = text.trim();
        crate::meta::not_a_qualified_name(key)
            .is_none()
            .then(|| key.to_owned())
    };
    if let Some(name) = term.strip_prefix('!') {
        return Some(LabelRule::Absent(key(name)?));
    }
    if let Some(list) = term.strip_suffix(')') {
        let (head, values) = list.split_once('(')?;
        let values = values
            .split(',')
            .map(|value| value.trim().to_owned())
            .collect();
        return match head.trim().rsplit_once(char::is_whitespace)? {
            (name, "in") => Some(LabelRule::In(key(name)?, values)),
            (name, "notin") => Some(LabelRule::NotIn(key(name)?, values)),
            _ => None,
        };
    }
    for (operator, negated) in [("!=", true), ("==", false), ("=", false)] {
        if let Some((name, value)) = term.split_once(operator) {
            let (name, values) = (key(name)?, vec![value.trim().to_owned()]);
            return Some(if negated {
                LabelRule::NotIn(name, values)
            } else {
                LabelRule::In(name, values)
            });
        }
    }
    Some(LabelRule::Exists(key(term)?))
}

fn field(term: &str) -> Option<FieldRule> {
    for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
        if let Some((path, value)) = term.split_once(operator) {
            let rule = FieldRule {
                path: path.trim().to_owned(),
                value: value.trim().to_owned(),
                equal,
            };
            return (!rule.path.is_empty()).then_some(rule);
        }
    }
    None
}

/// Fields that Kubernetes can select by, per built-in resource; `metadata.name` and `metadata.namespace` always work.
fn selectable(kind: &Kind, path: &str) -> bool {
    if matches!(path, "metadata.name" | "metadata.namespace") {
        return true;
    }
    if let Some(custom) = &kind.custom {
        return custom
            .selectable
            .iter()
            .any(|field| field.strip_prefix('.') == Some(path));
    }
    match kind.plural.as_str() {
        "pods" => matches!(
            path,
            "spec.nodeName"
                | "spec.restartPolicy"
                | "spec.schedulerName"
                | "spec.serviceAccountName"
                | "spec.hostNetwork"
                | "status.phase"
                | "status.podIP"
                | "status.nominatedNodeName"
        ),
        "events" => {
            path.starts_with("involvedObject.")
                || path.starts_with("regarding.")
                || matches!(path, "reason" | "reportingComponent" | "source" | "type")
        }
        "namespaces" => path == "status.phase",
        "nodes" => path == "spec.unschedulable",
        "secrets" => path == "type",
        "services" => matches!(path, "spec.clusterIP" | "spec.type"),
        "replicasets" | "replicationcontrollers" => path == "status.replicas",
        "jobs" => path == "status.successful",
        _ => false,
    }
}

fn value_at(object: &Value, path: &str) -> String {
    let path = if path == "source" {
        "source.component"
    } else {
        path
    };
    let value = path
        .split('.')
        .try_fold(object, |value, part| value.get(part));
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None if path == "spec.unschedulable" || path == "spec.hostNetwork" => {
            "false".to_owned()
        }
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(selector: &str, expected: Option<bool>) {
        let object = json!({"metadata": {"labels": {"app": "reviews", "version": "v1"}}});
        let matched = labels(selector).ok().map(|rules| {
            rules
                .iter()
                .all(|rule| rule.matches(&object["metadata"]["labels"]))
        });
        assert_eq!(matched, expected, "{selector}");
    }

    #[test]
    fn label_selectors() {
        check("app=reviews", Some(true));
        check("app==reviews,version!=v2", Some(true));
        check("version in (v1, v2),app", Some(true));
        check("version notin (v1,v3)", Some(false));
        check("other notin (v1)", Some(true));
        check("!other", Some(true));
        check("!app", Some(false));
        check("app in reviews", None);
        check("a b", None);
        check("=x", None);
    }

    #[test]
    fn field_selectors() {
        let rule = field("spec.nodeName!=a").expect("rule");
        assert!(!rule.equal);
        assert_eq!(
            value_at(&json!({"spec": {"nodeName": "a"}}), "spec.nodeName"),
            "a"
        );
        assert_eq!(value_at(&json!({}), "spec.nodeName"), "");
        assert!(field("nothing").is_none());
    }
}
