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
        let (resources, notices) = sidecar(Inputs {
            config: &config,
            mesh: &Mesh::default(),
        });
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
            for h in s.excluded {
                writeln!(said, "  not {:?}/{} {:?}", h.namespace, h.host, h.port).expect("text");
            }
            if let Some(to) = s.egress_proxy {
                writeln!(said, "  through {to:?}").expect("text");
            }
            for listener in s.ingress.iter().flatten() {
                writeln!(said, "  in {listener:?}").expect("text");
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
        "{ingress: [{port: {number: 80}, bind: 10.0.0.1, captureMode: NONE, connectionPool: {}, defaultEndpoint: 'unix:///x'}], inboundConnectionPool: {}, outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS}, egress: [{bind: 127.0.0.1, captureMode: NONE, hosts: ['./*']}]}",
        expect![[r#"
            {} Some(AllowAny)
              ns/* None
            Warning: spec.ingress[0].bind: is not in force yet: it has no effect
            Warning: spec.ingress[0].captureMode: is not in force yet: it has no effect
            Warning: spec.egress[0].bind: is not in force yet: it has no effect
            Warning: spec.egress[0].captureMode: is not in force yet: it has no effect
            Warning: spec.outboundTrafficPolicy.mode: ALLOW_ANY_DYNAMIC_DNS is for MeshConfig only, and works as ALLOW_ANY here
            Warning: spec.ingress[0].defaultEndpoint: sockets are not called, so the listener is left out: use 127.0.0.1:port
        "#]],
    );
}

#[test]
fn listeners_exclusions_and_egress_proxies() {
    check(
        "{ingress: [{port: {number: 9080, protocol: HTTP, name: http}, defaultEndpoint: '127.0.0.1:8080'}, {port: {number: 6379, protocol: TCP, name: tcp}, defaultEndpoint: '0.0.0.0:6380'}, {port: {number: 1, name: x}}], outboundTrafficPolicy: {egressProxy: {host: egress, subset: v1, port: {number: 443}}}, egress: [{hosts: ['*/*', '~other/a.b', '~./c.d']}]}",
        expect![[r#"
            {} None
              */* None
              not Some("other")/a.b None
              not Some("ns")/c.d None
              through Destination { host: "egress.ns.svc.cluster.local", subset: Some("v1"), port: Some(443) }
              in IngressListener { port: 9080, protocol: Http, endpoint: Some(Address(127.0.0.1:8080)), pool: None }
              in IngressListener { port: 6379, protocol: Tcp, endpoint: Some(Instance(6380)), pool: None }
              in IngressListener { port: 1, protocol: Detect, endpoint: None, pool: None }
        "#]],
    );
}
