//! Cases of `service`: text in, observable result out.

use super::*;
use crate::mesh::Mesh;
use expect_test::{Expect, expect};
use std::fmt::Write;

/// Translates a Service `ns/web` with this spec (YAML), and compares a compact text of what comes out.
fn check(meta: &str, spec: &str, want: Expect) {
    let text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: ns{meta}}}\nspec: {spec}\n"
    );
    let mut said = String::new();
    for document in lateen_api::yaml::parse("f", &text) {
        let service = serde_json::from_value(document.value).expect("a Service");
        let mesh = Mesh::default();
        let (resources, notices) = super::service(Inputs {
            service: &service,
            mesh: &mesh,
        });
        for resource in resources {
            match resource {
                Resource::Service(s) => {
                    writeln!(
                        said,
                        "{} {:?} {:?} {:?}",
                        s.key, s.resolution, s.location, s.visibility
                    )
                    .expect("text");
                    for a in &s.addresses {
                        writeln!(said, "  at {}/{}", a.ip, a.prefix).expect("text");
                    }
                    for p in &s.ports {
                        writeln!(
                            said,
                            "  {} {:?} {:?} -> {:?}",
                            p.number, p.name, p.protocol, p.target
                        )
                        .expect("text");
                    }
                }
                Resource::Workload(w) => {
                    writeln!(said, "{} {:?} {:?}", w.uid, w.hostname, w.services).expect("text");
                }
                other => panic!("{other:?}"),
            }
        }
        for n in notices {
            writeln!(said, "{n}").expect("text");
        }
    }
    want.assert_eq(&said);
}

#[test]
fn ports_and_addresses() {
    check(
        "",
        "{clusterIP: 10.96.0.5, clusterIPs: [10.96.0.5, 'fd00::5'], ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp-x, port: 90}, {name: a, port: 91, targetPort: named, appProtocol: grpc}, {name: dns, port: 53, protocol: UDP}, {name: s, port: 7, protocol: SCTP}]}",
        expect![[r#"
            ns/web.ns.svc.cluster.local Static Internal Public
              at 10.96.0.5/32
              at fd00::5/128
              80 "http" Http -> Some(8080)
              90 "tcp-x" Tcp -> Some(90)
              91 "a" Grpc -> None
              53 "dns" Udp -> Some(53)
            Warning: Service ns/web: spec.ports[4]: port 7 with protocol SCTP is left out of the mesh: only TCP and UDP ports from 1 to 65535 are known to it
        "#]],
    );
}

#[test]
fn headless() {
    check(
        "",
        "{clusterIP: None, clusterIPs: [None], ports: [{port: 3306}]}",
        expect![[r#"
            ns/web.ns.svc.cluster.local Static Internal Public
              3306 "" Tcp -> Some(3306)
        "#]],
    );
}

#[test]
fn visibility_by_annotation() {
    check(
        ", annotations: {networking.istio.io/exportTo: '., other'}",
        "{ports: [{port: 80}]}",
        expect![[r#"
            ns/web.ns.svc.cluster.local Static Internal Namespaces(["ns", "other"])
              80 "" Detect -> Some(80)
        "#]],
    );
    check(
        ", annotations: {networking.istio.io/exportTo: '~'}",
        "{}",
        expect![[r#"
            ns/web.ns.svc.cluster.local Static Internal Namespaces([])
        "#]],
    );
}

#[test]
fn external_name() {
    check(
        "",
        "{type: ExternalName, externalName: Example.com., ports: [{name: https, port: 443}]}",
        expect![[r#"
            Service/ns/web Some("example.com") {ServiceKey { namespace: "ns", hostname: "web.ns.svc.cluster.local" }: ServicePorts { ports: {443: 443}, health: Ready, hostname: None }}
            ns/web.ns.svc.cluster.local Dns External Public
              443 "https" Tls -> Some(443)
        "#]],
    );
}
