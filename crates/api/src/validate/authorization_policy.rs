//! AuthorizationPolicies: actions, sources, operations, conditions.

use super::attachment::{Place, attachment};
use super::{Findings, is_subnet};
use crate::authorization_policy::{
    Action, AuthorizationPolicy, Condition, Operation, Rule, Source,
};
use crate::meta::Config;
use crate::notice::{Notice, Subject};
use crate::path;

/// Attributes of conditions without brackets (Istio: "Authorization Policy Conditions").
const KEYS: [&str; 11] = [
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.serviceAccount",
    "source.trustDomain",
    "source.principal",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "destination.ip",
    "destination.port",
];

/// Parts of a request's head that are headers too (RFC 9113 §8.3.1).
const PSEUDO: [&str; 4] = [":path", ":method", ":authority", ":scheme"];

/// Attribute of a condition: the server name of TLS.
const SNI: &str = "connection.sni";

/// Validates an AuthorizationPolicy.
pub fn authorization_policy(config: &Config<AuthorizationPolicy>) -> Vec<Notice> {
    let spec = &config.spec;
    let mut findings = Findings::new(Subject::new("AuthorizationPolicy", &config.meta));
    let f = &mut findings;
    attachment(
        f,
        &Place {
            namespace: &config.meta.namespace,
            selector: spec.selector.as_ref(),
            target_ref: spec.target_ref.as_ref(),
            target_refs: &spec.target_refs,
        },
    );
    action(f, spec);
    for (i, one) in spec.rules.iter().enumerate() {
        rule(f, &path::index("spec.rules", i), one);
    }
    findings.notices
}

fn action(f: &mut Findings, spec: &AuthorizationPolicy) {
    let action = spec.action.unwrap_or(Action::Allow);
    let provider = spec.provider.as_ref();
    let named = provider.and_then(|p| p.name.as_deref()).unwrap_or_default();
    match action {
        Action::Custom if named.is_empty() => f.error(
            "spec.provider.name",
            "is missing: CUSTOM asks a provider; name one of extensionProviders",
        ),
        Action::Allow | Action::Deny | Action::Audit if provider.is_some() => f.error(
            "spec.provider",
            "is for action CUSTOM only: remove it or change the action",
        ),
        _ => {}
    }
    if spec.rules.is_empty() && matches!(action, Action::Deny | Action::Custom) {
        f.error(
            "spec.rules",
            "is empty, so the policy would never match: add rules; one empty rule, [{}], matches everything",
        );
    }
}

fn rule(f: &mut Findings, field: &str, rule: &Rule) {
    let empty = "is empty, so nothing would match: remove it, or say what matches";
    if rule.from.as_ref().is_some_and(Vec::is_empty) {
        f.error(format!("{field}.from"), empty);
    }
    if rule.to.as_ref().is_some_and(Vec::is_empty) {
        f.error(format!("{field}.to"), empty);
    }
    for (i, from) in rule.from.iter().flatten().enumerate() {
        let field = format!("{field}.from[{i}].source");
        match &from.source {
            Some(one) if **one != Source::default() => source(f, &field, one),
            _ => f.error(
                field,
                "is empty: say who calls, or remove from to match everybody",
            ),
        }
    }
    for (i, to) in rule.to.iter().flatten().enumerate() {
        let field = format!("{field}.to[{i}].operation");
        match &to.operation {
            Some(one) if **one != Operation::default() => operation(f, &field, one),
            _ => f.error(
                field,
                "is empty: say what is called, or remove to to match everything",
            ),
        }
    }
    for (i, one) in rule.when.iter().enumerate() {
        condition(f, &format!("{field}.when[{i}]"), one);
    }
}

/// Every value of a list, with its field, but the empty ones, which are refused.
fn values<'a>(f: &mut Findings, field: &str, list: &'a [String]) -> Vec<(String, &'a str)> {
    let mut good = Vec::new();
    for (i, value) in list.iter().enumerate() {
        let field = path::index(field, i);
        match value.as_str() {
            "" => f.error(field, "is empty: give it a value or remove it"),
            value => good.push((field, value)),
        }
    }
    good
}

fn source(f: &mut Findings, field: &str, source: &Source) {
    for (name, list) in source.patterns() {
        values(f, &format!("{field}.{name}"), list);
    }
    for (name, list) in source.blocks() {
        for (field, block) in values(f, &format!("{field}.{name}"), list) {
            f.subnet(&field, block);
        }
    }
    for (name, list) in source.accounts() {
        for (field, account) in values(f, &format!("{field}.{name}"), list) {
            service_account(f, &field, account);
        }
    }
    let accounts = source.accounts().iter().any(|(_, list)| !list.is_empty());
    let others = [
        &source.principals,
        &source.not_principals,
        &source.namespaces,
        &source.not_namespaces,
    ];
    if accounts && others.iter().any(|list| !list.is_empty()) {
        f.error(
            format!("{field}.serviceAccounts"),
            "excludes principals and namespaces: an account says both; keep one of them",
        );
    }
}

fn service_account(f: &mut Findings, field: &str, account: &str) {
    let mut parts = account.split('/');
    let (first, second, third) = (parts.next(), parts.next(), parts.next());
    let good = |part: Option<&str>| part.is_none_or(|part| !part.is_empty());
    if account.contains('*') {
        f.error(
            field,
            format!(
                "{account:?} has a wildcard: accounts are written out; use principals for patterns"
            ),
        );
    } else if third.is_some() || !good(first) || !good(second) {
        f.error(
            field,
            format!("{account:?} is not a service account; use name or namespace/name"),
        );
    }
}

fn operation(f: &mut Findings, field: &str, operation: &Operation) {
    for (name, list) in operation.patterns() {
        let is_path = matches!(name, "paths" | "notPaths");
        for (field, value) in values(f, &format!("{field}.{name}"), list) {
            if !is_path {
                continue;
            }
            if let Some(reason) = bad_template(value) {
                f.error(field, reason);
            } else if !is_template(value) && value.contains(['{', '}']) {
                f.warning(
                    field,
                    format!("{value:?} is compared as it stands: only {{*}} and {{**}} stand for something else"),
                );
            }
        }
    }
    for (name, list) in operation.port_lists() {
        for (field, port) in values(f, &format!("{field}.{name}"), list) {
            port_text(f, &field, port);
        }
    }
}

fn port_text(f: &mut Findings, field: &str, port: &str) {
    if !port.parse::<u16>().is_ok_and(|number| number > 0) {
        f.error(field, format!("{port:?} is not a port; use 1 to 65535"));
    }
}

fn is_template(path: &str) -> bool {
    path.contains("{*}") || path.contains("{**}")
}

/// Why a path is not a template; absent: it is one, or has no `{*}` or `{**}` (Istio: `CheckValidPathTemplate`).
fn bad_template(text: &str) -> Option<String> {
    if !is_template(text) {
        return None;
    }
    let mut ended = false;
    for part in text.trim_matches('/').split('/') {
        match part {
            "{*}" | "{**}" if ended => {
                return Some(format!(
                    "{text:?}: nothing but plain parts may follow {{**}}"
                ));
            }
            "{*}" => {}
            "{**}" => ended = true,
            _ if part.contains(['{', '}']) => {
                return Some(format!(
                    "{text:?}: braces are for {{*}} and {{**}} only, each a whole part between slashes"
                ));
            }
            _ if part.contains('*') => {
                return Some(format!(
                    "{text:?}: a template has no other * than {{*}} and {{**}}"
                ));
            }
            _ => {}
        }
    }
    None
}

/// Name and brackets of a condition's key: `request.auth.claims[a][b]` gives the name and `[a, b]`. Absent: the
/// brackets are not in order.
pub fn condition_key(key: &str) -> Option<(&str, Vec<&str>)> {
    let Some(at) = key.find('[') else {
        return Some((key, Vec::new()));
    };
    let (name, mut rest) = key.split_at(at);
    let mut inside = Vec::new();
    while !rest.is_empty() {
        let (part, after) = rest.strip_prefix('[')?.split_once(']')?;
        if part.is_empty() || part.contains('[') {
            return None;
        }
        inside.push(part);
        rest = after;
    }
    Some((name, inside))
}

fn condition(f: &mut Findings, field: &str, condition: &Condition) {
    if condition.values.is_empty() && condition.not_values.is_empty() {
        f.error(
            field,
            "has neither values nor notValues: give at least one of them",
        );
    }
    let key = condition.key.as_str();
    if let Some(reason) = bad_key(key) {
        f.error(format!("{field}.key"), reason);
        return;
    }
    let lists = [
        ("values", &condition.values),
        ("notValues", &condition.not_values),
    ];
    for (name, list) in lists {
        for (field, value) in values(f, &format!("{field}.{name}"), list) {
            match key {
                "source.ip" | "remote.ip" | "destination.ip" if !is_subnet(value) => {
                    f.subnet(&field, value);
                }
                "destination.port" => port_text(f, &field, value),
                "source.serviceAccount" => service_account(f, &field, value),
                _ => {}
            }
        }
    }
}

/// Whether a header of this name, in whatever case, can be there.
fn is_header(name: &str) -> bool {
    let pseudo = PSEUDO.iter().any(|p| p.eq_ignore_ascii_case(name));
    pseudo || super::is_token(name)
}

/// Why a key is no attribute; absent: it is one.
fn bad_key(key: &str) -> Option<String> {
    if key.starts_with("experimental.envoy.filters.") {
        // Istio accepts these; translation says that they cannot be put in force.
        return None;
    }
    let brackets = format!("{key:?} has brackets that are empty or not closed");
    let Some((name, inside)) = condition_key(key) else {
        return Some(brackets);
    };
    match (name, inside.len()) {
        ("request.headers", 1) if !is_header(inside[0]) => Some(format!(
            "{key:?} names no header that a request can have: use a name such as x-token, or one of {}",
            PSEUDO.join(", ")
        )),
        ("request.headers", 1) | ("request.auth.claims", 1..) => None,
        ("request.headers", _) => Some(format!(
            "{key:?} names no header: write request.headers[name]"
        )),
        ("request.auth.claims", _) => Some(format!(
            "{key:?} names no claim: write request.auth.claims[name]"
        )),
        (name, 0) if KEYS.contains(&name) || name == SNI => None,
        ("", _) => Some("is empty: name an attribute, such as source.ip".to_owned()),
        (name, _) => {
            let known = KEYS
                .into_iter()
                .chain([SNI, "request.headers", "request.auth.claims"]);
            Some(match crate::check::nearest(name, known) {
                Some(near) if near != name => {
                    format!("{key:?} is not an attribute; did you mean {near:?}?")
                }
                _ => format!(
                    "{key:?} is not an attribute; use one of {}, {SNI}, request.headers[…] and request.auth.claims[…]",
                    KEYS.join(", ")
                ),
            })
        }
    }
}
