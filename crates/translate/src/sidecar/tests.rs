//! Cases of `sidecar`: text in, observable result out.

use super::*;
use expect_test::{Expect, expect};
use lateen_api::object::Object;
use std::fmt::Write;

/// Translates a Sidecar `ns/a` with this spec (YAML), and compares a compact text of what comes out.
fn check(spec: &str, want: Expect) {
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: a, namespace: ns}}\nspec: {spec}\n"
    );
    let mut said = String::new();
    for document in lateen_api::yaml::parse("f", &text) {
        assert!(document.notices.is_empty(), "{:?}", document.notices);
        let Some(Object::Sidecar(config)) = document.object else {
            panic!("not a Sidecar");
        };
        let (resources, notices) = sidecar(Inputs { config: &config });
        for resource in resources {
            let Resource::SidecarScope(s) = resource else {
                panic!("not a scope");
            };
            writeln!(said, "{:?} {:?}", s.workload_selector, s.outbound).expect("text");
            match s.egress {
                None => said.push_str("  everything\n"),
                Some(hosts) => {
                    for h in hosts {
                        writeln!(
                            said,
                            "  {}/{} {:?}",
                            h.namespace.as_deref().unwrap_or("*"),
                            h.host,
                            h.port
                        )
                        .expect("text");
                    }
                }
            }
        }
        for n in notices {
            writeln!(said, "{}: {}: {}", n.severity, n.field, n.message).expect("text");
        }
    }
    want.assert_eq(&said);
}

#[test]
fn scopes() {
    check(
        "{workloadSelector: {labels: {app: a}}, egress: [{port: {number: 80}, hosts: ['./*']}, {hosts: ['istio-system/*', '*/b.example.com']}], outboundTrafficPolicy: {mode: REGISTRY_ONLY}}",
        expect![[r#"
            {"app": "a"} Some(RegistryOnly)
              ns/* Some(80)
              istio-system/* None
              */b.example.com None
        "#]],
    );
    check(
        "{egress: [{hosts: ['~/*']}]}",
        expect![[r#"
        {} None
    "#]],
    );
    check(
        "{}",
        expect![[r#"
        {} None
          everything
    "#]],
    );
}

#[test]
fn fields_without_effect_are_named() {
    check(
        "{ingress: [{port: {number: 80}}], inboundConnectionPool: {}, outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS, egressProxy: {host: a}}, egress: [{bind: 127.0.0.1, captureMode: NONE, hosts: ['~ns/a.b', './*']}]}",
        expect![[r#"
            {} Some(AllowAny)
              ns/* None
            Warning: spec.ingress: is not in force yet: it has no effect
            Warning: spec.inboundConnectionPool: is not in force yet: it has no effect
            Warning: spec.outboundTrafficPolicy.egressProxy: is not in force yet: it has no effect
            Warning: spec.egress[0].bind: is not in force yet: it has no effect
            Warning: spec.egress[0].captureMode: is not in force yet: it has no effect
            Warning: spec.egress[0].hosts[0]: is not in force yet: it has no effect
            Warning: spec.outboundTrafficPolicy.mode: ALLOW_ANY_DYNAMIC_DNS is for MeshConfig only, and works as ALLOW_ANY here
        "#]],
    );
}
