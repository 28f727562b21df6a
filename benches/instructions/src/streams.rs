//! Requests of HTTP/2 through two sidecars, eight streams at a time. Client and application are this project's own
//! engines, so what they cost is in the count; it is the same whatever the proxies do.

use crate::pair::{Pair, counted};
use futures::future::join_all;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use lateen_model::service::Protocol;
use lateen_net::http::{Body, Limits, Sender, Version, open, serve};
use lateen_net::stream::Stream;
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalRuntime};

/// Streams at once.
const STREAMS: u64 = 8;

fn runtime() -> LocalRuntime {
    let made = Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default());
    made.expect("a runtime")
}

/// An application that answers every request with the same bytes.
fn app() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    listener.set_nonblocking(true).expect("a socket");
    std::thread::spawn(move || {
        runtime().block_on(async {
            let listener = TcpListener::from_std(listener).expect("a socket");
            while let Ok((stream, _)) = listener.accept().await {
                tokio::task::spawn_local(answer(stream));
            }
        });
    });
    address
}

async fn answer(stream: TcpStream) {
    let respond = move |_, busy| async move {
        let _busy = busy;
        Response::new(Body::full("hello"))
    };
    let stream = Stream::new(stream, bytes::Bytes::new());
    let never = std::future::pending();
    let limits = Limits::default();
    let _ = serve(stream, Version::Http2, &limits, never, respond).await;
}

async fn ask(sender: &Sender) {
    let request = Request::get("http://a.default.svc.cluster.local/api/v1/items/7/parts?page=3")
        .header("user-agent", "bench/1")
        .header("x-team", "blue")
        .body(Body::Empty);
    let mut sender = sender.share().expect("HTTP/2 is shared");
    let response = sender.request(request.expect("a request")).await;
    let response = response.expect("an answer");
    assert_eq!(response.status(), 200, "the request was answered");
    response
        .into_body()
        .collect()
        .await
        .expect("a whole answer");
}

/// Requests on one connection through two sidecars; one time is one request.
pub(crate) fn http2(times: u64) -> u64 {
    let pair = Pair::start(Protocol::Http2, app());
    let runtime = runtime();
    let sender = runtime.block_on(async {
        let stream = TcpStream::connect(pair.entry).await.expect("connected");
        let stream = Stream::new(stream, bytes::Bytes::new());
        open(stream, Version::Http2, &Limits::default()).await
    });
    let sender = sender.expect("HTTP/2");
    counted(times.div_ceil(STREAMS), || {
        runtime.block_on(join_all((0..STREAMS).map(|_| ask(&sender))));
    })
}
