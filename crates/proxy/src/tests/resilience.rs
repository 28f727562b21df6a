//! What goes wrong upstream, and what the client does not notice of it.

use super::mesh::{pod, retries, routes, rule, service};
use super::*;
use lateen_model::route::{HttpRoute, RetryPolicy};
use lateen_model::service::Protocol;
use std::cell::Cell;
use std::rc::Rc;

const A: &str = "10.96.0.1:80";
const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn ruled(policy: Option<RetryPolicy>, timeout: Option<Duration>) -> HttpRoute {
    HttpRoute {
        retries: policy,
        timeout,
        ..rule(&[("a", 1)])
    }
}

async fn mesh(rule: HttpRoute, addresses: &[SocketAddr]) -> Bench {
    let mut resources = vec![
        service("a", "10.96.0.1", 80, Protocol::Http),
        routes("a", vec![rule]),
    ];
    for (i, address) in addresses.iter().enumerate() {
        resources.push(pod("a", &format!("v{i}"), 80, *address));
    }
    Bench::sidecar(A, resources).await
}

#[test]
fn an_endpoint_that_refuses_is_replaced_by_the_next_without_retries() {
    run(async {
        let addresses = [
            nobody("127.1.0.1").await,
            web("127.1.0.2", "ok").await,
            nobody("127.1.0.3").await,
        ];
        let bench = mesh(ruled(retries(0, &[]), None), &addresses).await;
        let mut stream = bench.outbound().await;
        for _ in 0..30 {
            let answer = exchange(&mut stream, GET).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
    });
}

/// Answers one request of each connection; to the second it says nothing and closes.
async fn forgetful(connections: Rc<Cell<usize>>) -> SocketAddr {
    server("127.1.0.1", move |mut stream, _| {
        connections.set(connections.get() + 1);
        async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(OK).await;
            read_head(&mut stream).await;
        }
    })
    .await
}

#[test]
fn a_kept_connection_that_closes_under_a_request_is_not_noticed() {
    run(async {
        let connections = Rc::new(Cell::new(0));
        let address = forgetful(Rc::clone(&connections)).await;
        let bench = mesh(ruled(retries(0, &[]), None), &[address]).await;
        let mut stream = bench.outbound().await;
        for _ in 0..10 {
            let answer = exchange(&mut stream, GET).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        assert_eq!(
            connections.get(),
            10,
            "each request after the first met a closing connection"
        );
    });
}

#[test]
fn a_request_that_may_have_had_an_effect_is_not_repeated() {
    run(async {
        let connections = Rc::new(Cell::new(0));
        let address = forgetful(Rc::clone(&connections)).await;
        let bench = mesh(ruled(retries(0, &[]), None), &[address]).await;
        let mut stream = bench.outbound().await;
        let post = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi";
        assert!(
            exchange(&mut stream, post)
                .await
                .starts_with("HTTP/1.1 200")
        );
        let answer = exchange(&mut stream, post).await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        let line = bench.log.lines(2).await.remove(1);
        assert!(
            line.contains(
                " 503 UC upstream_reset_before_response_started{connection_termination} "
            ),
            "{line}"
        );
    });
}

#[test]
fn a_connection_that_was_closed_while_idle_is_not_used_again() {
    run(async {
        let address = server("127.1.0.1", |mut stream, _| async move {
            read_head(&mut stream).await;
            stream.write_all(OK).await.unwrap();
        })
        .await;
        let bench = mesh(ruled(retries(0, &[]), None), &[address]).await;
        let mut stream = bench.outbound().await;
        for _ in 0..5 {
            let answer = exchange(
                &mut stream,
                "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi",
            )
            .await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn unwanted_statuses_are_tried_again_with_the_whole_body() {
    run(async {
        let address = server("127.1.0.1", |mut stream, count| async move {
            while let Some(head) = read_head(&mut stream).await {
                let mut body = [0; 5];
                stream.read_exact(&mut body).await.unwrap();
                assert_eq!(&body, b"hello");
                let attempt = if head.contains("x-envoy-attempt-count: 3\r\n") {
                    200
                } else {
                    503
                };
                let answer = format!(
                    "HTTP/1.1 {attempt} X\r\nx-count: {count}\r\ncontent-length: 0\r\n\r\n"
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        })
        .await;
        let post = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello";
        let bench = mesh(ruled(retries(2, &["503"]), None), &[address]).await;
        assert!(bench.ask(post).await.starts_with("HTTP/1.1 200"));
        let bench = mesh(ruled(retries(1, &["503"]), None), &[address]).await;
        assert!(
            bench.ask(post).await.starts_with("HTTP/1.1 503"),
            "one retry is not enough"
        );
        let bench = mesh(ruled(retries(2, &["gateway-error"]), None), &[address]).await;
        assert!(bench.ask(post).await.starts_with("HTTP/1.1 200"));
        let bench = mesh(ruled(retries(2, &["retriable-4xx"]), None), &[address]).await;
        assert!(
            bench.ask(post).await.starts_with("HTTP/1.1 503"),
            "the policy does not name it"
        );
    });
}

#[test]
fn an_application_that_its_proxy_could_not_reach_is_replaced_by_another() {
    run(async {
        let gone = server("127.1.0.1", |mut stream, _| async move {
            while read_head(&mut stream).await.is_some() {
                let mut body = [0; 2];
                stream.read_exact(&mut body).await.unwrap();
                let answer =
                    b"HTTP/1.1 503 X\r\nx-lateen-unreached: 1\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(answer).await.unwrap();
            }
        })
        .await;
        let post = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi";
        let alive = server("127.1.0.2", |mut stream, _| async move {
            while read_head(&mut stream).await.is_some() {
                let mut body = [0; 2];
                stream.read_exact(&mut body).await.unwrap();
                stream.write_all(OK).await.unwrap();
            }
        })
        .await;
        let bench = mesh(ruled(retries(0, &[]), None), &[gone, alive]).await;
        let mut stream = bench.outbound().await;
        for _ in 0..20 {
            let answer = exchange(&mut stream, post).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        let bench = mesh(ruled(retries(0, &[]), None), &[gone]).await;
        let answer = bench.ask(post).await;
        assert!(
            answer.starts_with("HTTP/1.1 503") && !answer.contains("unreached"),
            "{answer}"
        );
    });
}

#[test]
fn an_inbound_proxy_says_that_the_application_is_gone() {
    run(async {
        let address = nobody("127.1.0.100").await;
        let resources = vec![
            service("sleep", "10.96.0.9", 80, Protocol::Http),
            pod("sleep", "v1", 80, address),
        ];
        let bench = Bench::sidecar(&address.to_string(), resources).await;
        let mut stream = bench.inbound("127.1.0.7").await;
        let answer = exchange(&mut stream, "GET / HTTP/1.1\r\nhost: sleep\r\n\r\n").await;
        assert!(
            answer.starts_with("HTTP/1.1 503") && answer.contains("x-lateen-unreached: 1\r\n"),
            "{answer}"
        );
    });
}

#[test]
fn an_endpoint_that_does_not_answer_in_time_is_given_up() {
    run(async {
        let address = server("127.1.0.1", |mut stream, _| async move {
            while read_head(&mut stream).await.is_some() {}
        })
        .await;
        let bench = mesh(ruled(None, Some(Duration::from_millis(30))), &[address]).await;
        let answer = bench.ask(GET).await;
        assert!(
            answer.starts_with("HTTP/1.1 504") && answer.ends_with("upstream request timeout"),
            "{answer}"
        );
        assert!(bench.log.lines(1).await[0].contains(" 504 UT response_timeout "));
    });
}

#[test]
fn a_client_that_leaves_is_accounted_for() {
    run(async {
        let address = server("127.1.0.1", |mut stream, _| async move {
            while read_head(&mut stream).await.is_some() {}
        })
        .await;
        let bench = mesh(ruled(None, None), &[address]).await;
        let mut stream = bench.outbound().await;
        stream.write_all(GET.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(stream);
        let line = bench.log.lines(1).await.remove(0);
        assert!(
            line.contains(" 0 DC downstream_remote_disconnect "),
            "{line}"
        );
    });
}

#[test]
fn an_answer_that_breaks_off_is_accounted_for() {
    run(async {
        let address = server("127.1.0.1", |mut stream, _| async move {
            read_head(&mut stream).await;
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
                .await
                .unwrap();
        })
        .await;
        let bench = mesh(ruled(None, None), &[address]).await;
        let answer = bench.ask(GET).await;
        assert!(answer.ends_with("half"), "{answer}");
        let line = bench.log.lines(1).await.remove(0);
        assert!(
            line.contains(" 200 UC upstream_reset_after_response_started"),
            "{line}"
        );
    });
}

/// Waits until so many requests are under way.
async fn under_way(bench: &Bench, requests: usize) {
    let admin = bench.proxy.addresses().admin;
    let wanted = format!("requests.active: {requests}");
    while !bench.get(admin, "/stats").await.contains(&wanted) {
        tokio::task::yield_now().await;
    }
}

#[test]
fn draining_lets_requests_end_and_tells_clients() {
    run(async {
        let (release, wait) = tokio::sync::watch::channel(false);
        let address = server("127.1.0.100", move |mut stream, _| {
            let mut wait = wait.clone();
            async move {
                while read_head(&mut stream).await.is_some() {
                    let _ = wait.wait_for(|go| *go).await;
                    let _ = stream.write_all(OK).await;
                }
            }
        })
        .await;
        let resources = vec![
            service("sleep", "10.96.0.9", 80, Protocol::Http),
            pod("sleep", "v1", 80, address),
        ];
        let bench = Bench::sidecar(&address.to_string(), resources).await;
        let mut busy = bench.inbound("127.1.0.7").await;
        let get = "GET / HTTP/1.1\r\nhost: sleep\r\n\r\n";
        busy.write_all(get.as_bytes()).await.unwrap();
        under_way(&bench, 1).await;
        bench.proxy.drain();
        let ready = bench.proxy.addresses().ready;
        assert!(
            bench
                .get(ready, "/healthz/ready")
                .await
                .starts_with("HTTP/1.1 503")
        );
        let mut late = bench.inbound("127.1.0.8").await;
        late.write_all(get.as_bytes()).await.unwrap();
        // Nobody waits for a request that has not come when the last one ends.
        under_way(&bench, 2).await;
        release.send(true).unwrap();
        for stream in [&mut busy, &mut late] {
            let answer = response(stream).await;
            assert!(
                answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"),
                "{answer}"
            );
        }
        tokio::task::spawn_blocking(move || bench.proxy.wait())
            .await
            .unwrap();
    });
}
