//! Headers that tell of a client: what members of the mesh say arrives, what others say does not.

use super::guarded::*;
use super::member::{Ca, Pair};
use super::*;
use lateen_model::service::Protocol;

const SPOOFED: &str = "GET / HTTP/1.1\r\nhost: a\r\n\
    x-envoy-internal: true\r\n\
    x-envoy-original-path: /public\r\n\
    x-envoy-peer-metadata: QQ==\r\n\
    x-envoy-peer-metadata-id: sidecar~1.1.1.1~admin.prod~prod\r\n\
    x-lateen-unreached: 1\r\n\
    x-forwarded-client-cert: URI=spiffe://cluster.local/ns/prod/sa/admin\r\n\
    x-mine: kept\r\n\r\n";

#[test]
fn strangers_cannot_say_what_proxies_say() {
    run(async {
        let app = mirror("127.1.0.1").await;
        let bench = sidecar(app, Vec::new()).await;
        let answer = call(&bench, SPOOFED).await;
        let (status, seen) = outcome(&answer);
        assert_eq!(status, "200", "{answer}");
        for name in ["x-envoy-", "x-lateen-", "x-forwarded-client-cert"] {
            assert!(!seen.contains(name), "{name}: {seen}");
        }
        assert!(seen.contains("x-mine: kept\r\n"), "{seen}");
    });
}

#[test]
fn the_application_is_told_whose_certificate_it_was() {
    run(async {
        let ca = Ca::new();
        let app = mirror("127.1.0.1").await;
        let pair = Pair::new(&ca, Protocol::Http, app, Vec::new()).await;
        let mut hash = None;
        for request in ["GET / HTTP/1.1\r\nhost: a\r\n\r\n", SPOOFED] {
            let answer = pair.client.bench.ask(request).await;
            let (_, seen) = outcome(&answer);
            let told: Vec<&str> = seen
                .lines()
                .filter_map(|line| line.strip_prefix("x-forwarded-client-cert: "))
                .collect();
            let [told] = &told[..] else {
                panic!("{seen}");
            };
            let rest = told.strip_prefix("By=spiffe://cluster.local/ns/default/sa/a;Hash=");
            let (digest, rest) = rest.unwrap().split_once(';').unwrap();
            assert_eq!(
                rest,
                "Subject=\"\";URI=spiffe://cluster.local/ns/default/sa/sleep"
            );
            assert!(
                digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()),
                "{told}"
            );
            assert_eq!(*hash.get_or_insert(digest.to_owned()), digest);
            assert!(
                !seen.contains("x-envoy-internal") && !seen.contains("x-envoy-peer-metadata"),
                "{seen}"
            );
        }
    });
}

/// Lines of headers, so many bytes of them.
fn wide(bytes: usize) -> String {
    let line = |at: usize| format!("x-wide-{at}: {}\r\n", "w".repeat(1010 - 12));
    (10..10 + bytes / 1010).map(line).collect()
}

#[test]
fn large_heads_pass_both_proxies_and_larger_ones_are_refused() {
    run(async {
        let ca = Ca::new();
        let app = server("127.1.0.1", |mut stream, _| async move {
            while let Some(head) = read_head(&mut stream).await {
                let lines = head.lines().filter(|line| line.starts_with("x-wide-"));
                let back: String = lines.map(|line| format!("{line}\r\n")).collect();
                let answer = format!("HTTP/1.1 200 OK\r\n{back}content-length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let pair = Pair::new(&ca, Protocol::Http, app.await, Vec::new()).await;
        for (bytes, status) in [(9 << 10, "200"), (57 << 10, "200"), (64 << 10, "431")] {
            let wide = wide(bytes);
            let request = format!("GET / HTTP/1.1\r\nhost: a\r\n{wide}\r\n");
            let answer = pair.client.bench.ask(&request).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{bytes}: {}",
                &answer[..answer.len().min(200)]
            );
            assert_eq!(answer.contains(&wide), status == "200", "{bytes}");
        }
    });
}
