//! Kubernetes' role-based access control: Roles and ClusterRoles through their bindings.
//!
//! Decisions are made from the stored objects at each call: there is no cache to go stale, and a sandbox has tens
//! of bindings. Aggregated ClusterRoles are used as they are stored: nothing here fills in their rules.

use super::{Attributes, MASTERS, User};
use crate::lookup::Lookup;
use serde_json::Value;
use std::sync::Arc;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Why an action is allowed (Kubernetes' reason, empty for `system:masters`), or why not:
/// `User "x" cannot list resource "pods" in API group "" in the namespace "y"`.
pub fn decide(
    lookup: &dyn Lookup,
    user: &User,
    attributes: &Attributes<'_>,
) -> Result<String, String> {
    if user.has_group(MASTERS) {
        return Ok(String::new());
    }
    let mut missing = Vec::new();
    for grant in grants(lookup, user, attributes.namespace) {
        match &grant.role {
            Some(role) if rules(role).any(|rule| allows(rule, attributes)) => {
                return Ok(grant.reason());
            }
            Some(_) => {}
            None => missing.push(grant.missing()),
        }
    }
    let mut why = refusal(user, attributes);
    if !missing.is_empty() {
        missing.dedup();
        why = format!("{why}: RBAC: {}", missing.join(", "));
    }
    Err(why)
}

/// All rules that apply to a user in a namespace (absent: cluster-wide ones only), in binding order.
pub fn rules_for(lookup: &dyn Lookup, user: &User, namespace: Option<&str>) -> Vec<Value> {
    if user.has_group(MASTERS) {
        return vec![
            serde_json::json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}),
            serde_json::json!({"verbs": ["*"], "nonResourceURLs": ["*"]}),
        ];
    }
    let mut all = Vec::new();
    for grant in grants(lookup, user, namespace) {
        if let Some(role) = &grant.role {
            all.extend(rules(role).cloned());
        }
    }
    all
}

/// A binding whose subjects include the user, with the role it points to.
struct Grant {
    binding: Arc<Value>,
    role: Option<Arc<Value>>,
}

impl Grant {
    fn new(lookup: &dyn Lookup, binding: Arc<Value>) -> Self {
        let reference = &binding["roleRef"];
        let name = reference["name"].as_str().unwrap_or_default();
        let role = match reference["kind"].as_str() {
            Some("ClusterRole") => lookup.find(GROUP, "clusterroles", None, name),
            Some("Role") => lookup.find(GROUP, "roles", namespace_of(&binding), name),
            _ => None,
        };
        Self { binding, role }
    }

    fn reason(&self) -> String {
        let (kind, name) = match namespace_of(&self.binding) {
            Some(namespace) => (
                "RoleBinding",
                format!("{}/{namespace}", name_of(&self.binding)),
            ),
            None => ("ClusterRoleBinding", name_of(&self.binding).to_owned()),
        };
        let reference = &self.binding["roleRef"];
        let text = |key: &str| reference[key].as_str().unwrap_or_default();
        format!(
            "RBAC: allowed by {kind} \"{name}\" of {} \"{}\"",
            text("kind"),
            text("name")
        )
    }

    fn missing(&self) -> String {
        let reference = &self.binding["roleRef"];
        let kind = reference["kind"]
            .as_str()
            .unwrap_or_default()
            .to_ascii_lowercase();
        format!(
            "{kind}.{GROUP} \"{}\" not found",
            reference["name"].as_str().unwrap_or_default()
        )
    }
}

fn grants(
    lookup: &dyn Lookup,
    user: &User,
    namespace: Option<&str>,
) -> impl Iterator<Item = Grant> {
    let mut bindings = lookup.list(GROUP, "clusterrolebindings", None);
    if let Some(namespace) = namespace {
        bindings.extend(lookup.list(GROUP, "rolebindings", Some(namespace)));
    }
    bindings
        .into_iter()
        .filter(|binding| binds(binding, user))
        .map(|binding| Grant::new(lookup, binding))
}

fn binds(binding: &Value, user: &User) -> bool {
    let Some(subjects) = binding["subjects"].as_array() else {
        return false;
    };
    subjects.iter().any(|subject| {
        let name = subject["name"].as_str().unwrap_or_default();
        match subject["kind"].as_str() {
            Some("User") => name == "*" || name == user.name,
            Some("Group") => user.has_group(name),
            Some("ServiceAccount") => {
                let namespace = subject["namespace"]
                    .as_str()
                    .or_else(|| namespace_of(binding))
                    .unwrap_or_default();
                super::account_of(&user.name) == Some((namespace, name))
            }
            _ => false,
        }
    })
}

fn rules(role: &Value) -> impl Iterator<Item = &Value> {
    role["rules"].as_array().into_iter().flatten()
}

/// Whether one rule allows an action (Kubernetes: `RuleAllows`).
fn allows(rule: &Value, attributes: &Attributes<'_>) -> bool {
    if !has(rule, "verbs", attributes.verb) {
        return false;
    }
    if attributes.resource.is_empty() {
        return strings(rule, "nonResourceURLs")
            .any(|pattern| covers_path(pattern, attributes.path));
    }
    has(rule, "apiGroups", attributes.group)
        && strings(rule, "resources").any(|resource| covers_resource(resource, attributes))
        && names_include(rule, attributes.name)
}

fn covers_path(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path,
    }
}

fn covers_resource(rule: &str, attributes: &Attributes<'_>) -> bool {
    if rule == "*" {
        return true;
    }
    let (resource, subresource) = rule.split_once('/').unwrap_or((rule, ""));
    subresource == attributes.subresource
        && (resource == attributes.resource || (resource == "*" && !subresource.is_empty()))
}

fn names_include(rule: &Value, name: Option<&str>) -> bool {
    let mut names = strings(rule, "resourceNames").peekable();
    names.peek().is_none() || names.any(|one| Some(one) == name)
}

fn has(rule: &Value, key: &str, wanted: &str) -> bool {
    strings(rule, key).any(|one| one == "*" || one == wanted)
}

fn strings<'a>(rule: &'a Value, key: &str) -> impl Iterator<Item = &'a str> {
    rule[key]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

fn refusal(user: &User, attributes: &Attributes<'_>) -> String {
    let Attributes {
        verb,
        group,
        resource,
        subresource,
        ..
    } = attributes;
    let name = &user.name;
    if resource.is_empty() {
        return format!("User \"{name}\" cannot {verb} path \"{}\"", attributes.path);
    }
    let resource = match *subresource {
        "" => (*resource).to_owned(),
        subresource => format!("{resource}/{subresource}"),
    };
    let place = match attributes.namespace {
        Some(namespace) => format!("in the namespace \"{namespace}\""),
        None => "at the cluster scope".into(),
    };
    format!(
        "User \"{name}\" cannot {verb} resource \"{resource}\" in API group \"{group}\" {place}"
    )
}

fn namespace_of(object: &Value) -> Option<&str> {
    object["metadata"]["namespace"]
        .as_str()
        .filter(|namespace| !namespace.is_empty())
}

fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}
