//! Which service a Host means, and what happens to those that nobody declares.

use super::check;

const BOOKINFO: &str = "
service default/reviews 10.96.0.10 http:9080
service default/ratings 10.96.0.11 http:9080
service default/web 10.96.0.12 http:80>8080
service other/reviews 10.96.1.10 http:9080
service default/db 10.96.0.13 tcp:3306
pod default/reviews-v1 10.244.0.5 serves=reviews version=v1
pod default/ratings-v1 10.244.0.6 serves=ratings
pod default/web-1 10.244.0.7 serves=web
pod other/reviews-x 10.244.0.8 serves=reviews
pod default/db-1 10.244.0.9 serves=db
";

#[test]
fn every_name_of_a_service_leads_to_it() {
    let reviews = "outbound|9080||reviews.default (default)";
    check(
        BOOKINFO,
        &[
            ("GET http://reviews:9080/", reviews),
            ("GET http://reviews.default:9080/", reviews),
            ("GET http://reviews.default.svc:9080/", reviews),
            (
                "GET http://reviews.default.svc.cluster.local:9080/",
                reviews,
            ),
            (
                "GET http://reviews.default.svc.cluster.local.:9080/",
                reviews,
            ),
            ("GET http://REVIEWS.Default:9080/", reviews),
            ("GET http://10.96.0.10:9080/", reviews),
            ("GET http://reviews/ to=10.96.0.10:9080", reviews),
            // Istio ignores the Host's port: the connection's counts.
            ("GET http://reviews:1234/ to=10.96.0.10:9080", reviews),
        ],
    );
}

#[test]
fn a_short_name_is_of_the_clients_namespace() {
    let config = format!("me sidecar other/sleep 10.244.0.99\n{BOOKINFO}");
    check(
        &config,
        &[
            (
                "GET http://reviews:9080/",
                "outbound|9080||reviews.other (default)",
            ),
            (
                "GET http://reviews.default:9080/",
                "outbound|9080||reviews.default (default)",
            ),
            ("GET http://ratings:9080/", "PassthroughCluster (allow_any)"),
        ],
    );
}

#[test]
fn host_counts_and_not_the_address() {
    check(
        BOOKINFO,
        &[
            (
                "GET http://ratings:9080/ to=10.96.0.10:9080",
                "outbound|9080||ratings.default (default)",
            ),
            (
                "GET http://reviews:9080/ to=203.0.113.9:9080",
                "outbound|9080||reviews.default (default)",
            ),
            // Known on another port only.
            (
                "GET http://web:9080/ to=10.96.0.10:9080",
                "PassthroughCluster (allow_any)",
            ),
            ("GET http://web/", "outbound|80||web.default (default)"),
        ],
    );
}

#[test]
fn unknown_hosts_follow_the_outbound_mode() {
    check(
        BOOKINFO,
        &[
            ("GET http://example.com/", "PassthroughCluster (allow_any)"),
            ("open 203.0.113.9:5000", "tcp PassthroughCluster"),
        ],
    );
    let config = format!("mesh registry-only\n{BOOKINFO}");
    check(
        &config,
        &[
            ("GET http://example.com/", "502 NotInRegistry example.com"),
            (
                "GET http://Example.com:80/",
                "502 NotInRegistry example.com",
            ),
            (
                "open 203.0.113.9:5000",
                "tcp NotInRegistry 203.0.113.9:5000",
            ),
            (
                "open 203.0.113.9:9080",
                "detect NotInRegistry 203.0.113.9:9080",
            ),
            (
                "GET http://reviews:9080/",
                "outbound|9080||reviews.default (default)",
            ),
        ],
    );
}

#[test]
fn a_pods_own_address_leads_to_that_pod() {
    check(
        BOOKINFO,
        &[
            (
                "open 10.244.0.9:3306",
                "tcp outbound|3306||db.default @original",
            ),
            (
                "GET http://10.244.0.7:8080/",
                "outbound|80||web.default @original (default)",
            ),
            ("open 10.244.0.7:9999", "tcp PassthroughCluster"),
        ],
    );
    let config = format!("mesh registry-only\n{BOOKINFO}");
    check(
        &config,
        &[(
            "open 10.244.0.9:3306",
            "tcp outbound|3306||db.default @original",
        )],
    );
}

#[test]
fn headless_services_keep_the_pod_that_the_client_chose() {
    check(
        "
service default/nodes - http:80>8080 tcp:9000
pod default/nodes-0 10.244.0.5 serves=nodes
pod default/nodes-1 10.244.0.6 serves=nodes
service default/web 10.96.0.12 http:8080
pod default/web-1 10.244.0.7 serves=web
",
        &[
            (
                "open 10.244.0.5:9000",
                "tcp outbound|9000||nodes.default @original",
            ),
            ("open 10.244.0.5:8080", "http"),
            (
                "GET http://nodes-0.nodes/ to=10.244.0.5:80",
                "outbound|80||nodes.default (default)",
            ),
            (
                "GET http://nodes-0.nodes:8080/ to=10.244.0.5:8080",
                "outbound|80||nodes.default @original (default)",
            ),
            (
                "GET http://nodes-1.nodes.default.svc.cluster.local/",
                "outbound|80||nodes.default (default)",
            ),
            ("GET http://nodes/", "outbound|80||nodes.default (default)"),
        ],
    );
}

#[test]
fn service_entries_by_exact_host_and_wildcard() {
    check(
        "
entry default/api.example.com - http:80 dns
entry default/*.example.com - http:80 none
entry default/*.deep.example.com - http:80 none
entry default/fixed.example.com 240.240.0.1 http:80 dns
",
        &[
            (
                "GET http://api.example.com/",
                "outbound|80||api.example.com (default)",
            ),
            (
                "GET http://API.example.com./",
                "outbound|80||api.example.com (default)",
            ),
            (
                "GET http://x.example.com/",
                "outbound|80||*.example.com @original (default)",
            ),
            (
                "GET http://x.deep.example.com/",
                "outbound|80||*.deep.example.com @original (default)",
            ),
            ("GET http://example.com/", "PassthroughCluster (allow_any)"),
            (
                "GET http://240.240.0.1/",
                "outbound|80||fixed.example.com (default)",
            ),
        ],
    );
}

#[test]
fn what_is_not_exported_is_not_there() {
    check(
        "
service other/secret 10.96.1.1 http:80 export=other
service other/shared 10.96.1.2 http:80 export=other,default
pod other/secret-1 10.244.0.5 serves=secret
pod other/shared-1 10.244.0.6 serves=shared
",
        &[
            ("GET http://secret.other/", "PassthroughCluster (allow_any)"),
            (
                "GET http://shared.other/",
                "outbound|80||shared.other (default)",
            ),
        ],
    );
}

#[test]
fn a_sidecar_object_narrows_what_is_seen() {
    let config = |scope: &str| format!("{BOOKINFO}{scope}");
    let cases = |reviews: &'static str, other: &'static str, web: &'static str| {
        [
            ("GET http://reviews:9080/", reviews),
            ("GET http://reviews.other:9080/", other),
            ("GET http://web/", web),
        ]
    };
    let (reviews, other, web, none) = (
        "outbound|9080||reviews.default (default)",
        "outbound|9080||reviews.other (default)",
        "outbound|80||web.default (default)",
        "PassthroughCluster (allow_any)",
    );
    check(
        &config("scope default/all egress=default/*"),
        &cases(reviews, none, web),
    );
    check(
        &config("scope default/one egress=*/web.default.svc.cluster.local"),
        &cases(none, none, web),
    );
    check(
        &config("scope default/port egress=*/*:9080"),
        &cases(reviews, other, none),
    );
    check(
        &config("scope istio-system/mesh egress=other/*"),
        &cases(none, other, none),
    );
    check(
        &config("scope other/theirs egress=other/*"),
        &cases(reviews, other, web),
    );
    let both = "scope istio-system/mesh egress=other/*\nscope default/own egress=default/*\nscope default/mine egress=other/* select=app=sleep";
    check(&config(both), &cases(none, other, none));
    let both = "scope istio-system/mesh egress=other/*\nscope default/own egress=default/*\nscope default/mine egress=other/* select=app=web";
    check(&config(both), &cases(reviews, none, web));
    check(
        &config("scope default/strict registry-only"),
        &[
            ("GET http://reviews:9080/", reviews),
            ("GET http://example.com/", "502 NotInRegistry example.com"),
        ],
    );
}

#[test]
fn a_route_brings_its_destinations_into_a_narrow_scope() {
    check(
        "
service default/web 10.96.0.12 http:80
service other/reviews 10.96.1.10 http:9080
pod other/reviews-x 10.244.0.8 serves=reviews
routes default/web hosts=web
  http -> reviews.other.svc.cluster.local:9080
scope default/own egress=default/*
",
        &[("GET http://web/", "outbound|9080||reviews.other by web#0")],
    );
}

#[test]
fn no_host_is_a_bad_request() {
    check(
        BOOKINFO,
        &[("GET http:///", "400 BadRequest a request without Host")],
    );
}

#[test]
fn canonical_hosts() {
    use crate::decide::host::{canonical, port_of};
    for (written, host, port) in [
        ("a.b", "a.b", None),
        ("A.B:80", "a.b", Some(80)),
        ("a.b.:80", "a.b", Some(80)),
        ("[::1]:80", "::1", Some(80)),
        ("[::1]", "::1", None),
        ("fd00::1", "fd00::1", None),
        ("a:b", "a", None),
        ("", "", None),
        ("[", "", None),
    ] {
        assert_eq!(
            (&*canonical(written), port_of(written)),
            (host, port),
            "{written}"
        );
    }
}

#[test]
fn a_sidecar_object_leaves_out_what_it_excludes_and_sends_the_unknown_through_a_gateway() {
    let config = "
        service default/a 10.96.0.10 http:80
        service other/b 10.96.0.11 http:80
        service other/c 10.96.0.12 http:80
        service istio-system/egress 10.96.0.13 tcp:443
        pod default/a-1 10.244.0.5 serves=a
        pod other/b-1 10.244.0.6 serves=b
        pod other/c-1 10.244.0.7 serves=c
        pod istio-system/egress-1 10.244.0.8 serves=egress
        scope default/all egress=*/* except=other/c.other.svc.cluster.local through=egress.istio-system.svc.cluster.local:443";
    let through = "outbound|443||egress.istio-system";
    check(
        config,
        &[
            ("GET http://b.other/", "outbound|80||b.other (default)"),
            ("GET http://c.other/", &format!("{through} (allow_any)")),
            ("GET http://example.com/", &format!("{through} (allow_any)")),
            ("open 192.0.2.7:5000", &format!("tcp {through}")),
        ],
    );
}

#[test]
fn mirrors_are_imported_with_the_routes_that_name_them() {
    let config = "
        service default/a 10.96.0.10 http:80
        service other/b 10.96.0.11 http:80
        pod default/a-1 10.244.0.5 serves=a
        pod other/b-1 10.244.0.6 serves=b
        routes default/a hosts=a
          http -> a mirror=b.other.svc.cluster.local
        scope default/own egress=default/*";
    check(
        config,
        &[(
            "GET http://a/",
            "outbound|80||a.default by a#0 mirror=outbound|80||b.other:100%",
        )],
    );
}
