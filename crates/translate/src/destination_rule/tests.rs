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
    if let Some(balancer) = &settings.balancer {
        said.push(format!("{:?}", balancer.algorithm));
        said.extend(balancer.locality.as_ref().map(|l| format!("{l:?}")));
        said.extend(balancer.warmup.map(|w| format!("{w:?}")));
    }
    if let Some(pool) = &settings.pool {
        // What is given; the rest is none.
        let given = format!("{pool:?}");
        let given = given.replace(['{', '}'], ",");
        let given = given
            .split(',')
            .map(str::trim)
            .filter(|part| part.contains("Some("));
        said.push(format!("pool {}", given.collect::<Vec<_>>().join(" ")));
        said.extend(
            pool.use_client_protocol
                .then(|| "client's protocol".to_owned()),
        );
    }
    said.extend(settings.outlier.as_ref().map(|o| format!("{o:?}")));
    said.extend(settings.tunnel.as_ref().map(|t| format!("{t:?}")));
    said.extend(settings.proxy_protocol.map(|p| format!("{p:?}")));
    said.extend(settings.retry_budget.map(|b| format!("{b:?}")));
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
            a.ns.svc.cluster.local Public {} [Random, Simple sans ["z"] sni Some("x.y") credential None skip true CertificateFiles { chain: None, key: None, ca: Some("/ca"), crl: None }, 80: [IstioMutual sans [] sni None credential None skip false], 81: [pool connect_timeout: Some(1s)]]
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
            reviews.ns.svc.cluster.local Namespaces(["ns"]) {"app": "a"} [LeastRequest, pool connect_timeout: Some(30ms)]
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
fn balancing() {
    check(
        "{host: a, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: X-User}}, portLevelSettings: [{port: {number: 80}, loadBalancer: {consistentHash: {httpCookie: {name: c, path: /p, ttl: 1h, attributes: [{name: SameSite, value: Lax}]}, maglev: {}}}}, {port: {number: 81}, loadBalancer: {consistentHash: {useSourceIp: true, ringHash: {minimumRingSize: 8}}}}, {port: {number: 82}, loadBalancer: {consistentHash: {useSourceIp: false, maglev: {tableSize: 13}}}}]}}",
        expect![[r#"
            a.ns.svc.cluster.local Public {} [ConsistentHash(ConsistentHash { key: Header("x-user"), table: Ring { minimum: 1024 } }), 80: [ConsistentHash(ConsistentHash { key: Cookie(HashCookie { name: "c", path: "/p", ttl: Some(3600s), attributes: [("SameSite", "Lax")] }), table: Maglev { size: 65537 } })], 81: [ConsistentHash(ConsistentHash { key: SourceIp, table: Ring { minimum: 8 } })], 82: [Random]]
        "#]],
    );
    check(
        "{host: a, trafficPolicy: {outlierDetection: {}, loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 30s, aggression: 1.5}, localityLbSetting: {failover: [{from: a, to: b}]}}}, subsets: [{name: v1, trafficPolicy: {loadBalancer: {warmupDurationSecs: 5s, localityLbSetting: {enabled: false, distribute: [{from: 'r/*', to: {'r/a': 80, 'r/b': 20}}]}}}}]}",
        expect![[r#"
            a.ns.svc.cluster.local Public {} [RoundRobin, Locality { enabled: true, distribute: [], failover: [Failover { from: "a", to: "b" }], failover_priority: [] }, Warmup { duration: 30s, minimum_percent: 10.0, aggression: 1.5 }, OutlierDetection { consecutive_5xx: 5, consecutive_gateway: 0, consecutive_local: None, interval: 10s, base_ejection_time: 30s, max_ejection_percent: 10, min_health_percent: 0, error_codes: [] }]
              v1 {} [LeastRequest, Locality { enabled: false, distribute: [Distribute { from: "r/*", to: [("r/a", 80), ("r/b", 20)] }], failover: [], failover_priority: [] }, Warmup { duration: 5s, minimum_percent: 10.0, aggression: 1.0 }]
            Warning: spec.subsets[0].trafficPolicy.loadBalancer.warmupDurationSecs: is deprecated: use warmup.duration
        "#]],
    );
}

#[test]
fn limits_and_outliers() {
    check(
        "{host: a, trafficPolicy: {connectionPool: {tcp: {maxConnections: 1, tcpKeepalive: {probes: 3, time: 1s}, maxConnectionDuration: 5s, idleTimeout: 0s}, http: {http1MaxPendingRequests: 2, http2MaxRequests: 3, maxRequestsPerConnection: 0, maxRetries: 4, idleTimeout: 7s, h2UpgradePolicy: UPGRADE, maxConcurrentStreams: 5, http2KeepAlive: {interval: 1s}}}, outlierDetection: {consecutive5xxErrors: 0, consecutiveGatewayErrors: 3, splitExternalLocalOriginErrors: true, interval: 1s, maxEjectionPercent: 50, outlierDetectionHttpErrorCodes: [429]}, tunnel: {targetHost: far.example, targetPort: 443}, proxyProtocol: {}, retryBudget: {percent: 5}}, subsets: [{name: v1, trafficPolicy: {connectionPool: {http: {useClientProtocol: true}}, outlierDetection: {}, tunnel: {protocol: POST, targetHost: b, targetPort: 1}, proxyProtocol: {version: V2}}}]}",
        expect![[r#"
            a.ns.svc.cluster.local Public {} [pool max_connections: Some(1) keepalive: Some(TcpKeepalive probes: Some(3) time: Some(1s) max_connection_duration: Some(5s) tcp_idle_timeout: Some(0ns) max_pending: Some(2) max_requests: Some(3) max_retries: Some(4) http_idle_timeout: Some(7s) h2_upgrade: Some(true) max_concurrent_streams: Some(5) http2_keepalive: Some(Http2Keepalive, OutlierDetection { consecutive_5xx: 0, consecutive_gateway: 3, consecutive_local: Some(5), interval: 1s, base_ejection_time: 30s, max_ejection_percent: 50, min_health_percent: 0, error_codes: [429] }, Tunnel { post: false, host: "far.example", port: 443 }, V1, RetryBudget { percent: 5.0, least: 3 }]
              v1 {} [pool , client's protocol, OutlierDetection { consecutive_5xx: 5, consecutive_gateway: 0, consecutive_local: None, interval: 10s, base_ejection_time: 30s, max_ejection_percent: 10, min_health_percent: 0, error_codes: [] }, Tunnel { post: true, host: "b", port: 1 }, V2]
        "#]],
    );
}

#[test]
fn numbers_that_cannot_be_refuse() {
    check(
        "{host: a, trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 100}}, warmup: {duration: 0s}}, connectionPool: {tcp: {connectTimeout: 0s}}, outlierDetection: {interval: 0s, outlierDetectionHttpErrorCodes: [600]}, tunnel: {protocol: GET, targetHost: '*.b', targetPort: 0}}}",
        expect![[r#"
            Error: spec.trafficPolicy.loadBalancer.consistentHash.maglev.tableSize: 100 is no prime number of at most 5000011: use one, such as 65537
            Warning: spec.trafficPolicy.loadBalancer.warmup: works only with ROUND_ROBIN and LEAST_REQUEST: it has no effect
            Error: spec.trafficPolicy.loadBalancer.warmup.duration: is too short: use 1ms or more
            Error: spec.trafficPolicy.tunnel.protocol: "GET" is no way to ask for a tunnel: use CONNECT or POST
            Error: spec.trafficPolicy.tunnel.targetHost: cannot be a wildcard: name one host
            Error: spec.trafficPolicy.tunnel.targetPort: 0 is not a port; use 1 to 65535
            Error: spec.trafficPolicy.connectionPool.tcp.connectTimeout: is too short: use 1ms or more
            Error: spec.trafficPolicy.outlierDetection.interval: is too short: use 1ms or more
            Error: spec.trafficPolicy.outlierDetection.outlierDetectionHttpErrorCodes[0]: 600 is not a status that an answer can have; use 200 to 599
        "#]],
    );
    check(
        "{host: a, trafficPolicy: {connectionPool: {}, loadBalancer: {localityLbSetting: {distribute: [{from: '', to: {a: 100, b: 0}}]}}}}",
        expect![[r#"
            Error: spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[0].from: is missing: name the clients' locality, or *
            Error: spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[0].to[b]: is 0: leave the locality out
            Error: spec.trafficPolicy.connectionPool: says nothing: give tcp or http, or leave it out
        "#]],
    );
}

#[test]
fn fields_without_effect_are_named() {
    check(
        "{host: a, trafficPolicy: {loadBalancer: {simple: RANDOM, zoneAwareLbSetting: {enabled: true}, backendUtilization: {}, warmup: {duration: 1s}}, outlierDetection: {consecutiveErrors: 1}, retryBudget: {budgetInterval: 1s}}}",
        expect![[r#"
            a.ns.svc.cluster.local Public {} [Random, OutlierDetection { consecutive_5xx: 5, consecutive_gateway: 0, consecutive_local: None, interval: 10s, base_ejection_time: 30s, max_ejection_percent: 10, min_health_percent: 0, error_codes: [] }, RetryBudget { percent: 20.0, least: 3 }]
            Warning: spec.trafficPolicy.loadBalancer.warmup: works only with ROUND_ROBIN and LEAST_REQUEST: it has no effect
            Warning: spec.trafficPolicy.outlierDetection.consecutiveErrors: is deprecated and has no effect: use consecutive5xxErrors or consecutiveGatewayErrors
            Warning: spec.trafficPolicy.retryBudget.budgetInterval: is not in force yet: it has no effect
            Warning: spec.trafficPolicy.loadBalancer.zoneAwareLbSetting: is not in force yet: it has no effect
            Warning: spec.trafficPolicy.loadBalancer.backendUtilization: is not in force yet: it has no effect
        "#]],
    );
    check(
        "{host: a, trafficPolicy: {loadBalancer: {localityLbSetting: {failoverPriority: [a]}}}}",
        expect![[r#"
            a.ns.svc.cluster.local Public {} [LeastRequest, Locality { enabled: true, distribute: [], failover: [], failover_priority: ["a"] }]
            Warning: spec.trafficPolicy.loadBalancer.localityLbSetting: has no effect without outlierDetection: add it
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
