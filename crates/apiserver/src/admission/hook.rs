//! One webhook of a configuration object, and whether a request is its business.

use super::{AdmissionInput, Expression};
use crate::lookup::Lookup;
use crate::schema::{Budget, cel_value};
use kube_cel::cel::Value as Cel;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// API group of the configurations.
pub(super) const GROUP: &str = "admissionregistration.k8s.io";

/// Which configurations are meant.
#[derive(Clone, Copy)]
pub(super) enum Stage {
    Mutating,
    Validating,
}

impl Stage {
    pub(super) fn resource(self) -> &'static str {
        match self {
            Self::Mutating => "mutatingwebhookconfigurations",
            Self::Validating => "validatingwebhookconfigurations",
        }
    }
}

/// A webhook with Kubernetes' defaults filled in.
pub(super) struct Hook {
    pub(super) name: String,
    pub(super) timeout: Duration,
    /// `failurePolicy: Ignore`
    pub(super) may_fail: bool,
    /// `reinvocationPolicy: IfNeeded`
    pub(super) reinvoke: bool,
    /// `sideEffects` allow dry runs.
    pub(super) dry_run: bool,
    configuration: Arc<Value>,
    index: usize,
}

impl Hook {
    /// All webhooks of a configuration, in order.
    pub(super) fn all(configuration: &Arc<Value>) -> Vec<Self> {
        let count = configuration["webhooks"].as_array().map_or(0, Vec::len);
        (0..count)
            .map(|index| Self::new(configuration.clone(), index))
            .collect()
    }

    fn new(configuration: Arc<Value>, index: usize) -> Self {
        let hook = &configuration["webhooks"][index];
        Self {
            name: hook["name"].as_str().unwrap_or_default().to_owned(),
            timeout: Duration::from_secs(
                hook["timeoutSeconds"].as_u64().unwrap_or(10).clamp(1, 30),
            ),
            may_fail: hook["failurePolicy"] == "Ignore",
            reinvoke: hook["reinvocationPolicy"] == "IfNeeded",
            dry_run: hook["sideEffects"] == "None" || hook["sideEffects"] == "NoneOnDryRun",
            index,
            configuration,
        }
    }

    fn field(&self, key: &str) -> &Value {
        &self.configuration["webhooks"][self.index][key]
    }

    /// `clientConfig`
    pub(super) fn client(&self) -> &Value {
        self.field("clientConfig")
    }

    /// Whether a rule matches the request.
    pub(super) fn covers(&self, input: &AdmissionInput) -> bool {
        let exact = self.field("matchPolicy") == "Exact";
        let rules = self.field("rules").as_array().into_iter().flatten();
        rules.into_iter().any(|rule| {
            has(rule, "operations", input.operation.name())
                && has(rule, "apiGroups", &input.resource.group)
                // All versions of a kind have one schema here: equivalent means any version.
                && (!exact || has(rule, "apiVersions", &input.resource.version))
                && covers_resource(rule, input)
                && covers_scope(rule, input)
        })
    }

    /// Whether the namespace's and the object's labels match the selectors.
    pub(super) fn selects(&self, lookup: &dyn Lookup, input: &AdmissionInput) -> bool {
        let objects = || [&input.object, &input.old_object].into_iter().flatten();
        let selector = self.field("namespaceSelector");
        let is_namespace =
            input.resource.group.is_empty() && input.resource.resource == "namespaces";
        let fits = if is_empty(selector) {
            true
        } else if is_namespace && input.subresource.is_empty() {
            // Kubernetes: a Namespace is matched by its own labels, the old ones on delete.
            objects()
                .next()
                .is_none_or(|object| selected(selector, object))
        } else {
            match &input.namespace {
                Some(name) => match lookup.find("", "namespaces", None, name) {
                    Some(namespace) => selected(selector, &namespace),
                    None => selected(selector, &Value::Null),
                },
                None => true,
            }
        };
        let selector = self.field("objectSelector");
        fits && (is_empty(selector) || objects().any(|object| selected(selector, object)))
    }

    /// Whether all `matchConditions` are true. The error says which one failed and why.
    pub(super) fn conditions_hold(
        &self,
        request: &Value,
        compiled: impl Fn(&str) -> Arc<Result<Expression, String>>,
    ) -> Result<bool, String> {
        let conditions = self
            .field("matchConditions")
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        if conditions.is_empty() {
            return Ok(true);
        }
        let (object, old) = (
            cel_value(&request["object"]),
            cel_value(&request["oldObject"]),
        );
        let request = cel_value(request);
        let variables = [
            ("object", &object),
            ("oldObject", &old),
            ("request", &request),
        ];
        let _budget = Budget::start();
        let mut failure = None;
        for condition in conditions {
            let name = condition["name"].as_str().unwrap_or_default();
            let expression = compiled(condition["expression"].as_str().unwrap_or_default());
            let outcome = match expression.as_ref() {
                Ok(expression) => expression
                    .run(&variables)
                    .map_err(|error| error.to_string()),
                Err(why) => Err(why.clone()),
            };
            match outcome {
                Ok(Cel::Bool(true)) => {}
                // One false decides, even when another failed (Kubernetes: match conditions).
                Ok(Cel::Bool(false)) => return Ok(false),
                Ok(_) => {
                    failure = Some(format!(
                        "match condition \"{name}\" of webhook \"{}\" is no bool",
                        self.name
                    ))
                }
                Err(why) => {
                    failure = Some(format!(
                        "match condition \"{name}\" of webhook \"{}\": {why}",
                        self.name
                    ));
                }
            }
        }
        failure.map_or(Ok(true), Err)
    }
}

fn has(rule: &Value, key: &str, wanted: &str) -> bool {
    strings(&rule[key]).any(|one| one == "*" || one == wanted)
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

fn covers_resource(rule: &Value, input: &AdmissionInput) -> bool {
    strings(&rule["resources"]).any(|pattern| {
        let (resource, subresource) = pattern.split_once('/').unwrap_or((pattern, ""));
        (resource == "*" || resource == input.resource.resource)
            && (subresource == "*" || subresource == input.subresource)
    })
}

fn covers_scope(rule: &Value, input: &AdmissionInput) -> bool {
    // A Namespace carries its own name as namespace, yet is cluster-scoped.
    let is_namespace = input.resource.group.is_empty() && input.resource.resource == "namespaces";
    let namespaced = input.namespace.is_some() && !is_namespace;
    match rule["scope"].as_str() {
        Some("Namespaced") => namespaced,
        Some("Cluster") => !namespaced,
        _ => true,
    }
}

fn is_empty(selector: &Value) -> bool {
    selector.as_object().is_none_or(|fields| fields.is_empty())
}

/// Whether an object's labels match a `metav1.LabelSelector`.
fn selected(selector: &Value, object: &Value) -> bool {
    let labels = &object["metadata"]["labels"];
    let label = |key: &str| labels.get(key).and_then(Value::as_str);
    let mut equal = selector["matchLabels"].as_object().into_iter().flatten();
    let mut expressions = selector["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten();
    equal.all(|(key, value)| label(key) == value.as_str())
        && expressions.all(|expression| {
            let value = label(expression["key"].as_str().unwrap_or_default());
            let listed =
                value.is_some_and(|value| strings(&expression["values"]).any(|one| one == value));
            match expression["operator"].as_str() {
                Some("In") => listed,
                Some("NotIn") => !listed,
                Some("Exists") => value.is_some(),
                Some("DoesNotExist") => value.is_none(),
                _ => false,
            }
        })
}
