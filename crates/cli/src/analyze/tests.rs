//! Findings in files, as they are printed.

use super::*;
use clap::Parser as _;
use expect_test::{Expect, expect};

/// What `lateen analyze --use-kube=false` with `more` prints of a file with this text.
fn check(text: &str, more: &[&str], want: Expect) {
    let words = ["lateen", "analyze", "--use-kube=false"].iter().chain(more);
    let cli = crate::args::Cli::try_parse_from(words).expect("arguments");
    let crate::args::Command::Analyze(args) = cli.command else {
        panic!("analyze");
    };
    let mut gathered = Gathered::within(args.connection.namespace.as_deref());
    gathered.read_text("a.yaml", text);
    let mesh = mesh_of(&args, &mut gathered).expect("a mesh");
    let suppressions = Suppressions::parse(&args.suppress).expect("suppressions");
    let found = look(&gathered, &mesh, &args, &suppressions);
    let shown = |notice: &&Notice| notice.severity >= args.output_threshold.severity();
    let shown: Vec<&Notice> = found.iter().filter(shown).collect();
    want.assert_eq(&print::text(&args.output, &shown, "a.yaml").expect("a form"));
}

const ROUTES: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {ports: [{name: http, port: 9080}], selector: {app: reviews}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, annotations: {}}
spec:
  hosts: [reviews]
  http:
  - match: [{uri: {prefix: /x}}]
    route:
    - destination: {host: reviews, subset: v1}
  - route:
    - destination: {host: ratings}
    timeout: 3x
";

#[test]
fn findings_name_file_line_object_and_cure() {
    check(
        ROUTES,
        &[],
        expect![[r#"
            Error [IST0106] (VirtualService reviews a.yaml:18) spec.http[1].timeout: "3x" is not a duration; write a number with a unit, such as 10s, 250ms or 1h30m
        "#]],
    );
    check(
        &ROUTES.replace("    timeout: 3x\n", ""),
        &[],
        expect![[r#"
            Error [IST0101] (VirtualService default/reviews a.yaml:15) spec.http[0].route[0].destination.subset: subset "v1" is not defined, so requests fail with 503: no DestinationRule is for the host reviews.default.svc.cluster.local; create one with this subset
            Error [IST0101] (VirtualService default/reviews a.yaml:17) spec.http[1].route[0].destination.host: no Service or ServiceEntry has the host ratings.default.svc.cluster.local, so requests fail with 503: create it or correct the name
        "#]],
    );
    let fine = ROUTES
        .replace("ratings", "reviews")
        .replace(", subset: v1", "")
        .replace("3x", "3s");
    check(
        &fine,
        &[],
        expect![[r#"
        ✔ No validation issues found when analyzing a.yaml.
    "#]],
    );
}

#[test]
fn what_is_not_told() {
    let text = ROUTES.replace("    timeout: 3x\n", "");
    check(
        &text,
        &["-S", "IST0101=VirtualService *.default"],
        expect![[r#"
            ✔ No validation issues found when analyzing a.yaml.
        "#]],
    );
    let annotated = text.replace(
        "annotations: {}",
        "annotations: {galley.istio.io/analyze-suppress: 'IST0101'}",
    );
    check(
        &annotated,
        &[],
        expect![[r#"
        ✔ No validation issues found when analyzing a.yaml.
    "#]],
    );
    check(
        &text,
        &["-o", "json"],
        expect![[r#"
        [
          {
            "code": "IST0101",
            "field": "spec.http[0].route[0].destination.subset",
            "level": "Error",
            "message": "subset \"v1\" is not defined, so requests fail with 503: no DestinationRule is for the host reviews.default.svc.cluster.local; create one with this subset",
            "origin": "VirtualService default/reviews",
            "reference": "a.yaml:15"
          },
          {
            "code": "IST0101",
            "field": "spec.http[1].route[0].destination.host",
            "level": "Error",
            "message": "no Service or ServiceEntry has the host ratings.default.svc.cluster.local, so requests fail with 503: create it or correct the name",
            "origin": "VirtualService default/reviews",
            "reference": "a.yaml:17"
          }
        ]
    "#]],
    );
    let warning = "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: s}\nspec: {egress: [{hosts: ['./*'], bind: 1.2.3.4}]}\n";
    check(
        warning,
        &[],
        expect![[r#"
        Warning (Sidecar default/s a.yaml:4) spec.egress[0].bind: is not in force yet: it has no effect
    "#]],
    );
    check(
        warning,
        &["-n", "shop"],
        expect![[r#"
        Warning (Sidecar shop/s a.yaml:4) spec.egress[0].bind: is not in force yet: it has no effect
    "#]],
    );
    check(
        warning,
        &["--output-threshold", "error"],
        expect![[r#"
        ✔ No validation issues found when analyzing a.yaml.
    "#]],
    );
}
