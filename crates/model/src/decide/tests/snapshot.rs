//! Snapshots: endpoints, reuse, summaries and simulation.

use super::mesh::{Mesh, parse};
use super::snapshot;
use crate::decide::cluster::Discovery;
use crate::decide::plan::Direction;
use crate::decide::resources::{Audience, ResourceSet};
use crate::decide::simulate::{Call, Caller, Simulation, simulate};
use crate::decide::snapshot::Snapshot;
use crate::resource::Kind;
use std::sync::Arc;

const WEB: &str = "outbound|80||web.default.svc.cluster.local";

fn endpoints(config: &str, cluster: &str) -> Vec<String> {
    let snapshot = snapshot(config);
    match &snapshot.cluster(cluster).expect("cluster").discovery {
        Discovery::Endpoints(list) => list.iter().map(|e| e.address.to_string()).collect(),
        Discovery::DnsFirst(one) => vec![format!("first of {}:{}", one.host, one.port)],
        Discovery::Dns(names) => names
            .iter()
            .map(|n| format!("{}:{}", n.host, n.port))
            .collect(),
        other => vec![format!("{other:?}")],
    }
}

#[test]
fn ready_endpoints_before_draining_ones() {
    let service = "service default/web 10.96.0.1 http:80>8080\n";
    let ready = "pod default/a 10.244.0.1 serves=web\n";
    let draining = "pod default/b 10.244.0.2 serves=web draining\n";
    let unready = "pod default/c 10.244.0.3 serves=web unready\n";
    let of = |pods: &str| endpoints(&format!("{service}{pods}"), WEB);
    assert_eq!(
        of(&format!("{ready}{draining}{unready}")),
        ["10.244.0.1:8080"]
    );
    assert_eq!(of(&format!("{draining}{unready}")), ["10.244.0.2:8080"]);
    assert!(of(unready).is_empty());
}

#[test]
fn names_to_resolve() {
    let of = |text: &str| endpoints(text, "outbound|80||api.example");
    assert_eq!(
        of("entry default/api.example - http:80>8080 dns"),
        ["api.example:8080"]
    );
    let listed = "entry default/api.example - http:80 dns
pod default/one one.example serves=api.example
pod default/two 198.51.100.7 serves=api.example";
    assert_eq!(of(listed), ["one.example:80", "198.51.100.7:80"]);
}

#[test]
fn equal_clusters_are_taken_over() {
    let first = "service default/web 10.96.0.1 http:80
service default/api 10.96.0.2 http:80
pod default/a 10.244.0.1 serves=web
pod default/b 10.244.0.2 serves=api";
    let Mesh { set, scope } = parse(first);
    let old = Snapshot::build(&set, &scope);
    let Mesh { set, scope } = parse(&format!("{first}\npod default/c 10.244.0.3 serves=api"));
    let new = Snapshot::build_from(&set, &scope, Some(&old));
    let same = |name: &str| {
        Arc::ptr_eq(
            old.cluster(name).expect("old"),
            new.cluster(name).expect("new"),
        )
    };
    assert!(same(WEB), "web did not change");
    assert!(
        !same("outbound|80||api.default.svc.cluster.local"),
        "api did"
    );
}

#[test]
fn a_set_tells_whether_anything_changed() {
    let Mesh { set, .. } = parse("service default/web 10.96.0.1 http:80");
    let mut copy = ResourceSet::default();
    assert!(copy.apply(set.to_resources(), []), "new");
    assert!(!copy.apply(set.to_resources(), []), "the same again");
    assert_eq!(copy, set);
    let key = set.to_resources()[0].key();
    assert!(copy.apply([], [key.clone()]) && copy.is_empty());
    assert!(!copy.apply([], [key]), "gone already");
}

#[test]
fn what_a_proxy_is_sent() {
    let text = "service other/hidden 10.96.1.1 http:80 export=other
gateway default/gw istio=ingressgateway
routes other/theirs hosts=a.example export=other";
    let seen = |me: &str| {
        let Mesh { set, scope } = parse(&format!("{me}\n{text}"));
        let all = set.to_resources();
        let kinds = all
            .iter()
            .filter(|r| Audience::of(r).includes(&scope))
            .map(|r| r.key().kind);
        kinds.collect::<Vec<_>>()
    };
    assert_eq!(
        seen("me sidecar default/a 10.244.0.1 istio=ingressgateway"),
        []
    );
    assert_eq!(
        seen("me gateway default/a 10.244.0.1 istio=ingressgateway"),
        [Kind::Gateway]
    );
    assert_eq!(seen("me gateway default/a 10.244.0.1 istio=other"), []);
    assert_eq!(
        seen("me sidecar other/a 10.244.0.1"),
        [Kind::Service, Kind::RouteTable]
    );
}

const SPLIT: &str = "service default/web 10.96.0.1 http:80 tcp:81
pod default/web-v1 10.244.0.1 serves=web version=v1
pod default/web-v2 10.244.0.2 serves=web version=v2
policy default/web host=web rr subset=v1:version=v1 subset=v2:version=v2
routes default/web hosts=web
  http name=split -> web/v1=90 web/v2=10 web/v3=100";

#[test]
fn summaries() {
    let snapshot = snapshot(SPLIT);
    let routes = snapshot.routes();
    let route = &routes[0];
    assert_eq!(
        (route.port, &*route.host, route.rules),
        (80, "web.default.svc.cluster.local", 1)
    );
    assert_eq!(routes.len(), 1, "names of one service are one line");
    let ports: Vec<_> = snapshot.listeners().iter().map(|l| l.port).collect();
    assert_eq!(ports, [80, 81]);
    let last = snapshot.clusters().last().expect("clusters");
    assert_eq!(&*last.name, "BlackHoleCluster");
}

fn simulated(url: &str) -> Simulation {
    let snapshot = snapshot(SPLIT);
    let call = Call {
        direction: Direction::Outbound,
        method: &http::Method::GET,
        url,
        port: None,
        headers: &http::HeaderMap::new(),
        dice: None,
        caller: Caller::default(),
    };
    simulate(&snapshot, &call).expect("URL")
}

fn steps(url: &str) -> Vec<String> {
    simulated(url).steps
}

#[test]
fn simulation_shows_every_choice() {
    let choices = simulated("http://web/").choices;
    let lines: Vec<_> = choices
        .iter()
        .map(|c| {
            let place = c.problem.clone().unwrap_or(c.endpoints.join(" "));
            format!(
                "{} {} {place}",
                c.percent,
                c.cluster.replace(".default.svc.cluster.local", "")
            )
        })
        .collect();
    let want = [
        "45 outbound|80|v1|web 10.244.0.1:80 web-v1",
        "5 outbound|80|v2|web 10.244.0.2:80 web-v2",
        "50 outbound|80|v3|web outbound|80|v3|web.default.svc.cluster.local names a subset that no DestinationRule defines",
    ];
    assert_eq!(lines, want);
    let choices = simulated("tcp://web:81").choices;
    assert_eq!(choices.len(), 1);
    assert_eq!(
        choices[0].endpoints,
        ["10.244.0.1:81 web-v1", "10.244.0.2:81 web-v2"]
    );
}

#[test]
fn simulation_tells_every_step() {
    assert_eq!(
        steps("http://web/x"),
        [
            "web is service default/web.default.svc.cluster.local; it resolves to 10.96.0.1 (virtual address).",
            "Connection to 10.96.0.1:80: HTTP, decided for each request.",
            "Host \"web\" on port 80: web.default.svc.cluster.local, VirtualService default/web.",
            "Route: VirtualService default/web, rule 1 \"split\".",
            "Up to 2 retries on connect-failure, refused-stream, unavailable, cancelled.",
            "Endpoints are called by mutual TLS.",
            "Traffic policy: DestinationRule default/web, RoundRobin.",
        ]
    );
    assert_eq!(
        steps("tcp://web:81")[1..],
        [
            "Connection to 10.96.0.1:81: opaque bytes.",
            "No VirtualService concerns these bytes.",
            "Endpoints are called by mutual TLS.",
            "Traffic policy: DestinationRule default/web, RoundRobin.",
        ]
    );
    assert_eq!(
        steps("http://example.com/")[0],
        "example.com is no service that this proxy sees: taken for an outside host."
    );
}

#[test]
fn a_url_that_cannot_be_simulated_says_why() {
    let snapshot = snapshot(SPLIT);
    for (url, reason) in [
        ("ftp://x/", "its scheme is not known"),
        ("tcp://x", "it has no port"),
        ("http:///x", "it has no host"),
    ] {
        let call = Call {
            direction: Direction::Outbound,
            method: &http::Method::GET,
            url,
            port: None,
            headers: &http::HeaderMap::new(),
            dice: None,
            caller: Caller::default(),
        };
        let error = simulate(&snapshot, &call).expect_err(url);
        assert_eq!(error.reason, reason);
    }
}
