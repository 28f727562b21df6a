//! The server among clients that keep it busy with nothing.

use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

async fn open<H, F>(handle: H) -> (std::net::SocketAddr, CancellationToken)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let shutdown = CancellationToken::new();
    tokio::spawn(serve(listener, None, handle, shutdown.clone()));
    (address, shutdown)
}

/// Sends a text and reads until the server closes.
async fn ask(address: std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it connects");
    let sent = stream.write_all(request.as_bytes()).await;
    sent.expect("sent");
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer).await;
    read.expect("text");
    answer
}

const GET: &str = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn silent_connections_are_ended_and_others_served() {
    let (address, _shutdown) = open(|_| async { text(StatusCode::OK, "fine") }).await;
    let mut silent = Vec::new();
    for number in 0..CONNECTIONS.all {
        // Half of them begin as HTTP/2 does and go no further.
        let mut stream = TcpStream::connect(address).await.expect("it connects");
        if number % 2 == 0 {
            let _ = stream.write_all(b"PRI * HT").await;
        }
        silent.push(stream);
    }
    // One address has its bound; the oldest of its own make room after a second.
    tokio::time::pause();
    tokio::time::advance(CONNECTIONS.idle).await;
    tokio::time::resume();
    let answer = ask(address, GET).await;
    assert!(answer.ends_with("fine"), "{answer}");
    tokio::time::pause();
    tokio::time::advance(HEAD_TIME).await;
    tokio::time::resume();
    for mut stream in silent {
        let mut rest = Vec::new();
        // The end of the stream or a reset: it is over either way.
        let _ = stream.read_to_end(&mut rest).await;
    }
}

#[tokio::test]
async fn bodies_in_flight_are_bounded() {
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let (begun, mut begins) = mpsc::unbounded_channel();
    let release = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&release);
    let (address, _shutdown) = open(move |request| {
        let (arrived, held) = (arrived.clone(), Arc::clone(&held));
        let begun = begun.clone();
        async move {
            let _ = begun.send(());
            let read = body(request).await;
            let length = read.as_ref().map_or(0, |body| body.len());
            let _ = arrived.send(length);
            let _permit = held.acquire().await;
            text(StatusCode::OK, "read")
        }
    })
    .await;
    let large = format!(
        "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {MOST_BODY}\r\n\r\n{}",
        "x".repeat(MOST_BODY)
    );
    let large: Arc<str> = large.into();
    let most = MOST_BODIES / MOST_BODY;
    let mut asked = Vec::new();
    for _ in 0..most {
        let large = Arc::clone(&large);
        asked.push(tokio::spawn(async move { ask(address, &large).await }));
    }
    for _ in 0..most {
        assert_eq!(arrivals.recv().await, Some(MOST_BODY));
    }
    for _ in 0..most {
        assert_eq!(begins.recv().await, Some(()));
    }
    // The next waits, and not for ever.
    let small = "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx";
    let late = tokio::spawn(async move { ask(address, small).await });
    assert_eq!(begins.recv().await, Some(()));
    tokio::time::pause();
    assert_eq!(arrivals.recv().await, Some(0));
    tokio::time::resume();
    release.add_permits(100);
    for answer in asked.drain(..) {
        assert!(answer.await.expect("done").ends_with("read"));
    }
    assert!(late.await.expect("done").ends_with("read"));
    // They are done with.
    assert!(ask(address, small).await.ends_with("read"));
    assert_eq!(arrivals.recv().await, Some(1));
}
