//! Both engines against each other over real sockets, and against hand-written bytes.

use super::*;
use crate::stream::Stream;
use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::{Request, Response};
use std::cell::Cell;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (a, b) = tokio::join!(
        TcpStream::connect(listener.local_addr().unwrap()),
        listener.accept()
    );
    (a.unwrap(), b.unwrap().0)
}

fn run<F: Future<Output = ()>>(test: F) {
    let local = tokio::task::LocalSet::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    local.block_on(&runtime, test);
}

/// Serves one connection, echoing bodies with their trailers, and returns its other end.
async fn echo(version: Version, limits: Limits) -> TcpStream {
    let (client, server) = pair().await;
    tokio::task::spawn_local(async move {
        let respond = |request: Request<Incoming>, busy: Busy| async move {
            let _busy = busy;
            let mut response = Response::new(Body::Incoming(request.into_body()));
            response
                .headers_mut()
                .insert("trailer", http::HeaderValue::from_static("x-sum"));
            response
        };
        let stream = Stream::new(server, Bytes::new());
        let _ = serve(stream, version, &limits, std::future::pending(), respond).await;
    });
    client
}

#[test]
fn bodies_and_trailers_stream_through_both_versions() {
    for version in [Version::Http1, Version::Http2] {
        run(async move {
            let client = echo(version, Limits::default()).await;
            let stream = Stream::new(client, Bytes::new());
            let mut sender = open(stream, version, &Limits::default()).await.unwrap();
            let mut trailers = http::HeaderMap::new();
            trailers.insert("x-sum", http::HeaderValue::from_static("7"));
            let frames = [
                Ok(http_body::Frame::data(Bytes::from_static(b"one "))),
                Ok(http_body::Frame::data(Bytes::from_static(b"two"))),
                Ok::<_, BodyError>(http_body::Frame::trailers(trailers)),
            ];
            let body = Body::wrap(StreamBody::new(futures::stream::iter(frames)));
            let request = Request::post("http://a/")
                .header("host", "a")
                .header("te", "trailers")
                .header("trailer", "x-sum")
                .body(body)
                .unwrap();
            let response = sender.request(request).await.unwrap();
            let whole = response.into_body().collect().await.unwrap();
            assert_eq!(whole.trailers().unwrap()["x-sum"], "7", "{version:?}");
            assert_eq!(whole.to_bytes(), "one two");
        });
    }
}

#[test]
fn a_head_that_never_ends_is_cut_off_and_an_idle_connection_is_ended() {
    let limits = Limits {
        head_time: Duration::from_millis(30),
        idle_time: Duration::from_millis(60),
        ..Limits::default()
    };
    for begun in [&b"GET / HT"[..], b""] {
        run(async move {
            let mut client = echo(Version::Http1, limits).await;
            client.write_all(begun).await.unwrap();
            let mut rest = Vec::new();
            let _ = client.read_to_end(&mut rest).await;
            assert!(rest.is_empty());
        });
    }
}

#[test]
fn heads_beyond_the_limits_are_answered_431() {
    for head in [
        format!(
            "GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n",
            "y".repeat(70_000)
        ),
        format!(
            "GET / HTTP/1.1\r\nhost: a\r\n{}\r\n",
            "x: y\r\n".repeat(200)
        ),
    ] {
        run(async move {
            let mut client = echo(Version::Http1, Limits::default()).await;
            let _ = client.write_all(head.as_bytes()).await;
            let mut answer = [0; 12];
            // What the server left unread may turn its close into a reset before the answer is read.
            if client.read_exact(&mut answer).await.is_ok() {
                assert_eq!(&answer, b"HTTP/1.1 431");
            }
        });
    }
}

#[test]
fn an_idle_connection_that_the_peer_closed_is_seen_as_spent() {
    run(async {
        let (client, server) = pair().await;
        let stream = Stream::new(client, Bytes::new());
        let watch = stream.watch();
        assert!(!watch.is_spent());
        drop(server);
        watch.tcp().readable().await.unwrap();
        assert!(watch.is_spent());
    });
}

#[test]
fn a_client_that_does_not_read_stops_the_body() {
    const FRAMES: usize = 2_000;
    run(async {
        let (mut client, server) = pair().await;
        let made = Rc::new(Cell::new(0));
        let count = Rc::clone(&made);
        tokio::task::spawn_local(async move {
            let respond = move |_: Request<Incoming>, _: Busy| {
                let count = Rc::clone(&count);
                let frames = (0..FRAMES).map(move |_| {
                    count.set(count.get() + 1);
                    Ok::<_, BodyError>(http_body::Frame::data(Bytes::from_static(&[b'x'; 65_536])))
                });
                let body = Body::wrap(StreamBody::new(futures::stream::iter(frames)));
                async { Response::new(body) }
            };
            let stream = Stream::new(server, Bytes::new());
            let limits = Limits::default();
            let _ = serve(
                stream,
                Version::Http1,
                &limits,
                std::future::pending(),
                respond,
            )
            .await;
        });
        let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        client.write_all(request).await.unwrap();
        client.readable().await.unwrap();
        // Kernels buffer some megabytes; nobody else may.
        assert!(made.get() < FRAMES / 4, "{} frames", made.get());
    });
}

/// A body of one frame, and of another that comes only when the peer has answered and reset the connection: between the
/// engine's reading and its writing.
struct LateFrame {
    sent: usize,
    is_reset: std::sync::mpsc::Receiver<()>,
}

impl http_body::Body for LateFrame {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        self.sent += 1;
        if self.sent == 2 {
            self.is_reset.recv().unwrap();
        }
        let bytes = Bytes::from_static(&[b'x'; 200_000]);
        Poll::Ready((self.sent < 9).then(|| Ok(http_body::Frame::data(bytes))))
    }
}

#[test]
fn an_answer_that_comes_before_the_body_is_read_arrives() {
    run(async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (reset, is_reset) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; 64]).unwrap();
            let answer = b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).unwrap();
            // Closed with bytes unread: a reset.
            drop(stream);
            reset.send(()).unwrap();
        });
        let stream = Stream::new(TcpStream::connect(address).await.unwrap(), Bytes::new());
        let mut sender = open(stream, Version::Http1, &Limits::default())
            .await
            .unwrap();
        let body = Body::wrap(LateFrame { sent: 0, is_reset });
        let request = Request::post("/").header("host", "a").body(body).unwrap();
        let response = sender.request(request).await.unwrap();
        assert_eq!(response.status(), 413);
        assert!(!sender.ready().await, "the connection is of no more use");
    });
}

#[test]
fn a_client_that_is_answered_early_may_go_on_sending_for_a_moment() {
    run(async {
        let (mut client, server) = pair().await;
        tokio::task::spawn_local(async move {
            let respond = |_: Request<Incoming>, _: Busy| async { Response::new(Body::full("no")) };
            let stream = Stream::new(server, Bytes::new());
            let limits = Limits::default();
            let _ = serve(
                stream,
                Version::Http1,
                &limits,
                std::future::pending(),
                respond,
            )
            .await;
        });
        let head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9000000\r\n\r\n";
        client.write_all(head).await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200"));
        for _ in 0..3 {
            client.write_all(b"more").await.unwrap();
        }
    });
}

/// What a server that echoes answers to these bytes, all that it says until it ends the connection.
async fn told(bytes: &[u8]) -> String {
    let mut client = echo(Version::Http1, Limits::default()).await;
    client.write_all(bytes).await.unwrap();
    let mut all = Vec::new();
    let _ = client.read_to_end(&mut all).await;
    String::from_utf8(all).unwrap()
}

#[test]
fn messages_have_the_form_that_the_client_understands() {
    let check = |request: &'static str, expected: &'static str| {
        run(async move { assert_eq!(told(request.as_bytes()).await, expected, "{request}") });
    };
    check(
        "POST / HTTP/1.0\r\ncontent-length: 2\r\n\r\nhi",
        "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi",
    );
    check(
        "POST / HTTP/1.0\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nhiGET / HTTP/1.0\r\n\r\n",
        "HTTP/1.0 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nhiHTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
    );
    check(
        "POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n1\r\n!\r\n0\r\nx-sum: 3\r\nx-other: 1\r\n\r\n\
         HEAD / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n1\r\n!\r\n0\r\nx-sum: 3\r\n\r\n\
         HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n",
    );
    check(
        "POST / HTTP/1.1\r\nhost: a\r\nconnection: x, Close\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n0\r\n\r\n",
    );
}

#[test]
fn head_is_told_of_the_body_that_get_would_have() {
    run(async {
        let (mut client, server) = pair().await;
        tokio::task::spawn_local(async move {
            let respond =
                |_: Request<Incoming>, _: Busy| async { Response::new(Body::full("hello")) };
            let stream = Stream::new(server, Bytes::new());
            let limits = Limits::default();
            let forever = std::future::pending();
            let _ = serve(stream, Version::Http1, &limits, forever, respond).await;
        });
        let head = b"HEAD / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        client.write_all(head).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        let expected = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\n";
        assert_eq!(answer, expected);
    });
}

/// An application that answers each connection's request with these bytes, and says what it was sent.
fn application(
    answers: &'static [&'static str],
) -> (SocketAddr, std::sync::mpsc::Receiver<String>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (say, said) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        for answer in answers {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            let _ = say.send(String::from_utf8(head).unwrap());
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    (address, said)
}

#[test]
fn answers_end_where_they_say_and_the_connection_is_used_again() {
    run(async {
        let (address, said) = application(&[
            "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 Fine\r\nX-Odd: 1\r\ncontent-length: 2\r\n\r\nhi",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;x\r\none\r\n0\r\nx-sum: 1\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\nuntil the end",
        ]);
        let stream = Stream::new(TcpStream::connect(address).await.unwrap(), Bytes::new());
        let mut sender = open(stream, Version::Http1, &Limits::default())
            .await
            .unwrap();
        let expected = ["hi", "one", "", "", "until the end"];
        for (n, body) in expected.into_iter().enumerate() {
            assert!(sender.ready().await, "{n}");
            let method = if n == 3 { "HEAD" } else { "GET" };
            let request = Request::builder().method(method).uri("http://a/x?y");
            let request = request.header("host", "a").body(Body::Empty).unwrap();
            let response = sender.request(request).await.unwrap();
            let whole = response.into_body().collect().await.unwrap();
            assert_eq!(whole.trailers().is_some(), n == 1);
            assert_eq!(whole.to_bytes(), body);
        }
        assert!(!sender.ready().await, "it has ended");
        let head = said.recv().unwrap();
        assert_eq!(head, "GET /x?y HTTP/1.1\r\nhost: a\r\n\r\n");
    });
}

#[test]
fn a_request_that_is_answered_early_is_sent_to_its_end_beside_its_answer() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (go_on, wait) = tokio::sync::oneshot::channel();
        let application = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut read = vec![0; 1024];
            let n = stream.read(&mut read).await.unwrap();
            assert!(read[..n].starts_with(b"POST / HTTP/1.1\r\n"));
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly";
            stream.write_all(answer).await.unwrap();
            go_on.send(()).unwrap();
            let mut rest = Vec::new();
            while !rest.ends_with(b"4\r\nlate\r\n0\r\n\r\n") {
                assert!(stream.read_buf(&mut rest).await.unwrap() > 0);
            }
        };
        let calling = async {
            let stream = Stream::new(TcpStream::connect(address).await.unwrap(), Bytes::new());
            let mut sender = open(stream, Version::Http1, &Limits::default())
                .await
                .unwrap();
            let late = futures::stream::once(async {
                wait.await.unwrap();
                Ok::<_, BodyError>(http_body::Frame::data(Bytes::from_static(b"late")))
            });
            let body = Body::wrap(StreamBody::new(late));
            let request = Request::post("/").header("host", "a").body(body).unwrap();
            let response = sender.request(request).await.unwrap();
            let whole = response.into_body().collect().await.unwrap();
            assert_eq!(whole.to_bytes(), "early");
            assert!(sender.ready().await, "once the request is out");
        };
        tokio::join!(application, calling);
    });
}
