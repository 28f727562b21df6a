//! Gateways: ports, hosts, merging, redirects.

use super::{check, snapshot};

const INGRESS: &str = "
me gateway istio-system/ingress-1 10.244.0.50 istio=ingressgateway
service istio-system/istio-ingressgateway 10.96.9.9 any:80>8080 any:443>8443 any:31400
pod istio-system/ingress-1 10.244.0.50 serves=istio-ingressgateway istio=ingressgateway
service default/productpage 10.96.0.1 http:9080
service default/reviews 10.96.0.2 http:9080
service default/db 10.96.0.3 tcp:3306
pod default/productpage-v1 10.244.0.5 serves=productpage
pod default/reviews-v1 10.244.0.6 serves=reviews
pod default/db-1 10.244.0.7 serves=db
";

#[track_caller]
fn with(config: &str, cases: &[(&str, &str)]) {
    check(&format!("{INGRESS}{config}"), cases);
}

#[test]
fn bookinfo() {
    with(
        "gateway default/bookinfo-gateway istio=ingressgateway
           server http:80 hosts=*
         routes default/bookinfo hosts=* gateways=default/bookinfo-gateway
           http uri=/productpage | uri^/static -> productpage:9080",
        &[
            ("gateway open 10.244.0.50:80", "http"),
            (
                "gateway GET http://127.0.0.1:8080/productpage to=10.244.0.50:80",
                "outbound|9080||productpage.default by bookinfo#0",
            ),
            // The port bound in the pod is understood too.
            (
                "gateway GET http://x/static/a to=10.244.0.50:8080",
                "outbound|9080||productpage.default by bookinfo#0",
            ),
            (
                "gateway GET http://x/other to=10.244.0.50:80",
                "404 NoRoute GET x/other by bookinfo",
            ),
            (
                "gateway open 10.244.0.50:81",
                "tcp NoRoute gateway port 81: no Gateway opens it",
            ),
        ],
    );
}

#[test]
fn listeners_follow_the_service() {
    let text = format!(
        "{INGRESS}
gateway default/a istio=ingressgateway
  server http:80 hosts=*
  server http:9999 hosts=*
  server https:443 hosts=*
gateway default/b istio=ingressgateway
  server tcp:80 hosts=*
  server tcp:31400 hosts=*
  server http:22 hosts=*
gateway default/c istio=egressgateway
  server http:8000 hosts=*"
    );
    let got: Vec<_> = snapshot(&text)
        .gateway_listeners()
        .into_iter()
        .map(|l| {
            let names: Vec<_> = l.origins.iter().map(|o| o.name.to_string()).collect();
            format!(
                "{}>{} {:?} {} {}",
                l.port,
                l.bind_port,
                l.protocol,
                l.privileged,
                names.join(",")
            )
        })
        .collect();
    let want = [
        "22>22 Http true b",
        "80>8080 Http false a",
        "443>8443 Https false a",
        "9999>9999 Http false a",
        "31400>31400 Tcp false b",
    ];
    assert_eq!(got, want);
}

#[test]
fn servers_that_bind_the_same_port_share_it() {
    // Istio's bookinfo-gateway names the pod's port, others the Service's; both are 8080 in the pod.
    let text = "gateway default/bookinfo istio=ingressgateway
           server http:8080 hosts=*
         gateway default/httpbin istio=ingressgateway
           server http:80 hosts=*
         routes default/one hosts=* gateways=default/bookinfo
           http uri=/productpage -> productpage:9080
         routes default/two hosts=* gateways=default/httpbin
           http -> reviews:9080";
    let bookinfo = "outbound|9080||productpage.default by one#0";
    let httpbin = "outbound|9080||reviews.default by two#0";
    with(
        text,
        &[
            (
                "gateway GET http://x/productpage to=10.244.0.50:8080",
                bookinfo,
            ),
            ("gateway GET http://x/get to=10.244.0.50:8080", httpbin),
            (
                "gateway GET http://x/productpage to=10.244.0.50:80",
                bookinfo,
            ),
            ("gateway GET http://x/get to=10.244.0.50:80", httpbin),
        ],
    );
    assert_eq!(
        snapshot(&format!("{INGRESS}{text}"))
            .gateway_listeners()
            .len(),
        1
    );
}

#[test]
fn hosts_of_server_and_routes_meet() {
    with(
        "gateway default/gw istio=ingressgateway
           server http:80 hosts=*.example.com,other/only.example.net
         routes default/exact hosts=a.example.com gateways=default/gw
           http -> productpage:9080
         routes default/wide hosts=*.com gateways=default/gw
           http -> reviews:9080
         routes default/far hosts=only.example.net gateways=default/gw
           http -> reviews:9080
         routes other/near hosts=only.example.net gateways=default/gw
           http -> productpage:9080
         routes default/unbound hosts=b.example.com
           http -> productpage:9080",
        &[
            (
                "gateway GET http://a.example.com/",
                "outbound|9080||productpage.default by exact#0",
            ),
            (
                "gateway GET http://b.example.com/",
                "outbound|9080||reviews.default by wide#0",
            ),
            (
                "gateway GET http://A.EXAMPLE.COM.:80/",
                "outbound|9080||productpage.default by exact#0",
            ),
            ("gateway GET http://b.other.com/", "404 NoRoute b.other.com"),
            (
                "gateway GET http://only.example.net/",
                "outbound|9080||productpage.default by near#0",
            ),
        ],
    );
}

#[test]
fn routes_of_one_host_are_merged_catch_all_last() {
    with(
        "gateway default/gw istio=ingressgateway
           server http:80 hosts=*
         routes default/first hosts=a.example gateways=default/gw
           http uri^/one -> reviews:9080
           http -> productpage:9080
         routes default/second hosts=a.example gateways=default/gw
           http uri^/two -> reviews:9080",
        &[
            (
                "gateway GET http://a.example/one",
                "outbound|9080||reviews.default by first#0",
            ),
            (
                "gateway GET http://a.example/two",
                "outbound|9080||reviews.default by second#0",
            ),
            (
                "gateway GET http://a.example/",
                "outbound|9080||productpage.default by first#1",
            ),
        ],
    );
}

#[test]
fn gateways_share_a_port() {
    with(
        "gateway default/one istio=ingressgateway
           server http:80 hosts=a.example
         gateway other/two istio=ingressgateway
           server http:80 hosts=b.example
         routes default/a hosts=a.example,b.example gateways=default/one
           http -> productpage:9080
         routes other/b hosts=b.example gateways=other/two
           http -> reviews.default.svc.cluster.local:9080",
        &[
            (
                "gateway GET http://a.example/",
                "outbound|9080||productpage.default by a#0",
            ),
            (
                "gateway GET http://b.example/",
                "outbound|9080||reviews.default by b#0",
            ),
        ],
    );
}

#[test]
fn plain_http_is_sent_to_https() {
    with(
        "gateway default/gw istio=ingressgateway
           server http:80 hosts=secure.example redirect
           server http:80 hosts=plain.example
         routes default/r hosts=secure.example,plain.example gateways=default/gw
           http -> reviews:9080",
        &[
            (
                "gateway GET http://secure.example/x",
                "301 scheme=https by gw",
            ),
            (
                "gateway GET http://plain.example/x",
                "outbound|9080||reviews.default by r#0",
            ),
        ],
    );
}

#[test]
fn matches_by_gateway_and_port() {
    with(
        "gateway default/gw istio=ingressgateway
           server http:80 hosts=*
         routes default/r hosts=a.example gateways=default/gw,mesh
           http at=mesh -> productpage:9080
           http port=81 -> productpage:9080
           http at=default/gw port=80 -> reviews:9080",
        &[(
            "gateway GET http://a.example/",
            "outbound|9080||reviews.default by r#2",
        )],
    );
}

#[test]
fn bytes_and_passed_through_tls() {
    with(
        "gateway default/gw istio=ingressgateway
           server tcp:31400 hosts=*
           server tls:443 hosts=*.example.com
         routes default/db hosts=* gateways=default/gw
           tcp port=31400 -> db:3306
         routes default/tls hosts=a.example.com,b.other.com gateways=default/gw
           tls sni=a.example.com port=443 -> reviews:9080
           tls sni=b.other.com port=443 -> reviews:9080",
        &[
            (
                "gateway open 10.244.0.50:31400",
                "tcp outbound|3306||db.default by db",
            ),
            (
                "gateway open 10.244.0.50:443",
                "sni NoRoute gateway port 443: what came in is not TLS",
            ),
            (
                "gateway sni a.example.com 10.244.0.50:443",
                "outbound|9080||reviews.default by tls",
            ),
            (
                "gateway sni b.other.com 10.244.0.50:443",
                "NoRoute server name \"b.other.com\" on port 443",
            ),
        ],
    );
    with(
        "gateway default/gw istio=ingressgateway
           server tcp:31400 hosts=*",
        &[(
            "gateway open 10.244.0.50:31400",
            "tcp NoRoute gateway port 31400: no TCP route of a VirtualService takes it",
        )],
    );
}

#[test]
fn a_gateway_with_no_routes_answers_404() {
    with(
        "gateway default/gw istio=ingressgateway
           server http:80 hosts=*",
        &[("gateway GET http://a.example/", "404 NoRoute a.example")],
    );
}

#[test]
fn server_names_of_istios_form_lead_by_themselves() {
    let config = "
        me gateway istio-system/east-west 10.244.0.2 istio=eastwestgateway
        service default/reviews 10.96.0.10 http:9080
        service default/plain 10.96.0.11 http:80
        pod default/reviews-v1 10.244.0.5 serves=reviews version=v1
        pod default/reviews-v2 10.244.0.6 serves=reviews version=v2
        pod default/plain-v1 10.244.0.7 serves=plain plain
        policy default/reviews host=reviews subset=v1:version=v1
        gateway istio-system/cross istio=eastwestgateway
          server auto:15443 hosts=*.local";
    let name = |port: u16, subset: &str, host: &str| {
        format!("tls outbound_.{port}_.{subset}_.{host}.default.svc.cluster.local 10.244.0.2:15443")
    };
    let pass = "pass outbound|9080|v1|reviews.default by cross";
    check(
        config,
        &[
            (&format!("gateway {}", name(9080, "v1", "reviews")), pass),
            (
                &format!("gateway {}", name(9080, "v9", "reviews")),
                "NoCluster outbound|9080|v9|reviews.default by cross",
            ),
            (
                &format!("gateway {}", name(80, "", "plain")),
                "NoEndpoint outbound|80||plain.default by cross",
            ),
            (
                "gateway tls reviews.default.svc.cluster.local 10.244.0.2:15443",
                "NoRoute server name \"reviews.default\" on port 15443",
            ),
            (
                "gateway tls www.example.com 10.244.0.2:15443",
                "NoRoute server name \"www.example.com\" on port 15443",
            ),
        ],
    );
}
