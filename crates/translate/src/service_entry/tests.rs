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
        let from = ["240.240.0.7".parse().expect("an address")];
        let given = allocatable(&config)
            .map(|host| (host.to_owned(), from.to_vec()))
            .collect();
        let (resources, notices) = service_entry(Inputs {
            config: &config,
            allocated: &given,
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
                    let more = [
                        (" allocated ", format!("{:?}", s.allocated)),
                        (" sans ", format!("{:?}", s.sans)),
                    ];
                    let more: String = more
                        .iter()
                        .filter(|(_, list)| list != "[]")
                        .map(|(name, list)| format!("{name}{list}"))
                        .collect();
                    writeln!(
                        said,
                        "{} {:?} {:?} {at:?}{more}",
                        s.key, s.resolution, s.location
                    )
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
            ns/www.example.com Dns External [] allocated [240.240.0.7]
              80 http Http -> Some(80)
              443 https Tls -> Some(8443)
            ns/b.example.com Dns External [] allocated [240.240.0.7]
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
            ns/*.a.b DynamicDns External []
              80 h Http -> Some(80)
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

#[test]
fn who_gets_an_allocated_address() {
    check(
        "{hosts: [db.example, '*.db.example'], ports: [{number: 5432, name: t, protocol: TCP}], resolution: DNS, endpoints: [{address: db.example}]}",
        expect![[r#"
            ns/db.example Dns External [] allocated [240.240.0.7]
              5432 t Tcp -> Some(5432)
            ns/*.db.example Dns External []
              5432 t Tcp -> Some(5432)
            ServiceEntry/ns/a/0 [] Some("db.example") a  weight 1
              ns/*.db.example {5432: 5432} Ready
              ns/db.example {5432: 5432} Ready
            Warning: spec.addresses: is empty, and none is allocated to wildcards, to resolution NONE, or against the label networking.istio.io/enable-autoallocate-ip: connections to TCP ports are treated as to unknown destinations, so give addresses
        "#]],
    );
    check(
        "{hosts: [db.example], ports: [{number: 5432, name: t, protocol: TCP}], resolution: STATIC}",
        expect![[r#"
            ns/db.example Static External [] allocated [240.240.0.7]
              5432 t Tcp -> Some(5432)
            Info: spec.addresses: is empty: TCP ports are reached by allocated addresses (status.addresses), which clients learn from the proxy's DNS (proxyMetadata ISTIO_META_DNS_CAPTURE)
        "#]],
    );
    check(
        "{hosts: [db.example], ports: [{number: 5432, name: t, protocol: TCP}]}",
        expect![[r#"
            ns/db.example None External []
              5432 t Tcp -> Some(5432)
            Warning: spec.addresses: is empty, and none is allocated to wildcards, to resolution NONE, or against the label networking.istio.io/enable-autoallocate-ip: connections to TCP ports are treated as to unknown destinations, so give addresses
        "#]],
    );
    check(
        "{hosts: [db.example], addresses: [192.0.2.1], ports: [{number: 5432, name: t, protocol: TCP}], resolution: DNS}",
        expect![[r#"
            ns/db.example Dns External ["192.0.2.1/32"]
              5432 t Tcp -> Some(5432)
        "#]],
    );
}

#[test]
fn names_resolved_as_asked_for() {
    check(
        "{hosts: ['*.example.com'], ports: [{number: 443, name: s, protocol: TLS}, {number: 5432, name: t, protocol: TCP}], resolution: DYNAMIC_DNS, endpoints: [{address: 192.0.2.1}]}",
        expect![[r#"
            ns/*.example.com DynamicDns External []
              443 s Tls -> Some(443)
            Warning: spec.ports[1].protocol: DYNAMIC_DNS is for HTTP and TLS, which name whom they ask for: the port is left out
            Warning: spec.endpoints: are not used: with DYNAMIC_DNS the name that each request asks for is resolved
        "#]],
    );
    check(
        "{hosts: [a.example.com], ports: [{number: 443, name: s, protocol: TLS}], resolution: DNS_ROUND_ROBIN, subjectAltNames: [a.example.com], endpoints: [{address: b.example.com, network: far}]}",
        expect![[r#"
            ns/a.example.com DnsFirst External [] allocated [240.240.0.7] sans ["a.example.com"]
              443 s Tls -> Some(443)
            ServiceEntry/ns/a/0 [] Some("b.example.com") a  weight 1
              ns/a.example.com {443: 443} Ready
            Warning: spec.endpoints[0].network: has no effect yet: the mesh is one network, and the address is called directly
        "#]],
    );
}
