//! Traffic out of the mesh through an egress gateway: what the sidecar does, and what the gateway does.

use super::mesh::snapshot;
use super::{check, cluster_tls};

/// HTTP of the mesh to one host goes to the gateway by mutual TLS, and from there by TLS to the host.
const HTTP: &str = "
service istio-system/istio-egressgateway 10.96.8.8 http:80>8080 tls:443>8443
pod istio-system/egress-1 10.244.0.60 serves=istio-egressgateway istio=egressgateway sa=egress
entry default/edition.cnn.com - http:80 tls:443 dns
gateway default/egress istio=egressgateway
  server https:443 hosts=edition.cnn.com mesh
policy default/to-gateway host=istio-egressgateway.istio-system.svc.cluster.local at=443:istio sni=edition.cnn.com
policy default/to-cnn host=edition.cnn.com at=443:simple
routes default/cnn hosts=edition.cnn.com gateways=mesh,default/egress
  http at=mesh port=80 -> istio-egressgateway.istio-system.svc.cluster.local:443
  http at=default/egress port=443 -> edition.cnn.com:443
";

fn gateway(config: &str) -> String {
    format!("me gateway istio-system/egress-1 10.244.0.60 istio=egressgateway\n{config}")
}

#[test]
fn http_with_tls_made_at_the_gateway() {
    let to_gateway = "outbound|443||istio-egressgateway.istio-system by cnn#0";
    check(
        HTTP,
        &[
            (
                "GET http://edition.cnn.com/politics to=203.0.113.1:80",
                to_gateway,
            ),
            // The second rule is the gateway's.
            (
                "sni edition.cnn.com 203.0.113.1:443",
                "outbound|443||edition.cnn.com",
            ),
        ],
    );
    let sidecar = snapshot(HTTP);
    let name = "outbound|443||istio-egressgateway.istio-system.svc.cluster.local";
    assert_eq!(
        cluster_tls(&sidecar, name),
        "mesh sni=outbound_.443_._.istio-egressgateway.istio-system.svc.cluster.local required to spiffe://cluster.local/ns/istio-system/sa/egress"
    );
    check(
        &gateway(HTTP),
        &[
            (
                "gateway tls edition.cnn.com 10.244.0.60:443",
                "IstioMutual  Http by egress",
            ),
            (
                "gateway GET http://edition.cnn.com/politics to=10.244.0.60:443 over=edition.cnn.com as=cluster.local/ns/default/sa/sleep",
                "outbound|443||edition.cnn.com by cnn#1",
            ),
        ],
    );
    let at_gateway = snapshot(&gateway(HTTP));
    assert_eq!(
        cluster_tls(&at_gateway, "outbound|443||edition.cnn.com"),
        "origin Simple"
    );
}

#[test]
fn tls_passed_through_both() {
    let config = "
service istio-system/istio-egressgateway 10.96.8.8 http:80>8080 tls:443>8443
pod istio-system/egress-1 10.244.0.60 serves=istio-egressgateway istio=egressgateway sa=egress
entry default/edition.cnn.com - tls:443 dns
gateway default/egress istio=egressgateway
  server tls:443 hosts=edition.cnn.com
routes default/cnn hosts=edition.cnn.com gateways=mesh,default/egress
  tls at=mesh port=443 sni=edition.cnn.com -> istio-egressgateway.istio-system.svc.cluster.local:443
  tls at=default/egress port=443 sni=edition.cnn.com -> edition.cnn.com:443
";
    check(
        config,
        &[(
            "sni edition.cnn.com 203.0.113.1:443",
            "outbound|443||istio-egressgateway.istio-system by cnn",
        )],
    );
    check(
        &gateway(config),
        &[
            (
                "gateway tls edition.cnn.com 10.244.0.60:443",
                "pass outbound|443||edition.cnn.com by cnn",
            ),
            (
                "gateway tls example.com 10.244.0.60:443",
                "NoRoute server name \"example.com\" on port 443",
            ),
        ],
    );
}

#[test]
fn wildcards_through_the_gateway() {
    let config = "
mesh registry-only
service istio-system/istio-egressgateway 10.96.8.8 http:80>8080 tls:443>8443
pod istio-system/egress-1 10.244.0.60 serves=istio-egressgateway istio=egressgateway sa=egress
entry default/*.wikipedia.org - http:80 tls:443 dynamic
gateway default/egress istio=egressgateway
  server http:80 hosts=*.wikipedia.org
  server tls:443 hosts=*.wikipedia.org
routes default/wiki hosts=*.wikipedia.org gateways=mesh,default/egress
  http at=mesh port=80 -> istio-egressgateway.istio-system.svc.cluster.local:80
  http at=default/egress port=80 -> *.wikipedia.org:80
  tls at=mesh port=443 sni=*.wikipedia.org -> istio-egressgateway.istio-system.svc.cluster.local:443
  tls at=default/egress port=443 sni=*.wikipedia.org -> *.wikipedia.org:443
";
    check(
        config,
        &[
            (
                "GET http://de.wikipedia.org/ to=203.0.113.1:80",
                "outbound|80||istio-egressgateway.istio-system by wiki#0",
            ),
            (
                "sni de.wikipedia.org 203.0.113.1:443",
                "outbound|443||istio-egressgateway.istio-system by wiki",
            ),
            (
                "sni wikipedia.com 203.0.113.1:443",
                "NotInRegistry 203.0.113.1:443",
            ),
        ],
    );
    check(
        &gateway(config),
        &[
            (
                "gateway GET http://de.wikipedia.org/ to=10.244.0.60:80",
                "outbound|80||*.wikipedia.org @asked by wiki#1",
            ),
            (
                "gateway tls de.wikipedia.org 10.244.0.60:443",
                "pass outbound|443||*.wikipedia.org @asked by wiki",
            ),
        ],
    );
}

#[test]
fn only_what_is_registered() {
    check(
        "
mesh registry-only
entry default/known.example - http:80 tls:443 dns
entry default/db.example 192.0.2.5 tcp:5432 none
service default/web 10.96.0.1 http:80
",
        &[
            (
                "GET http://known.example/ to=203.0.113.1:80",
                "outbound|80||known.example (default)",
            ),
            (
                "GET http://unknown.example/ to=203.0.113.1:80",
                "502 NotInRegistry unknown.example",
            ),
            (
                "sni known.example 203.0.113.1:443",
                "outbound|443||known.example",
            ),
            (
                "sni unknown.example 203.0.113.1:443",
                "NotInRegistry 203.0.113.1:443",
            ),
            (
                "open 192.0.2.5:5432",
                "tcp outbound|5432||db.example @original",
            ),
            ("open 192.0.2.6:5432", "tcp NotInRegistry 192.0.2.6:5432"),
        ],
    );
}

#[test]
fn names_of_certificates() {
    let config = "
entry default/api.example - tls:443 http:80 dns san=api.example
policy default/a host=api.example tls=simple
";
    let with = |config: &str| cluster_tls(&snapshot(config), "outbound|80||api.example");
    assert_eq!(with(config), "origin Simple sans=api.example");
    let rule = config.replace("tls=simple", "tls=simple san=other.example");
    assert_eq!(with(&rule), "origin Simple sans=other.example");
}
