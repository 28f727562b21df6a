//! Requests that mean one thing to a proxy and another to the application behind it: they are refused, or arrive in
//! the form in which they were judged.

use super::guarded::*;
use super::member::{Ca, Pair};
use super::mesh::{host, origin, routes_at, rule, scope, service};
use super::*;
use ::http::{Request, Response};
use bytes::Bytes;
use http_body_util::BodyExt;
use lateen_model::gateway::{Gateway, Server, ServerHost, ServerProtocol};
use lateen_model::mesh::Role;
use lateen_model::security::{Action, Rule, Source};
use lateen_model::service::Protocol;
use lateen_net::http::{Body, Incoming, Limits, Version, open, serve};
use lateen_net::stream::Stream;
use std::collections::BTreeMap;

/// One HTTP/2 request of a client without a sidecar: status and body.
async fn http2(bench: &Bench, uri: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let stream = Stream::new(bench.inbound("127.1.0.9").await, Bytes::new());
    let mut sender = open(stream, Version::Http2, &Limits::default())
        .await
        .unwrap();
    let mut request = Request::get(uri).version(::http::Version::HTTP_2);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = sender
        .request(request.body(Body::Empty).unwrap())
        .await
        .unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// An application that speaks HTTP/2 and answers with the path that it was asked for.
async fn http2_mirror(ip: &str) -> SocketAddr {
    server(ip, |stream, _| async move {
        let respond = |request: Request<Incoming>, busy| async move {
            let _busy = busy;
            Response::new(Body::full(request.uri().path().to_owned()))
        };
        let stream = Stream::new(stream, Bytes::new());
        let never = std::future::pending();
        let _ = serve(stream, Version::Http2, &Limits::default(), never, respond).await;
    })
    .await
}

#[test]
fn http2_requests_have_one_name_and_one_path() {
    run(async {
        let app = http2_mirror("127.1.0.1").await;
        let deny = policy("no-admin", Action::Deny, vec![paths(&["/admin*"])]);
        let bench = sidecar(app, vec![Resource::AuthorizationPolicy(deny)]).await;
        for (uri, headers, want) in [
            ("http://a/x", vec![], 200),
            ("http://a/x", vec![("host", "A")], 200),
            ("http://a/x", vec![("host", "b")], 400),
            ("http://a/x", vec![("host", "a"), ("host", "a")], 400),
            ("http://u@a/x", vec![], 400),
            ("http://a/x/../admin", vec![], 403),
            ("http://a/%61dmin", vec![], 403),
        ] {
            let (status, body) = http2(&bench, uri, &headers).await;
            assert_eq!(status, want, "{uri} {headers:?}: {body}");
        }
    });
}

#[test]
fn what_concerns_one_connection_goes_no_further() {
    run(async {
        let app = mirror("127.1.0.1").await;
        let bench = sidecar(app, Vec::new()).await;
        let request = "POST / HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, x-y\r\nkeep-alive: 1\r\n\
                       proxy-connection: close\r\nte: gzip\r\nupgrade: h2c\r\n\
                       http2-settings: AA\r\nx-y: 1\r\ncontent-length: 2\r\n\r\nhi";
        let mut stream = bench.inbound("127.1.0.9").await;
        let answer = exchange(&mut stream, request).await;
        let seen = outcome(&answer).1.to_ascii_lowercase();
        for name in [
            "connection:",
            "keep-alive:",
            "te:",
            "upgrade:",
            "http2-settings:",
            "transfer-encoding:",
        ] {
            assert!(!seen.contains(&format!("\n{name}")), "{name} {seen}");
        }
        assert!(
            seen.contains("content-length: 2\r\n") && seen.ends_with("hi"),
            "{seen}"
        );
    });
}

fn gateway(port: u16) -> Resource {
    Resource::Gateway(Gateway {
        origin: origin("Gateway", "front"),
        selector: BTreeMap::from([("istio".into(), "ingressgateway".into())]),
        servers: vec![Server {
            name: "".into(),
            port,
            port_name: "http".into(),
            protocol: ServerProtocol::Http,
            hosts: vec![ServerHost {
                namespace: None,
                host: "*".into(),
            }],
            https_redirect: false,
            bind: None,
            tls: None,
        }],
    })
}

#[test]
fn gateways_believe_as_many_proxies_as_they_are_told() {
    run(async {
        let app = mirror("127.1.0.1").await;
        for (trusted, forwarded, want) in [
            (0, "203.0.113.7", "403"),
            (1, "203.0.113.7", "200"),
            (1, "203.0.113.7, 198.51.100.1", "403"),
            (1, "198.51.100.1, 203.0.113.7", "200"),
            (2, "203.0.113.7, 10.0.0.1", "200"),
        ] {
            let port = nobody("127.0.0.1").await.port();
            let known = Rule {
                from: vec![Source {
                    remote_ip_blocks: vec!["203.0.113.0/24".parse().unwrap()],
                    ..Source::default()
                }],
                ..Rule::default()
            };
            let resources = vec![
                service("a", "10.96.0.1", 80, Protocol::Http),
                mesh::pod("a", "v1", 80, app),
                gateway(port),
                routes_at("default/front", "shop.example.com", vec![rule(&[("a", 1)])]),
                Resource::AuthorizationPolicy(policy("known", Action::Allow, vec![known])),
                settings(|mesh| mesh.trusted_proxies = trusted),
            ];
            let bench = Bench::with(Config::new(scope(Role::Gateway)), resources).await;
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let request = format!(
                "GET /x/../y HTTP/1.1\r\nhost: shop.example.com\r\nx-forwarded-for: {forwarded}\r\n\
                 x-envoy-retry-on: 5xx\r\nx-forwarded-client-cert: By=me\r\n\r\n"
            );
            let answer = exchange(&mut stream, &request).await;
            let (status, seen) = outcome(&answer);
            assert_eq!(status, want, "{trusted} {forwarded}: {answer}");
            if want == "200" {
                assert!(seen.starts_with("GET /y HTTP/1.1\r\n"), "{seen}");
                assert!(
                    seen.contains(&format!("x-forwarded-for: {forwarded},127.0.0.1\r\n")),
                    "{seen}"
                );
                assert!(
                    !seen.contains("x-envoy-retry-on") && !seen.contains("client-cert"),
                    "{seen}"
                );
            }
            drop(bench);
        }
    });
}

#[test]
fn clients_behind_a_load_balancer_are_those_that_it_names() {
    run(async {
        let app = mirror("127.1.0.1").await;
        let port = nobody("127.0.0.1").await.port();
        let known = Rule {
            from: vec![Source {
                ip_blocks: vec!["203.0.113.0/24".parse().unwrap()],
                ..Source::default()
            }],
            ..Rule::default()
        };
        let resources = vec![
            service("a", "10.96.0.1", 80, Protocol::Http),
            mesh::pod("a", "v1", 80, app),
            gateway(port),
            routes_at("default/front", "shop.example.com", vec![rule(&[("a", 1)])]),
            Resource::AuthorizationPolicy(policy("known", Action::Allow, vec![known])),
            settings(|mesh| mesh.proxy_protocol = true),
        ];
        let bench = Bench::with(Config::new(scope(Role::Gateway)), resources).await;
        let request = "GET / HTTP/1.1\r\nhost: shop.example.com\r\n\r\n";
        let ask = async |header: &[u8]| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            stream.write_all(header).await.unwrap();
            exchange(&mut stream, request).await
        };
        let binary = [
            &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..],
            &[203, 0, 113, 9, 10, 0, 0, 1, 0x12, 0x34, 0, 80],
        ]
        .concat();
        for (header, want) in [
            (&b"PROXY TCP4 203.0.113.7 10.0.0.1 1234 80\r\n"[..], "200"),
            (&binary, "200"),
            (b"PROXY TCP4 198.51.100.1 10.0.0.1 1234 80\r\n", "403"),
            (b"PROXY UNKNOWN\r\n", "403"),
        ] {
            let answer = ask(header).await;
            let (status, seen) = outcome(&answer);
            assert_eq!(status, want, "{answer}");
            if want == "200" {
                assert!(seen.contains("x-forwarded-for: 203.0.113."), "{seen}");
            }
        }
        assert_eq!(
            ask(b"").await,
            "",
            "a connection without a header is closed"
        );
        drop(bench);
    });
}

#[test]
fn what_was_authorized_is_what_both_proxies_and_the_application_see() {
    run(async {
        let ca = Ca::new();
        let app = mirror("127.1.0.1").await;
        let deny = policy(
            "no-admin",
            Action::Deny,
            vec![paths(&["/admin", "/admin/*"])],
        );
        let policies = vec![Resource::AuthorizationPolicy(deny)];
        let pair = Pair::new(&ca, Protocol::Http, app, policies).await;
        for (target, want) in [
            ("/x/../y?z=/../q", Some("/y?z=/../q")),
            ("/a%2fb", Some("/a%2Fb")),
            ("/%7Euser", Some("/~user")),
            ("/x/../admin", None),
            ("/x/%2e%2e/admin/", None),
        ] {
            let request = format!("GET {target} HTTP/1.1\r\nhost: {}\r\n\r\n", host("a"));
            let answer = pair.client.bench.ask(&request).await;
            let (status, seen) = outcome(&answer);
            match want {
                Some(path) => assert!(
                    seen.starts_with(&format!("GET {path} HTTP/1.1\r\n")),
                    "{answer}"
                ),
                None => assert_eq!(status, "403", "{target}: {answer}"),
            }
        }
    });
}
