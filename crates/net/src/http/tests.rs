//! Both engines against each other over real sockets, and against hand-written bytes.

use super::*;
use crate::stream::Stream;
use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::{Request, Response};
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
            let response = sender.send(request).await.unwrap();
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
