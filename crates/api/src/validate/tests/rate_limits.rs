//! RateLimitPolicies.

use super::check;
use crate::notice::Severity;
use expect_test::expect;

#[test]
fn good_policies_say_nothing() {
    check(
        "RateLimitPolicy",
        "{selector: {matchLabels: {app: a}}, status: 503, responseHeaders: true, rules: [{name: all, local: {tokens: 10, interval: 1m, burst: 20}}, {match: [{uri: {prefix: /api}, method: {regex: 'P.*'}, headers: {x-a: {}}, route: r}], local: {}, descriptors: [{entries: [{header: {name: x-user}}, {remoteAddress: {}}], limit: {requests: 5, per: minute}}]}, {global: {domain: edge, provider: {host: limits.ns, port: 8081}, failOpen: false, timeout: 50ms, leases: false}, descriptors: [{entries: [{claim: {name: a.b, key: c}}, {principal: {key: who}}, {route: {}}, {destination: {}}, {literal: {value: v}}]}]}]}",
        expect![[r#""#]],
    );
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_cure() {
    check(
        "RateLimitPolicy",
        "{status: 200, rules: [{}, {local: {}, global: {domain: a}}, {local: {}}, {local: {interval: 5s}}, {local: {tokens: 1, burst: 0, interval: 10us}}, {local: {tokens: 1}, descriptors: [{entries: [{route: {}}]}, {entries: [], limit: {requests: 1, per: day}}]}]}",
        expect![[r#"
            Error IST0106 spec.status: 200 does not refuse a request: use 400 to 599
            Error IST0106 spec.rules[0]: has no limit: add local or global
            Error IST0106 spec.rules[1]: local and global exclude each other: keep one
            Error IST0106 spec.rules[2].local.tokens: is missing: say how many requests an interval has, or add descriptors with limits
            Error IST0106 spec.rules[3].local.tokens: is missing: say how many requests an interval has, or add descriptors with limits
            Error IST0106 spec.rules[3].local.tokens: is missing: interval and burst go with it
            Error IST0106 spec.rules[4].local.burst: is 0, so nothing would pass: use 1 or more
            Error IST0106 spec.rules[4].local.interval: is out of bounds: use 1ms to 8760h
            Error IST0106 spec.rules[5].descriptors[0].limit: is missing: a local rule limits each descriptor by itself
            Error IST0106 spec.rules[5].descriptors[1].entries: is empty: add an entry, such as remoteAddress: {}
        "#]],
    );
    check(
        "RateLimitPolicy",
        "{rules: [{global: {domain: a}}, {global: {domain: a, provider: {host: '*.b', port: 0}, timeout: 2m}, descriptors: [{entries: [{}], limit: {requests: 1, per: day}}, {entries: [{route: {}, principal: {}}, {header: {name: 'a b'}}, {claim: {name: a..b}}]}]}, {match: [{uri: {exact: a, prefix: b}, headers: {'a b': {}}, method: {regex: '('}}], local: {tokens: 1}}]}",
        expect![[r#"
            Error IST0106 spec.rules[0].descriptors: is empty, so the service would be asked about nothing: add one, such as entries: [{literal: {value: all}}]
            Error IST0106 spec.rules[1].global.provider.host: cannot be a wildcard: name one host
            Error IST0106 spec.rules[1].global.provider.port: 0 is not a port; use 1 to 65535
            Error IST0106 spec.rules[1].global.timeout: is out of bounds: use 1ms to 60s
            Error IST0106 spec.rules[1].descriptors[0].limit: is for local rules: the service has the limits of global ones
            Error IST0106 spec.rules[1].descriptors[0].entries[0]: must be exactly one of header, remoteAddress, route, principal, claim, destination and literal
            Error IST0106 spec.rules[1].descriptors[1].entries[0]: must be exactly one of header, remoteAddress, route, principal, claim, destination and literal
            Error IST0106 spec.rules[1].descriptors[1].entries[1].header.name: "a b" is not a name of a header
            Error IST0106 spec.rules[1].descriptors[1].entries[2].claim.name: "a..b" is not a name of a claim
            Error IST0106 spec.rules[2].match[0].uri: exact, prefix and regex exclude each other: keep one of them
            Error IST0106 spec.rules[2].match[0].method.regex: "(" is not a valid RE2 expression: unclosed group
            Error IST0106 spec.rules[2].match[0].headers["a b"]: "a b" is not a name
        "#]],
    );
    check(
        "RateLimitPolicy",
        "{}",
        expect![[r#"
        Warning - spec.rules: is empty, so nothing is limited: add a rule
    "#]],
    );
}

/// A misspelt limit must not mean none.
#[test]
fn fields_that_are_none_are_errors() {
    let text = "apiVersion: networking.lateen.dev/v1alpha1\nkind: RateLimitPolicy\nmetadata: {name: a, namespace: ns}\nspec: {rules: [{lokal: {tokens: 1}}]}\n";
    let documents = crate::yaml::parse("f", text);
    let said = &documents[0].notices;
    assert!(documents[0].object.is_none());
    assert!(
        said.iter()
            .any(|n| n.severity == Severity::Error && n.field.contains("lokal")),
        "{said:?}"
    );
}
