//! Servers that attack the end that calls them: the call fails, within bounds of time and memory.

use super::http2::{END_HEADERS, frame, headers, settings};
use super::*;
use crate::http::{SendFailure, Violation};

/// Sends one request to a server that says `first` and then `repeated` for ever, whatever it hears.
async fn called(version: Version, first: Vec<u8>, repeated: Vec<u8>) -> SendFailure {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut read, mut write) = stream.into_split();
        tokio::task::spawn_local(async move {
            let mut deaf = [0; 4096];
            while matches!(read.read(&mut deaf).await, Ok(1..)) {}
        });
        write.write_all(&first).await.unwrap();
        let many = repeated.repeat(500);
        while write.write_all(&many).await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    let stream = TcpStream::connect(address).await.unwrap();
    let stream = Stream::new(stream, bytes::Bytes::new());
    let mut sender = open(stream, version, &Limits::default()).await.unwrap();
    let request = Request::get("http://a/").header("host", "a");
    let call = sender.request(request.body(Body::Empty).unwrap());
    let call = tokio::time::timeout(Duration::from_secs(10), call).await;
    call.expect("it ends").expect_err("no answer")
}

#[test]
fn floods_of_a_server_end_the_call() {
    let status = |flags, stream| headers(flags, stream, &[0x08, 3, b'1', b'0', b'3']);
    for (what, first, repeated) in [
        ("pings", settings(), frame(6, 0, 0, &[0; 8])),
        ("settings", settings(), settings()),
        ("updates", settings(), frame(8, 0, 0, &[0, 0, 0, 1])),
        (
            "goaways",
            settings(),
            frame(7, 0, 0, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]),
        ),
        (
            "continuations",
            [settings(), headers(0, 1, &[0x88])].concat(),
            frame(9, 0, 1, &[]),
        ),
        ("interim responses", settings(), status(END_HEADERS, 1)),
        (
            "promises",
            settings(),
            frame(5, END_HEADERS, 1, &[0, 0, 0, 2, 0x82]),
        ),
    ] {
        arena(Limits::default(), move |_| async move {
            let failure = called(Version::Http2, first, repeated).await;
            assert!(!failure.unsent, "{what}: {failure:?}");
        });
    }
}

#[test]
fn interim_responses_without_end_are_no_answer() {
    for interim in [
        &b"HTTP/1.1 100 Continue\r\n\r\n"[..],
        b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n",
    ] {
        arena(Limits::default(), move |_| async move {
            let failure = called(Version::Http1, Vec::new(), interim.to_vec()).await;
            assert!(
                matches!(failure.violation(), Some(Violation::Framing(_))),
                "{failure:?}"
            );
        });
    }
}

#[test]
fn a_head_without_end_is_no_answer() {
    let first = b"HTTP/1.1 200 OK\r\n".to_vec();
    arena(Limits::default(), move |_| async move {
        called(Version::Http1, first, b"x: y\r\n".to_vec()).await;
    });
}
