//! Cases of the three security kinds: text in, resources and notices out.

use super::closed;
use crate::mesh::Mesh;
use crate::request_authentication::{Supply, supply, wanted};
use expect_test::{Expect, expect};
use lateen_api::meta::Meta;
use lateen_api::notice::Subject;
use lateen_api::object::Object;
use lateen_model::resource::Resource;
use serde_json::Value;

/// Drops what is empty, absent or false, so that cases show what is said.
fn pruned(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(pruned);
            map.retain(|_, below| match below {
                Value::Null | Value::Bool(false) => false,
                Value::Array(list) => !list.is_empty(),
                Value::Object(map) => !map.is_empty(),
                _ => true,
            });
        }
        Value::Array(list) => list.iter_mut().for_each(pruned),
        _ => {}
    }
}

fn shown(resources: &[Resource]) -> String {
    let one = |resource: &Resource| {
        let mut value = serde_json::to_value(resource).expect("JSON");
        for (_, inside) in value.as_object_mut().into_iter().flatten() {
            inside["origin"] = Value::Null;
        }
        pruned(&mut value);
        format!("{value}\n")
    };
    resources.iter().map(one).collect()
}

/// Metadata and spec of an object of one of the kinds.
fn object(kind: &str, meta: &str, spec: &str) -> lateen_api::yaml::Document {
    let text = format!(
        "apiVersion: security.istio.io/v1beta1\nkind: {kind}\nmetadata: {meta}\nspec: {spec}\n"
    );
    let mut documents = lateen_api::yaml::parse("f", &text);
    documents.pop().expect("one document")
}

fn translated(kind: &str, meta: &str, spec: &str) -> (Object, Vec<Resource>, String) {
    let document = object(kind, meta, spec);
    assert!(document.notices.is_empty(), "{:?}", document.notices);
    let object = document.object.expect("read");
    let (resources, notices) = crate::alone(&object, &Mesh::default());
    let notices = notices.iter();
    let said = notices.map(|n| format!("{}: {}: {}\n", n.severity, n.field, n.message));
    (object, resources, said.collect())
}

/// Translates an object `ns/a` with this spec.
fn check(kind: &str, spec: &str, want: Expect) {
    check_in(kind, "{name: a, namespace: ns}", spec, want);
}

fn check_in(kind: &str, meta: &str, spec: &str, want: Expect) {
    let (_, resources, said) = translated(kind, meta, spec);
    want.assert_eq(&format!("{}{said}", shown(&resources)));
}

/// What an object `ns/a` means that is broken and never was good.
fn check_closed(kind: &str, spec: &str, want: Expect) {
    let document = object(kind, "{name: a, namespace: ns}", spec);
    let meta = Meta::of(&document.value);
    let resources = closed(kind, &meta, &document.value["spec"], &Mesh::default());
    want.assert_eq(&shown(&resources));
}

#[test]
fn modes_of_mutual_tls() {
    check(
        "PeerAuthentication",
        "{}",
        expect![[r#"
        {}
    "#]],
    );
    check(
        "PeerAuthentication",
        "{selector: {matchLabels: {app: a}}, mtls: {mode: STRICT}, portLevelMtls: {8080: {mode: DISABLE}, 8081: {mode: UNSET}, 8082: {mode: PERMISSIVE}}}",
        expect![[r#"
            {"PeerAuthentication":{"mode":"Strict","ports":{"8080":"Disable","8082":"Permissive"},"selector":{"app":"a"}}}
        "#]],
    );
    check_in(
        "PeerAuthentication",
        "{name: default, namespace: istio-system}",
        "{selector: {matchLabels: {app: a}}, mtls: {mode: STRICT}}",
        expect![[r#"
            Warning: spec.selector: has no effect in the root namespace, whose objects are for the whole mesh: remove it, or move the object to the workloads' namespace
        "#]],
    );
}

#[test]
fn authorization() {
    check(
        "AuthorizationPolicy",
        "{}",
        expect![[r#"
        {"AuthorizationPolicy":{"action":"Allow","visibility":{"Namespaces":["ns"]}}}
    "#]],
    );
    check(
        "AuthorizationPolicy",
        "{rules: [{}]}",
        expect![[r#"
        {"AuthorizationPolicy":{"action":"Allow","rules":[{}],"visibility":{"Namespaces":["ns"]}}}
    "#]],
    );
    check_in(
        "AuthorizationPolicy",
        "{name: a, namespace: istio-system, annotations: {istio.io/dry-run: 'true'}}",
        "{action: DENY, rules: [{to: [{operation: {ports: ['80']}}]}]}",
        expect![[r#"
            {"AuthorizationPolicy":{"action":"Deny","dry_run":true,"rules":[{"to":[{"ports":[80]}]}],"visibility":"Public"}}
        "#]],
    );
    check(
        "AuthorizationPolicy",
        "{selector: {matchLabels: {app: a}}, action: CUSTOM, provider: {name: p}, rules: [{from: [{source: {serviceAccounts: [sleep, b/c], notIpBlocks: [10.0.0.1, 10.1.0.0/16, '::1']}}, {source: {principals: ['spiffe://cluster.local/ns/a/sa/b', '*']}}], to: [{operation: {hosts: [A.b], notPaths: ['/x/{*}'], notPorts: ['80']}}], when: [{key: 'request.headers[X-A]', values: [b]}, {key: 'request.auth.claims[a][b.c]', notValues: [d]}, {key: source.serviceAccount, values: [x]}, {key: remote.ip, values: [10.0.0.0/8]}]}]}",
        expect![[r#"
            {"AuthorizationPolicy":{"action":{"Custom":{"provider":"p"}},"rules":[{"from":[{"not_ip_blocks":["10.0.0.1/32","10.1.0.0/16","::1/128"],"service_accounts":["ns/sleep","b/c"]},{"principals":["cluster.local/ns/a/sa/b","*"]}],"to":[{"hosts":["A.b"],"not_paths":["/x/{*}"],"not_ports":[80]}],"when":[{"attribute":{"RequestHeader":"x-a"},"values":["b"]},{"attribute":{"RequestClaim":["a","b.c"]},"not_values":["d"]},{"attribute":"SourceServiceAccount","values":["ns/x"]},{"attribute":"RemoteIp","values":["10.0.0.0/8"]}]}],"selection":{"labels":{"app":"a"}},"visibility":{"Namespaces":["ns"]}}}
            Warning: spec.rules[0].from[1].source.principals[0]: is read as "cluster.local/ns/a/sa/b": leave spiffe:// out
        "#]],
    );
    check(
        "AuthorizationPolicy",
        "{rules: [{when: [{key: experimental.envoy.filters.x, values: [z]}]}]}",
        expect![[r#"
            Error: spec.rules[0].when[0].key: "experimental.envoy.filters.x" is an attribute of Envoy's filters, which are not there: remove the condition
        "#]],
    );
}

#[test]
fn tokens() {
    let x = "A".repeat(43);
    let set = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}]}}"#);
    check(
        "RequestAuthentication",
        &format!(
            "{{targetRefs: [{{kind: Service, name: s}}], jwtRules: [{{issuer: a, jwks: '{set}', audiences: [b], fromHeaders: [{{name: X-Token, prefix: 'T '}}], fromParams: [t], fromCookies: [c], forwardOriginalToken: true, outputPayloadToHeader: X-Payload, outputClaimToHeaders: [{{header: X-Sub, claim: sub}}], spaceDelimitedClaims: [x], presence: REQUIRED}}, {{issuer: 'https://i.x/', jwksUri: 'https://i.x/keys'}}, {{issuer: 'https://i.x/'}}, {{issuer: somebody}}]}}"
        ),
        expect![[r#"
            {"RequestAuthentication":{"rules":[{"audiences":["b"],"claim_headers":[{"claim":"sub","header":"x-sub"}],"forward_original":true,"from_cookies":["c"],"from_headers":[{"name":"x-token","prefix":"T "}],"from_params":["t"],"issuer":"a","keys":{"Inline":"{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}]}"},"payload_header":"x-payload","space_delimited":["x"]},{"issuer":"https://i.x/","keys":{"Unavailable":{"reason":"not fetched yet","uri":"https://i.x/keys"}}},{"issuer":"https://i.x/","keys":{"Unavailable":{"reason":"not fetched yet","uri":"https://i.x/.well-known/openid-configuration"}}},{"issuer":"somebody","keys":{"Unavailable":{"reason":"jwks and jwksUri are missing, and the issuer is no address","uri":""}}}],"selection":{"targets":[{"kind":"Service","name":"s"}]},"visibility":{"Namespaces":["ns"]}}}
            Warning: spec.jwtRules[3].jwksUri: no key can be found: jwks and jwksUri are missing, and the issuer "somebody" is not an address of keys: it begins with https:// or http://
            Warning: spec.jwtRules[0].presence: is not in force yet: it has no effect: require a token by an AuthorizationPolicy with requestPrincipals
        "#]],
    );
}

#[test]
fn keys_are_supplied_when_they_were_fetched() {
    let spec = "{jwtRules: [{issuer: a, jwksUri: 'https://one'}, {issuer: b, jwksUri: 'https://two'}, {issuer: c, jwksUri: 'https://three'}, {issuer: 'https://four'}]}";
    let (object, mut resources, _) =
        translated("RequestAuthentication", "{name: a, namespace: ns}", spec);
    let uris: Vec<String> = wanted(resources.iter()).map(ToString::to_string).collect();
    expect!["https://one https://two https://three https://four/.well-known/openid-configuration"]
        .assert_eq(&uris.join(" "));
    let subject = Subject::new("RequestAuthentication", object.meta());
    let notices = supply(&subject, &mut resources, |uri| {
        let problem = Some("no answer".into());
        match uri {
            "https://one" => Some(Supply {
                set: Some("{1}".into()),
                problem: None,
            }),
            "https://two" => Some(Supply { set: None, problem }),
            "https://three" => Some(Supply {
                set: Some("{3}".into()),
                problem,
            }),
            _ => None,
        }
    });
    let said: String = notices.iter().map(|n| format!("{n}\n")).collect();
    expect![[r#"
        {"RequestAuthentication":{"rules":[{"issuer":"a","keys":{"Inline":"{1}"}},{"issuer":"b","keys":{"Unavailable":{"reason":"no answer","uri":"https://two"}}},{"issuer":"c","keys":{"Inline":"{3}"}},{"issuer":"https://four","keys":{"Unavailable":{"reason":"not fetched yet","uri":"https://four/.well-known/openid-configuration"}}}],"visibility":{"Namespaces":["ns"]}}}
        Warning: RequestAuthentication ns/a: spec.jwtRules[1].jwksUri: no keys from https://two: no answer; tokens of this issuer are refused until there are keys
        Warning: RequestAuthentication ns/a: spec.jwtRules[2].jwksUri: no keys from https://three: no answer; the last good keys stay in use
    "#]].assert_eq(&format!("{}{said}", shown(&resources)));
}

/// What cannot be understood never lets more through than what was meant.
#[test]
fn broken_policies_close() {
    check_closed(
        "AuthorizationPolicy",
        "{selector: {matchLabels: {app: a}}, rules: [{form: []}]}",
        expect![[r#"
            {"AuthorizationPolicy":{"action":"Allow","selection":{"labels":{"app":"a"}},"visibility":{"Namespaces":["ns"]}}}
        "#]],
    );
    check_closed(
        "AuthorizationPolicy",
        "{action: DENY, rules: 5}",
        expect![[r#"
        {"AuthorizationPolicy":{"action":"Deny","rules":[{}],"visibility":{"Namespaces":["ns"]}}}
    "#]],
    );
    check_closed(
        "AuthorizationPolicy",
        "{action: DNEY, selector: 5}",
        expect![[r#"
            {"AuthorizationPolicy":{"action":"Deny","rules":[{}],"visibility":{"Namespaces":["ns"]}}}
        "#]],
    );
    // What no workload can have, or nobody can be attached to, was meant to be something else.
    for spec in [
        "{selector: {matchLabels: {app: '*'}}, rules: [{}]}",
        "{selector: {matchLabels: {'*': a}}, rules: [{}]}",
        "{targetRefs: [{kind: Gatway, group: gateway.networking.k8s.io, name: a}], rules: [{}]}",
        "{targetRef: {kind: Gateway, group: gateway.networking.k8s.io, name: a}, selector: {matchLabels: {app: a}}, rules: [{}]}",
        "{targetRef: {kind: Gateway}, rules: [{}]}",
        "{targetRef: {kind: Gateway, name: '*'}, rules: [{}]}",
        "{targetRef: {kind: 5}, selector: {matchLabels: {app: a}}, rules: [{}]}",
        "{targetRefs: 5, selector: {matchLabels: {app: a}}, rules: [{}]}",
    ] {
        check_closed(
            "AuthorizationPolicy",
            spec,
            expect![[r#"
            {"AuthorizationPolicy":{"action":"Allow","visibility":{"Namespaces":["ns"]}}}
        "#]],
        );
    }
    check_closed(
        "AuthorizationPolicy",
        "{action: AUDIT, rules: 5}",
        expect![[r#""#]],
    );
    check_closed(
        "RequestAuthentication",
        "{jwtRules: [{issuer: a, audience: b, fromParams: [t], jwksUri: 'https://x'}, {issuer: b, fromHeaders: 5}]}",
        expect![[r#"
            {"RequestAuthentication":{"rules":[{"from_params":["t"],"issuer":"a","keys":{"Unavailable":{"reason":"the RequestAuthentication is broken","uri":""}}},{"issuer":"b","keys":{"Unavailable":{"reason":"the RequestAuthentication is broken","uri":""}}}],"visibility":{"Namespaces":["ns"]}}}
        "#]],
    );
    check_closed(
        "PeerAuthentication",
        "{mtls: {mode: STRIKT}}",
        expect![[r#"
        {"PeerAuthentication":{"mode":"Strict"}}
    "#]],
    );
    check_closed("VirtualService", "{}", expect![[r#""#]]);
}
