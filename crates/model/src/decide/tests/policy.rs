//! DestinationRules: lookup order, merging, inheritance.

use super::snapshot;
use std::time::Duration;

const SERVICES: &str = "
service default/web 10.96.0.1 http:80
service other/api 10.96.1.1 http:80
pod default/web-v1 10.244.0.5 serves=web version=v1
pod other/api-v1 10.244.0.6 serves=api version=v1
";

/// Balancer and connect timeout (seconds) of a cluster, and the rule in force.
#[track_caller]
fn settings(policies: &str, cluster: &str, want: &str) {
    let text = format!("{SERVICES}{policies}");
    let snapshot = snapshot(&text);
    let found = snapshot.cluster(cluster).map_or("none".to_owned(), |c| {
        let policy = c.service.as_ref().and_then(|s| s.policy.as_ref());
        let by = policy.map_or("-".to_owned(), |p| format!("{}/{}", p.namespace, p.name));
        let timeout = match c.connect_timeout {
            t if t == Duration::from_secs(10) => String::new(),
            t => format!(" {}s", t.as_secs()),
        };
        format!("{:?}{timeout} {by}", c.balancer)
    });
    assert_eq!(found, want, "{policies}");
}

const WEB: &str = "outbound|80||web.default.svc.cluster.local";
const WEB_V1: &str = "outbound|80|v1|web.default.svc.cluster.local";
const API: &str = "outbound|80||api.other.svc.cluster.local";

#[test]
fn defaults() {
    settings("", WEB, "LeastRequest -");
    settings("", WEB_V1, "none");
}

#[test]
fn client_then_service_then_root() {
    let api = "host=api.other.svc.cluster.local";
    let root = format!("policy istio-system/root {api} random\n");
    let theirs = format!("policy other/theirs {api} rr\n");
    let mine = format!("policy default/mine {api} passthrough\n");
    settings(&root, API, "Random istio-system/root");
    settings(&format!("{root}{theirs}"), API, "RoundRobin other/theirs");
    settings(
        &format!("{root}{theirs}{mine}"),
        API,
        "Passthrough default/mine",
    );
    settings(
        &format!("policy third/no {api} rr\n"),
        API,
        "LeastRequest -",
    );
    settings(
        &format!("policy other/hidden {api} rr export=other\n"),
        API,
        "LeastRequest -",
    );
}

#[test]
fn a_client_in_the_root_namespace_asks_the_service_first() {
    settings(
        "me sidecar istio-system/gw 10.244.0.9
policy istio-system/wide host=*.cluster.local random
policy other/theirs host=api.other.svc.cluster.local rr",
        API,
        "RoundRobin other/theirs",
    );
}

#[test]
fn the_most_specific_host_of_one_namespace() {
    settings(
        "policy default/wide host=*.default.svc.cluster.local random
policy default/exact host=web rr",
        WEB,
        "RoundRobin default/exact",
    );
}

#[test]
fn rules_of_one_namespace_are_merged() {
    let two = "policy default/first host=web subset=v1:version=v1
policy default/second host=web random subset=v1:version=v2:rr subset=v2:version=v2
policy default/third host=web rr";
    settings(two, WEB, "Random default/second");
    settings(two, WEB_V1, "Random default/first");
    settings(
        two,
        "outbound|80|v2|web.default.svc.cluster.local",
        "Random default/second",
    );
}

#[test]
fn a_subset_overrides_field_by_field() {
    let text = "policy default/web host=web random connect=3 subset=v1:version=v1:rr";
    settings(text, WEB, "Random 3s default/web");
    settings(text, WEB_V1, "RoundRobin 3s default/web");
}

#[test]
fn a_selected_client_has_its_own_rule() {
    let general = "policy default/all host=web rr\n";
    let mine = "policy default/mine host=web random select=app=sleep\n";
    let others = "policy default/others host=web random select=app=other\n";
    settings(&format!("{general}{mine}"), WEB, "Random default/mine");
    settings(&format!("{general}{others}"), WEB, "RoundRobin default/all");
    settings(
        "policy other/far host=web random select=app=sleep",
        WEB,
        "LeastRequest -",
    );
}

#[test]
fn a_block_of_a_subset_replaces_the_hosts() {
    let config = format!(
        "{SERVICES}policy default/web host=web conns=1 requests=2 eject subset=v1:version=v1:rr"
    );
    let snapshot = snapshot(&config);
    let settings = |name| snapshot.cluster(name).expect("cluster").settings.clone();
    let (whole, v1) = (settings(WEB), settings(WEB_V1));
    assert_eq!(whole.pool.max_connections, Some(1));
    assert_eq!(whole.pool.max_requests, Some(2));
    assert!(whole.outlier.is_some());
    assert_eq!(v1, whole, "what the subset does not name is the host's");
}

#[test]
fn the_mesh_has_defaults() {
    let of = |lines: &str| {
        let snapshot = snapshot(&format!("{SERVICES}{lines}"));
        let cluster = snapshot.cluster(WEB).expect("cluster");
        let ejects = cluster.settings.outlier.is_some();
        (
            cluster.connect_timeout.as_secs(),
            cluster.settings.h2_upgrade,
            ejects,
        )
    };
    assert_eq!(of("mesh connect=3 h2 eject\n"), (3, true, true));
    let rule = "policy default/web host=web connect=4 h2=no\n";
    assert_eq!(
        of(&format!("mesh connect=3 h2 eject\n{rule}")),
        (4, false, true)
    );
    assert_eq!(of(rule), (4, false, false));
}
