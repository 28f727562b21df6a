//! Messages that change their meaning on the way: between HTTP/2 and HTTP/1, between an answer and the next, between
//! headers and trailers. Applications record the raw bytes that arrive.

use super::mesh::{pod, service};
use super::*;
use ::http::{HeaderMap, HeaderValue, Request};
use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use lateen_model::service::Protocol;
use lateen_net::http::{Body, BodyError, Limits, Sender, Version, open};
use lateen_net::stream::Stream;
use std::cell::RefCell;
use std::rc::Rc;

const A: &str = "10.96.0.1:80";
const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Raw bytes of each connection to an application.
type Record = Rc<RefCell<Vec<Vec<u8>>>>;

/// An application that records what it reads, and answers `answer` as soon as a head is whole.
async fn recorder(ip: &str, answer: &'static [u8]) -> (SocketAddr, Record) {
    recorder_of(ip, answer, |seen| {
        let heads = seen.matches(" HTTP/1.1\r\n").count();
        heads.min(seen.matches("\r\n\r\n").count())
    })
    .await
}

/// The same, answering so often as `asked` says of what a connection has brought.
async fn recorder_of(
    ip: &str,
    answer: &'static [u8],
    asked: fn(&str) -> usize,
) -> (SocketAddr, Record) {
    let record = Record::default();
    let seen = Rc::clone(&record);
    let address = server(ip, move |mut stream, at| {
        seen.borrow_mut().push(Vec::new());
        let seen = Rc::clone(&seen);
        async move {
            let mut answered = 0;
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = stream.read(&mut bytes).await {
                seen.borrow_mut()[at].extend_from_slice(&bytes[..n]);
                let asked = asked(&String::from_utf8_lossy(&seen.borrow()[at]));
                while answered < asked {
                    answered += 1;
                    if stream.write_all(answer).await.is_err() {
                        return;
                    }
                }
            }
        }
    })
    .await;
    (address, record)
}

fn text(record: &Record) -> String {
    String::from_utf8_lossy(&record.borrow().concat()).into_owned()
}

/// The sidecar of a client; `a` speaks HTTP/1 at `app`.
async fn outbound(app: SocketAddr) -> Bench {
    let resources = vec![
        service("a", "10.96.0.1", 80, Protocol::Http),
        pod("a", "v1", 80, app),
    ];
    Bench::sidecar(A, resources).await
}

async fn http2(bench: &Bench) -> Sender {
    let stream = Stream::new(bench.outbound().await, Bytes::new());
    open(stream, Version::Http2, &Limits::default())
        .await
        .unwrap()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags];
    [&head[..], &stream.to_be_bytes(), payload].concat()
}

/// A header as HPACK writes it without a table.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).unwrap();
    [
        &[0, length(name)],
        name.as_bytes(),
        &[length(value)],
        value.as_bytes(),
    ]
    .concat()
}

/// One HTTP/2 request by hand, and what the proxy says to it: everything until it has answered or ended the stream.
async fn by_hand(bench: &Bench, headers: &[(&str, &str)], body: &[u8]) {
    let mut stream = bench.outbound().await;
    let block: Vec<u8> = headers.iter().flat_map(|(n, v)| literal(n, v)).collect();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    bytes.extend(frame(1, 4, 1, &block));
    bytes.extend(frame(0, 1, 1, body));
    stream.write_all(&bytes).await.unwrap();
    let mut head = [0; 9];
    while stream.read_exact(&mut head).await.is_ok() {
        let length = usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        if stream.read_exact(&mut payload).await.is_err() {
            return;
        }
        let ends = matches!(head[3], 0 | 1) && head[4] & 1 == 1;
        if ends || matches!(head[3], 3 | 7) {
            return;
        }
    }
}

#[test]
fn http2_cannot_smuggle_into_http1() {
    const EVIL: &str = "GET /evil HTTP/1.1\r\nhost: a\r\n\r\n";
    let path = |path| {
        vec![
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "a"),
            (":path", path),
        ]
    };
    let with = |name, value| [path("/"), vec![(name, value)]].concat();
    let lengths = |a, b| [with("content-length", a), vec![("content-length", b)]].concat();
    let method = |method| [vec![(":method", method)], path("/")[1..].to_vec()].concat();
    let authority = |name| {
        [
            path("/")[..2].to_vec(),
            vec![(":authority", name), (":path", "/")],
        ]
        .concat()
    };
    let bad = vec![
        lengths("29", "29"),
        lengths("29", "0"),
        with("content-length", ""),
        with("content-length", "29, 29"),
        with("content-length", "+29"),
        with("content-length", "0x1d"),
        with("content-length", "-1"),
        with("content-length", " 29"),
        with("content-length", "99999999999999999999"),
        with("transfer-encoding", "chunked"),
        with("transfer-encoding", "identity, chunked"),
        with("connection", "transfer-encoding"),
        with("upgrade", "h2c"),
        with("x", "y\r\nevil: 1"),
        with("x", "y\nevil: 1"),
        with("x", "y\0evil"),
        with("evil x", "y"),
        with("evil: x\r\ny", "z"),
        with("Evil", "y"),
        with("", "evil"),
        path("/ HTTP/1.1\r\nhost: evil"),
        path("/evil x"),
        path("/evil\0"),
        path("evil"),
        path(""),
        method("GET /evil HTTP/1.1\r\nx:"),
        method("EVIL X"),
        authority("a evil"),
        authority("a\r\nevil: 1"),
        authority("a/evil"),
        authority("evil@a"),
    ];
    run(async move {
        let (app, record) = recorder("127.1.0.1", OK).await;
        let bench = outbound(app).await;
        for headers in bad {
            by_hand(&bench, &headers, EVIL.as_bytes()).await;
            assert!(bench.ask(GET).await.ends_with("ok"), "{headers:?}");
            let seen = text(&record);
            assert!(!seen.to_lowercase().contains("evil"), "{headers:?}: {seen}");
            assert!(!seen.contains("POST"), "{headers:?}: {seen}");
        }
        // Lengths that are not true: what was sent of the body is a body, and nobody comes after it.
        for length in ["2", "400"] {
            by_hand(&bench, &with("content-length", length), EVIL.as_bytes()).await;
            assert!(bench.ask(GET).await.ends_with("ok"));
        }
        for connection in record.borrow().iter() {
            let seen = String::from_utf8_lossy(connection);
            if let Some((before, after)) = seen.split_once("POST ") {
                let (head, body) = after.split_once("\r\n\r\n").unwrap_or((after, ""));
                assert!(!before.contains("evil") && !head.contains("evil"), "{seen}");
                let most = if head.contains("content-length: 2\r\n") {
                    2
                } else {
                    400
                };
                assert!(body.len() <= most && !body.contains(GET), "{seen}");
            }
        }
    });
}

#[test]
fn a_get_keeps_its_chunked_body() {
    run(async {
        let (app, record) = recorder("127.1.0.1", OK).await;
        let bench = outbound(app).await;
        for method in ["GET", "DELETE", "OPTIONS", "POST"] {
            let request = format!(
                "{method} / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
            );
            assert!(bench.ask(&request).await.ends_with("ok"));
            let frames = [Ok::<_, BodyError>(Frame::data(Bytes::from_static(
                b"hello",
            )))];
            let body = Body::wrap(StreamBody::new(futures::stream::iter(frames)));
            let request = Request::builder().method(method).uri("http://a/2");
            let answer = http2(&bench)
                .await
                .request(request.body(body).unwrap())
                .await;
            answer.unwrap().into_body().collect().await.unwrap();
        }
        while text(&record).matches("5\r\nhello\r\n0\r\n\r\n").count() < 8 {
            tokio::task::yield_now().await;
        }
        // None is made up where there is none.
        assert!(bench.ask(GET).await.ends_with("ok"));
        assert_eq!(
            text(&record).matches("transfer-encoding: chunked").count(),
            8
        );
    });
}

fn trailers() -> HeaderMap {
    let mut all = HeaderMap::new();
    for name in [
        "content-length",
        "host",
        "authorization",
        "x-forwarded-for",
        "x-forwarded-client-cert",
        "x-envoy-original-path",
        "x-lateen-unreached",
        "x-sum",
    ] {
        all.insert(name, HeaderValue::from_static("evil"));
    }
    all
}

#[test]
fn trailers_say_no_more_than_headers_may() {
    const ANSWER: &[u8] =
        b"HTTP/1.1 200 OK\r\ntrailer: x-sum, x-envoy-a\r\ntransfer-encoding: chunked\r\n\r\n\
        2\r\nok\r\n0\r\nx-sum: 7\r\nx-envoy-a: evil\r\nx-forwarded-for: evil\r\n\r\n";
    run(async {
        let whole = |seen: &str| seen.matches("\r\n0\r\n").count();
        let (app, record) = recorder_of("127.1.0.1", ANSWER, whole).await;
        let bench = outbound(app).await;
        let names = "x-sum, host, content-length, x-forwarded-for, x-envoy-original-path, x-lateen-unreached";
        let frames = [
            Ok::<_, BodyError>(Frame::data(Bytes::from_static(b"hello"))),
            Ok(Frame::trailers(trailers())),
        ];
        let body = Body::wrap(StreamBody::new(futures::stream::iter(frames)));
        let request = Request::post("http://a/")
            .header("te", "trailers")
            .header("trailer", names);
        let answer = http2(&bench)
            .await
            .request(request.body(body).unwrap())
            .await;
        let answer = answer.unwrap().into_body().collect().await.unwrap();
        let got = answer.trailers().unwrap();
        assert_eq!(
            (got.len(), &got["x-sum"]),
            (1, &HeaderValue::from_static("7"))
        );
        let request = format!(
            "POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\ntrailer: {names}\r\ntransfer-encoding: chunked\r\n\r\n\
             5\r\nhello\r\n0\r\nx-sum: evil\r\nx-forwarded-for: evil\r\nx-envoy-original-path: evil\r\n\r\n"
        );
        let answer = bench.ask(&request).await;
        assert!(answer.ends_with("0\r\nx-sum: 7\r\n\r\n"), "{answer}");
        let seen = text(&record);
        assert_eq!(seen.matches("evil").count(), 2, "{seen}");
        assert_eq!(seen.matches("\r\nx-sum: evil\r\n\r\n").count(), 2, "{seen}");
    });
}

/// CVE-2025-4366.
#[test]
fn a_connection_whose_answer_came_early_is_not_reused_midway() {
    run(async {
        let (app, record) = recorder("127.1.0.1", OK).await;
        let bench = outbound(app).await;
        let mut slow = bench.outbound().await;
        let head = "POST /slow HTTP/1.1\r\nhost: a\r\ncontent-length: 60\r\n\r\nnot all";
        assert!(exchange(&mut slow, head).await.ends_with("ok"));
        for _ in 0..3 {
            let next = "GET /next HTTP/1.1\r\nhost: a\r\n\r\n";
            assert!(bench.ask(next).await.ends_with("ok"));
        }
        // The rest of the body looks like a request; nobody may take it for one.
        let _ = slow
            .write_all(b"\r\n\r\nGET /evil HTTP/1.1\r\nhost: a\r\n\r\n")
            .await;
        assert!(bench.ask(GET).await.ends_with("ok"));
        for connection in record.borrow().iter() {
            let seen = String::from_utf8_lossy(connection);
            assert!(
                !(seen.contains("/slow") && seen.contains("/next")),
                "{seen}"
            );
            assert!(seen.contains("/slow") || !seen.contains("/evil"), "{seen}");
        }
    });
}

#[test]
fn an_upstream_that_says_more_than_one_answer_poisons_nobody() {
    const TWO: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    const LONG: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok and more";
    const HEADLESS: &[u8] =
        b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    for answer in [TWO, LONG, HEADLESS] {
        run(async move {
            let (app, _record) = recorder("127.1.0.1", answer).await;
            let bench = outbound(app).await;
            let mut stream = bench.outbound().await;
            for _ in 0..20 {
                stream.write_all(GET.as_bytes()).await.unwrap();
                let mut head = read_head(&mut stream).await.unwrap();
                if head.contains("content-length: 2") {
                    let mut body = [0; 2];
                    stream.read_exact(&mut body).await.unwrap();
                    head.push_str(std::str::from_utf8(&body).unwrap());
                }
                assert!(!head.contains("content-length: 4"), "{head}");
            }
        });
    }
}

#[test]
fn a_101_nobody_asked_for_is_no_answer() {
    const SWITCH: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nevil";
    run(async {
        let (app, _record) = recorder("127.1.0.1", SWITCH).await;
        let bench = outbound(app).await;
        let odd = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n";
        for request in [GET, odd] {
            let answer = bench.ask(request).await;
            assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
            assert!(answer.ends_with("reset reason: protocol error"), "{answer}");
        }
        let request = Request::get("http://a/").body(Body::Empty).unwrap();
        let answer = http2(&bench).await.request(request).await.unwrap();
        assert_eq!(answer.status(), 502);
        for line in bench.log.lines(3).await {
            assert!(line.contains(" 502 UPE "), "{line}");
        }
    });
}
