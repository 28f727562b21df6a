//! Cases of `gateway`: text in, observable result out.

use super::*;
use expect_test::{Expect, expect};
use lateen_api::object::Object;
use std::fmt::Write;

/// Translates a Gateway `ns/a` with this spec (YAML), and compares a compact text of what comes out.
fn check(spec: &str, want: Expect) {
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: a, namespace: ns}}\nspec: {spec}\n"
    );
    let mut said = String::new();
    for document in lateen_api::yaml::parse("f", &text) {
        assert!(document.notices.is_empty(), "{:?}", document.notices);
        let Some(Object::Gateway(config)) = document.object else {
            panic!("not a Gateway");
        };
        let (resources, notices) = gateway(Inputs { config: &config });
        for resource in resources {
            let Resource::Gateway(g) = resource else {
                panic!("not a gateway");
            };
            writeln!(said, "{} {:?}", g.origin, g.selector).expect("text");
            for s in g.servers {
                let hosts = s
                    .hosts
                    .iter()
                    .map(|h| format!("{}/{}", h.namespace.as_deref().unwrap_or("*"), h.host));
                writeln!(
                    said,
                    "  {} {} {:?} {:?} redirect {}",
                    s.port,
                    s.port_name,
                    s.protocol,
                    hosts.collect::<Vec<_>>(),
                    s.https_redirect
                )
                .expect("text");
                if let Some(tls) = s.tls {
                    writeln!(said, "    {tls:?}").expect("text");
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
fn servers() {
    check(
        "{selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*', './B.example.com', 'other/*.c.d'], tls: {httpsRedirect: true}}, {port: {number: 443, name: tls, protocol: TLS}, hosts: [x.y], tls: {mode: PASSTHROUGH}}, {port: {number: 9000, name: tcp, protocol: TCP}, hosts: ['*'], bind: 1.2.3.4}, {port: {number: 9001, name: tcp2, protocol: TCP}, hosts: ['*'], bind: 'unix:///x', defaultEndpoint: yy}]}",
        expect![[r#"
            Gateway ns/a {"istio": "ingressgateway"}
              80 http Http ["*/*", "ns/b.example.com", "other/*.c.d"] redirect true
              443 tls TlsPassthrough ["*/x.y"] redirect false
              9000 tcp Tcp ["*/*"] redirect false
            Warning: spec.servers[3].defaultEndpoint: has no effect, as in Istio: bind a VirtualService to the Gateway
            Warning: spec.servers[3].bind: is no IP address, so this server opens no port (sockets are not served): use an address of the gateway's pod
        "#]],
    );
}

#[test]
fn servers_that_end_tls() {
    check(
        "{selector: {istio: ingressgateway}, servers: [{port: {number: 443, name: https, protocol: HTTPS}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: c}}]}",
        expect![[r#"
            Gateway ns/a {"istio": "ingressgateway"}
              443 https Https ["*/*"] redirect false
                ServerTls { mode: Simple, credentials: ["c"], ca_credential: None, files: [], sans: [], spki: [], hashes: [], min: V1_2, max: V1_3, ciphers: [], curves: [], skip_verify: false }
        "#]],
    );
    check(
        "{selector: {istio: ingressgateway}, servers: [{port: {number: 443, name: tls, protocol: TLS}, hosts: ['*'], tls: {mode: MUTUAL, credentialNames: [a, b], caCertCredentialName: ca, minProtocolVersion: TLSV1_1, maxProtocolVersion: TLSV1_2, cipherSuites: [ECDHE-RSA-AES128-GCM-SHA256, AES128-SHA], subjectAltNames: [x], ecdhCurves: [P-256, x25519, P-999]}}, {port: {number: 444, name: https, protocol: HTTPS}, hosts: ['*'], tls: {mode: OPTIONAL_MUTUAL, serverCertificate: /c, privateKey: /k, caCertificates: /ca}}, {port: {number: 15443, name: auto, protocol: TLS}, hosts: ['*.local'], tls: {mode: AUTO_PASSTHROUGH}}]}",
        expect![[r#"
            Gateway ns/a {"istio": "ingressgateway"}
              443 tls TlsTerminate ["*/*"] redirect false
                ServerTls { mode: Mutual, credentials: ["a", "b"], ca_credential: Some("ca"), files: [], sans: ["x"], spki: [], hashes: [], min: V1_2, max: V1_2, ciphers: ["ECDHE-RSA-AES128-GCM-SHA256"], curves: ["P-256", "X25519"], skip_verify: false }
              444 https Https ["*/*"] redirect false
                ServerTls { mode: OptionalMutual, credentials: [], ca_credential: None, files: [CertificateFiles { chain: Some("/c"), key: Some("/k"), ca: Some("/ca"), crl: None }], sans: [], spki: [], hashes: [], min: V1_2, max: V1_3, ciphers: [], curves: [], skip_verify: false }
              15443 auto TlsAutoPassthrough ["*/*.local"] redirect false
            Warning: spec.servers[0].tls.cipherSuites[1]: "AES128-SHA" is not spoken and left out; those of TLS 1.2 are ECDHE-ECDSA-AES128-GCM-SHA256, ECDHE-ECDSA-AES256-GCM-SHA384, ECDHE-ECDSA-CHACHA20-POLY1305, ECDHE-RSA-AES128-GCM-SHA256, ECDHE-RSA-AES256-GCM-SHA384, ECDHE-RSA-CHACHA20-POLY1305
            Warning: spec.servers[0].tls.ecdhCurves[2]: "P-999" is not spoken and left out; spoken are X25519MLKEM768, X25519, P-256, P-384
            Warning: spec.servers[0].tls.minProtocolVersion: TLS 1.0 and 1.1 are broken and not spoken (RFC 8996): works as TLSV1_2
        "#]],
    );
}
