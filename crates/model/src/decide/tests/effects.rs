//! What HTTP rules do beside choosing a destination: faults, mirrors, CORS, regex rewrites, redirects' paths and ports,
//! claims of tokens, clients' addresses.

use super::check;

const SERVICES: &str = "
service default/reviews 10.96.0.10 http:9080
service default/ratings 10.96.0.11 http:9080
pod default/reviews-v1 10.244.0.5 serves=reviews version=v1
pod default/ratings-v1 10.244.0.7 serves=ratings version=v1
policy default/ratings host=ratings subset=v1:version=v1
";

const V1: &str = "outbound|9080||reviews.default by reviews#0";

#[track_caller]
fn with(routes: &str, cases: &[(&str, &str)]) {
    check(&format!("{SERVICES}{routes}"), cases);
}

#[track_caller]
fn rule(rule: &str, call: &str, want: &str) {
    with(
        &format!("routes default/reviews hosts=reviews\n {rule}"),
        &[(call, want)],
    );
}

#[test]
fn faults_and_cors_go_with_the_rule() {
    rule(
        "http -> reviews delay=7s:100",
        "GET http://reviews:9080/",
        &format!("{V1} delay=7s:100%"),
    );
    rule(
        "http -> reviews delay=2s:10 abort=503:5 cors=https://a.com",
        "GET http://reviews:9080/",
        &format!("{V1} delay=2s:10% abort=Http(503):5% cors"),
    );
    rule(
        "http -> reviews abort=grpc14:100",
        "GET http://reviews:9080/",
        &format!("{V1} abort=Grpc(14):100%"),
    );
}

#[test]
fn mirrors_that_exist_get_copies() {
    rule(
        "http -> reviews mirror=ratings/v1=25",
        "GET http://reviews:9080/",
        &format!("{V1} mirror=outbound|9080|v1|ratings.default:25%"),
    );
    rule(
        "http -> reviews mirror=ratings mirror=nobody mirror=ratings:1234",
        "GET http://reviews:9080/",
        &format!("{V1} mirror=outbound|9080||ratings.default:100%"),
    );
}

#[test]
fn expressions_rewrite_the_path_alone() {
    for (regex, path, want) in [
        (
            "^/api/v[0-9]+->",
            "/api/v1/items?q=/api/v1",
            "path=/items?q=/api/v1",
        ),
        (r"/([^/]+)/([^/]+)->/\2/\1", "/a/b/c/d", "path=/b/a/d/c"),
        ("x->y", "/none", "path=/none"),
    ] {
        rule(
            &format!("http -> reviews regex={regex}"),
            &format!("GET http://reviews:9080{path}"),
            &format!("{V1} {want}"),
        );
    }
}

#[test]
fn redirects_replace_prefixes_and_name_ports() {
    for (action, path, want) in [
        (
            "uri^/old -> redirect prefix=/new",
            "/old/x?q=1",
            "301 uri=/new/x by reviews",
        ),
        (
            "uri=/old -> redirect prefix=/new",
            "/old?q=1",
            "301 uri=/new by reviews",
        ),
        (
            "-> redirect port=request code=302",
            "/x",
            "302 port=9080 by reviews",
        ),
        (
            "-> redirect port=8443 scheme=https",
            "/x",
            "301 scheme=https port=8443 by reviews",
        ),
        (
            "-> redirect uri=/x response:a=b",
            "/",
            "301 uri=/x by reviews response a=b",
        ),
    ] {
        rule(
            &format!("http {action}"),
            &format!("GET http://reviews:9080{path}"),
            want,
        );
    }
}

#[test]
fn claims_choose_at_gateways() {
    let config = "
        me gateway istio-system/ingress 10.244.0.2 istio=ingress
        service default/web 10.96.0.10 http:80
        pod default/web-v1 10.244.0.5 serves=web version=v1
        pod default/web-v2 10.244.0.6 serves=web version=v2
        policy default/web host=web subset=v1:version=v1 subset=v2:version=v2
        gateway default/gw istio=ingress
          server http:80 hosts=*
        routes default/web hosts=* gateways=default/gw
          http claim:groups=beta -> web/v2
          http claim:realm.role^adm !claim:realm.role=admins -> web/v2
          http -> web/v1";
    let (v1, v2) = ("outbound|80|v1|web.default", "outbound|80|v2|web.default");
    let call = |claims: &str| format!("gateway GET http://a.com/ {claims}");
    check(
        config,
        &[
            (
                &call("claim:groups=[\"alpha\",\"beta\"]"),
                &format!("{v2} by web#0"),
            ),
            (&call("claim:groups=beta"), &format!("{v2} by web#0")),
            (&call("claim:groups=betamax"), &format!("{v1} by web#2")),
            (
                &call("claim:realm={\"role\":\"admin\"}"),
                &format!("{v2} by web#1"),
            ),
            (
                &call("claim:realm={\"role\":\"admins\"}"),
                &format!("{v1} by web#2"),
            ),
            (&call(""), &format!("{v1} by web#2")),
        ],
    );
}

#[test]
fn bytes_by_the_clients_address() {
    let config = "
        service default/db 10.96.0.20 tcp:5432
        service default/other 10.96.0.21 tcp:5432
        pod default/db-1 10.244.0.8 serves=db
        pod default/other-1 10.244.0.9 serves=other
        routes default/db hosts=db
          tcp client=10.9.0.0/16 -> other:5432
          tcp client=nonsense -> other:5432
          tcp -> db:5432";
    check(
        config,
        &[
            (
                "open 10.96.0.20:5432 ip=10.9.1.1",
                "tcp outbound|5432||other.default by db",
            ),
            (
                "open 10.96.0.20:5432 ip=10.8.1.1",
                "tcp outbound|5432||db.default by db",
            ),
        ],
    );
}
