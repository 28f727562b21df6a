//! What DestinationRules allow at once, and how long connections live.

use super::mesh::{pod, policy, retries, routes, rule, service};
use super::*;
use lateen_model::route::HttpRoute;
use lateen_model::service::Protocol;
use lateen_model::traffic::{ConnectionPool, ProxyProtocol, TrafficSettings, Tunnel};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use tokio::sync::watch;

const A: &str = "10.96.0.1:80";
const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

fn pool() -> ConnectionPool {
    ConnectionPool::default()
}

fn limited(pool: ConnectionPool) -> TrafficSettings {
    TrafficSettings {
        pool: Some(pool),
        ..TrafficSettings::default()
    }
}

fn resources(settings: TrafficSettings, protocol: Protocol, to: SocketAddr) -> Vec<Resource> {
    vec![
        service("a", "10.96.0.1", 80, protocol),
        pod("a", "v1", 80, to),
        policy("a", settings),
    ]
}

async fn bench(settings: TrafficSettings, to: SocketAddr) -> Bench {
    Bench::sidecar(A, resources(settings, Protocol::Http, to)).await
}

/// A server that answers each request with its connection's number once it is let go; it counts connections, and the
/// most of them at once.
#[derive(Clone)]
struct Held {
    go: watch::Sender<bool>,
    seen: Rc<Cell<usize>>,
    now: Rc<Cell<usize>>,
    most: Rc<Cell<usize>>,
}

impl Held {
    async fn start(ip: &str, held: bool) -> (Self, SocketAddr) {
        let held = Self {
            go: watch::channel(!held).0,
            seen: Rc::default(),
            now: Rc::default(),
            most: Rc::default(),
        };
        let this = held.clone();
        let address = server(ip, move |stream, number| this.clone().serve(stream, number));
        (held, address.await)
    }

    async fn serve(self, mut stream: TcpStream, number: usize) {
        self.now.set(self.now.get() + 1);
        self.most.set(self.most.get().max(self.now.get()));
        while read_head(&mut stream).await.is_some() {
            self.seen.set(self.seen.get() + 1);
            let mut go = self.go.subscribe();
            let _ = go.wait_for(|go| *go).await;
            let body = number.to_string();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            if stream.write_all(answer.as_bytes()).await.is_err() {
                break;
            }
        }
        self.now.set(self.now.get() - 1);
    }

    /// Returns once so many requests have come.
    async fn has_seen(&self, requests: usize) {
        while self.seen.get() < requests {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[track_caller]
fn is_overflow(answer: &str) {
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("x-envoy-overloaded: true"), "{answer}");
    let body = "upstream connect error or disconnect/reset before headers. reset reason: overflow";
    assert!(answer.ends_with(body), "{answer}");
}

#[test]
fn one_connection_one_waits_the_next_overflows() {
    run(async {
        let (held, address) = Held::start("127.1.0.1", true).await;
        let bench = bench(
            limited(ConnectionPool {
                max_connections: Some(1),
                max_pending: Some(1),
                ..pool()
            }),
            address,
        )
        .await;
        let mut first = bench.outbound().await;
        first.write_all(GET.as_bytes()).await.unwrap();
        held.has_seen(1).await;
        // Of these two, one waits and one is refused.
        let (mut second, mut third) = (bench.outbound().await, bench.outbound().await);
        second.write_all(GET.as_bytes()).await.unwrap();
        third.write_all(GET.as_bytes()).await.unwrap();
        let (refused, mut waits) = tokio::select! {
            answer = response(&mut second) => (answer, third),
            answer = response(&mut third) => (answer, second),
        };
        is_overflow(&refused);
        let line = bench.log.lines(1).await.remove(0);
        assert!(
            line.contains(" 503 UO upstream_reset_before_response_started{overflow} "),
            "{line}"
        );
        held.go.send_replace(true);
        assert!(response(&mut first).await.ends_with("\r\n0"));
        let answer = response(&mut waits).await;
        assert!(
            answer.ends_with("\r\n0"),
            "over the same connection: {answer}"
        );
    });
}

#[test]
fn connections_are_never_more_whatever_the_number_of_workers() {
    run(async {
        let (held, one) = Held::start("127.1.0.1", false).await;
        let this = held.clone();
        let serve = move |stream, number| this.clone().serve(stream, number);
        let other = server("127.1.0.2", serve).await;
        let mut config = Config::new(mesh::scope(lateen_model::mesh::Role::Sidecar));
        config.destinations = Destinations::Fixed(A.parse().unwrap());
        config.concurrency = 2;
        let settings = limited(ConnectionPool {
            max_connections: Some(2),
            ..pool()
        });
        let mut resources = resources(settings, Protocol::Http, one);
        resources.push(pod("a", "v2", 80, other));
        let bench = Bench::with(config, resources).await;
        let asks = (0..200).map(|_| bench.ask(GET));
        for answer in futures::future::join_all(asks).await {
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        assert!(held.most.get() <= 2, "{} at once", held.most.get());
    });
}

#[test]
fn requests_at_once() {
    run(async {
        let (held, address) = Held::start("127.1.0.1", true).await;
        let bench = bench(
            limited(ConnectionPool {
                max_requests: Some(1),
                ..pool()
            }),
            address,
        )
        .await;
        let mut first = bench.outbound().await;
        first.write_all(GET.as_bytes()).await.unwrap();
        held.has_seen(1).await;
        is_overflow(&bench.ask(GET).await);
        held.go.send_replace(true);
        assert!(response(&mut first).await.starts_with("HTTP/1.1 200"));
        let mut answer = bench.ask(GET).await;
        while answer.starts_with("HTTP/1.1 503") {
            // The first may not be accounted for yet.
            answer = bench.ask(GET).await;
        }
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    });
}

#[test]
fn a_connection_for_each_request() {
    run(async {
        let (_held, address) = Held::start("127.1.0.1", false).await;
        let bench = bench(
            limited(ConnectionPool {
                max_requests_per_connection: Some(1),
                ..pool()
            }),
            address,
        )
        .await;
        let mut stream = bench.outbound().await;
        for number in 0..3 {
            let answer = exchange(&mut stream, GET).await;
            assert!(answer.ends_with(&format!("\r\n{number}")), "{answer}");
        }
    });
}

#[test]
fn retries_at_once() {
    run(async {
        let retried = Rc::new(Cell::new(0));
        let (go, _) = watch::channel(false);
        let address = {
            let (retried, go) = (Rc::clone(&retried), go.clone());
            server("127.1.0.1", move |mut stream, _| {
                let (retried, go) = (Rc::clone(&retried), go.clone());
                async move {
                    while let Some(head) = read_head(&mut stream).await {
                        if head.contains("x-envoy-attempt-count: 2") {
                            retried.set(retried.get() + 1);
                            let _ = go.subscribe().wait_for(|go| *go).await;
                        }
                        let answer = "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n";
                        let _ = stream.write_all(answer.as_bytes()).await;
                    }
                }
            })
            .await
        };
        let settings = limited(ConnectionPool {
            max_retries: Some(1),
            ..pool()
        });
        let mut resources = resources(settings, Protocol::Http, address);
        resources.push(routes(
            "a",
            vec![HttpRoute {
                retries: retries(1, &["5xx"]),
                ..rule(&[("a", 1)])
            }],
        ));
        let bench = Bench::sidecar(A, resources).await;
        let mut first = bench.outbound().await;
        first.write_all(GET.as_bytes()).await.unwrap();
        while retried.get() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(bench.ask(GET).await.starts_with("HTTP/1.1 503"));
        let line = bench.log.lines(1).await.remove(0);
        assert!(line.contains(" 503 UO via_upstream "), "{line}");
        go.send_replace(true);
        assert!(response(&mut first).await.starts_with("HTTP/1.1 503"));
        assert_eq!(retried.get(), 1, "the second was not tried again");
    });
}

#[test]
fn tcp_connections_at_once() {
    run(async {
        let address = server("127.1.0.1", |mut stream, _| async move {
            let mut word = [0; 2];
            while stream.read_exact(&mut word).await.is_ok() {
                let _ = stream.write_all(&word).await;
            }
        })
        .await;
        let settings = limited(ConnectionPool {
            max_connections: Some(1),
            ..pool()
        });
        let bench = Bench::sidecar(A, resources(settings, Protocol::Tcp, address)).await;
        let mut first = bench.outbound().await;
        let mut word = [0; 2];
        first.write_all(b"hi").await.unwrap();
        first.read_exact(&mut word).await.unwrap();
        // It may be reset before the client knows that it is connected.
        let second = TcpStream::connect(bench.proxy.addresses().outbound.unwrap()).await;
        if let Ok(mut second) = second {
            assert!(second.read_exact(&mut word).await.is_err());
        }
        let line = bench.log.lines(1).await.remove(0);
        assert!(line.contains(" 0 UO "), "{line}");
        drop(first);
        bench.log.lines(2).await;
        let mut third = bench.outbound().await;
        third.write_all(b"ho").await.unwrap();
        third.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"ho");
    });
}

#[test]
fn idle_connections_to_endpoints_end() {
    run(async {
        let (ended, mut over) = tokio::sync::mpsc::unbounded_channel();
        let address = server("127.1.0.1", move |mut stream, _| {
            let ended = ended.clone();
            async move {
                while read_head(&mut stream).await.is_some() {
                    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
                let _ = ended.send(());
            }
        })
        .await;
        let bench = bench(
            limited(ConnectionPool {
                http_idle_timeout: Some(Duration::from_millis(30)),
                ..pool()
            }),
            address,
        )
        .await;
        let mut stream = bench.outbound().await;
        assert!(exchange(&mut stream, GET).await.starts_with("HTTP/1.1 200"));
        // Without a bound it would be kept for longer than this test may last.
        over.recv().await.unwrap();
    });
}

#[test]
fn silent_and_old_tcp_connections_end() {
    run(async {
        let soon = Some(Duration::from_millis(30));
        let silent = ConnectionPool {
            tcp_idle_timeout: soon,
            ..pool()
        };
        let old = ConnectionPool {
            max_connection_duration: soon,
            ..pool()
        };
        for (pool, want) in [(silent, " 0 - "), (old, " 0 DT ")] {
            let address = server("127.1.0.1", |mut stream, _| async move {
                let _ = stream.read_u8().await;
            })
            .await;
            let settings = limited(pool);
            let bench = Bench::sidecar(A, resources(settings, Protocol::Tcp, address)).await;
            let mut stream = bench.outbound().await;
            assert!(stream.read_u8().await.is_err());
            let line = bench.log.lines(1).await.remove(0);
            assert!(line.contains(want), "{want}: {line}");
        }
    });
}

#[test]
fn http2_towards_endpoints() {
    run(async {
        let address = web2("127.1.0.1", "two").await;
        let settings = limited(ConnectionPool {
            h2_upgrade: Some(true),
            ..pool()
        });
        let upgraded = bench(settings, address).await;
        assert!(upgraded.ask(GET).await.ends_with("two"));
    });
}

#[test]
fn streams_of_one_connection() {
    run(async {
        let connections = Rc::new(Cell::new(0));
        let count = Rc::clone(&connections);
        let (go, _) = watch::channel(false);
        let seen = Rc::new(Cell::new(0));
        let (gate, asked) = (go.clone(), Rc::clone(&seen));
        let address = server("127.1.0.1", move |stream, _| {
            use lateen_net::http::{Body, Limits, Version, serve};
            count.set(count.get() + 1);
            let (gate, asked) = (gate.clone(), Rc::clone(&asked));
            async move {
                let stream = lateen_net::stream::Stream::new(stream, bytes::Bytes::new());
                let respond = move |_, busy| {
                    let (gate, asked) = (gate.clone(), Rc::clone(&asked));
                    async move {
                        let _busy = busy;
                        asked.set(asked.get() + 1);
                        let _ = gate.subscribe().wait_for(|go| *go).await;
                        ::http::Response::new(Body::full(bytes::Bytes::from_static(b"ok")))
                    }
                };
                let limits = Limits::default();
                let forever = std::future::pending();
                let _ = serve(stream, Version::Http2, &limits, forever, respond).await;
            }
        })
        .await;
        let settings = limited(ConnectionPool {
            h2_upgrade: Some(true),
            max_concurrent_streams: Some(2),
            ..pool()
        });
        let bench = bench(settings, address).await;
        let asks = futures::future::join_all((0..4).map(|_| bench.ask(GET)));
        let release = async {
            while seen.get() < 4 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            go.send_replace(true);
        };
        let (answers, ()) = tokio::join!(asks, release);
        assert!(answers.iter().all(|answer| answer.ends_with("ok")));
        assert_eq!(connections.get(), 2);
    });
}

#[test]
fn endpoints_are_told_whose_connection_it_is() {
    run(async {
        let first = Rc::new(RefCell::new(Vec::new()));
        let told = Rc::clone(&first);
        let address = server("127.1.0.1", move |mut stream, _| {
            let told = Rc::clone(&told);
            async move {
                let mut line = Vec::new();
                while !line.ends_with(b"\r\n") {
                    line.push(stream.read_u8().await.unwrap());
                }
                told.borrow_mut().push(String::from_utf8(line).unwrap());
                read_head(&mut stream).await;
                let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        })
        .await;
        let settings = TrafficSettings {
            proxy_protocol: Some(ProxyProtocol::V1),
            ..TrafficSettings::default()
        };
        let bench = bench(settings, address).await;
        for _ in 0..2 {
            let mut stream = bench.outbound().await;
            let port = stream.local_addr().unwrap().port();
            assert!(exchange(&mut stream, GET).await.starts_with("HTTP/1.1 200"));
            let line = first.borrow().last().cloned().unwrap();
            assert_eq!(
                line,
                format!("PROXY TCP4 127.0.0.1 10.96.0.1 {port} 80\r\n")
            );
        }
    });
}

#[test]
fn bytes_through_a_tunnel() {
    run(async {
        let address = server("127.1.0.1", |mut stream, _| async move {
            let head = read_head(&mut stream).await.unwrap();
            let wanted = "CONNECT far.example:443 HTTP/1.1\r\nHost: far.example:443\r\n\r\n";
            assert_eq!(head, wanted);
            stream
                .write_all(b"HTTP/1.1 200 OK\r\n\r\nwelcome")
                .await
                .unwrap();
            let mut word = [0; 2];
            stream.read_exact(&mut word).await.unwrap();
            stream.write_all(&word).await.unwrap();
        })
        .await;
        let settings = TrafficSettings {
            tunnel: Some(Tunnel {
                post: false,
                host: "far.example".into(),
                port: 443,
            }),
            ..TrafficSettings::default()
        };
        let bench = Bench::sidecar(A, resources(settings, Protocol::Tcp, address)).await;
        let mut stream = bench.outbound().await;
        let mut got = [0; 9];
        stream.write_all(b"hi").await.unwrap();
        stream.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"welcomehi");
    });
}

#[test]
fn a_tunnel_that_is_refused() {
    run(async {
        let address = server("127.1.0.1", |mut stream, _| async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 403 No\r\n\r\n").await;
        })
        .await;
        let settings = TrafficSettings {
            tunnel: Some(Tunnel {
                post: true,
                host: "far.example".into(),
                port: 443,
            }),
            ..TrafficSettings::default()
        };
        let bench = Bench::sidecar(A, resources(settings, Protocol::Tcp, address)).await;
        let mut stream = bench.outbound().await;
        assert!(stream.read_u8().await.is_err());
        let line = bench.log.lines(1).await.remove(0);
        assert!(
            line.contains(" 0 UF ") && line.contains("refused with 403"),
            "{line}"
        );
    });
}
