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
                "{} {:?} {:?} {:?}",
                p.host, p.visibility, p.workload_selector, p.settings
            )
            .expect("text");
            for s in p.subsets {
                writeln!(said, "  {} {:?} {:?}", s.name, s.labels, s.settings).expect("text");
            }
        }
        for n in notices {
            writeln!(said, "{}: {}: {}", n.severity, n.field, n.message).expect("text");
        }
    }
    want.assert_eq(&said);
}

#[test]
fn hosts_and_subsets() {
    check(
        "{host: reviews, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}, trafficPolicy: {loadBalancer: {simple: RANDOM}}}], trafficPolicy: {loadBalancer: {simple: LEAST_CONN}, connectionPool: {tcp: {connectTimeout: 30ms}}}, workloadSelector: {matchLabels: {app: a}}, exportTo: ['.']}",
        expect![[r#"
            reviews.ns.svc.cluster.local Namespaces(["ns"]) {"app": "a"} TrafficSettings { balancer: Some(LeastRequest), connect_timeout: Some(30ms) }
              v1 {"version": "v1"} TrafficSettings { balancer: None, connect_timeout: None }
              v2 {"version": "v2"} TrafficSettings { balancer: Some(Random), connect_timeout: None }
        "#]],
    );
    check(
        "{host: '*.Example.com'}",
        expect![[r#"
        *.example.com Public {} TrafficSettings { balancer: None, connect_timeout: None }
    "#]],
    );
}

#[test]
fn fields_without_effect_are_named() {
    check(
        "{host: a, trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}, localityLbSetting: {enabled: true}}, connectionPool: {tcp: {maxConnections: 1}, http: {maxRetries: 1}}, outlierDetection: {}, tls: {mode: ISTIO_MUTUAL}, portLevelSettings: [{port: {number: 80}}], retryBudget: {}}}",
        expect![[r#"
            a.ns.svc.cluster.local Public {} TrafficSettings { balancer: None, connect_timeout: None }
            Warning: spec.trafficPolicy.loadBalancer.consistentHash: is not in force yet: it has no effect
            Warning: spec.trafficPolicy.loadBalancer.localityLbSetting: is not in force yet: it has no effect
            Warning: spec.trafficPolicy.connectionPool.tcp.maxConnections: is not in force yet: it has no effect
            Warning: spec.trafficPolicy.connectionPool.http: is not in force yet: it has no effect
            Warning: spec.trafficPolicy.outlierDetection: is not in force yet: it has no effect
            Warning: spec.trafficPolicy.tls: is not in force yet: connections to the host stay as the application opens them
            Warning: spec.trafficPolicy.portLevelSettings: is not in force yet: it has no effect
            Warning: spec.trafficPolicy.retryBudget: is not in force yet: it has no effect
        "#]],
    );
    check(
        "{host: a, trafficPolicy: {tls: {mode: DISABLE}}}",
        expect![[r#"
            a.ns.svc.cluster.local Public {} TrafficSettings { balancer: None, connect_timeout: None }
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
