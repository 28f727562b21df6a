//! Near endpoints: who is in which rank, and what share a locality has.

use super::snapshot;

/// A client in `eu/a/1`, and endpoints everywhere.
const MESH: &str = "
service default/web 10.96.0.1 http:80>8080
pod default/sleep 10.244.0.99 locality=eu/a/1 node=n1 rack=r1
pod default/w1 10.244.0.1 serves=web locality=eu/a/1 node=n1 rack=r1
pod default/w2 10.244.0.2 serves=web locality=eu/a/2 node=n2 rack=r2
pod default/w3 10.244.0.3 serves=web locality=eu/b/1 node=n3 rack=r1 weight=3
pod default/w4 10.244.0.4 serves=web locality=us/a/1 node=n4
pod default/w5 10.244.0.5 serves=web locality=asia/a/1 node=n5
";

/// Endpoints by their last number, each with its rank, and its locality's share where there is one.
#[track_caller]
fn check(lines: &str, want: &str) {
    let config = format!("{MESH}{lines}");
    ranks(&config, want);
}

#[track_caller]
fn ranks(config: &str, want: &str) {
    let snapshot = snapshot(config);
    let cluster = snapshot.cluster("outbound|80||web.default.svc.cluster.local");
    let endpoints = cluster.expect("cluster").discovery.endpoints();
    let said: Vec<_> = endpoints
        .iter()
        .map(|e| {
            let number = e.workload.name.trim_start_matches('w');
            match e.locality_weight {
                0 => format!("{number}:{}", e.priority),
                share => format!("{number}:{}x{share}", e.priority),
            }
        })
        .collect();
    assert_eq!(said.join(" "), want, "{config}");
}

#[test]
fn without_outlier_detection_nobody_is_nearer() {
    check("", "1:0 2:0 3:0 4:0 5:0");
    check(
        "policy default/web host=web failover=eu:us",
        "1:0 2:0 3:0 4:0 5:0",
    );
}

#[test]
fn nearness_by_locality() {
    check("policy default/web host=web eject", "1:0 2:1 3:2 4:3 5:3");
    check(
        "policy default/web host=web eject failover=eu:asia",
        "1:0 2:1 3:2 4:4 5:3",
    );
    check(
        "policy default/web host=web eject failover=us:asia",
        "1:0 2:1 3:2 4:3 5:3",
    );
    check(
        "policy default/web host=web eject near=off",
        "1:0 2:0 3:0 4:0 5:0",
    );
}

#[test]
fn ranks_have_no_gaps() {
    ranks(
        "service default/web 10.96.0.1 http:80>8080
pod default/sleep 10.244.0.99 locality=eu/a/1
pod default/w3 10.244.0.3 serves=web locality=eu/b/1
pod default/w4 10.244.0.4 serves=web locality=us/a/1
policy default/web host=web eject",
        "3:0 4:1",
    );
}

#[test]
fn who_does_not_know_where_it_is_prefers_nobody() {
    ranks(
        "service default/web 10.96.0.1 http:80>8080
pod default/w3 10.244.0.3 serves=web locality=eu/b/1
pod default/w4 10.244.0.4 serves=web
policy default/web host=web eject",
        "3:0 4:0",
    );
}

#[test]
fn a_proxy_without_workload_says_itself_where_it_is() {
    let me = "me sidecar default/other 10.244.0.98 topology.istio.io/locality=us.a.1";
    check(
        &format!("{me}\npolicy default/web host=web eject"),
        "1:1 2:1 3:1 4:0 5:1",
    );
}

#[test]
fn nearness_by_labels_in_their_order() {
    check(
        "policy default/web host=web eject near=rack",
        "1:0 2:1 3:0 4:1 5:1",
    );
    let labels = "topology.kubernetes.io/region,topology.kubernetes.io/zone,kubernetes.io/hostname";
    check(
        &format!("policy default/web host=web eject near={labels}"),
        "1:0 2:1 3:2 4:3 5:3",
    );
    check(
        "policy default/web host=web eject near=topology.istio.io/subzone,rack:r1",
        "1:0 2:2 3:0 4:1 5:1",
    );
    check(
        "policy default/web host=web near=rack",
        "1:0 2:0 3:0 4:0 5:0",
    );
}

#[test]
fn shares_by_locality() {
    check(
        "policy default/web host=web distribute=us/*>us/*:100 distribute=eu/a/*>eu/*:80,us/a/1:20",
        "1:0x16 2:0x16 3:0x48 4:0x20",
    );
    check(
        "policy default/web host=web distribute=us/*>us/*:100",
        "1:0 2:0 3:0 4:0 5:0",
    );
    check(
        "policy default/web host=web distribute=*>asia:100",
        "5:0x100",
    );
}

#[test]
fn the_mesh_says_where_nobody_else_does() {
    check(
        "mesh near=off\npolicy default/web host=web eject",
        "1:0 2:0 3:0 4:0 5:0",
    );
    check("mesh failover=eu:us eject", "1:0 2:1 3:2 4:3 5:4");
    check(
        "mesh near=off\npolicy default/web host=web eject failover=eu:us",
        "1:0 2:1 3:2 4:3 5:4",
    );
}

#[test]
fn services_that_prefer_near_endpoints() {
    let config = |same: &str| MESH.replace("http:80>8080", &format!("http:80>8080 same={same}"));
    ranks(&config("zone"), "1:0 2:0 3:1 4:2 5:2");
    ranks(&config("node"), "1:0 2:1 3:2 4:3 5:3");
    let rule = "policy default/web host=web near=off";
    ranks(&format!("{}{rule}", config("zone")), "1:0 2:0 3:0 4:0 5:0");
}

#[test]
fn a_simulation_says_how_an_endpoint_is_chosen() {
    use crate::decide::simulate::{Call, Caller, simulate};
    let policy = "policy default/web host=web rr eject conns=2 requests=10";
    let snapshot = snapshot(&format!("{MESH}{policy}"));
    let call = Call {
        url: "http://web/",
        method: &http::Method::GET,
        headers: &http::HeaderMap::new(),
        direction: crate::decide::plan::Direction::Outbound,
        dice: None,
        port: None,
        caller: Caller::default(),
    };
    let said = simulate(&snapshot, &call).expect("a call").steps.join("\n");
    let line = "Traffic policy: DestinationRule default/web, RoundRobin, near ones first in 4 ranks, \
        at most 2 connections, at most 10 requests, endpoints left out after 5 errors.";
    assert!(said.contains(line), "{said}");
}
