//! Cases of `service_entry`: text in, observable result out.

use super::*;
use expect_test::{Expect, expect};
use lateen_api::object::Object;
use std::fmt::Write;

/// Translates a ServiceEntry `ns/a` with this spec (YAML), and compares a compact text of what comes out.
fn check(spec: &str, want: Expect) {
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: a, namespace: ns}}\nspec: {spec}\n"
    );
    let mut said = String::new();
    for document in lateen_api::yaml::parse("f", &text) {
        assert!(document.notices.is_empty(), "{:?}", document.notices);
        let Some(Object::ServiceEntry(config)) = document.object else {
            panic!("not a ServiceEntry");
        };
        let mesh = Mesh::default();
        let (resources, notices) = service_entry(Inputs {
            config: &config,
            mesh: &mesh,
        });
        for resource in resources {
            match resource {
                Resource::Service(s) => {
                    let at = s
                        .addresses
                        .iter()
                        .map(|a| format!("{}/{}", a.ip, a.prefix))
                        .collect::<Vec<_>>();
                    writeln!(said, "{} {:?} {:?} {at:?}", s.key, s.resolution, s.location)
                        .expect("text");
                    for p in &s.ports {
                        writeln!(
                            said,
                            "  {} {} {:?} -> {:?}",
                            p.number, p.name, p.protocol, p.target
                        )
                        .expect("text");
                    }
                }
                Resource::Workload(w) => {
                    writeln!(
                        said,
                        "{} {:?} {:?} {} {} weight {}",
                        w.uid, w.addresses, w.hostname, w.canonical_name, w.locality, w.weight
                    )
                    .expect("text");
                    for (key, ports) in w.services {
                        writeln!(said, "  {key} {:?} {:?}", ports.ports, ports.health)
                            .expect("text");
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        for n in notices {
            writeln!(said, "{}: {}: {}", n.severity, n.field, n.message).expect("text");
        }
    }
    want.assert_eq(&said);
}

#[test]
fn external_by_name() {
    check(
        "{hosts: [www.Example.com, b.example.com], ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: https, protocol: HTTPS, targetPort: 8443}], resolution: DNS}",
        expect![[r#"
            ns/www.example.com Dns External []
              80 http Http -> Some(80)
              443 https Tls -> Some(8443)
            ns/b.example.com Dns External []
              80 http Http -> Some(80)
              443 https Tls -> Some(8443)
        "#]],
    );
}

#[test]
fn listed_endpoints() {
    check(
        "{hosts: [db.local], addresses: [240.0.0.1, 10.1.0.0/16], location: MESH_INTERNAL, resolution: STATIC, ports: [{number: 3306, name: db, protocol: MySQL}], endpoints: [{address: 10.0.0.1, ports: {db: 3307}, labels: {app: db}, locality: r/z/s, weight: 3}, {address: 'fd00::1'}, {address: 'unix:///x'}]}",
        expect![[r#"
            ns/db.local Static Internal ["240.0.0.1/32", "10.1.0.0/16"]
              3306 db Tcp -> Some(3306)
            ServiceEntry/ns/a/0 [10.0.0.1] None db r/z/s weight 3
              ns/db.local {3306: 3307} Ready
            ServiceEntry/ns/a/1 [fd00::1] None a  weight 1
              ns/db.local {3306: 3306} Ready
            Warning: spec.endpoints[2].address: sockets and networks cannot be reached yet, so this endpoint is left out: give an IP address or a name
        "#]],
    );
}

#[test]
fn pass_through_is_the_default() {
    check(
        "{hosts: ['*.example.com'], ports: [{number: 443, name: tls, protocol: TLS}, {number: 81, name: x, protocol: WAT}]}",
        expect![[r#"
            ns/*.example.com None External []
              443 tls Tls -> Some(443)
              81 x Detect -> Some(81)
            Warning: spec.ports[1].protocol: "WAT" is not a known protocol, so it is detected: use HTTP, HTTP2, GRPC, HTTPS, TLS or TCP
        "#]],
    );
    check(
        "{hosts: ['*.a.b'], ports: [{number: 80, name: h, protocol: HTTP}], resolution: DYNAMIC_DNS}",
        expect![[r#"
            ns/*.a.b None External []
              80 h Http -> Some(80)
            Warning: spec.resolution: DYNAMIC_DNS works as NONE for now: connections go to their original destination
        "#]],
    );
}

#[test]
fn errors_refuse() {
    check(
        "{hosts: ['*'], resolution: NONE}",
        expect![[r#"
        Error: spec.hosts[0]: "*" would take every host: use *.suffix or full names
    "#]],
    );
}
