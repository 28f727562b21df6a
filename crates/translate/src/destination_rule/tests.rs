//! Cases of `destination_rule`: text in, observable result out.

use super::*;
use expect_test::{Expect, expect};
use lateen_api::object::Object;
use std::fmt::Write;

/// Translates a DestinationRule `ns/a` with this spec (YAML), and compares a compact text of what comes out.
fn check(spec: &str, want: Expect) {
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: a, namespace: ns}}\nspec: {spec}\n"
    );
    let mut said = String::new();
    for document in lateen_api::yaml::parse("f", &text) {
        assert!(document.notices.is_empty(), "{:?}", document.notices);
        let Some(Object::DestinationRule(config)) = document.object else {
            panic!("not a DestinationRule");
        };
        let mesh = Mesh::default();
        let (resources, notices) = destination_rule(Inputs {
            config: &config,
            mesh: &mesh,
        });
        for resource in resources {
            let Resource::TrafficPolicy(p) = resource else {
                panic!("not a traffic policy");
            };
            writeln!(
                said,
                "{} {:?} {:?} {}",
                p.host,
                p.visibility,
                p.workload_selector,
                settings(&p.settings)
            )
            .expect("text");
            for s in p.subsets {
                let settings = settings(&s.settings);
                writeln!(said, "  {} {:?} {settings}", s.name, s.labels).expect("text");
            }
        }
        for n in notices {
            writeln!(said, "{}: {}: {}", n.severity, n.field, n.message).expect("text");
        }
    }
    want.assert_eq(&said);
}

/// What is set, in one line.
fn settings(settings: &TrafficSettings) -> String {
    let mut said = Vec::new();
    said.extend(settings.balancer.map(|balancer| format!("{balancer:?}")));
    said.extend(
        settings
            .connect_timeout
            .map(|timeout| format!("{timeout:?}")),
    );
    if let Some(tls) = &settings.tls {
        let files = (tls.files != Default::default()).then(|| format!(" {:?}", tls.files));
        said.push(format!(
            "{:?} sans {:?} sni {:?} credential {:?} skip {}{}",
            tls.mode,
            tls.sans,
            tls.sni,
            tls.credential,
            tls.skip_verify,
            files.unwrap_or_default()
        ));
    }
    for (port, of_port) in &settings.ports {
        said.push(format!("{port}: {}", self::settings(of_port)));
    }
    format!("[{}]", said.join(", "))
}

#[test]
fn tls_and_single_ports() {
    check(
        "{host: a, trafficPolicy: {loadBalancer: {simple: RANDOM}, tls: {mode: SIMPLE, sni: x.y, subjectAltNames: [z], caCertificates: /ca, insecureSkipVerify: true}, portLevelSettings: [{port: {number: 80}, tls: {mode: ISTIO_MUTUAL}}, {port: {number: 81}, connectionPool: {tcp: {connectTimeout: 1s}}}]}, subsets: [{name: v1, trafficPolicy: {tls: {mode: MUTUAL, credentialName: 'kubernetes://c'}}}, {name: v2, trafficPolicy: {tls: {}}}]}",
        expect![[r#"
            a.ns.svc.cluster.local Public {} [Random, Simple sans ["z"] sni Some("x.y") credential None skip true CertificateFiles { chain: None, key: None, ca: Some("/ca"), crl: None }, 80: [IstioMutual sans [] sni None credential None skip false], 81: [1s]]
              v1 {} [Mutual sans [] sni None credential Some("c") skip false]
              v2 {} [Disable sans [] sni None credential None skip false]
        "#]],
    );
}

#[test]
fn hosts_and_subsets() {
    check(
        "{host: reviews, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}, trafficPolicy: {loadBalancer: {simple: RANDOM}}}], trafficPolicy: {loadBalancer: {simple: LEAST_CONN}, connectionPool: {tcp: {connectTimeout: 30ms}}}, workloadSelector: {matchLabels: {app: a}}, exportTo: ['.']}",
        expect![[r#"
            reviews.ns.svc.cluster.local Namespaces(["ns"]) {"app": "a"} [LeastRequest, 30ms]
              v1 {"version": "v1"} []
              v2 {"version": "v2"} [Random]
        "#]],
    );
    check(
        "{host: '*.Example.com'}",
        expect![[r#"
            *.example.com Public {} []
        "#]],
    );
}

#[test]
fn fields_without_effect_are_named() {
    check(
        "{host: a, trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}, localityLbSetting: {enabled: true}}, connectionPool: {tcp: {maxConnections: 1}, http: {maxRetries: 1}}, outlierDetection: {}, tls: {mode: ISTIO_MUTUAL}, portLevelSettings: [{port: {number: 80}}], retryBudget: {}}}",
        expect![[r#"
            a.ns.svc.cluster.local Public {} [IstioMutual sans [] sni None credential None skip false, 80: []]
            Warning: spec.trafficPolicy.loadBalancer.consistentHash: is not in force yet: it has no effect
            Warning: spec.trafficPolicy.loadBalancer.localityLbSetting: is not in force yet: it has no effect
            Warning: spec.trafficPolicy.connectionPool.tcp.maxConnections: is not in force yet: it has no effect
            Warning: spec.trafficPolicy.connectionPool.http: is not in force yet: it has no effect
            Warning: spec.trafficPolicy.outlierDetection: is not in force yet: it has no effect
            Warning: spec.trafficPolicy.retryBudget: is not in force yet: it has no effect
        "#]],
    );
    check(
        "{host: a, trafficPolicy: {tls: {mode: DISABLE}}}",
        expect![[r#"
            a.ns.svc.cluster.local Public {} [Disable sans [] sni None credential None skip false]
        "#]],
    );
}

#[test]
fn errors_refuse() {
    check(
        "{host: a, subsets: [{name: v1}, {name: v1}]}",
        expect![[r#"
            Error: spec.subsets[1].name: subset "v1" is defined twice: rename one
        "#]],
    );
}
