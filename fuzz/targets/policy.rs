//! Any text as the spec of an AuthorizationPolicy. What it says of a call does not depend on other policies that are for
//! nobody who calls, nor on which of its rules are in one policy; and what is refused opens no door.
//!
//! The first byte chooses namespace and annotations, the rest is YAML. That compiling takes a bounded time is watched by
//! the fuzzer's own limit.
#![no_main]

#[path = "policy/calls.rs"]
mod calls;

use calls::{CALLS, Call, SETTINGS, ruling};
use lateen_api::meta::Meta;
use lateen_api::notice::any_error;
use lateen_api::object::{Object, from_json};
use lateen_model::decide::authz::{Ruling, Verdict};
use lateen_model::decide::resources::ResourceSet;
use lateen_model::decide::snapshot::Snapshot;
use lateen_model::mesh::{Role, Scope};
use lateen_model::name::Visibility;
use lateen_model::resource::Resource;
use lateen_model::security::{
    Action, Attribute, AuthorizationPolicy, Condition, Operation, Rule, Selection, Source,
};
use lateen_translate::mesh::Mesh;
use lateen_translate::policy::closed;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use std::collections::BTreeMap;

type Str = std::sync::Arc<str>;

/// Copies of the policy that can never match, and other such policies.
const OTHERS: usize = 50;

/// Most rules of a policy that are also tried one by one.
const SINGLE: usize = 6;

/// A port that nobody calls.
const UNUSED: &str = "1";

/// Bytes of policies that say what the policy says.
const LARGE: usize = 200_000;

/// The root namespace.
const ROOT: &str = "istio-system";

/// Annotation that keeps a policy from being enforced.
const DRY_RUN: &str = "istio.io/dry-run";

fuzz_target!(|data: &[u8]| {
    let Some((options, text)) = data.split_first() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let Ok((spec, _)) = lateen_api::yaml::plain(text) else {
        return;
    };
    let dry = match options >> 1 & 3 {
        0 | 1 => json!({}),
        2 => json!({DRY_RUN: "true"}),
        _ => json!({DRY_RUN: "maybe"}),
    };
    let root = options & 1 == 1;
    let object = json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {
            "name": "p",
            "namespace": if root { ROOT } else { "default" },
            "creationTimestamp": "2025-01-01T00:00:00Z",
            "annotations": dry,
        },
        "spec": spec,
    });
    let mesh = Mesh::default();
    match good(&object, &mesh) {
        Some(policy) => {
            among_others(&policy);
            one_by_one(&policy);
        }
        None => no_open_door(&object, &mesh),
    }
});

/// The policy that an object means; absent: it is refused.
fn good(object: &Value, mesh: &Mesh) -> Option<AuthorizationPolicy> {
    let (read, notices) = from_json(object.clone());
    assert_eq!(read.is_none(), any_error(&notices), "{notices:?}");
    let read = read?;
    let found = any_error(&lateen_api::validate::validate(&read));
    let (resources, notices) = lateen_translate::alone(&read, mesh);
    assert!(!found || any_error(&notices), "what is found wrong counts");
    assert_eq!(resources.is_empty(), any_error(&notices), "{notices:?}");
    resources.into_iter().find_map(|resource| match resource {
        Resource::AuthorizationPolicy(policy) => Some(policy),
        _ => None,
    })
}

fn snapshot(policies: impl IntoIterator<Item = AuthorizationPolicy>, scope: &Scope) -> Snapshot {
    let policies = policies.into_iter().map(Resource::AuthorizationPolicy);
    let settings = Resource::MeshSettings(SETTINGS.clone());
    Snapshot::build(&ResourceSet::of(policies.chain([settings])), scope)
}

fn sidecar(labels: BTreeMap<Str, Str>) -> Scope {
    Scope {
        on_demand: false,
        role: Role::Sidecar,
        pod: "web-1".into(),
        namespace: "default".into(),
        labels,
        addresses: vec![calls::ADDRESS],
        service_account: "default".into(),
        workload_name: "web".into(),
        canonical_name: "web".into(),
        canonical_revision: "latest".into(),
        cluster: "Kubernetes".into(),
        domain: "cluster.local".into(),
    }
}

/// The proxy of a Gateway or of a GatewayClass that a policy of `namespace` is attached to; absent: a policy for this is
/// for no proxy that there is.
fn gateway(namespace: &str, kind: &str, name: &str) -> Option<Scope> {
    let (label, namespace) = match kind {
        "Gateway" => ("gateway-name", namespace),
        "GatewayClass" if namespace == ROOT => ("gateway-class-name", "default"),
        _ => return None,
    };
    let label = format!("gateway.networking.k8s.io/{label}");
    Some(Scope {
        on_demand: false,
        role: Role::Gateway,
        namespace: namespace.into(),
        ..sidecar([(label.into(), name.into())].into())
    })
}

/// A proxy that a policy is for.
fn scope(policy: &AuthorizationPolicy) -> Option<Scope> {
    let Selection { labels, targets } = &policy.selection;
    match targets.first() {
        None => Some(sidecar(labels.clone())),
        Some(target) => gateway(&policy.origin.namespace, &target.kind, &target.name),
    }
}

/// Never true of a call.
fn never() -> Condition {
    Condition {
        attribute: Attribute::DestinationPort,
        values: vec![UNUSED.into()],
        not_values: Vec::new(),
    }
}

/// True of every call.
fn always() -> Condition {
    Condition {
        attribute: Attribute::DestinationIp,
        values: vec![calls::ADDRESS.to_string().into()],
        not_values: Vec::new(),
    }
}

/// Policies that match no call. Half of them say what the policy says, so that they are found by the same values.
fn others(policy: &AuthorizationPolicy) -> Vec<AuthorizationPolicy> {
    // Aliases make much of little text.
    let size = serde_json::to_string(policy).map_or(0, |text| text.len());
    let alike = (LARGE / (size + 1)).clamp(1, OTHERS / 2);
    let one = |n: usize| {
        let mut other = policy.clone();
        let created = policy.origin.created;
        other.origin.name = format!("o{n}").into();
        other.origin.created = if n.is_multiple_of(3) {
            created - 1
        } else {
            created + 1
        };
        other.selection = Selection::default();
        other.visibility = Visibility::Public;
        if n < alike {
            other.rules.iter_mut().for_each(|r| r.when.push(never()));
            return other;
        }
        other.rules = vec![foreign_rule(n)];
        other.dry_run = false;
        // One more ALLOW policy closes where there was none.
        let allows = policy.action == Action::Allow && !policy.dry_run;
        other.action = match n % 4 {
            0 if allows => Action::Allow,
            1 => Action::Audit,
            2 => Action::Custom {
                provider: "opa".into(),
            },
            _ => Action::Deny,
        };
        other
    };
    (0..OTHERS).map(one).collect()
}

/// A rule of words that policies of the corpus have, too.
fn foreign_rule(n: usize) -> Rule {
    let texts = |list: &[&str]| list.iter().map(|text| (*text).into()).collect::<Vec<Str>>();
    let mut source = Source::default();
    match n % 3 {
        0 => source.namespaces = texts(&["default", "web"]),
        1 => source.principals = texts(&["cluster.local/ns/default/sa/sleep"]),
        _ => source.ip_blocks = vec!["10.0.0.0/8".parse().expect("a network")],
    }
    let mut operation = Operation::default();
    match n % 5 {
        0 => operation.paths = vec![format!("/a{n}").into()],
        1 => operation.hosts = texts(&["a.example", "*.example"]),
        2 => operation.methods = texts(&["GET"]),
        3 => operation.paths = texts(&["/a/*", "/{*}/b"]),
        _ => operation.ports = vec![8080],
    }
    Rule {
        from: vec![source],
        to: vec![operation],
        when: vec![never()],
    }
}

/// What counts of a ruling: the words name other policies, and of rules that match any may be named.
fn counts(ruling: Ruling) -> impl PartialEq + std::fmt::Debug {
    let verdict = match ruling.verdict {
        Verdict::Allow => Ok(Vec::new()),
        Verdict::Ask(questions) => Ok(questions),
        Verdict::Deny(denied) => Err(denied.policy.map(|matched| matched.policy)),
    };
    let shadow = ruling.shadow.map(|shadow| {
        let by = shadow.matched.map(|matched| matched.policy);
        (shadow.allowed, by)
    });
    (verdict, ruling.audits, shadow)
}

/// Many rules share what is written then, so those of the policy are found by what is added to them.
fn among_others(policy: &AuthorizationPolicy) {
    let Some(scope) = scope(policy) else {
        return;
    };
    let alone = snapshot([policy.clone()], &scope);
    let mut other = policy.clone();
    other.rules.iter_mut().for_each(|r| r.when.push(always()));
    let among = snapshot(others(policy).into_iter().chain([other]), &scope);
    for (at, call) in CALLS.iter().enumerate() {
        assert_eq!(
            counts(ruling(&alone, call)),
            counts(ruling(&among, call)),
            "call {at}: {policy:?}"
        );
    }
}

fn passes(snapshot: &Snapshot, call: &Call) -> bool {
    ruling(snapshot, call).verdict == Verdict::Allow
}

/// A policy matches when one of its rules does.
fn one_by_one(policy: &AuthorizationPolicy) {
    let rules = &policy.rules;
    if policy.dry_run || policy.action == Action::Audit || !(2..=SINGLE).contains(&rules.len()) {
        return;
    }
    let Some(scope) = scope(policy) else {
        return;
    };
    let whole = snapshot([policy.clone()], &scope);
    let single = rules.iter().map(|rule| {
        let rules = vec![rule.clone()];
        let policy = AuthorizationPolicy {
            rules,
            ..policy.clone()
        };
        snapshot([policy], &scope)
    });
    let single: Vec<Snapshot> = single.collect();
    for (at, call) in CALLS.iter().enumerate() {
        let mut each = single.iter().map(|one| passes(one, call));
        let want = match policy.action {
            Action::Allow => each.any(|passes| passes),
            _ => each.all(|passes| passes),
        };
        assert_eq!(passes(&whole, call), want, "call {at}: {policy:?}");
    }
}

/// Whoever a refused policy may have been for lets nobody in, unless it was never to be enforced.
fn no_open_door(object: &Value, mesh: &Mesh) {
    let meta = Meta::of(object);
    let written = &object["spec"];
    let as_read = match from_json(object.clone()).0 {
        Some(Object::AuthorizationPolicy(config)) => serde_json::to_value(&config.spec).ok(),
        _ => None,
    };
    let spec = as_read.as_ref().unwrap_or(written);
    let resources = closed("AuthorizationPolicy", &meta, spec, mesh);
    let dry = meta.annotations.get(DRY_RUN).is_some_and(|t| t == "true");
    if dry || written["action"] == "AUDIT" {
        return;
    }
    let settings = Resource::MeshSettings(SETTINGS.clone());
    let set = ResourceSet::of(resources.into_iter().chain([settings]));
    for scope in concerned(&meta.namespace, written) {
        let snapshot = Snapshot::build(&set, &scope);
        for (at, call) in CALLS.iter().enumerate() {
            let denied = matches!(ruling(&snapshot, call).verdict, Verdict::Deny(_));
            assert!(denied, "call {at} of {scope:?} passes: {written}");
        }
    }
}

/// Proxies that a spec may have been for, as far as it can be read; what cannot is for everybody.
fn concerned(namespace: &str, spec: &Value) -> Vec<Scope> {
    let many = spec["targetRefs"].as_array().into_iter().flatten();
    let one = Some(&spec["targetRef"]).filter(|target| !target.is_null());
    let targets: Vec<&Value> = many.chain(one).collect();
    let mut all = Vec::new();
    if !matches!(spec["targetRefs"], Value::Null | Value::Array(_)) {
        all.push(sidecar(BTreeMap::new()));
    }
    for target in &targets {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        let name = target["name"].as_str();
        let name = name.filter(|name| !name.is_empty() && name.chars().all(plain));
        match (target["kind"].as_str(), name) {
            (Some(kind @ ("Gateway" | "GatewayClass")), Some(name)) => {
                all.extend(gateway(namespace, kind, name));
            }
            // For waypoints.
            (Some("Service" | "ServiceEntry"), Some(_)) => {}
            _ => all.push(sidecar(BTreeMap::new())),
        }
    }
    if targets.is_empty() || !spec["selector"].is_null() {
        let labels = spec["selector"]["matchLabels"].as_object();
        let labels = labels.into_iter().flatten().filter_map(|(key, value)| {
            let value = value.as_str().unwrap_or_default();
            // No workload has a label with a star: its author meant any.
            let value = if value.contains('*') { "any" } else { value };
            (value.len() <= 63).then(|| (key.as_str().into(), value.into()))
        });
        all.push(sidecar(labels.collect()));
    }
    all
}
