//! More than a proxy can serve: what is refused, that the rest is served, and that nothing grows with what strangers say.

use super::guarded::*;
use super::member::at_server;
use super::mesh::{pod, registry_only, service};
use super::*;
use crate::MemoryBound;
use bytes::Bytes;
use lateen_model::service::Protocol;
use lateen_net::http::{Body, Limits, Version, open};
use lateen_net::memory::{Bounds, pressure::resident};
use lateen_net::stream::Stream;
use std::cell::Cell;
use std::rc::Rc;

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// The sidecar of an application with its configuration changed.
async fn changed(protocol: Protocol, app: SocketAddr, change: impl FnOnce(&mut Config)) -> Bench {
    let (mut config, resources) = at_server(protocol, app);
    change(&mut config);
    Bench::with(config, resources).await
}

/// Whether the proxy ends the connection without having said anything.
async fn is_ended(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    !matches!(stream.read(&mut byte).await, Ok(1..))
}

async fn metric(bench: &Bench, name: &str) -> u64 {
    let lines = bench.metrics(name).await;
    lines[0].rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn connections_beyond_the_budget_are_reset_and_the_others_served() {
    run(async {
        let app = web("127.1.0.1", "ok").await;
        let bench = changed(Protocol::Http, app, |c| c.connections = Some(8)).await;
        let mut held = Vec::new();
        for _ in 0..7 {
            let mut stream = bench.inbound("127.1.0.9").await;
            assert!(exchange(&mut stream, GET).await.ends_with("ok"));
            held.push(stream);
        }
        let beyond = TcpStream::connect(bench.proxy.addresses().inbound.unwrap());
        let ended = match beyond.await {
            Ok(mut stream) => stream.read_u8().await.unwrap_err(),
            Err(early) => early,
        };
        assert_eq!(ended.kind(), std::io::ErrorKind::ConnectionReset);
        for stream in &mut held {
            assert!(exchange(stream, GET).await.ends_with("ok"), "others go on");
        }
        let answer = bench.ask(GET).await;
        assert!(
            answer.starts_with("HTTP/1.1"),
            "its own application's place"
        );
        assert!(metric(&bench, "lateen_connections_refused_total").await >= 1);
        held.pop();
        loop {
            let inbound = bench.proxy.addresses().inbound.unwrap();
            let Ok(mut stream) = TcpStream::connect(inbound).await else {
                continue;
            };
            let _ = stream.write_all(GET.as_bytes()).await;
            if response(&mut stream).await.ends_with("ok") {
                break;
            }
        }
    });
}

#[test]
fn above_the_memory_bound_requests_get_503() {
    run(async {
        let app = web("127.1.0.1", "ok").await;
        let bounds = |requests, connections| {
            MemoryBound::Bounds(Bounds {
                requests,
                connections,
            })
        };
        let high = changed(Protocol::Http, app, |c| c.memory = bounds(1, 1 << 50)).await;
        let answer = call(&high, GET).await;
        assert_eq!(outcome(&answer), ("503", "envoy overloaded"));
        let line = high.log.lines(1).await.remove(0);
        assert!(line.contains(" 503 OM overload "), "{line}");
        assert_eq!(metric(&high, "lateen_requests_shed_total").await, 1);
        assert!(metric(&high, "lateen_memory_held_bytes").await > 1);
        drop(high);

        let critical = changed(Protocol::Http, app, |c| c.memory = bounds(1, 1)).await;
        let inbound = critical.proxy.addresses().inbound.unwrap();
        // The reset may come before the connection is known to be one.
        if let Ok(mut stream) = TcpStream::connect(inbound).await {
            assert!(is_ended(&mut stream).await);
        }
        assert!(metric(&critical, "lateen_connections_refused_total").await >= 1);
        drop(critical);

        let fine = changed(Protocol::Http, app, |c| {
            c.memory = MemoryBound::Limit(1 << 50)
        })
        .await;
        assert!(call(&fine, GET).await.ends_with("ok"));
    });
}

/// A server that sends without end, or takes no byte of what it is sent, as the path says; else it answers `ok`.
async fn tireless(ip: &str) -> SocketAddr {
    server(ip, |mut stream, _| async move {
        while let Some(head) = read_head(&mut stream).await {
            if head.starts_with("POST /hold") {
                std::future::pending::<()>().await;
            }
            if head.starts_with("GET /endless") {
                let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
                let _ = stream.write_all(head).await;
                let chunk = [b"10000\r\n", &[b'x'; 65_536][..], b"\r\n"].concat();
                while stream.write_all(&chunk).await.is_ok() {}
                return;
            }
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            if stream.write_all(answer).await.is_err() {
                return;
            }
        }
    })
    .await
}

/// Slow readers over both versions, and bodies in crumbs that nobody reads, with an honest client beside them.
#[test]
fn rss_stays_under_the_cap_while_slow_readers_and_tiny_chunks_attack() {
    const CAP: u64 = 256 << 20;
    run(async {
        let app = tireless("127.1.0.1").await;
        let bench = Rc::new(changed(Protocol::Http, app, |_| {}).await);
        let before = resident().unwrap();
        let mut attackers = Vec::new();
        for _ in 0..40 {
            let mut stream = bench.inbound("127.1.0.9").await;
            let request = b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n";
            stream.write_all(request).await.unwrap();
            attackers.push(stream);
        }
        let crumbs = async {
            let many = b"1\r\nx\r\n".repeat(4000);
            for _ in 0..10 {
                let mut stream = bench.inbound("127.1.0.9").await;
                let head = b"POST /hold HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
                stream.write_all(head).await.unwrap();
                for _ in 0..10 {
                    let sent = stream.write_all(&many);
                    let soon = Duration::from_millis(20);
                    if tokio::time::timeout(soon, sent).await.is_err() {
                        break;
                    }
                }
                attackers.push(stream);
            }
        };
        let is_over = Cell::new(false);
        let honest = async {
            let mut stream = bench.inbound("127.1.0.8").await;
            let mut most = 0;
            while !is_over.get() {
                assert!(exchange(&mut stream, GET).await.ends_with("ok"));
                most = resident().unwrap().max(most);
                tokio::task::yield_now().await;
            }
            most
        };
        let http2 = async {
            crumbs.await;
            // Nobody reads what comes back: the windows stay shut after their first bytes.
            let stream = Stream::new(bench.inbound("127.1.0.9").await, Bytes::new());
            let mut sender = open(stream, Version::Http2, &Limits::default())
                .await
                .unwrap();
            let mut answers = Vec::new();
            for _ in 0..100 {
                let request = ::http::Request::get("http://a/endless");
                let request = request.body(Body::Empty).unwrap();
                answers.push(sender.request(request).await);
            }
            is_over.set(true);
            answers
        };
        let (most, _answers) = tokio::join!(honest, http2);
        let grown = most.saturating_sub(before);
        assert!(grown < CAP, "{grown} bytes more than before");
    });
}

#[test]
fn silent_and_dripping_connections_are_ended() {
    run(async {
        let app = web("127.1.0.1", "ok").await;
        let hurry = |c: &mut Config| {
            c.limits.idle_time = Duration::from_millis(200);
            c.limits.head_time = Duration::from_millis(200);
            c.limits.tcp_idle_time = Duration::from_millis(200);
        };
        let greeter = server("127.1.0.2", |mut stream, _| async move {
            stream.write_all(b"220 hello\r\n").await.unwrap();
            let _ = stream.read_u8().await;
        })
        .await;
        let silent = server("127.1.0.3", |mut stream, _| async move {
            let _ = stream.read_u8().await;
        })
        .await;
        for protocol in [Protocol::Http, Protocol::Detect] {
            let bench = changed(protocol, app, hurry).await;
            assert!(is_ended(&mut bench.inbound("127.1.0.9").await).await);
            let mut drip = bench.inbound("127.1.0.9").await;
            let dripped = async {
                for byte in b"GET /a-very-long-path-for-a-client-in-no-hurry"
                    .iter()
                    .cycle()
                {
                    if drip.write_all(&[*byte]).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            dripped.await;
            assert!(call(&bench, GET).await.ends_with("ok"));
        }
        // Who waits for the server to speak is heard; and is ended once nobody says anything.
        let bench = changed(Protocol::Detect, greeter, hurry).await;
        let mut client = bench.inbound("127.1.0.9").await;
        let mut greeting = [0; 11];
        client.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"220 hello\r\n");
        assert!(is_ended(&mut client).await);
        for protocol in [Protocol::Detect, Protocol::Tcp] {
            let bench = changed(protocol, silent, hurry).await;
            assert!(is_ended(&mut bench.inbound("127.1.0.9").await).await);
        }
    });
}

#[test]
fn refused_hosts_make_no_series() {
    run(async {
        let app = web("127.1.0.1", "ok").await;
        let bench = sidecar(app, Vec::new()).await;
        let mut stream = bench.inbound("127.1.0.9").await;
        for n in 0..300 {
            let request = format!("GET / HTTP/1.1\r\nhost: x{n}.example.com\r\n\r\n");
            exchange(&mut stream, &request).await;
        }
        let long = format!("GET / HTTP/1.1\r\nhost: {}.a\r\n\r\n", "x".repeat(254));
        assert_eq!(outcome(&call(&bench, &long).await).0, "400");
        bench.log.lines(301).await;
        let series = bench.metrics("istio_requests_total").await;
        assert!(series.len() <= 3, "{series:?}");

        // The application may call whom it likes, but not without end.
        let known = service("a", "10.96.0.1", 80, Protocol::Http);
        let bench = Bench::sidecar("10.96.0.1:80", vec![registry_only(), known]).await;
        let mut stream = bench.outbound().await;
        for n in 0..600 {
            let request = format!("GET / HTTP/1.1\r\nhost: x{n}.example.com\r\n\r\n");
            exchange(&mut stream, &request).await;
        }
        bench.log.lines(600).await;
        let series = bench.metrics("istio_requests_total").await;
        assert!((100..300).contains(&series.len()), "{}", series.len());
    });
}

#[test]
fn silent_clients_do_not_shut_readiness() {
    run(async {
        let bench = Bench::sidecar("10.96.0.1:80", Vec::new()).await;
        let addresses = bench.proxy.addresses();
        for server in [addresses.ready, addresses.merged] {
            let mut silent = Vec::new();
            for n in 0..200 {
                let mut stream = TcpStream::connect(server).await.unwrap();
                if n % 2 == 0 {
                    let _ = stream.write_all(b"GET /healthz/re").await;
                }
                silent.push(stream);
            }
            let asked = bench.get(server, "/healthz/ready");
            let answer = tokio::time::timeout(Duration::from_secs(3), asked).await;
            let answer = answer.expect("it is asked every few seconds");
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        let answer = bench.get(addresses.ready, "/healthz/ready").await;
        assert!(answer.contains("connection: close\r\n"), "{answer}");
    });
}

#[test]
fn what_is_hostile_is_counted() {
    run(async {
        let app = web("127.1.0.1", "ok").await;
        let bench = sidecar(app, Vec::new()).await;
        let name = "lateen_http_violations_total{kind=\"http1_framing\"}";
        let before = metric(&bench, name).await;
        let smuggled =
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!(outcome(&call(&bench, smuggled).await).0, "400");
        assert!(metric(&bench, name).await > before);
        metric(&bench, "lateen_connection_panics_total").await;
        metric(&bench, "lateen_metrics_folded_total").await;
    });
}

#[test]
fn bodies_beyond_the_bound_are_refused() {
    run(async {
        let app = mirror("127.1.0.1").await;
        let bench = changed(Protocol::Http, app, |c| c.limits.body_bytes = Some(5)).await;
        let sized = |n: usize| format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {n}\r\n\r\n");
        assert_eq!(outcome(&call(&bench, &(sized(5) + "12345")).await).0, "200");
        assert_eq!(
            outcome(&call(&bench, &(sized(6) + "123456")).await).0,
            "413"
        );
        let chunked = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
        let answer = call(
            &bench,
            &format!("{chunked}3\r\n123\r\n3\r\n456\r\n0\r\n\r\n"),
        )
        .await;
        assert_eq!(outcome(&answer), ("413", "Payload Too Large"));
    });
}

/// The metrics of an ordinary request are those of before.
#[test]
fn places_and_memory_say_how_much_is_in_use() {
    run(async {
        let app = web("127.1.0.1", "ok").await;
        let resources = vec![
            service("a", "10.96.0.1", 80, Protocol::Http),
            pod("a", "v1", 80, app),
        ];
        let bench = Bench::sidecar("10.96.0.1:80", resources).await;
        let mut stream = bench.outbound().await;
        exchange(&mut stream, GET).await;
        assert_eq!(metric(&bench, "lateen_connections_open").await, 1);
        assert_eq!(metric(&bench, "lateen_connections_refused_total").await, 0);
    });
}
