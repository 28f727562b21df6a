//! Cases of `analyze`: text in, observable result out.

use super::*;
use expect_test::{Expect, expect};
use lateen_api::object::Object;

/// What the cases refer to.
const WORLD: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: ns}
spec: {ports: [{name: http, port: 9080}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: ns}
spec: {host: reviews, subsets: [{name: v1}, {name: v2}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: wild, namespace: ns}
spec: {hosts: ['*.example.com'], ports: [{number: 443, name: tls, protocol: TLS}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: ns}
spec: {selector: {a: b}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}
---
";

/// Analyzes the world with these documents added.
fn check(text: &str, want: Expect) {
    let documents = lateen_api::yaml::parse("f", &format!("{WORLD}{text}"));
    let services = documents
        .iter()
        .filter(|d| d.value["kind"] == "Service")
        .map(|d| serde_json::from_value::<core::Service>(d.value.clone()).expect("a Service"))
        .collect::<Vec<_>>();
    let (mut entries, mut routes, mut rules, mut gateways) = (vec![], vec![], vec![], vec![]);
    let (mut peers, mut requests, mut policies) = (vec![], vec![], vec![]);
    let (mut limits, mut sidecars) = (vec![], vec![]);
    for document in &documents {
        assert!(document.notices.is_empty(), "{:?}", document.notices);
        match document.object.as_ref() {
            Some(Object::ServiceEntry(config)) => entries.push(config),
            Some(Object::VirtualService(config)) => routes.push(config),
            Some(Object::DestinationRule(config)) => rules.push(config),
            Some(Object::Gateway(config)) => gateways.push(config),
            Some(Object::PeerAuthentication(config)) => peers.push(config),
            Some(Object::RequestAuthentication(config)) => requests.push(config),
            Some(Object::AuthorizationPolicy(config)) => policies.push(config),
            Some(Object::RateLimitPolicy(config)) => limits.push(config),
            Some(Object::Sidecar(config)) => sidecars.push(config),
            _ => {}
        }
    }
    let text = "extensionProviders: [{name: ask, envoyExtAuthzGrpc: {service: a.b, port: 1}}, {name: web, envoyExtAuthzHttp: {service: a.b, port: 1}}]";
    let mesh = Mesh {
        config: lateen_api::mesh_config::parse(text).0.expect("good"),
        ..Mesh::default()
    };
    let workload = BTreeMap::from([("app".into(), "reviews".into())]);
    let carrying = |key: &str, value: &str| BTreeMap::from([(Str::from(key), Str::from(value))]);
    let pods = [
        workload,
        carrying("a", "b"),
        carrying("app", "edge"),
        carrying("app", "other"),
    ];
    let workloads: Vec<_> = pods.iter().map(|labels| ("ns", labels)).collect();
    let notices = analyze(&Inputs {
        mesh: &mesh,
        services: &services.iter().collect::<Vec<_>>(),
        service_entries: &entries,
        virtual_services: &routes,
        destination_rules: &rules,
        gateways: &gateways,
        peer_authentications: &peers,
        request_authentications: &requests,
        authorization_policies: &policies,
        rate_limit_policies: &limits,
        sidecars: &sidecars,
        workloads: Some(&workloads),
    });
    let said = notices.iter().map(|n| format!("{n}\n")).collect::<String>();
    want.assert_eq(&said);
}

/// A VirtualService `ns/a` with this spec.
fn routes(spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: a, namespace: ns}}\nspec: {spec}\n"
    )
}

#[test]
fn what_exists_is_fine() {
    check(
        &routes(
            "{hosts: [reviews], gateways: [mesh, gw, ns/gw], http: [{route: [{destination: {host: reviews, subset: v1}}], mirror: {host: a.example.com}}]}",
        ),
        expect![[r#""#]],
    );
}

#[test]
fn missing_host() {
    check(
        &routes(
            "{hosts: [reviews], http: [{route: [{destination: {host: revews}}], mirror: {host: x.y}}], tcp: [{route: [{destination: {host: z}}]}]}",
        ),
        expect![[r#"
            Error [IST0101]: VirtualService ns/a: spec.http[0].route[0].destination.host: no Service or ServiceEntry has the host revews.ns.svc.cluster.local, so requests fail with 503: create it or correct the name
            Error [IST0101]: VirtualService ns/a: spec.tcp[0].route[0].destination.host: no Service or ServiceEntry has the host z.ns.svc.cluster.local, so requests fail with 503: create it or correct the name
            Error [IST0101]: VirtualService ns/a: spec.http[0].mirror.host: no Service or ServiceEntry has the host x.y, so nothing is copied there: create it or correct the name
        "#]],
    );
}

#[test]
fn missing_subset() {
    check(
        &routes(
            "{hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v22}}]}, {route: [{destination: {host: a.example.com, subset: v1}}]}]}",
        ),
        expect![[r#"
            Error [IST0101]: VirtualService ns/a: spec.http[0].route[0].destination.subset: subset "v22" is not defined, so requests fail with 503 (did you mean "v2"?): add it to DestinationRule ns/reviews
            Error [IST0101]: VirtualService ns/a: spec.http[1].route[0].destination.subset: subset "v1" is not defined, so requests fail with 503: no DestinationRule is for the host a.example.com; create one with this subset
        "#]],
    );
}

#[test]
fn ports_of_destinations() {
    check(
        &format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: two, namespace: ns}}\nspec: {{ports: [{{name: http, port: 80}}, {{name: tcp, port: 81}}]}}\n---\n{}",
            routes(
                "{hosts: [reviews], gateways: [gw], http: [{route: [{destination: {host: reviews, port: {number: 80}}}]}, {route: [{destination: {host: two}}]}, {route: [{destination: {host: two, port: {number: 81}}}]}]}",
            )
        ),
        expect![[r#"
            Error [IST0101]: VirtualService ns/a: spec.http[0].route[0].destination.port.number: reviews.ns.svc.cluster.local has no port 80, so requests fail with 503: use one of 9080
            Warning [IST0112]: VirtualService ns/a: spec.http[1].route[0].destination.port: is missing: two.ns.svc.cluster.local has several ports (80, 81) and gateways cannot tell which is meant; name one
        "#]],
    );
}

#[test]
fn missing_gateway() {
    check(
        &routes(
            "{hosts: [a.example.com], gateways: [other/gw], http: [{match: [{gateways: [g2]}], route: [{destination: {host: reviews}}]}]}",
        ),
        expect![[r#"
            Error [IST0101]: VirtualService ns/a: spec.gateways[0]: there is no Gateway other/gw, so the rules do not reach it: create it or correct the name
            Error [IST0101]: VirtualService ns/a: spec.http[0].match[0].gateways[0]: there is no Gateway ns/g2, so the rules do not reach it: create it or correct the name
        "#]],
    );
}

#[test]
fn two_for_one_host() {
    check(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: b, namespace: ns, creationTimestamp: '2026-02-01T00:00:00Z'}\nspec: {hosts: [reviews], http: [{route: [{destination: {host: reviews}}]}]}\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: c, namespace: ns, creationTimestamp: '2026-01-01T00:00:00Z'}\nspec: {hosts: [reviews.ns.svc.cluster.local], http: [{route: [{destination: {host: reviews}}]}]}\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: d, namespace: other}\nspec: {hosts: [reviews.ns.svc.cluster.local], gateways: [ns/gw], http: [{route: [{destination: {host: reviews.ns.svc.cluster.local}}]}]}\n",
        expect![[r#"
            Error [IST0109]: VirtualService ns/b: spec.hosts: VirtualService ns/c is older and binds reviews.ns.svc.cluster.local for sidecars too, so these rules have no effect there: merge the two
        "#]],
    );
}

#[test]
fn port_names() {
    check(
        "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: ns}\nspec: {ports: [{port: 80}, {port: 81, name: web}, {port: 82, name: web2, appProtocol: http}, {port: 53, name: dns, protocol: UDP}]}\n",
        expect![[r#"
            Info [IST0118]: Service ns/s: spec.ports[0].name: port 80 has the name "", which declares no protocol, so it is detected: name it http-…, grpc-… or tcp-…, or set appProtocol
            Info [IST0118]: Service ns/s: spec.ports[1].name: port 81 has the name "web", which declares no protocol, so it is detected: name it http-…, grpc-… or tcp-…, or set appProtocol
        "#]],
    );
}

/// A security object `ns/a` of this kind with this spec.
fn secure(kind: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: a, namespace: ns}}\nspec: {spec}\n"
    )
}

/// A Service whose workload is there, with an HTTP and a TCP port.
const DB: &str = "---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: ns}
spec: {selector: {app: reviews}, ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 90, targetPort: 9000}]}
";

#[test]
fn policies_for_nobody() {
    check(
        &secure(
            "PeerAuthentication",
            "{selector: {matchLabels: {app: revews}}}",
        ),
        expect![[r#"
            Warning [IST0127]: PeerAuthentication ns/a: spec.selector.matchLabels: no workload in namespace ns has the labels app=revews, so it is for nothing yet: correct them, or start the workload
        "#]],
    );
    check(
        &secure(
            "PeerAuthentication",
            "{selector: {matchLabels: {app: reviews}}}",
        ),
        expect![[r#""#]],
    );
    check(
        &secure(
            "AuthorizationPolicy",
            "{targetRefs: [{kind: Service, name: nobody}, {kind: Service, name: reviews}]}",
        ),
        expect![[r#"
            Warning [IST0101]: AuthorizationPolicy ns/a: spec.targetRefs[0]: there is no Service nobody in namespace ns
            Warning: AuthorizationPolicy ns/a: spec.targetRefs[1]: policies of services are enforced by waypoints, which are not there yet: use a selector
        "#]],
    );
    check(
        &secure(
            "RequestAuthentication",
            "{targetRef: {kind: Service, name: nobody}}",
        ),
        expect![[r#"
            Warning [IST0101]: RequestAuthentication ns/a: spec.targetRef: there is no Service nobody in namespace ns
        "#]],
    );
}

#[test]
fn providers_that_nobody_configured() {
    let custom = |name: &str| {
        secure(
            "AuthorizationPolicy",
            &format!("{{action: CUSTOM, provider: {{name: {name}}}, rules: [{{}}]}}"),
        )
    };
    check(&custom("ask"), expect![[r#""#]]);
    check(
        &custom("akk"),
        expect![[r#"
        Error [IST0101]: AuthorizationPolicy ns/a: spec.provider.name: "akk" is not among extensionProviders of the mesh's configuration (did you mean "ask"?), so whatever the policy matches is denied: add it there
    "#]],
    );
}

#[test]
fn tokens_that_nobody_requires() {
    let rules = secure(
        "RequestAuthentication",
        "{jwtRules: [{issuer: 'https://a.b'}]}",
    );
    check(
        &rules,
        expect![[r#"
        Info: RequestAuthentication ns/a: spec.jwtRules: requests without a token pass: an AuthorizationPolicy with requestPrincipals: ["*"] requires one
    "#]],
    );
    let policy = secure(
        "AuthorizationPolicy",
        "{rules: [{from: [{source: {requestPrincipals: ['*']}}]}]}",
    );
    check(&format!("{rules}{policy}"), expect![[r#""#]]);
}

#[test]
fn http_rules_on_tcp_ports() {
    let policy = |action: &str, to: &str| {
        let rules = format!("[{{to: [{{operation: {to}}}]}}]");
        let spec = format!(
            "{{action: {action}, selector: {{matchLabels: {{app: reviews}}}}, rules: {rules}}}"
        );
        format!("{DB}{}", secure("AuthorizationPolicy", &spec))
    };
    check(
        &policy("ALLOW", "{methods: [GET]}"),
        expect![[r#"
        Warning: AuthorizationPolicy ns/a: spec.rules[0]: uses fields of HTTP, but port 90 of Service ns/db is TCP: there the rule never matches, so connections are denied; name the HTTP ports in to.operation.ports
    "#]],
    );
    check(
        &policy("DENY", "{paths: [/a], ports: ['9000']}"),
        expect![[r#"
        Warning: AuthorizationPolicy ns/a: spec.rules[0]: uses fields of HTTP, but port 90 of Service ns/db is TCP: there its HTTP part is passed over, so it denies more than it says; name the HTTP ports in to.operation.ports
    "#]],
    );
    check(
        &policy("ALLOW", "{methods: [GET], ports: ['8080']}"),
        expect![[r#""#]],
    );
    check(&policy("ALLOW", "{ports: ['9000']}"), expect![[r#""#]]);
    check(
        &policy("AUDIT", "{methods: [GET]}"),
        expect![[r#"
            Warning: AuthorizationPolicy ns/a: spec.rules[0]: uses fields of HTTP, but port 90 of Service ns/db is TCP: there its HTTP part is passed over, so it notes more than it says; name the HTTP ports in to.operation.ports
        "#]],
    );
    check(
        &policy("CUSTOM, provider: {name: ask}", "{methods: [GET]}"),
        expect![[r#"
            Warning: AuthorizationPolicy ns/a: spec.rules[0]: uses fields of HTTP, but port 90 of Service ns/db is TCP: there its HTTP part is passed over, so the provider is asked about more than it says; name the HTTP ports in to.operation.ports
        "#]],
    );
    check(
        &policy("CUSTOM, provider: {name: web}", "{methods: [GET]}"),
        expect![[r#"
            Warning: AuthorizationPolicy ns/a: spec.rules[0]: uses fields of HTTP, but port 90 of Service ns/db is TCP: there a provider of envoyExtAuthzHttp cannot be asked, so connections are denied; name the HTTP ports in to.operation.ports
        "#]],
    );
    // The remote address of bytes is their source: that is not HTTP.
    let remote = "{rules: [{when: [{key: remote.ip, values: [10.0.0.0/8]}]}]}";
    check(
        &format!("{DB}{}", secure("AuthorizationPolicy", remote)),
        expect![[r#""#]],
    );
}

#[test]
fn plain_text_to_strict_servers() {
    let rule = |mode: &str| {
        format!(
            "{DB}---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: db, namespace: ns}}\nspec: {{host: db, trafficPolicy: {{tls: {{mode: {mode}}}}}}}\n"
        )
    };
    let strict = secure("PeerAuthentication", "{mtls: {mode: STRICT}}");
    check(
        &format!("{}{strict}", rule("DISABLE")),
        expect![[r#"
        Error [IST0113]: DestinationRule ns/db: spec.trafficPolicy.tls: clients send plain text, but PeerAuthentication ns/a is STRICT there, so connections are reset: use ISTIO_MUTUAL, or leave tls out
    "#]],
    );
    check(
        &format!("{}{strict}", rule("ISTIO_MUTUAL")),
        expect![[r#""#]],
    );
    check(&rule("DISABLE"), expect![[r#""#]]);
}

fn object(kind: &str, name: &str, spec: &str) -> String {
    let version = match kind {
        "RateLimitPolicy" => "networking.lateen.dev/v1alpha1",
        _ => "networking.istio.io/v1",
    };
    format!(
        "---\napiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: ns}}\nspec: {spec}\n"
    )
}

#[test]
fn rate_limits_ask_a_service_that_is_there() {
    let descriptors = "descriptors: [{entries: [{route: {}}]}]";
    let spec = format!(
        "{{selector: {{matchLabels: {{app: none}}}}, rules: [
            {{global: {{domain: d}}, {descriptors}}},
            {{global: {{domain: d, failOpen: false, provider: {{host: reviews}}}}, {descriptors}}},
            {{global: {{domain: d, provider: {{host: reviews, port: 9080}}}}, {descriptors}}},
            {{local: {{tokens: 1}}}}]}}"
    );
    check(
        &object("RateLimitPolicy", "a", &spec),
        expect![[r#"
        Warning [IST0127]: RateLimitPolicy ns/a: spec.selector.matchLabels: no workload in namespace ns has the labels app=none, so it is for nothing yet: correct them, or start the workload
        Warning [IST0101]: RateLimitPolicy ns/a: spec.rules[0].global.provider.host: there is no rate-limit service ratelimit.istio-system.svc.cluster.local, so nothing is limited: start one, or correct the name
        Warning [IST0101]: RateLimitPolicy ns/a: spec.rules[1].global.provider.port: reviews.ns.svc.cluster.local has no port 8081, so requests are refused with 500: use the port of its Service
    "#]],
    );
}

#[test]
fn sidecars_that_claim_the_same_workloads() {
    let same = "{workloadSelector: {labels: {app: reviews}}, egress: [{hosts: ['./*']}]}";
    let none = "{egress: [{hosts: ['./*']}]}";
    let other = "{workloadSelector: {labels: {app: other}}, egress: [{hosts: ['./*']}]}";
    let all = [
        ("a", same),
        ("b", same),
        ("c", none),
        ("d", none),
        ("e", other),
    ];
    let text: String = all
        .iter()
        .map(|(name, spec)| object("Sidecar", name, spec))
        .collect();
    check(
        &text,
        expect![[r#"
        Error [IST0110]: Sidecar ns/b: spec.workloadSelector.labels: Sidecar ns/a is older and selects some of the same workloads, so this one has no effect on them: merge the two, or select apart
        Error [IST0111]: Sidecar ns/d: spec.workloadSelector: Sidecar ns/c is older and has no selector either, so this one has no effect: merge the two
    "#]],
    );
}

#[test]
fn gateways_that_claim_the_same_hosts_or_share_a_certificate() {
    let tls = |host: &str| {
        format!(
            "{{selector: {{app: edge}}, servers: [{{port: {{number: 443, name: https, protocol: HTTPS}}, hosts: [{host}], tls: {{mode: SIMPLE, credentialName: cert}}}}]}}"
        )
    };
    let text = object(
        "Gateway",
        "g1",
        "{selector: {a: b}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}",
    ) + &object("Gateway", "g2", &tls("a.com"))
        + &object("Gateway", "g3", &tls("b.com"))
        + &object(
            "Gateway",
            "g4",
            "{selector: {app: other}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}",
        );
    check(
        &text,
        expect![[r#"
            Warning [IST0138]: Gateway ns/g3: spec.servers[0].tls.credentialName: Gateway ns/g2 uses cert, too: browsers use one connection for hosts of one certificate, and get 404 for those of the other Gateway; merge the two, or use certificates apart
            Error [IST0145]: Gateway ns/gw: spec.servers[0].hosts: Gateway ns/g1 is older and has * at port 80 of the same workloads: leave it out of one of them
        "#]],
    );
}

#[test]
fn hosts_that_no_gateway_takes() {
    let gateway = "{selector: {app: edge}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*.a.com', './b.com', 'other/c.com']}]}";
    let spec = "{hosts: [x.a.com, b.com, c.com, d.com], gateways: [narrow, mesh], http: [{route: [{destination: {host: reviews}}]}]}";
    let text = routes(spec) + &object("Gateway", "narrow", gateway);
    check(
        &text,
        expect![[r#"
            Warning [IST0132]: VirtualService ns/a: spec.gateways[0]: no server of this Gateway takes c.com, d.com, so requests for it get 404 there: add it to the Gateway's hosts, or correct the name
        "#]],
    );
}

#[test]
fn conditions_that_an_earlier_rule_has() {
    let to = "route: [{destination: {host: reviews}}]";
    let spec = format!(
        "{{hosts: [reviews], http: [
            {{match: [{{uri: {{prefix: /a}}}}, {{uri: {{prefix: /b}}}}], {to}}},
            {{match: [{{name: again, uri: {{prefix: /a}}}}], {to}}},
            {{match: [{{uri: {{prefix: /b}}}}, {{uri: {{prefix: /c}}}}], {to}}},
            {{match: [{{uri: {{prefix: /a}}, method: {{exact: GET}}}}], {to}}}]}}"
    );
    check(
        &routes(&spec),
        expect![[r#"
        Warning [IST0130]: VirtualService ns/a: spec.http[1]: never runs: spec.http[0] and those before it match the same; remove it, or match something else
        Info [IST0131]: VirtualService ns/a: spec.http[2].match[0]: is the same as a condition of spec.http[0], which is looked at before: remove it
    "#]],
    );
}

#[test]
fn gateways_that_nobody_reaches() {
    let gateway = |selector: &str| {
        format!(
            "{{selector: {selector}, servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: [a.com]}}, {{port: {{number: 8443, name: tls, protocol: TLS}}, hosts: [b.com], tls: {{mode: PASSTHROUGH}}}}, {{port: {{number: 31400, name: tcp, protocol: TCP}}, hosts: [c.com]}}]}}"
        )
    };
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: edge, namespace: ns}\nspec: {selector: {app: edge}, ports: [{name: http, port: 80, targetPort: 8080}, {name: tls, port: 443, targetPort: 8443}]}\n---\n";
    let text = service.to_owned()
        + &object("Gateway", "reached", &gateway("{app: edge}"))
        + &object("Gateway", "nowhere", &gateway("{app: egde}"));
    check(
        &text,
        expect![[r#"
        Warning [IST0104]: Gateway ns/reached: spec.servers[2].port.number: no Service leads to port 31400 of the gateway's pods, so nobody outside reaches it: use one of 80, 443, 8080, 8443, or add the port to the gateway's Service
        Warning [IST0101]: Gateway ns/nowhere: spec.selector: no pod has these labels, so the gateway is nowhere: correct them, or install such a gateway
    "#]],
    );
}
