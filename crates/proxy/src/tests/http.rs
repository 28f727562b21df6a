//! Requests through a sidecar and a gateway: where they go, and what arrives.

use super::mesh::{origin, pod, registry_only, routes, routes_at, rule, service};
use super::*;
use ::http::{HeaderMap, HeaderValue, Request, Response};
use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use lateen_model::gateway::{Gateway, Server, ServerHost, ServerProtocol};
use lateen_model::mesh::Role;
use lateen_model::route::{HttpAction, Redirect};
use lateen_model::service::Protocol;
use lateen_net::http::{Body, BodyError, Limits, Version, open, serve};
use lateen_net::stream::Stream;
use std::collections::BTreeMap;

const A: &str = "10.96.0.1:80";

fn get(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")
}

#[test]
fn the_host_chooses_the_service() {
    run(async {
        let (a, b) = (
            web("127.1.0.1", "from a").await,
            web("127.1.0.2", "from b").await,
        );
        let bench = Bench::sidecar(
            A,
            vec![
                service("a", "10.96.0.1", 80, Protocol::Http),
                service("b", "10.96.0.2", 80, Protocol::Http),
                pod("a", "v1", 80, a),
                pod("b", "v1", 80, b),
            ],
        )
        .await;
        for (host, want) in [
            ("a", "from a"),
            ("a.default", "from a"),
            ("B.default.svc.cluster.local:80", "from b"),
            ("10.96.0.2", "from b"),
        ] {
            let answer = bench.ask(&get(host)).await;
            assert!(
                answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with(want),
                "{host}: {answer}"
            );
            assert!(answer.contains("server: envoy\r\n"), "{answer}");
        }
    });
}

#[test]
fn refusals_have_their_status_and_words() {
    run(async {
        let dead = nobody("127.1.0.1").await;
        let mut no_retries = rule(&[("dead", 1)]);
        no_retries.retries = mesh::retries(0, &[]);
        let bench = Bench::sidecar(
            A,
            vec![
                registry_only(),
                service("dead", "10.96.0.1", 80, Protocol::Http),
                service("empty", "10.96.0.2", 80, Protocol::Http),
                pod("dead", "v1", 80, dead),
                routes("dead", vec![no_retries]),
            ],
        )
        .await;
        for (host, status, body) in [
            ("example.com", "502", ""),
            ("empty", "503", "no healthy upstream"),
            (
                "dead",
                "503",
                "upstream connect error or disconnect/reset before headers. reset reason: connection failure, \
                 transport failure reason: delayed connect error: Connection refused",
            ),
        ] {
            let answer = bench.ask(&get(host)).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{host}: {answer}"
            );
            assert_eq!(answer.split_once("\r\n\r\n").unwrap().1, body, "{host}");
        }
        let grpc = "POST /x HTTP/1.1\r\nhost: empty\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n\r\n";
        let answer = bench.ask(grpc).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains("grpc-status: 14\r\n"),
            "{answer}"
        );
        let answer = bench.ask("GET / HTTP/1.1\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    });
}

#[test]
fn weights_share_requests() {
    run(async {
        let (a, b) = (web("127.1.0.1", "a").await, web("127.1.0.2", "b").await);
        let bench = Bench::sidecar(
            A,
            vec![
                service("a", "10.96.0.1", 80, Protocol::Http),
                service("b", "10.96.0.2", 80, Protocol::Http),
                pod("a", "v1", 80, a),
                pod("b", "v1", 80, b),
                routes("a", vec![rule(&[("a", 75), ("b", 25)])]),
            ],
        )
        .await;
        let mut stream = bench.outbound().await;
        let mut to_b = 0;
        for _ in 0..400 {
            to_b += u32::from(exchange(&mut stream, &get("a")).await.ends_with('b'));
        }
        assert!((60..=140).contains(&to_b), "{to_b} of 400 for a quarter");
    });
}

#[test]
fn header_case_is_kept_both_ways() {
    run(async {
        let address = server("127.1.0.1", |mut stream, _| async move {
            let head = read_head(&mut stream).await.unwrap();
            assert!(head.starts_with("GET /p?q HTTP/1.1\r\n"), "{head}");
            let kept =
                usize::from(head.contains("X-CaSe: One\r\n") && head.contains("hOsT: a\r\n"));
            let answer =
                format!("HTTP/1.1 200 Fine\r\nX-BaCk: {kept}\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
        let bench = Bench::sidecar(
            A,
            vec![
                service("a", "10.96.0.1", 80, Protocol::Http),
                pod("a", "v1", 80, address),
            ],
        )
        .await;
        let answer = bench
            .ask("GET /p?q HTTP/1.1\r\nhOsT: a\r\nX-CaSe: One\r\n\r\n")
            .await;
        assert!(
            answer.contains("X-BaCk: 1\r\n") && answer.contains("Content-Length: 0\r\n"),
            "{answer}"
        );
    });
}

#[test]
fn trailers_pass_both_ways_on_http1() {
    run(async {
        let address = server("127.1.0.1", |mut stream, _| async move {
            read_head(&mut stream).await.unwrap();
            let body = read_head(&mut stream).await.unwrap();
            assert!(
                body.to_ascii_lowercase().contains("0\r\nx-sum: 7\r\n\r\n"),
                "{body:?}"
            );
            let answer = "HTTP/1.1 200 OK\r\ntrailer: x-end\r\ntransfer-encoding: chunked\r\n\r\n\
                          2\r\nhi\r\n0\r\nx-end: 1\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
        let bench = Bench::sidecar(
            A,
            vec![
                service("a", "10.96.0.1", 80, Protocol::Http),
                pod("a", "v1", 80, address),
            ],
        )
        .await;
        let answer = bench
            .ask(
                "POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n\
                 3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n",
            )
            .await;
        assert!(answer.ends_with("0\r\nx-end: 1\r\n\r\n"), "{answer}");
    });
}

#[test]
fn websockets_are_tunnelled() {
    run(async {
        let address = server("127.1.0.1", |mut stream, _| async move {
            let head = read_head(&mut stream).await.unwrap().to_ascii_lowercase();
            assert!(head.contains("upgrade: websocket\r\n") && head.contains("connection: upgrade\r\n"), "{head}");
            let answer = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
            let mut word = [0; 4];
            while stream.read_exact(&mut word).await.is_ok() {
                stream.write_all(&word).await.unwrap();
            }
        })
        .await;
        let bench = Bench::sidecar(
            A,
            vec![
                service("a", "10.96.0.1", 80, Protocol::Http),
                pod("a", "v1", 80, address),
            ],
        )
        .await;
        let mut stream = bench.outbound().await;
        let answer = exchange(
            &mut stream,
            "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n",
        )
        .await;
        assert!(
            answer.starts_with("HTTP/1.1 101") && answer.contains("upgrade: websocket"),
            "{answer}"
        );
        for word in [b"ping", b"pong"] {
            stream.write_all(word).await.unwrap();
            let mut echo = [0; 4];
            stream.read_exact(&mut echo).await.unwrap();
            assert_eq!(&echo, word);
        }
        drop(stream);
        let line = bench.log.lines(1).await.remove(0);
        assert!(
            line.contains("\"GET /ws HTTP/1.1\" 101 - via_upstream - \"-\" 8 8 "),
            "{line}"
        );
    });
}

/// An HTTP/2 server that echoes each frame as it comes and ends with trailers.
async fn echo_http2(ip: &str) -> SocketAddr {
    server(ip, |stream, _| async move {
        let respond = |request: Request<lateen_net::http::Incoming>, busy| async move {
            let _busy = busy;
            assert_eq!(request.version(), ::http::Version::HTTP_2);
            let mut body = request.into_body();
            let (sender, receiver) =
                tokio::sync::mpsc::channel::<Result<Frame<Bytes>, BodyError>>(1);
            tokio::task::spawn_local(async move {
                while let Some(Ok(frame)) = body.frame().await {
                    let _ = sender.send(Ok(frame)).await;
                }
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("3"));
                let _ = sender.send(Ok(Frame::trailers(trailers))).await;
            });
            let frames = futures::stream::unfold(receiver, |mut receiver| async move {
                receiver.recv().await.map(|frame| (frame, receiver))
            });
            Response::new(Body::wrap(StreamBody::new(frames)))
        };
        let stream = Stream::new(stream, Bytes::new());
        let never = std::future::pending();
        let _ = serve(stream, Version::Http2, &Limits::default(), never, respond).await;
    })
    .await
}

#[test]
fn grpc_streams_both_ways_at_once() {
    run(async {
        let address = echo_http2("127.1.0.1").await;
        let bench = Bench::sidecar(
            A,
            vec![
                service("a", "10.96.0.1", 80, Protocol::Grpc),
                pod("a", "v1", 80, address),
            ],
        )
        .await;
        let stream = Stream::new(bench.outbound().await, Bytes::new());
        let mut sender = open(stream, Version::Http2, &Limits::default())
            .await
            .unwrap();
        let (messages, receiver) = tokio::sync::mpsc::channel::<&'static str>(1);
        let frames = futures::stream::unfold(receiver, |mut receiver| async move {
            let message = receiver.recv().await?;
            Some((
                Ok::<_, BodyError>(Frame::data(Bytes::from(message))),
                receiver,
            ))
        });
        let request = Request::post("http://a/pkg.Service/Chat")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Body::wrap(StreamBody::new(frames)))
            .unwrap();
        let mut answer = sender.request(request).await.unwrap().into_body();
        for message in ["one", "two"] {
            messages.send(message).await.unwrap();
            let frame = answer.frame().await.unwrap().unwrap();
            assert_eq!(
                frame.into_data().unwrap(),
                message,
                "the echo comes before the next message"
            );
        }
        drop(messages);
        let frame = answer.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_trailers().unwrap()["grpc-status"], "3");
        drop(answer);
        let line = bench.metrics("istio_requests_total").await.remove(0);
        for label in [
            "request_protocol=\"grpc\"",
            "grpc_response_status=\"3\"",
            "response_flags=\"-\"",
        ] {
            assert!(line.contains(label), "{label} in {line}");
        }
    });
}

#[test]
fn an_http2_client_reaches_an_http1_application() {
    run(async {
        let address = server("127.1.0.1", |mut stream, _| async move {
            let head = read_head(&mut stream).await.unwrap();
            assert!(head.starts_with("GET /x HTTP/1.1\r\n"), "{head}");
            let whole = head.contains("host: a\r\n") && head.contains("cookie: a=1; b=2\r\n");
            let answer = format!(
                "HTTP/1.1 200 OK\r\nx-whole: {whole}\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nhi"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
        let bench = Bench::sidecar(
            A,
            vec![
                service("a", "10.96.0.1", 80, Protocol::Http),
                pod("a", "v1", 80, address),
            ],
        )
        .await;
        let stream = Stream::new(bench.outbound().await, Bytes::new());
        let mut sender = open(stream, Version::Http2, &Limits::default())
            .await
            .unwrap();
        let request = Request::get("http://a/x")
            .header("cookie", "a=1")
            .header("cookie", "b=2");
        let answer = sender
            .request(request.body(Body::Empty).unwrap())
            .await
            .unwrap();
        assert_eq!(answer.headers()["x-whole"], "true");
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "hi");
    });
}

#[test]
fn answers_without_bodies_keep_their_heads() {
    run(async {
        let address = server("127.1.0.1", |mut stream, _| async move {
            while let Some(head) = read_head(&mut stream).await {
                let answer = if head.starts_with("HEAD") {
                    "HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n"
                } else {
                    "HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\n\r\n"
                };
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        })
        .await;
        let bench = Bench::sidecar(
            A,
            vec![
                service("a", "10.96.0.1", 80, Protocol::Http),
                pod("a", "v1", 80, address),
            ],
        )
        .await;
        let mut stream = bench.outbound().await;
        stream
            .write_all(b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        let head = read_head(&mut stream).await.unwrap();
        assert!(
            head.starts_with("HTTP/1.1 200") && head.contains("content-length: 1234\r\n"),
            "{head}"
        );
        stream.write_all(get("a").as_bytes()).await.unwrap();
        let head = read_head(&mut stream).await.unwrap();
        assert!(
            head.starts_with("HTTP/1.1 304") && head.contains("etag: \"x\"\r\n"),
            "{head}"
        );
        assert!(!head.contains("content-length"), "{head}");
    });
}

#[test]
fn old_clients_and_careful_ones_are_served() {
    run(async {
        let address = server("127.1.0.1", |mut stream, _| async move {
            while let Some(head) = read_head(&mut stream).await {
                assert!(
                    head.starts_with("POST / HTTP/1.1") && !head.contains("expect"),
                    "{head}"
                );
                let mut body = [0; 2];
                stream.read_exact(&mut body).await.unwrap();
                let answer =
                    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        })
        .await;
        let bench = Bench::sidecar(
            A,
            vec![
                service("a", "10.96.0.1", 80, Protocol::Http),
                pod("a", "v1", 80, address),
            ],
        )
        .await;
        let mut old = bench.outbound().await;
        old.write_all(b"POST / HTTP/1.0\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi")
            .await
            .unwrap();
        let mut answer = String::new();
        old.read_to_string(&mut answer).await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.0 200") && answer.ends_with("\r\n\r\nok"),
            "{answer}"
        );
        let mut older = bench.outbound().await;
        let no_host = b"POST / HTTP/1.0\r\ncontent-length: 2\r\n\r\nhi";
        older.write_all(no_host).await.unwrap();
        let mut answer = String::new();
        older.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
        let mut careful = bench.outbound().await;
        let head =
            "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n";
        careful.write_all(head.as_bytes()).await.unwrap();
        let go = read_head(&mut careful).await.unwrap();
        assert_eq!(go, "HTTP/1.1 100 Continue\r\n\r\n");
        let answer = exchange(&mut careful, "hi").await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains("\r\nok\r\n"),
            "{answer}"
        );
    });
}

#[test]
fn large_bodies_arrive_whole() {
    run(async {
        let address = server("127.1.0.1", |mut stream, _| async move {
            let head = read_head(&mut stream).await.unwrap();
            let length = head
                .lines()
                .find_map(|l| l.strip_prefix("content-length: "))
                .unwrap();
            let mut body = vec![0; length.parse().unwrap()];
            stream.read_exact(&mut body).await.unwrap();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.write_all(&body).await.unwrap();
        })
        .await;
        let bench = Bench::sidecar(
            A,
            vec![
                service("a", "10.96.0.1", 80, Protocol::Http),
                pod("a", "v1", 80, address),
            ],
        )
        .await;
        let body = "0123456789".repeat(300_000);
        let mut stream = bench.outbound().await;
        let (mut read, mut write) = stream.split();
        let head = format!(
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let (sent, got) = tokio::join!(
            async {
                write.write_all(head.as_bytes()).await?;
                write.write_all(body.as_bytes()).await
            },
            async {
                let mut got = Vec::new();
                while !got.ends_with(b"9") || got.len() < body.len() {
                    if read.read_buf(&mut got).await.unwrap() == 0 {
                        break;
                    }
                }
                got
            }
        );
        sent.unwrap();
        assert!(String::from_utf8(got).unwrap().ends_with(&body));
    });
}

#[test]
fn a_gateway_opens_what_it_is_told_and_refuses_the_rest() {
    run(async {
        let address = web("127.1.0.1", "inside").await;
        let port = nobody("127.0.0.1").await.port();
        let gateway = Gateway {
            origin: origin("Gateway", "front"),
            selector: BTreeMap::from([("istio".into(), "ingressgateway".into())]),
            servers: vec![Server {
                tls: None,
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
            }],
        };
        let mut moved = rule(&[]);
        moved.matches = vec![lateen_model::route::HttpMatch {
            uri: Some(lateen_model::matching::StringMatch::Prefix("/old".into())),
            ..Default::default()
        }];
        moved.action = HttpAction::Redirect(Redirect {
            uri: Some("/new".into()),
            prefix: None,
            authority: None,
            scheme: None,
            port: lateen_model::route::RedirectPort::Kept,
            status: 302,
        });
        let resources = vec![
            service("a", "10.96.0.1", 80, Protocol::Http),
            pod("a", "v1", 80, address),
            Resource::Gateway(gateway),
            routes_at(
                "default/front",
                "shop.example.com",
                vec![moved, rule(&[("a", 1)])],
            ),
        ];
        let bench = Bench::with(Config::new(mesh::scope(Role::Gateway)), resources).await;
        let listener = SocketAddr::from(([127, 0, 0, 1], port));
        let ask = async |request: &str| {
            exchange(&mut TcpStream::connect(listener).await.unwrap(), request).await
        };
        let answer = ask(&get("shop.example.com")).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("inside"),
            "{answer}"
        );
        assert!(answer.contains("server: istio-envoy\r\n"), "{answer}");
        let answer = ask("GET /old/x?y=1 HTTP/1.1\r\nhost: shop.example.com\r\n\r\n").await;
        assert!(
            answer.contains("location: http://shop.example.com/new?y=1\r\n"),
            "{answer}"
        );
        let answer = ask(&get("else.example.com")).await;
        assert!(
            answer.starts_with("HTTP/1.1 404") && answer.ends_with("\r\n\r\n"),
            "{answer}"
        );
        let line = bench.log.lines(3).await.remove(2);
        assert!(line.contains(" 404 NR route_not_found "), "{line}");
    });
}

#[test]
fn a_body_that_ends_with_trailers_has_ended() {
    run(async {
        let address = server("127.1.0.1", |mut stream, _| async move {
            while read_head(&mut stream).await.is_some() {
                let answer = "HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n\
                              2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n";
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        })
        .await;
        let resources = vec![
            service("a", "10.96.0.1", 80, Protocol::Http),
            pod("a", "v1", 80, address),
        ];
        let bench = Bench::sidecar(A, resources).await;
        let answer = bench.ask(&get("a")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let line = bench.log.lines(1).await.remove(0);
        assert!(line.contains(" 200 - via_upstream "), "{line}");
    });
}
