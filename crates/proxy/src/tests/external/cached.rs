//! Answers of gRPC providers that are used again: where the provider says so, and for nobody else.

use super::grpc::{Teller, yes};
use super::*;

/// A provider that says yes, with `control` as its answer's own `cache-control` and `upstream` for the upstream.
async fn teller(control: &'static str, upstream: &'static str) -> (Teller, SocketAddr) {
    Teller::start(move |_| {
        let headers = match upstream {
            "" => Vec::new(),
            upstream => vec![header("cache-control", upstream)],
        };
        let mut yes = yes(headers);
        if !control.is_empty() {
            let control = control.parse().unwrap();
            yes.metadata_mut().insert("cache-control", control);
        }
        Ok(yes)
    })
    .await
}

async fn from(bench: &Bench, source: &str, headers: &str) {
    let request = format!("GET /ask HTTP/1.1\r\nhost: a\r\n{headers}\r\n");
    let answer = exchange(&mut bench.inbound(source).await, &request).await;
    assert_eq!(outcome(&answer).0, "200", "{answer}");
}

#[test]
fn what_names_one_request_only_does_not_count_and_everything_else_does() {
    run(async {
        let (teller, address) = teller("max-age=30", "").await;
        let bench = asking(provider(AuthzProtocol::Grpc), address).await;
        for (source, headers, checks) in [
            (
                "127.1.0.9",
                "x-request-id: 1\r\ntraceparent: 00-1-1-01\r\n",
                1,
            ),
            (
                "127.1.0.9",
                "x-request-id: 2\r\ntraceparent: 00-2-2-01\r\nb3: 0\r\n",
                1,
            ),
            ("127.1.0.10", "", 2),
            ("127.1.0.9", "authorization: Bearer a\r\n", 3),
            ("127.1.0.9", "authorization: Bearer b\r\n", 4),
            ("127.1.0.9", "authorization: Bearer a\r\n", 4),
        ] {
            from(&bench, source, headers).await;
            assert_eq!(teller.count(), checks, "{source} {headers}");
        }
    });
}

#[test]
fn the_answers_own_headers_say_how_long_it_holds() {
    run(async {
        for (control, upstream, checks) in [
            ("", "", 2),
            // What the upstream is told concerns the upstream.
            ("", "max-age=30", 2),
            ("private, max-age=30", "", 2),
            ("max-age=30", "", 1),
        ] {
            let (teller, address) = teller(control, upstream).await;
            let bench = asking(provider(AuthzProtocol::Grpc), address).await;
            for _ in 0..2 {
                from(&bench, "127.1.0.9", "").await;
            }
            assert_eq!(teller.count(), checks, "{control:?} {upstream:?}");
        }
    });
}
