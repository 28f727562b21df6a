//! Cases of `virtual_service`: text in, observable result out.

mod delegate;
mod effects;

use super::*;
use expect_test::{Expect, expect};
use lateen_api::object::Object;
use lateen_model::route::{HttpAction, HttpRoute, L4Match};
use std::fmt::Write;

/// Translates a VirtualService `ns/a` with this spec (YAML), and compares a compact text of what comes out.
fn check(spec: &str, want: Expect) {
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: a, namespace: ns}}\nspec: {spec}\n"
    );
    let mut said = String::new();
    for document in lateen_api::yaml::parse("f", &text) {
        assert!(document.notices.is_empty(), "{:?}", document.notices);
        let Some(Object::VirtualService(config)) = document.object else {
            panic!("not a VirtualService");
        };
        let mesh = Mesh::default();
        let (resources, notices) = virtual_service(Inputs {
            config: &config,
            mesh: &mesh,
            delegates: None,
        });
        for resource in resources {
            let Resource::RouteTable(table) = resource else {
                panic!("not a route table");
            };
            said.push_str(&table_text(&table));
        }
        for n in notices {
            writeln!(said, "{}: {}: {}", n.severity, n.field, n.message).expect("text");
        }
    }
    want.assert_eq(&said);
}

fn table_text(table: &RouteTable) -> String {
    let mut text = format!(
        "hosts {:?} gateways {:?} {:?}\n",
        table.hosts, table.gateways, table.visibility
    );
    for rule in &table.http {
        text.push_str(&http_text(rule));
    }
    for rule in &table.tls {
        writeln!(
            text,
            "tls {} -> {:?}",
            l4_text(&rule.matches),
            to_text(&rule.destinations)
        )
        .expect("text");
    }
    for rule in &table.tcp {
        writeln!(
            text,
            "tcp {} -> {:?}",
            l4_text(&rule.matches),
            to_text(&rule.destinations)
        )
        .expect("text");
    }
    text
}

fn http_text(rule: &HttpRoute) -> String {
    let mut text = format!("http {:?}\n", rule.name);
    for m in &rule.matches {
        writeln!(text, "  if {}", compact(&format!("{m:?}"))).expect("text");
    }
    match &rule.action {
        HttpAction::Forward(all) => {
            for to in all {
                writeln!(
                    text,
                    "  to {} weight {} {:?}",
                    name(&to.destination),
                    to.weight,
                    to.headers.request
                )
                .expect("text");
            }
        }
        other => writeln!(text, "  {other:?}").expect("text"),
    }
    if let Some(rewrite) = &rule.rewrite {
        writeln!(text, "  {rewrite:?}").expect("text");
    }
    if let Some(timeout) = rule.timeout {
        writeln!(text, "  timeout {timeout:?}").expect("text");
    }
    if let Some(retries) = &rule.retries {
        writeln!(text, "  {retries:?}").expect("text");
    }
    if rule.headers != Default::default() {
        writeln!(text, "  {:?}", rule.headers).expect("text");
    }
    if let Some(fault) = &rule.fault {
        writeln!(text, "  {fault:?}").expect("text");
    }
    for mirror in &rule.mirrors {
        let to = name(&mirror.destination);
        writeln!(text, "  mirror {to} {:?}", mirror.share).expect("text");
    }
    if let Some(cors) = &rule.cors {
        writeln!(text, "  {cors:?}").expect("text");
    }
    if let Some(from) = &rule.delegated {
        let (name, index, root) = (&from.origin.name, from.index, from.root);
        writeln!(text, "  written in {name}#{index} for #{root}").expect("text");
    }
    text
}

/// A debug text without the parts that say nothing.
fn compact(text: &str) -> String {
    let mut text = text.to_owned();
    for empty in [
        "name: \"\", ",
        "uri: None, ",
        "ignore_uri_case: false, ",
        "scheme: None, ",
        "method: None, ",
        "authority: None, ",
        "without_headers: {}, ",
        "headers: {}, ",
        "query: {}, ",
        "port: None, ",
        "source_labels: {}, ",
        "source_namespace: None, ",
        "gateways: [], ",
        "claims: []",
    ] {
        text = text.replace(empty, "");
    }
    text
}

fn name(to: &Destination) -> String {
    let subset = to
        .subset
        .as_deref()
        .map(|s| format!("/{s}"))
        .unwrap_or_default();
    let port = to.port.map(|p| format!(":{p}")).unwrap_or_default();
    format!("{}{subset}{port}", to.host)
}

fn l4_text(matches: &[L4Match]) -> String {
    matches
        .iter()
        .map(|m| format!("{:?} {:?} {:?}", m.sni_hosts, m.destination_subnets, m.port))
        .collect::<Vec<_>>()
        .join(" or ")
}

fn to_text(all: &[lateen_model::route::WeightedDestination]) -> Vec<String> {
    all.iter()
        .map(|to| format!("{}*{}", name(&to.destination), to.weight))
        .collect()
}

#[test]
fn short_names_are_of_the_rules_namespace() {
    check(
        "{hosts: [Reviews, 'b.other.svc.cluster.local'], http: [{name: r, route: [{destination: {host: reviews, subset: v1, port: {number: 9080}}}]}], exportTo: ['.', x]}",
        expect![[r#"
            hosts ["reviews.ns.svc.cluster.local", "b.other.svc.cluster.local"] gateways ["mesh"] Namespaces(["ns", "x"])
            http "r"
              to reviews.ns.svc.cluster.local/v1:9080 weight 1 HeaderEdit { set: [], add: [], remove: [] }
        "#]],
    );
}

#[test]
fn gateways_are_qualified() {
    check(
        "{hosts: ['*'], gateways: [g, other/h], http: [{match: [{gateways: [g], port: 80}], route: [{destination: {host: a}}]}]}",
        expect![[r#"
            hosts ["*"] gateways ["ns/g", "other/h"] Public
            http ""
              if HttpMatch { port: Some(80), gateways: ["ns/g"],  }
              to a.ns.svc.cluster.local weight 1 HeaderEdit { set: [], add: [], remove: [] }
        "#]],
    );
}

#[test]
fn weights() {
    check(
        "{hosts: [a], http: [{match: [{}], route: [{destination: {host: a}, weight: 90}, {destination: {host: b}, weight: 10}, {destination: {host: c}}]}, {route: [{destination: {host: a}, weight: 0}]}]}",
        expect![[r#"
            hosts ["a.ns.svc.cluster.local"] gateways ["mesh"] Public
            http ""
              if HttpMatch {  }
              to a.ns.svc.cluster.local weight 90 HeaderEdit { set: [], add: [], remove: [] }
              to b.ns.svc.cluster.local weight 10 HeaderEdit { set: [], add: [], remove: [] }
            http ""
              to a.ns.svc.cluster.local weight 1 HeaderEdit { set: [], add: [], remove: [] }
        "#]],
    );
}

#[test]
fn conditions() {
    check(
        "{hosts: [a], http: [{match: [{uri: {prefix: /A}, ignoreUriCase: true, headers: {End-User: {exact: jason}, cookie: {regex: '.*x.*'}, x: {}}, withoutHeaders: {z: {}}, queryParams: {q: {exact: ''}}, method: {exact: GET}, authority: {prefix: a}, sourceLabels: {app: b}, sourceNamespace: other}, {uri: {}}], route: [{destination: {host: a}}]}]}",
        expect![[r#"
            hosts ["a.ns.svc.cluster.local"] gateways ["mesh"] Public
            http ""
              if HttpMatch { uri: Some(Prefix("/A")), ignore_uri_case: true, method: Some(Exact("GET")), authority: Some(Prefix("a")), headers: {"cookie": Regex(Pattern { source: ".*x.*", compiled: Regex("^(?:.*x.*)$") }), "end-user": Exact("jason"), "x": Present}, without_headers: {"z": Present}, query: {"q": Exact("")}, source_labels: {"app": "b"}, source_namespace: Some("other"),  }
              if HttpMatch {  }
              to a.ns.svc.cluster.local weight 1 HeaderEdit { set: [], add: [], remove: [] }
        "#]],
    );
    check(
        "{hosts: [a], http: [{match: [{headers: {uri: {exact: /}}}], route: [{destination: {host: a}}]}]}",
        expect![[r#"
            hosts ["a.ns.svc.cluster.local"] gateways ["mesh"] Public
            http ""
              if HttpMatch {  }
              to a.ns.svc.cluster.local weight 1 HeaderEdit { set: [], add: [], remove: [] }
            Warning: spec.http[0].match[0].headers.uri: is ignored, as in Istio: use match.uri
        "#]],
    );
}

#[test]
fn actions() {
    check(
        "{hosts: [a], http: [{match: [{}], redirect: {uri: /x, scheme: https, redirectCode: 308}}, {match: [{}], redirect: {authority: b}}, {match: [{}], directResponse: {status: 503, body: {bytes: aGk=}}}, {directResponse: {status: 200, body: {string: ok}}}]}",
        expect![[r#"
            hosts ["a.ns.svc.cluster.local"] gateways ["mesh"] Public
            http ""
              if HttpMatch {  }
              Redirect(Redirect { uri: Some("/x"), prefix: None, authority: None, scheme: Some("https"), port: Kept, status: 308 })
            http ""
              if HttpMatch {  }
              Redirect(Redirect { uri: None, prefix: None, authority: Some("b"), scheme: None, port: Kept, status: 301 })
            http ""
              if HttpMatch {  }
              Direct(DirectResponse { status: 503, body: [104, 105] })
            http ""
              Direct(DirectResponse { status: 200, body: [111, 107] })
        "#]],
    );
}

#[test]
fn changes_and_bounds() {
    check(
        "{hosts: [a], http: [{route: [{destination: {host: a}, headers: {request: {add: {x: '1'}}}}], rewrite: {uri: /new}, timeout: 1.5s, retries: {attempts: 3, perTryTimeout: 2s, retryOn: 'gateway-error, 503'}, headers: {request: {set: {Host: b, w: '2'}, remove: [z]}}}]}",
        expect![[r#"
            hosts ["a.ns.svc.cluster.local"] gateways ["mesh"] Public
            http ""
              to a.ns.svc.cluster.local weight 1 HeaderEdit { set: [], add: [("x", "1")], remove: [] }
              Rewrite { uri: Some("/new"), authority: Some("b"), regex: None }
              timeout 1.5s
              RetryPolicy { attempts: 3, per_try_timeout: Some(2s), retry_on: ["gateway-error", "503"], backoff: None, ignore_previous_hosts: true, remote_localities: false, careful: false }
              HeaderOperations { request: HeaderEdit { set: [("w", "2")], add: [], remove: ["z"] }, response: HeaderEdit { set: [], add: [], remove: [] } }
        "#]],
    );
    check(
        "{hosts: [a], http: [{route: [{destination: {host: a}}], timeout: 0s, retries: {attempts: 0}}]}",
        expect![[r#"
            hosts ["a.ns.svc.cluster.local"] gateways ["mesh"] Public
            http ""
              to a.ns.svc.cluster.local weight 1 HeaderEdit { set: [], add: [], remove: [] }
              RetryPolicy { attempts: 0, per_try_timeout: None, retry_on: ["connect-failure", "refused-stream", "unavailable", "cancelled"], backoff: None, ignore_previous_hosts: true, remote_localities: false, careful: true }
        "#]],
    );
    check(
        "{hosts: [a], http: [{route: [{destination: {host: a}}], retries: {attempts: 2}}]}",
        expect![[r#"
            hosts ["a.ns.svc.cluster.local"] gateways ["mesh"] Public
            http ""
              to a.ns.svc.cluster.local weight 1 HeaderEdit { set: [], add: [], remove: [] }
              RetryPolicy { attempts: 2, per_try_timeout: None, retry_on: ["connect-failure", "refused-stream", "unavailable", "cancelled"], backoff: None, ignore_previous_hosts: true, remote_localities: false, careful: true }
        "#]],
    );
}

#[test]
fn l4_rules() {
    check(
        "{hosts: ['*.example.com'], tls: [{match: [{sniHosts: [A.example.com], port: 443}], route: [{destination: {host: b}}]}], tcp: [{match: [{port: 9000, destinationSubnets: [10.0.0.0/8]}], route: [{destination: {host: a, port: {number: 1}}, weight: 1}, {destination: {host: b}, weight: 3}]}, {route: [{destination: {host: a}}]}]}",
        expect![[r#"
            hosts ["*.example.com"] gateways ["mesh"] Public
            tls ["a.example.com"] [] Some(443) -> ["b.ns.svc.cluster.local*1"]
            tcp [] ["10.0.0.0/8"] Some(9000) -> ["a.ns.svc.cluster.local:1*1", "b.ns.svc.cluster.local*3"]
            tcp  -> ["a.ns.svc.cluster.local*1"]
        "#]],
    );
}

/// Nothing is ignored in silence.
#[test]
fn fields_without_effect_are_named() {
    check(
        "{hosts: [a], http: [{match: [{statPrefix: x}], route: [{destination: {host: a}}], fault: {delay: {exponentialDelay: 1s}, abort: {httpStatus: 500}}}]}",
        expect![[r#"
            hosts ["a.ns.svc.cluster.local"] gateways ["mesh"] Public
            http ""
              if HttpMatch {  }
              to a.ns.svc.cluster.local weight 1 HeaderEdit { set: [], add: [], remove: [] }
            Warning: spec.http[0].match[0].statPrefix: is not in force yet: it has no effect
            Warning: spec.http[0].fault.delay.exponentialDelay: has no effect, as in Istio: use fixedDelay
            Warning: spec.http[0].fault.delay: concerns no request, as its percentage is 0 or missing: set percentage.value
            Warning: spec.http[0].fault.abort: concerns no request, as its percentage is 0 or missing: set percentage.value
        "#]],
    );
    check(
        "{hosts: [], http: [{route: [{destination: {host: a}}]}]}",
        expect![[""]],
    );
}

/// What cannot be put in force as written refuses the whole object: later rules must not take over.
#[test]
fn what_would_widen_a_rule_refuses_the_object() {
    check(
        "{hosts: [a], http: [{match: [{uri: {regex: '('}}], route: [{destination: {host: b}}]}, {route: [{destination: {host: a}}]}]}",
        expect![[r#"
            Error: spec.http[0].match[0].uri.regex: "(" is not a valid RE2 expression: unclosed group
        "#]],
    );
    check(
        "{hosts: [a], http: [{match: [{headers: {'@request.auth.claims': {exact: x}}}], route: [{destination: {host: b}}]}, {route: [{destination: {host: a}}], fault: {abort: {grpcStatus: NOPE, percentage: {value: 1}}}, rewrite: {uriRegexRewrite: {match: '(a)', rewrite: '\\2'}}}]}",
        expect![[r#"
            Error: spec.http[0].match[0].headers["@request.auth.claims"]: names no claim: write @request.auth.claims.group or @request.auth.claims[realm][group]
            Error: spec.http[1].rewrite.uriRegexRewrite: \2 is not a group of the expression, which has 1: number its groups from 1
            Error: spec.http[1].fault.abort.grpcStatus: "NOPE" is no gRPC status: use a name such as UNAVAILABLE
        "#]],
    );
}
