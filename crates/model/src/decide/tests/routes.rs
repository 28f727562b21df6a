//! HTTP rules of VirtualServices: matches, weights, actions, precedence.

use super::check;

const SERVICES: &str = "
service default/reviews 10.96.0.10 http:9080
service default/ratings 10.96.0.11 http:9080
pod default/reviews-v1 10.244.0.5 serves=reviews version=v1
pod default/reviews-v2 10.244.0.6 serves=reviews version=v2
pod default/ratings-v1 10.244.0.7 serves=ratings
policy default/reviews host=reviews subset=v1:version=v1 subset=v2:version=v2 subset=v9:version=v9
";

#[track_caller]
fn with(routes: &str, cases: &[(&str, &str)]) {
    check(&format!("{SERVICES}{routes}"), cases);
}

const V1: &str = "outbound|9080|v1|reviews.default";
const V2: &str = "outbound|9080|v2|reviews.default";

fn v1(by: &str) -> String {
    format!("{V1} {by}")
}

fn v2(by: &str) -> String {
    format!("{V2} {by}")
}

#[test]
fn a_header_chooses_the_rule() {
    with(
        "routes default/reviews hosts=reviews
           http header:end-user=jason -> reviews/v2
           http -> reviews/v1",
        &[
            (
                "GET http://reviews:9080/ end-user:jason",
                &v2("by reviews#0"),
            ),
            (
                "GET http://reviews:9080/ end-user:jasonx",
                &v1("by reviews#1"),
            ),
            (
                "GET http://reviews:9080/ end-user:Jason",
                &v1("by reviews#1"),
            ),
            ("GET http://reviews:9080/", &v1("by reviews#1")),
        ],
    );
}

#[test]
fn weights_share_by_dice() {
    with(
        "routes default/reviews hosts=reviews
           http -> reviews/v1=90 reviews/v2=10",
        &[
            ("GET http://reviews:9080/ dice=0", &v1("by reviews#0")),
            ("GET http://reviews:9080/ dice=89", &v1("by reviews#0")),
            ("GET http://reviews:9080/ dice=90", &v2("by reviews#0")),
            ("GET http://reviews:9080/ dice=199", &v2("by reviews#0")),
            (
                "GET http://reviews:9080/ dice=18446744073709551615",
                &v1("by reviews#0"),
            ),
        ],
    );
    with(
        "routes default/reviews hosts=reviews
           http uri^/zero -> reviews/v1=0 reviews/v2=100
           http uri^/none -> reviews/v1=0 reviews/v2=0",
        &[
            ("GET http://reviews:9080/zero dice=0", &v2("by reviews#0")),
            (
                "GET http://reviews:9080/none",
                "503 NoCluster a rule without a destination of positive weight by reviews",
            ),
        ],
    );
}

#[test]
fn paths() {
    with(
        "routes default/reviews hosts=reviews
           http uri=/exact -> reviews/v1
           http uri^/pre -> reviews/v2
           http uri~/r/[0-9]+ -> reviews/v1
           http uri=/CaSe nocase -> reviews/v2",
        &[
            ("GET http://reviews:9080/exact?q=1", &v1("by reviews#0")),
            (
                "GET http://reviews:9080/exact/",
                "404 NoRoute GET reviews:9080/exact/ by reviews",
            ),
            ("GET http://reviews:9080/prefix/x", &v2("by reviews#1")),
            ("GET http://reviews:9080/r/12", &v1("by reviews#2")),
            (
                "GET http://reviews:9080/r/12x",
                "404 NoRoute GET reviews:9080/r/12x by reviews",
            ),
            ("GET http://reviews:9080/case", &v2("by reviews#3")),
            (
                "GET http://reviews:9080/EXACT",
                "404 NoRoute GET reviews:9080/EXACT by reviews",
            ),
        ],
    );
}

#[test]
fn every_part_of_an_alternative_must_match() {
    with(
        "routes default/reviews hosts=reviews
           http method=POST header:x^ab | query:v=2 | query:flag* -> reviews/v2
           http !header:debug* -> reviews/v1
           http authority=reviews:9080 scheme=http -> reviews/v2",
        &[
            ("POST http://reviews:9080/ x:abc", &v2("by reviews#0")),
            ("GET http://reviews:9080/ x:abc", &v1("by reviews#1")),
            ("GET http://reviews:9080/?a=1&v=2", &v2("by reviews#0")),
            ("GET http://reviews:9080/?v=22", &v1("by reviews#1")),
            ("GET http://reviews:9080/?flag", &v2("by reviews#0")),
            ("GET http://reviews:9080/ debug:1", &v2("by reviews#2")),
            (
                "GET http://reviews.default:9080/ debug:1",
                "404 NoRoute GET reviews.default:9080/ by reviews",
            ),
            (
                "POST http://reviews:9080/ x:a x:abc debug:1",
                &v2("by reviews#0"),
            ),
        ],
    );
}

#[test]
fn who_asks_and_on_which_port() {
    with(
        "routes default/reviews hosts=reviews
           http source:app=other -> reviews/v2
           http from=elsewhere -> reviews/v2
           http port=80 -> reviews/v2
           http source:app=sleep from=default port=9080 -> reviews/v1",
        &[("GET http://reviews:9080/", &v1("by reviews#3"))],
    );
    with(
        "routes default/reviews hosts=reviews gateways=default/gw,mesh
           http at=default/gw -> reviews/v2
           http at=mesh -> reviews/v1",
        &[("GET http://reviews:9080/", &v1("by reviews#1"))],
    );
    with(
        "routes default/reviews hosts=reviews gateways=default/gw
           http -> reviews/v2",
        &[(
            "GET http://reviews:9080/",
            "outbound|9080||reviews.default (default)",
        )],
    );
}

#[test]
fn the_oldest_and_the_most_specific_win() {
    with(
        "routes default/old hosts=reviews
           http -> reviews/v1
         routes default/new hosts=reviews,ratings
           http -> reviews/v2",
        &[
            ("GET http://reviews:9080/", &v1("by old#0")),
            ("GET http://ratings:9080/", &v2("by new#0")),
        ],
    );
    with(
        "routes default/wide hosts=*.default.svc.cluster.local
           http -> reviews/v1
         routes default/exact hosts=reviews
           http -> reviews/v2",
        &[
            ("GET http://reviews:9080/", &v2("by exact#0")),
            ("GET http://ratings:9080/", &v1("by wide#0")),
        ],
    );
}

#[test]
fn others_rules_stay_theirs() {
    with(
        "routes other/reviews hosts=reviews.default.svc.cluster.local export=other
           http -> reviews/v2",
        &[(
            "GET http://reviews:9080/",
            "outbound|9080||reviews.default (default)",
        )],
    );
}

#[test]
fn actions() {
    with(
        "routes default/reviews hosts=reviews
           http uri^/old -> redirect uri=/new code=302
           http uri^/away -> redirect authority=ratings scheme=https
           http uri^/teapot -> direct code=418 body=short response:x-a=b
           http uri^/cut/ -> reviews/v1 rewrite=/
           http uri^/api -> reviews/v1 rewrite=/
           http uri=/whole -> reviews/v1 rewrite=/all authority=rated
           http uri~/re.* -> reviews/v1 rewrite=/fix
           http uri^/timed -> reviews/v1 timeout=5
           http uri^/instant -> reviews/v1 timeout=0
           http name=rest -> reviews/v1 rewrite=/base/",
        &[
            ("GET http://reviews:9080/old", "302 uri=/new by reviews"),
            (
                "GET http://reviews:9080/away",
                "301 authority=ratings scheme=https by reviews",
            ),
            (
                "GET http://reviews:9080/teapot",
                "418 short by reviews response x-a=b",
            ),
            (
                "GET http://reviews:9080/cut/x?q=1",
                &v1("by reviews#3 path=/x?q=1"),
            ),
            ("GET http://reviews:9080/api/x", &v1("by reviews#4 path=/x")),
            ("GET http://reviews:9080/api", &v1("by reviews#4 path=/")),
            (
                "GET http://reviews:9080/whole?q",
                &v1("by reviews#5 path=/all?q authority=rated"),
            ),
            (
                "GET http://reviews:9080/return",
                &v1("by reviews#6 path=/fix"),
            ),
            (
                "GET http://reviews:9080/timed",
                &v1("by reviews#7 timeout=5s"),
            ),
            ("GET http://reviews:9080/instant", &v1("by reviews#8")),
            // Istio: a rule without path match has prefix `/`.
            (
                "GET http://reviews:9080/x",
                &v1("by reviews#9 path=/base/x"),
            ),
        ],
    );
}

#[test]
fn header_operations_of_rule_then_destination() {
    with(
        "routes default/reviews hosts=reviews
           http uri^/a -> reviews/v1!x-d=2 request:x-r=1 request:x-more+=m request:gone response:x-b=c
           http uri^/h -> reviews/v1 request:Host=new.example
           http uri^/i -> reviews/v1!:authority=own.example request:Host=new.example authority=mid
           http uri^/j -> reviews/v1 request:Host=new.example authority=mid.example",
        &[
            (
                "GET http://reviews:9080/a",
                &v1("by reviews#0 request x-r=1 request x-more+=m request -gone request x-d=2 response x-b=c"),
            ),
            ("GET http://reviews:9080/h", &v1("by reviews#1 authority=new.example")),
            ("GET http://reviews:9080/i", &v1("by reviews#2 authority=own.example")),
            ("GET http://reviews:9080/j", &v1("by reviews#3 authority=mid.example")),
        ],
    );
}

#[test]
fn of_several_destinations_the_rule_has_the_last_word_on_headers() {
    with(
        "routes default/reviews hosts=reviews
           http -> reviews/v1=100!x-d=2 reviews/v2=0 request:x-r=1",
        &[(
            "GET http://reviews:9080/",
            &v1("by reviews#0 request x-d=2 request x-r=1"),
        )],
    );
}

#[test]
fn each_line_of_a_header_is_matched_by_itself() {
    with(
        "routes default/reviews hosts=reviews
           http header:who=ann -> reviews/v2
           http header:who~b.*d -> reviews/v2
           http !header:off=1 -> reviews/v1",
        &[
            (
                "GET http://reviews:9080/ who:zed who:ann",
                &v2("by reviews#0"),
            ),
            ("GET http://reviews:9080/ who:ann,zed", &v1("by reviews#2")),
            ("GET http://reviews:9080/ who:b who:d", &v1("by reviews#2")),
            (
                "GET http://reviews:9080/ off:0 off:1",
                "404 NoRoute GET reviews:9080/ by reviews",
            ),
        ],
    );
}

#[test]
fn what_is_missing_is_blamed_on_the_rule() {
    with(
        "routes default/reviews hosts=reviews
           http uri^/host -> nowhere
           http uri^/port -> reviews:81
           http uri^/subset -> reviews/v7
           http uri^/empty -> reviews/v9",
        &[
            (
                "GET http://reviews:9080/host",
                "503 NoCluster outbound|9080||nowhere.default by reviews",
            ),
            (
                "GET http://reviews:9080/port",
                "503 NoCluster outbound|81||reviews.default by reviews",
            ),
            (
                "GET http://reviews:9080/subset",
                "503 NoSubset outbound|9080|v7|reviews.default by reviews",
            ),
            (
                "GET http://reviews:9080/empty",
                "503 NoEndpoint outbound|9080|v9|reviews.default by reviews",
            ),
            (
                "GET http://reviews:9080/",
                "404 NoRoute GET reviews:9080/ by reviews",
            ),
        ],
    );
}

#[test]
fn ports_of_destinations() {
    check(
        "
service default/one 10.96.0.1 http:80
service default/two 10.96.0.2 http:80 http:81
service default/single 10.96.0.3 http:7000
pod default/p 10.244.0.5 serves=one,two,single
routes default/one hosts=one
  http uri^/single -> single
  http uri^/two -> two
  http uri^/there -> two:81
",
        &[
            (
                "GET http://one/single",
                "outbound|7000||single.default by one#0",
            ),
            ("GET http://one/two", "outbound|80||two.default by one#1"),
            ("GET http://one/there", "outbound|81||two.default by one#2"),
        ],
    );
}

#[test]
fn a_host_without_service_is_reachable_on_port_80() {
    with(
        "routes default/virtual hosts=virtual.example
           http -> reviews:9080/v1",
        &[
            ("GET http://virtual.example/", &v1("by virtual#0")),
            (
                "GET http://virtual.example:9080/",
                "PassthroughCluster (allow_any)",
            ),
        ],
    );
}

#[test]
fn names_in_the_access_log_and_retries() {
    use crate::decide::plan::{ConnectionFacts, Direction, Peer, RequestHead, RequestPlan};
    let snapshot = super::snapshot(&format!(
        "{SERVICES}
routes default/reviews hosts=reviews
  http name=rule called=alt uri^/a -> reviews/v1 retries=0
  http name=rule uri^/b -> reviews/v1 retries=3 on=5xx
  http called=alt uri^/c -> reviews/v1 retries=3
  http -> reviews/v1"
    ));
    let facts = ConnectionFacts {
        direction: Direction::Outbound,
        source: ([10, 244, 0, 99], 1).into(),
        destination: ([10, 96, 0, 10], 9080).into(),
    };
    for (path, name, attempts, first) in [
        ("/a", "rule.alt", 0, "connect-failure"),
        ("/b", "rule", 3, "5xx"),
        ("/c", "alt", 3, "connect-failure"),
        ("/d", "", 2, "connect-failure"),
    ] {
        let head = RequestHead {
            method: &http::Method::GET,
            authority: "reviews",
            path,
            scheme: "http",
            headers: &http::HeaderMap::new(),
            token: None,
        };
        let peer = Peer::default();
        let plan = crate::decide::request(&snapshot, &facts, &peer, &head, 0);
        let RequestPlan::Forward(plan) = plan else {
            panic!("{path} is forwarded");
        };
        let got = (
            &*plan.route.name,
            plan.retries.attempts,
            &*plan.retries.retry_on[0],
        );
        assert_eq!(got, (name, attempts, first), "{path}");
    }
}
