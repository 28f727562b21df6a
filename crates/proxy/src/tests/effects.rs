//! What rules do beside choosing a destination, on real connections: faults, copies, CORS, rewrites, careful retries.

use super::mesh::{host, pod, retries, routes, rule, service};
use super::*;
use lateen_model::matching::{Replacement, StringMatch};
use lateen_model::route::{
    AbortStatus, CorsPolicy, Destination, FaultAbort, FaultDelay, FaultInjection, HttpAction,
    HttpRoute, Mirror, Rewrite, Share,
};
use lateen_model::service::Protocol;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

const A: &str = "10.96.0.1:80";
const GET: &str = "GET /x?q=1 HTTP/1.1\r\nhost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody";

/// A server that tells of every request, head and body, and answers what `answer` gives; nothing: it hangs up.
async fn recorder(
    ip: &str,
    answer: impl Fn(usize) -> Option<&'static str> + Clone + 'static,
) -> (SocketAddr, UnboundedReceiver<String>) {
    let (told, seen) = unbounded_channel();
    let count = std::rc::Rc::new(std::cell::Cell::new(0));
    let address = server(ip, move |mut stream, _| {
        let (told, answer, count) = (told.clone(), answer.clone(), count.clone());
        async move {
            while let Some(head) = read_head(&mut stream).await {
                let length = head
                    .to_ascii_lowercase()
                    .lines()
                    .find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok());
                let mut body = vec![0; length.unwrap_or(0)];
                if stream.read_exact(&mut body).await.is_err() {
                    return;
                }
                let _ = told.send(head + &String::from_utf8_lossy(&body));
                let Some(text) = answer(count.replace(count.get() + 1)) else {
                    return;
                };
                let length = text.len();
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{text}");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }
    })
    .await;
    (address, seen)
}

/// A sidecar whose service `a` follows `rule`; `b` is another service.
async fn bench(rule: HttpRoute, a: SocketAddr, b: Option<SocketAddr>) -> Bench {
    let mut resources = vec![
        service("a", "10.96.0.1", 80, Protocol::Http),
        service("b", "10.96.0.2", 80, Protocol::Http),
        pod("a", "v1", 80, a),
        routes("a", vec![rule]),
    ];
    resources.extend(b.map(|b| pod("b", "v1", 80, b)));
    Bench::sidecar(A, resources).await
}

fn to_a() -> HttpRoute {
    rule(&[("a", 1)])
}

fn faulty(delay: Option<Duration>, abort: Option<AbortStatus>) -> HttpRoute {
    let share = Share::ALL;
    HttpRoute {
        fault: Some(FaultInjection {
            delay: delay.map(|delay| FaultDelay { share, delay }),
            abort: abort.map(|status| FaultAbort { share, status }),
        }),
        ..to_a()
    }
}

#[test]
fn aborted_requests_never_leave() {
    run(async {
        let (a, mut seen) = recorder("127.1.0.1", |_| Some("ok")).await;
        let bench = bench(faulty(None, Some(AbortStatus::Http(555))), a, None).await;
        let answer = bench.ask(GET).await;
        assert!(answer.starts_with("HTTP/1.1 555 "), "{answer}");
        assert!(answer.ends_with("\r\n\r\nfault filter abort"), "{answer}");
        assert!(seen.try_recv().is_err(), "the application saw it");
        let log = bench.log.lines(1).await.remove(0);
        assert!(log.contains(" 555 FI fault_filter_abort "), "{log}");
        assert!(log.contains("outbound|80||a."), "{log}");
    });
}

#[test]
fn grpc_is_aborted_in_its_own_words() {
    run(async {
        let (a, _seen) = recorder("127.1.0.1", |_| Some("ok")).await;
        let bench = bench(faulty(None, Some(AbortStatus::Grpc(14))), a, None).await;
        let plain = bench.ask(GET).await;
        assert!(plain.starts_with("HTTP/1.1 503 "), "{plain}");
        let call = "POST / HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n\r\n";
        let grpc = bench.ask(call).await;
        assert!(grpc.starts_with("HTTP/1.1 200 "), "{grpc}");
        assert!(grpc.contains("grpc-status: 14\r\n"), "{grpc}");
        assert!(
            grpc.contains("grpc-message: fault filter abort\r\n"),
            "{grpc}"
        );
    });
}

#[test]
fn delayed_requests_arrive_late_and_the_delay_is_not_the_upstreams() {
    run(async {
        let (a, _seen) = recorder("127.1.0.1", |_| Some("ok")).await;
        let rule = HttpRoute {
            timeout: Some(Duration::from_secs(5)),
            ..faulty(Some(Duration::from_millis(80)), None)
        };
        let bench = bench(rule, a, None).await;
        let began = std::time::Instant::now();
        let answer = bench.ask(GET).await;
        assert!(began.elapsed() >= Duration::from_millis(80));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let log = bench.log.lines(1).await.remove(0);
        assert!(log.contains(" 200 DI via_upstream "), "{log}");
    });
}

fn mirrored(name: &str) -> HttpRoute {
    HttpRoute {
        mirrors: vec![Mirror {
            destination: Destination {
                host: host(name),
                subset: None,
                port: None,
            },
            share: Share::ALL,
        }],
        ..to_a()
    }
}

#[test]
fn mirrors_get_copies_with_bodies() {
    run(async {
        let (a, mut seen) = recorder("127.1.0.1", |_| Some("from a")).await;
        let (b, mut copies) = recorder("127.1.0.2", |_| Some("nobody reads this")).await;
        let bench = bench(mirrored("b"), a, Some(b)).await;
        for request in [GET, POST, POST] {
            let answer = bench.ask(request).await;
            assert!(answer.ends_with("from a"), "{answer}");
            let (first, copy) = (seen.recv().await.unwrap(), copies.recv().await.unwrap());
            assert!(first.contains("host: a\r\n"), "{first}");
            assert!(copy.contains("host: a-shadow\r\n"), "{copy}");
            assert_eq!(copy.replace("a-shadow", "a"), first);
        }
    });
}

#[test]
fn each_of_several_mirrors_gets_the_body() {
    run(async {
        let (a, _seen) = recorder("127.1.0.1", |_| Some("from a")).await;
        let (b, mut copies) = recorder("127.1.0.2", |_| Some("")).await;
        let mut rule = mirrored("b");
        rule.mirrors.extend(rule.mirrors.clone());
        let bench = bench(rule, a, Some(b)).await;
        bench.ask(POST).await;
        let (one, two) = (copies.recv().await.unwrap(), copies.recv().await.unwrap());
        assert_eq!(one, two);
    });
}

#[test]
fn a_mirror_that_fails_is_nobodys_trouble() {
    run(async {
        let (a, _seen) = recorder("127.1.0.1", |_| Some("from a")).await;
        let (b, mut copies) = recorder("127.1.0.2", |_| None).await;
        let bench = bench(mirrored("b"), a, Some(b)).await;
        let answer = bench.ask(POST).await;
        assert!(answer.ends_with("from a"), "{answer}");
        copies.recv().await.unwrap();
        let dead = nobody("127.1.0.3").await;
        let bench = self::bench(mirrored("b"), a, Some(dead)).await;
        assert!(bench.ask(POST).await.ends_with("from a"));
    });
}

#[test]
fn bodies_over_the_bound_are_not_copied_and_small_ones_still_are() {
    run(async {
        let (a, mut seen) = recorder("127.1.0.1", |_| Some("from a")).await;
        let (b, mut copies) = recorder("127.1.0.2", |_| Some("")).await;
        let bench = bench(mirrored("b"), a, Some(b)).await;
        let size = (1 << 20) + 1;
        let big = format!(
            "PUT /big HTTP/1.1\r\nhost: a\r\ncontent-length: {size}\r\n\r\n{}",
            "x".repeat(size)
        );
        assert!(bench.ask(&big).await.ends_with("from a"));
        assert!(seen.recv().await.unwrap().starts_with("PUT /big "));
        assert!(bench.ask(POST).await.ends_with("from a"));
        assert!(copies.recv().await.unwrap().starts_with("POST / "));
    });
}

#[test]
fn cross_origin_requests() {
    run(async {
        let (a, mut seen) = recorder("127.1.0.1", |_| Some("ok")).await;
        let rule = HttpRoute {
            cors: Some(CorsPolicy {
                allow_origins: vec![StringMatch::Exact("https://shop.com".into())],
                allow_methods: vec!["PUT".into()],
                allow_headers: Vec::new(),
                expose_headers: vec!["x-id".into()],
                max_age: Some(Duration::from_secs(86_400)),
                allow_credentials: Some(true),
                forward_unmatched: true,
            }),
            ..to_a()
        };
        let bench = bench(rule, a, None).await;
        let preflight = |origin: &str| {
            format!(
                "OPTIONS / HTTP/1.1\r\nhost: a\r\norigin: {origin}\r\naccess-control-request-method: PUT\r\n\r\n"
            )
        };
        let granted = bench.ask(&preflight("https://shop.com")).await;
        assert!(granted.starts_with("HTTP/1.1 200 "), "{granted}");
        for header in [
            "access-control-allow-origin: https://shop.com",
            "access-control-allow-methods: PUT",
            "access-control-max-age: 86400",
            "access-control-allow-credentials: true",
        ] {
            assert!(
                granted.contains(&format!("{header}\r\n")),
                "{header}: {granted}"
            );
        }
        assert!(
            seen.try_recv().is_err(),
            "the application saw the preflight"
        );
        let passed = bench.ask(&preflight("https://evil.com")).await;
        assert!(passed.ends_with("ok"), "{passed}");
        assert!(!passed.contains("access-control"), "{passed}");
        let marked = bench
            .ask("GET / HTTP/1.1\r\nhost: a\r\norigin: https://shop.com\r\n\r\n")
            .await;
        assert!(
            marked.contains("access-control-allow-origin: https://shop.com\r\n"),
            "{marked}"
        );
        assert!(
            marked.contains("access-control-expose-headers: x-id\r\n"),
            "{marked}"
        );
    });
}

#[test]
fn the_path_by_expression_and_the_host_by_destination() {
    run(async {
        let (a, mut seen) = recorder("127.1.0.1", |_| Some("ok")).await;
        let mut rule = HttpRoute {
            rewrite: Some(Rewrite {
                uri: None,
                authority: None,
                regex: Some(Replacement::new("^/(.)", "/new/\\1\\1").unwrap()),
            }),
            ..to_a()
        };
        if let HttpAction::Forward(to) = &mut rule.action {
            let set = &mut to[0].headers.request.set;
            set.push(("Host".into(), "other.com".into()));
        }
        let bench = bench(rule, a, None).await;
        assert!(bench.ask(GET).await.ends_with("ok"));
        let first = seen.recv().await.unwrap();
        assert!(first.starts_with("GET /new/xx?q=1 HTTP/1.1\r\n"), "{first}");
        assert!(first.contains("host: other.com\r\n"), "{first}");
        assert!(
            first.contains("x-envoy-original-path: /x?q=1\r\n"),
            "{first}"
        );
    });
}

#[test]
fn what_may_have_been_done_is_not_done_again_unasked() {
    run(async {
        let hangs_up_once = |count: usize| (count > 0).then_some("ok");
        let (a, mut seen) = recorder("127.1.0.1", hangs_up_once).await;
        let careful = HttpRoute {
            retries: retries(2, &["reset", "503"]).map(|policy| lateen_model::route::RetryPolicy {
                careful: true,
                ..policy
            }),
            ..to_a()
        };
        let bench = bench(careful, a, None).await;
        let answer = bench.ask(POST).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(seen.recv().await.unwrap().ends_with("body"));
        assert!(seen.try_recv().is_err(), "it was sent again");

        let (a, mut seen) = recorder("127.1.0.1", hangs_up_once).await;
        let asked = HttpRoute {
            retries: retries(2, &["reset"]),
            ..to_a()
        };
        let bench = self::bench(asked, a, None).await;
        assert!(bench.ask(POST).await.ends_with("ok"));
        for _ in 0..2 {
            assert!(seen.recv().await.unwrap().ends_with("body"));
        }
    });
}

#[test]
fn a_slow_upload_is_not_a_slow_upstream() {
    run(async {
        let (a, _seen) = recorder("127.1.0.1", |_| Some("ok")).await;
        let rule = HttpRoute {
            timeout: Some(Duration::from_secs(2)),
            ..to_a()
        };
        let bench = bench(rule, a, None).await;
        let mut stream = bench.outbound().await;
        let (first, rest) = POST.split_at(POST.len() - 2);
        stream.write_all(first.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2_300)).await;
        let answer = exchange(&mut stream, rest).await;
        assert!(answer.ends_with("ok"), "{answer}");
    });
}
