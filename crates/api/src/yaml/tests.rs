//! Cases of `yaml`: text in, observable result out.

use super::*;
use expect_test::{Expect, expect};

/// Parses, and compares kinds with lines, then notices.
fn check(text: &str, want: Expect) {
    let mut said = String::new();
    for document in parse("f.yaml", text) {
        let kind = document.object.as_ref().map_or("none", Object::kind);
        said.push_str(&format!("{} {kind}\n", document.line));
        for notice in &document.notices {
            said.push_str(&format!("  {notice}\n"));
        }
    }
    want.assert_eq(&said);
}

#[test]
fn unknown_fields_are_warnings_with_the_nearest_name() {
    check(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: a\nspec:\n  hosts: [a]\n  http:\n  - rout:\n    - destination:\n        host: a\n    zzz: 1\n  export_to: ['.']\nstats: {}\n",
        expect![[r#"
            1 VirtualService
              f.yaml:8: Warning: VirtualService a: spec.http[0].rout: unknown field, it has no effect; did you mean "route"?
              f.yaml:11: Warning: VirtualService a: spec.http[0].zzz: unknown field, it has no effect; remove it or look it up with kubectl explain
              f.yaml:12: Warning: VirtualService a: spec.export_to: unknown field, it has no effect; did you mean "exportTo"?
              f.yaml:13: Warning: VirtualService a: stats: unknown field, it has no effect; did you mean "status"?
        "#]],
    );
}

#[test]
fn a_wrong_type_stops_one_document_only() {
    check(
        "# comment only\n---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a, namespace: ns}\nspec:\n  host: a\n  subsets:\n    name: v1\n---\napiVersion: v1\nkind: Service\nmetadata: {name: s}\n",
        expect![[r#"
            3 none
              f.yaml:8: Error: DestinationRule ns/a: spec.subsets: expected a list, found a mapping; start each entry with "- "
            11 Service
        "#]],
    );
}

#[test]
fn broken_yaml_stops_one_document_only() {
    check(
        "a: [1\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: p}\n---\nb: c: d\n",
        expect![[r#"
            1 none
              f.yaml:1: Error: document: is not valid YAML: unclosed bracket '['
            3 Pod
            7 none
              f.yaml:7: Error: document: is not valid YAML: mapping values are not allowed in this context
        "#]],
    );
}

#[test]
fn values_out_of_range_or_unknown() {
    check(
        "apiVersion: networking.istio.io/v1beta1\nkind: ServiceEntry\nmetadata: {name: a}\nspec:\n  hosts: []\n  resolution: DSN\n  ports:\n  - number: \"80\"\n    protocol: HTTP\n  - number: 70000\n    name: 8\n",
        expect![[r#"
            1 none
              f.yaml:5: Error: ServiceEntry a: spec.hosts: is too short: at least 1 needed
              f.yaml:6: Error: ServiceEntry a: spec.resolution: "DSN" is not a known value; did you mean "DNS"?
              f.yaml:8: Error: ServiceEntry a: spec.ports[0].number: expected an integer, found the string "80"; remove the quotes
              f.yaml:10: Error: ServiceEntry a: spec.ports[1].number: 70000 is too large; the greatest value is 65535
              f.yaml:11: Error: ServiceEntry a: spec.ports[1].name: expected a string, found the number 8; put it in quotes
        "#]],
    );
}

#[test]
fn lists_are_taken_apart() {
    check(
        "kind: List\napiVersion: v1\nitems:\n- apiVersion: v1\n  kind: Namespace\n  metadata: {name: a}\n- apiVersion: v1\n  kind: Namespace\n  metadata: {}\n",
        expect![[r#"
            4 Namespace
            7 none
              f.yaml:9: Error: Namespace without a name: metadata.name: is missing: add it
        "#]],
    );
}

#[test]
fn json_is_read_too() {
    check(
        r#"{"apiVersion":"networking.istio.io/v1alpha3","kind":"Sidecar","metadata":{"name":"d"},"spec":{"egress":[{"hosts":["./*"]}]}}"#,
        expect![[r#"
            1 Sidecar
        "#]],
    );
}

#[test]
fn unsupported_kinds_are_kept_and_said() {
    check(
        "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: a}\nspec: {}\n---\napiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata: {name: a}\n---\napiVersion: networking.istio.io/v9\nkind: Sidecar\nmetadata: {name: a}\n---\nfoo: bar\n",
        expect![[r#"
            1 EnvoyFilter
              f.yaml:2: Warning: EnvoyFilter a: kind: EnvoyFilter of networking.istio.io/v1alpha3 is not supported yet: the object is kept and has no effect
            6 Certificate
              f.yaml:7: Warning: Certificate a: kind: Certificate of cert-manager.io/v1 is not a kind that the mesh knows: the object has no effect on it
            10 Sidecar
              f.yaml:10: Warning: Sidecar a: apiVersion: version "v9" is not served, so the object has no effect; use networking.istio.io/v1 or networking.istio.io/v1beta1 or networking.istio.io/v1alpha3
            14 none
              f.yaml:14: Error: document: apiVersion: is missing or not a string: add it
              f.yaml:14: Error: document: kind: is missing or not a string: add it
              f.yaml:14: Error: document: metadata.name: is missing: add it
        "#]],
    );
}

#[test]
fn durations_and_nulls() {
    check(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a, labels: {x: 1}}\nspec: {hosts: [a], gateways: null}\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: b}\nspec: {hosts: [a], gateways: null, http: [{timeout: 5, route: [{destination: {host: a}}]}, {timeout: 5x, route: [{destination: {}}]}]}\n",
        expect![[r#"
            1 none
              f.yaml:3: Error: VirtualService a: metadata.labels.x: is not a string; put it in quotes
            6 none
              f.yaml:9: Error: VirtualService b: spec.http[0].timeout: expected a string, found the number 5; put it in quotes
              f.yaml:9: Error: VirtualService b: spec.http[1].route[0].destination.host: is missing: add it
              f.yaml:9: Error: VirtualService b: spec.http[1].timeout: "5x" is not a duration; write a number with a unit, such as 10s, 250ms or 1h30m
        "#]],
    );
}

#[test]
fn what_is_rendered_reads_the_same() {
    let value = serde_json::json!({
        "a": ["yes", "no", "on", "1.0", "0644", "null", "", "a: b", "# c", "- d", "x\ny\n", "é", "~", "true"],
        "b": { "80": 1, "c": null, "d": [], "e": {}, "f": 1.5 },
    });
    let text = render(&value);
    let back = tree::parse(&text, 1).map(|node| node.to_value());
    assert_eq!(back.ok(), Some(value), "{text}");
}

#[test]
fn kubernetes_objects_are_checked_too() {
    check(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec:\n  replica: 1\n  selector: {matchLabels: {app: a}}\n  template:\n    metadata: {labels: {app: a}, creationTimestamp: null}\n    spec:\n      containers:\n      - name: a\n        image: b\n        resources: {limits: {cpu: 1, memory: 1Gi}}\n        ports: [{containerPort: 80}]\n",
        expect![[r#"
            1 Deployment
              f.yaml:5: Warning: Deployment a: spec.replica: unknown field, it has no effect; did you mean "replicas"?
        "#]],
    );
    check(
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: '80', targetPort: http}, {name: x}]}\n",
        expect![[r#"
            1 none
              f.yaml:4: Error: Service a: spec.ports[0].port: expected an integer, found the string "80"; remove the quotes
              f.yaml:4: Error: Service a: spec.ports[1].port: is missing: add it
        "#]],
    );
}

/// Nothing that a user can write makes the parser panic or run away.
#[test]
fn bombs_and_depth() {
    let deep = "[".repeat(5_000);
    let alias = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n";
    for text in [
        &*deep,
        alias,
        "\u{0}",
        "%YAML 9.9\n---\n",
        "!!binary x",
        "? [a]\n: b\n",
    ] {
        for document in parse("f", text) {
            assert!(document.object.is_none());
        }
    }
}

proptest::proptest! {
    /// Any text is read without a panic, and every line named is a line of the text.
    #[test]
    fn any_text(text in "[ -~\\n]{0,200}") {
        let lines = text.lines().count().max(1);
        for document in parse("f", &text) {
            for notice in document.notices {
                let place = notice.place.expect("a place");
                proptest::prop_assert!((1..=lines + 1).contains(&place.line), "{place:?} of {lines}");
            }
        }
    }

    /// A mutilated object is read without a panic, and the document after it is not touched.
    #[test]
    fn mutilated_objects(at in 0usize..400, with in "[ -~\\n]{0,3}") {
        let good = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: a\nspec:\n  hosts: [a]\n  http:\n  - match:\n    - uri:\n        prefix: /a\n    route:\n    - destination:\n        host: a\n        subset: v1\n      weight: 100\n    timeout: 5s\n";
        let mut text = good.to_owned();
        text.insert_str(at.min(good.len()), &with);
        text.push_str("\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: last}\n");
        let documents = parse("f", &text);
        let last = documents.last().and_then(|d| d.object.as_ref()).map(Object::kind);
        proptest::prop_assert_eq!(last, Some("Namespace"));
    }
}
