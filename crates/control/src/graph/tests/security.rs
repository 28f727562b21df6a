//! Policies in the graph: what a broken one means, and keys that come later.

use super::*;
use crate::jwks::Keys;
use lateen_model::security::{Action, JwtKeys};

impl World {
    fn policy(&mut self, kind: IstioKind, name: &str, spec: &Value) {
        let written = slim::written(json!({
            "apiVersion": "security.istio.io/v1", "kind": kind.name(),
            "metadata": { "name": name, "namespace": "shop" }, "spec": spec,
        }));
        let source = self.graph.sources.istio(kind);
        self.graph
            .take(source, Delta::Set(Id::new("shop", name), written));
    }

    fn resource(&self, kind: Kind, name: &str) -> Resource {
        let mut all = self.graph.resources(kind);
        let found = all.find(|resource| &*resource.key().name == name);
        found.expect("it is there").clone()
    }

    fn keys_of(&self, name: &str) -> JwtKeys {
        match self.resource(Kind::RequestAuthentication, name) {
            Resource::RequestAuthentication(policy) => policy.rules[0].keys.clone(),
            other => panic!("{other:?}"),
        }
    }
}

/// A policy that was never good is closed; one that was good stays as it was.
fn check(kind: IstioKind, good: &Value, broken: &Value, closed: &str) {
    let mut world = World::new();
    let resource = kind.name();
    world.policy(kind, "never-good", broken);
    assert_eq!(world.pushed(), [format!("+{resource} shop/never-good")]);
    let said = world.notices(kind, "never-good");
    assert!(said.contains(closed), "{said}");
    world.policy(kind, "good", good);
    assert_eq!(world.pushed(), [format!("+{resource} shop/good")]);
    world.policy(kind, "good", broken);
    assert_eq!(world.pushed(), Vec::<String>::new(), "it stays in force");
    let said = world.notices(kind, "good");
    assert!(
        said.starts_with("Error") && !said.contains(closed),
        "{said}"
    );
    world.policy(kind, "never-good", good);
    world.pushed();
    assert!(!world.notices(kind, "never-good").contains("Error"));
}

#[test]
fn a_broken_policy_is_closed_at_first_sight_and_keeps_what_it_meant_later() {
    check(
        IstioKind::AuthorizationPolicy,
        &json!({ "rules": [{ "from": [{ "source": { "principals": ["*"] } }] }] }),
        &json!({ "rules": "all" }),
        "an ALLOW policy that allows nothing",
    );
    check(
        IstioKind::AuthorizationPolicy,
        &json!({ "action": "DENY", "rules": [{ "to": [{ "operation": { "ports": ["1"] } }] }] }),
        &json!({ "action": "DENY", "rules": "all" }),
        "denies everything that it selects",
    );
    check(
        IstioKind::PeerAuthentication,
        &json!({ "mtls": { "mode": "PERMISSIVE" } }),
        &json!({ "mtls": { "mode": "SOMETIMES" } }),
        "counts as STRICT",
    );
    check(
        IstioKind::RequestAuthentication,
        &json!({ "jwtRules": [{ "issuer": "me", "jwksUri": "https://me.example/keys" }] }),
        &json!({ "jwtRules": [{ "issuer": "me", "jwksUri": 7 }] }),
        "every token of its issuers is refused",
    );
}

#[test]
fn the_closed_form_of_a_deny_policy_denies() {
    let mut world = World::new();
    let kind = IstioKind::AuthorizationPolicy;
    world.policy(kind, "a", &json!({ "action": "DENY", "rules": "all" }));
    world.pushed();
    match world.resource(Kind::AuthorizationPolicy, "shop/a") {
        Resource::AuthorizationPolicy(policy) => {
            assert_eq!(policy.action, Action::Deny);
            assert_eq!(policy.rules.len(), 1, "one rule that matches everything");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn keys_arrive_later_and_stay_when_a_fetch_fails() {
    let mut world = World::new();
    let kind = IstioKind::RequestAuthentication;
    let uri = "https://me.example/keys";
    let spec = json!({ "jwtRules": [{ "issuer": "me", "jwksUri": uri }] });
    world.policy(kind, "jwt", &spec);
    assert_eq!(world.pushed(), ["+RequestAuthentication shop/jwt"]);
    assert!(matches!(
        world.keys_of("shop/jwt"),
        JwtKeys::Unavailable { .. }
    ));
    let wanted: Vec<String> = world
        .graph
        .wanted_keys()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(wanted, [uri]);
    let arrive = |world: &mut World, set: Option<&str>, problem: Option<&str>| {
        let keys = Keys {
            set: set.map(Into::into),
            problem: problem.map(Into::into),
        };
        let source = world.graph.sources.keys;
        world.graph.take(source, Delta::Set(Id::new("", uri), keys));
        world.pushed()
    };
    let pushed = arrive(&mut world, Some("{}"), None);
    assert_eq!(pushed, ["+RequestAuthentication shop/jwt"]);
    assert!(matches!(world.keys_of("shop/jwt"), JwtKeys::Inline(set) if &*set == "{}"));
    let pushed = arrive(&mut world, Some("{}"), Some("no answer"));
    assert_eq!(pushed, Vec::<String>::new());
    let said = world.notices(kind, "jwt");
    assert!(said.contains("the last good keys stay"), "{said}");
}

#[test]
fn credentials_are_needed_where_pods_of_gateways_are() {
    let mut world = World::new();
    let needed = |world: &mut World| -> Vec<String> {
        world.graph.commit();
        let needs = world.graph.needs();
        needs.keys().map(ToString::to_string).collect()
    };
    let tls = json!({ "mode": "MUTUAL", "credentialName": "client" });
    let rule = json!({ "host": "reviews", "trafficPolicy": { "tls": tls } });
    world.object(IstioKind::DestinationRule, "out", rule);
    assert!(needed(&mut world).is_empty(), "nothing is a gateway");
    let server = json!({
        "port": { "number": 443, "name": "https", "protocol": "HTTPS" }, "hosts": ["*"],
        "tls": { "mode": "SIMPLE", "credentialName": "server" },
    });
    let gateway = json!({ "selector": { "app": "reviews" }, "servers": [server] });
    world.object(IstioKind::Gateway, "in", gateway);
    assert_eq!(needed(&mut world), ["shop/client", "shop/server"]);
    let pods = world.graph.sources.pods;
    let gone = Delta::Remove(Id::new("shop", "reviews-1"));
    world.graph.take(pods, gone);
    assert!(needed(&mut world).is_empty(), "its last pod is gone");
    world.pod("reviews-2", "10.0.0.2");
    assert_eq!(needed(&mut world), ["shop/client", "shop/server"]);
}
