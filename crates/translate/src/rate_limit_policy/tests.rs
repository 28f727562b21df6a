//! RateLimitPolicies: text in, and what a request meets at a proxy.

use crate::mesh::Mesh;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use lateen_model::decide::authz::{RequestFacts, Token};
use lateen_model::decide::limits::{Check, LimitFacts, met};
use lateen_model::decide::plan::{ConnectionFacts, Direction, Peer, RequestHead};
use lateen_model::decide::resources::{Audience, ResourceSet};
use lateen_model::decide::snapshot::Snapshot;
use lateen_model::identity::SpiffeId;
use lateen_model::mesh::{Role, Scope};
use lateen_model::resource::Resource;

fn translated(namespace: &str, spec: &str) -> Resource {
    let text = format!(
        "apiVersion: networking.lateen.dev/v1alpha1\nkind: RateLimitPolicy\n\
         metadata: {{name: a, namespace: {namespace}}}\nspec: {spec}\n"
    );
    let mut documents = lateen_api::yaml::parse("f", &text);
    let document = documents.pop().expect("one document");
    assert!(document.notices.is_empty(), "{:?}", document.notices);
    let (mut resources, notices) = crate::alone(&document.object.expect("read"), &Mesh::default());
    assert!(notices.is_empty(), "{notices:?}");
    resources.pop().expect("one resource")
}

fn scope() -> Scope {
    Scope {
        on_demand: false,
        role: Role::Sidecar,
        pod: "web-1".into(),
        namespace: "shop".into(),
        labels: [("app".into(), "web".into())].into(),
        addresses: vec!["10.0.0.1".parse().expect("an address")],
        service_account: "web".into(),
        workload_name: "web".into(),
        canonical_name: "web".into(),
        canonical_revision: "v1".into(),
        cluster: "Kubernetes".into(),
        domain: "cluster.local".into(),
    }
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("x-user", "ann"),
        ("x-list", "a"),
        ("x-list", "b"),
        ("x-empty", ""),
    ] {
        headers.append(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    headers
}

/// What `POST /api/x?plan=free` of a member with a token meets, on route `r1` to `web.shop`.
fn at(direction: Direction, namespace: &str, spec: &str) -> String {
    let set = ResourceSet::of([translated(namespace, spec)]);
    let snapshot = Snapshot::build(&set, &scope());
    let headers = headers();
    let claims = serde_json::json!({ "sub": "u1", "realm": { "tier": 3 }, "list": ["x"] });
    let token = Token {
        claims: claims.as_object().cloned().unwrap_or_default(),
        ..Token::default()
    };
    let facts = ConnectionFacts {
        direction,
        source: "10.0.0.9:1".parse().expect("an address"),
        destination: "10.0.0.1:80".parse().expect("an address"),
    };
    let peer = Peer {
        identity: SpiffeId::of_account("cluster.local", "shop", "client").ok(),
        ..Peer::default()
    };
    let request = LimitFacts {
        request: RequestFacts {
            head: RequestHead {
                token: None,
                method: &Method::POST,
                authority: "web",
                path: "/api/x?plan=free",
                scheme: "http",
                headers: &headers,
            },
            remote: "192.0.2.7".parse().expect("an address"),
            token: Some(&token),
        },
        route: "r1",
        destination: "web.shop.svc.cluster.local",
    };
    let mut out = String::new();
    for met in met(&snapshot, &facts, &peer, &request) {
        let values = |values: &Vec<(lateen_base::Str, String)>| {
            let pairs: Vec<_> = values.iter().map(|(k, v)| format!("{k}={v}")).collect();
            pairs.join(",")
        };
        out += &met.name();
        match &met.check {
            Check::Local(counters) => {
                for counter in counters {
                    let bucket = &counter.bucket;
                    let apart = counter.values.as_ref();
                    out += &format!(
                        " {}/{:?}/{}({})",
                        bucket.tokens,
                        bucket.interval,
                        bucket.burst,
                        apart.map(|(_, all)| values(all)).unwrap_or_default()
                    );
                }
            }
            Check::Global(descriptors) => {
                let service = met.service().expect("a service");
                out += &format!(
                    " {}:{} {} {} {:?} {}",
                    service.host,
                    service.port,
                    service.domain,
                    service.fail_open,
                    service.timeout,
                    service.leases
                );
                for descriptor in descriptors {
                    out += &format!(" ({})", values(descriptor));
                }
            }
        }
        out += "\n";
    }
    out
}

fn check(spec: &str, want: &str) {
    assert_eq!(at(Direction::Inbound, "shop", spec), want, "{spec}");
}

#[test]
fn buckets_have_defaults() {
    check("{rules: [{local: {tokens: 10}}]}", "rule 1 10/1s/10()\n");
    check(
        "{rules: [{name: all, local: {tokens: 10, interval: 1m, burst: 3}}]}",
        "rule 1 \"all\" 10/60s/3()\n",
    );
    check(
        "{rules: [{local: {}, descriptors: [{entries: [{remoteAddress: {}}], limit: {requests: 5, per: hour}}]}]}",
        "rule 1 5/3600s/5(remote_address=192.0.2.7)\n",
    );
}

#[test]
fn services_have_envoys_defaults() {
    let descriptors = "descriptors: [{entries: [{literal: {value: all}}]}]";
    check(
        &format!("{{rules: [{{global: {{domain: d}}, {descriptors}}}]}}"),
        "rule 1 ratelimit.istio-system.svc.cluster.local:8081 d true 20ms true (generic_key=all)\n",
    );
    check(
        &format!(
            "{{rules: [{{global: {{domain: d, provider: {{host: limits, port: 9}}, failOpen: false, timeout: 1s, leases: false}}, {descriptors}}}]}}"
        ),
        "rule 1 limits.shop.svc.cluster.local:9 d false 1s false (generic_key=all)\n",
    );
}

#[test]
fn descriptors_hold_what_the_request_has() {
    check(
        "{rules: [{global: {domain: d}, descriptors: [
            {entries: [{header: {name: X-User}}, {header: {name: x-list, key: list}}]},
            {entries: [{header: {name: x-absent}}, {remoteAddress: {}}]},
            {entries: [{header: {name: x-empty}}]},
            {entries: [{claim: {name: sub}}, {claim: {name: realm.tier, key: tier}}]},
            {entries: [{claim: {name: list}}]},
            {entries: [{principal: {key: who}}, {route: {}}, {destination: {}}]}]}]}",
        "rule 1 ratelimit.istio-system.svc.cluster.local:8081 d true 20ms true (X-User=ann,list=a,b) (sub=u1,tier=3) (who=cluster.local/ns/shop/sa/client,route=r1,destination=web.shop.svc.cluster.local)\n",
    );
    // Nothing to ask about.
    check(
        "{rules: [{global: {domain: d}, descriptors: [{entries: [{header: {name: x-absent}}]}]}]}",
        "",
    );
}

#[test]
fn conditions_are_alternatives() {
    for (condition, fits) in [
        ("uri: {prefix: /api}", true),
        ("uri: {prefix: /API}", false),
        ("uri: {prefix: /API}, ignoreUriCase: true", true),
        ("uri: {exact: /api/x}, method: {exact: POST}", true),
        ("method: {regex: 'G.*'}", false),
        (
            "headers: {X-User: {exact: ann}}, withoutHeaders: {x-absent: {}}",
            true,
        ),
        ("withoutHeaders: {x-user: {}}", false),
        ("queryParams: {plan: {exact: free}}", true),
        ("route: r1", true),
        ("route: r2", false),
    ] {
        let spec = format!("{{rules: [{{match: [{{{condition}}}], local: {{tokens: 1}}}}]}}");
        let want = if fits { "rule 1 1/1s/1()\n" } else { "" };
        check(&spec, want);
        let either = format!(
            "{{rules: [{{match: [{{route: r2}}, {{{condition}}}], local: {{tokens: 1}}}}]}}"
        );
        check(&either, want);
    }
}

#[test]
fn local_rules_come_first_and_all_that_match_count() {
    check(
        "{rules: [{global: {domain: d}, descriptors: [{entries: [{route: {}}]}]}, {local: {tokens: 1}}, {local: {tokens: 2}}]}",
        "rule 2 1/1s/1()\nrule 3 2/1s/2()\nrule 1 ratelimit.istio-system.svc.cluster.local:8081 d true 20ms true (route=r1)\n",
    );
}

#[test]
fn only_proxies_that_are_meant_limit_and_only_what_comes_in() {
    let rules = "rules: [{local: {tokens: 1}}]";
    let met = "rule 1 1/1s/1()\n";
    for (namespace, selector, want) in [
        ("shop", "", met),
        ("shop", "selector: {matchLabels: {app: web}},", met),
        ("shop", "selector: {matchLabels: {app: db}},", ""),
        ("other", "", ""),
        ("istio-system", "", met),
    ] {
        let spec = format!("{{{selector} {rules}}}");
        assert_eq!(
            at(Direction::Inbound, namespace, &spec),
            want,
            "{namespace} {spec}"
        );
        assert_eq!(
            at(Direction::Gateway, namespace, &spec),
            want,
            "{namespace} {spec}"
        );
        assert_eq!(at(Direction::Outbound, namespace, &spec), "");
        let audience = Audience::of(&translated(namespace, &spec));
        assert_eq!(audience.includes(&scope()), namespace != "other");
    }
}
