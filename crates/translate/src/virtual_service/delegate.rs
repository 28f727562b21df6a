//! Delegation: the rules of another VirtualService in the place of one of ours (Istio: `delegate`). One level deep.
//!
//! Both conditions must hold: those of our rule and those of theirs. What the other rule does not say of timeout, retries
//! and the like, ours says.

use super::{Reading, http};
use crate::mesh::Mesh;
use crate::names::{origin, visibility};
use lateen_api::meta::Config;
use lateen_api::notice::Subject;
use lateen_api::virtual_service::VirtualService;
use lateen_api::virtual_service::http::Delegate;
use lateen_base::Str;
use lateen_model::matching::StringMatch;
use lateen_model::name::Visibility;
use lateen_model::route::{Delegated, HeaderOperations, HttpMatch, HttpRoute};
use std::collections::BTreeMap;

/// The rule that delegates.
pub(super) struct Root<'a> {
    pub rule: HttpRoute,
    pub index: usize,
    pub field: &'a str,
}

/// The rules that stand in the root's place: those of the other object that can match together with it. Why there are
/// none, a notice says; then the root takes no request (Istio).
pub(super) fn rules(
    r: &mut Reading<'_>,
    root: Root<'_>,
    to: &Delegate,
    known: Option<&[&Config<VirtualService>]>,
) -> Vec<HttpRoute> {
    let Some(known) = known else {
        return Vec::new();
    };
    let field = format!("{}.delegate", root.field);
    let name = to.name.as_deref().unwrap_or_default();
    let namespace = to.namespace.as_deref().filter(|ns| !ns.is_empty());
    let namespace = namespace.unwrap_or(r.namespace);
    let is_it = |other: &&&Config<VirtualService>| {
        other.meta.name == name && other.meta.namespace == namespace
    };
    let found = known.iter().find(is_it);
    let problem = match found {
        None => {
            Some("does not exist or is broken: create it, or correct name and namespace".into())
        }
        Some(other) => objection(r, other),
    };
    if let Some(problem) = problem {
        let message = format!(
            "VirtualService {namespace}/{name} {problem}; until then this rule takes no request"
        );
        r.warning(field, message);
        return Vec::new();
    }
    let Some(other) = found else {
        return Vec::new();
    };
    let merged = merged(r.mesh, other, &root);
    if merged.is_empty() {
        let message = format!(
            "no rule of VirtualService {namespace}/{name} can match together with this rule's match, so it takes no request: its matches must be narrower than these"
        );
        r.warning(field, message);
    }
    merged
}

/// Why `other` cannot be delegated to.
fn objection(r: &Reading<'_>, other: &Config<VirtualService>) -> Option<String> {
    if !other.spec.hosts.is_empty() {
        return Some("has hosts of its own, so it cannot be delegated to: remove its hosts".into());
    }
    let default = &r.mesh.config.default_virtual_service_export_to;
    let sees = match visibility(&other.spec.export_to, default, &other.meta.namespace) {
        Visibility::Public => true,
        Visibility::Namespaces(names) => names.iter().any(|name| &**name == r.namespace),
    };
    if !sees {
        let namespace = r.namespace;
        return Some(format!(
            "is not exported to {namespace}: add that to its exportTo"
        ));
    }
    let nested = other.spec.http.iter().all(|rule| rule.delegate.is_some());
    nested.then(|| "only delegates further, which goes one level deep: put the rules there".into())
}

fn merged(mesh: &Mesh, other: &Config<VirtualService>, root: &Root<'_>) -> Vec<HttpRoute> {
    // What is to be said of the other object is said where it is translated itself.
    let mut reading = Reading {
        subject: Subject::new("VirtualService", &other.meta),
        namespace: &other.meta.namespace,
        mesh,
        notices: Vec::new(),
    };
    let mut merged = Vec::new();
    for (index, written) in other.spec.http.iter().enumerate() {
        if written.delegate.is_some() {
            continue;
        }
        let leaf = http::rule(&mut reading, "", written);
        let delegated = Delegated {
            origin: origin("VirtualService", &other.meta),
            index,
            root: root.index,
        };
        if let Some(matches) = both(&root.rule.matches, &leaf.matches) {
            merged.push(HttpRoute {
                matches,
                delegated: Some(delegated),
                ..inherit(&root.rule, leaf)
            });
        }
    }
    merged
}

/// What the other rule leaves open, ours says.
fn inherit(root: &HttpRoute, leaf: HttpRoute) -> HttpRoute {
    HttpRoute {
        name: joined(&root.name, &leaf.name),
        rewrite: leaf.rewrite.or_else(|| root.rewrite.clone()),
        timeout: leaf.timeout.or(root.timeout),
        retries: leaf.retries.or_else(|| root.retries.clone()),
        headers: match leaf.headers == HeaderOperations::default() {
            true => root.headers.clone(),
            false => leaf.headers,
        },
        fault: leaf.fault.or_else(|| root.fault.clone()),
        mirrors: match leaf.mirrors.is_empty() {
            true => root.mirrors.clone(),
            false => leaf.mirrors,
        },
        cors: leaf.cors.or_else(|| root.cors.clone()),
        ..leaf
    }
}

fn joined(root: &Str, leaf: &Str) -> Str {
    match (root.is_empty(), leaf.is_empty()) {
        (true, _) => leaf.clone(),
        (false, true) => root.clone(),
        (false, false) => format!("{root}-{leaf}").into(),
    }
}

/// Alternatives that say both; none when no two of them can hold together.
fn both(root: &[HttpMatch], leaf: &[HttpMatch]) -> Option<Vec<HttpMatch>> {
    match (root, leaf) {
        (all, []) | ([], all) => Some(all.to_vec()),
        (root, leaf) => {
            let pairs = root.iter().flat_map(|a| leaf.iter().map(move |b| (a, b)));
            let all: Vec<_> = pairs.filter_map(|(a, b)| merge(a, b)).collect();
            (!all.is_empty()).then_some(all)
        }
    }
}

/// One alternative that says both; none when they exclude each other (Istio: the delegate's must be narrower).
fn merge(root: &HttpMatch, leaf: &HttpMatch) -> Option<HttpMatch> {
    let one = |pick: fn(&HttpMatch) -> &Option<StringMatch>| narrower(pick(root), pick(leaf));
    let all = |pick: fn(&HttpMatch) -> &BTreeMap<Str, StringMatch>| {
        let mut merged = pick(root).clone();
        for (name, wanted) in pick(leaf) {
            let chosen = match merged.remove(name) {
                None => wanted.clone(),
                Some(outer) => narrower(&Some(outer), &Some(wanted.clone()))??,
            };
            merged.insert(name.clone(), chosen);
        }
        Some(merged)
    };
    Some(HttpMatch {
        name: joined(&root.name, &leaf.name),
        uri: one(|m| &m.uri)?,
        ignore_uri_case: root.ignore_uri_case || leaf.ignore_uri_case,
        scheme: one(|m| &m.scheme)?,
        method: one(|m| &m.method)?,
        authority: one(|m| &m.authority)?,
        headers: all(|m| &m.headers)?,
        without_headers: all(|m| &m.without_headers)?,
        query: all(|m| &m.query)?,
        port: same(root.port, leaf.port)?,
        source_labels: labels(&root.source_labels, &leaf.source_labels)?,
        source_namespace: same(root.source_namespace.clone(), leaf.source_namespace.clone())?,
        // Whose traffic a rule gets is the root's to say.
        gateways: root.gateways.clone(),
        claims: [&root.claims[..], &leaf.claims[..]].concat(),
    })
}

/// The narrower of two conditions; outer `None` when they exclude each other or cannot be compared.
fn narrower(root: &Option<StringMatch>, leaf: &Option<StringMatch>) -> Option<Option<StringMatch>> {
    use StringMatch::{Exact, Prefix, Present};
    let (Some(outer), Some(inner)) = (root, leaf) else {
        return Some(root.clone().or_else(|| leaf.clone()));
    };
    let fits = match (outer, inner) {
        (outer, inner) if outer == inner => true,
        (Present, _) => true,
        (Prefix(outer), Exact(inner) | Prefix(inner)) => inner.starts_with(&**outer),
        _ => false,
    };
    fits.then(|| leaf.clone())
}

fn same<T: PartialEq>(root: Option<T>, leaf: Option<T>) -> Option<Option<T>> {
    match (root, leaf) {
        (Some(a), Some(b)) => (a == b).then_some(Some(b)),
        (a, b) => Some(a.or(b)),
    }
}

fn labels(root: &BTreeMap<Str, Str>, leaf: &BTreeMap<Str, Str>) -> Option<BTreeMap<Str, Str>> {
    let mut merged = root.clone();
    for (key, value) in leaf {
        let before = merged.insert(key.clone(), value.clone());
        if before.is_some_and(|before| before != *value) {
            return None;
        }
    }
    Some(merged)
}
