//! Known attacks on HTTP proxies, as bytes on sockets: what the attacker is told, that others are served meanwhile, and
//! that memory stays where it was. Each names the class of vulnerability that it stands for.

mod flow;
mod hostile;
mod http1;
mod http2;

use super::*;
use crate::detect::{Guess, guess};
use crate::memory::pressure::resident;
use crate::stream::Stream;
use bytes::BytesMut;
use http_body_util::{BodyExt, StreamBody};
use hyper::{Method, Request, Response, StatusCode};
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// More than any of the attacks may make a process grow by. Tests of other modules run beside.
const CAP: u64 = 96 << 20;

/// A server with a trivial responder.
struct Arena {
    address: SocketAddr,
    /// Targets of the requests that reached the responder.
    seen: Rc<RefCell<Vec<String>>>,
    /// How connections ended other than well.
    ends: Rc<RefCell<Vec<String>>>,
}

/// Runs `attack` while an honest client is served, and holds memory against the cap.
fn arena<F: Future<Output = ()>>(limits: Limits, attack: impl FnOnce(Rc<Arena>) -> F) {
    let local = tokio::task::LocalSet::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    local.block_on(&runtime, async {
        let before = resident().unwrap();
        let arena = Rc::new(serve_all(limits).await);
        let done = Rc::new(Cell::new(false));
        let honest = async {
            let mut client = honest(arena.address).await;
            let mut served = 0;
            while served < 3 || !done.get() {
                ask(&mut client).await;
                served += 1;
                tokio::task::yield_now().await;
            }
        };
        let attack = async {
            let limit = Duration::from_secs(30);
            tokio::time::timeout(limit, attack(Rc::clone(&arena)))
                .await
                .expect("the attack is over");
            done.set(true);
        };
        tokio::join!(honest, attack);
        let grown = resident().unwrap().saturating_sub(before);
        assert!(grown < CAP, "{grown} bytes more than before");
    });
}

async fn serve_all(limits: Limits) -> Arena {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let arena = Arena {
        address: listener.local_addr().unwrap(),
        seen: Rc::default(),
        ends: Rc::default(),
    };
    let (seen, ends) = (Rc::clone(&arena.seen), Rc::clone(&arena.ends));
    tokio::task::spawn_local(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (seen, ends) = (Rc::clone(&seen), Rc::clone(&ends));
            tokio::task::spawn_local(async move {
                let mut stream = Stream::new(tcp, bytes::Bytes::new());
                let mut first = BytesMut::new();
                while guess(&first) == Guess::Unsure {
                    if !matches!(stream.read_more(&mut first).await, Ok(1..)) {
                        return;
                    }
                }
                let version = match guess(&first) {
                    Guess::Http2 => Version::Http2,
                    _ => Version::Http1,
                };
                stream.unread(first.freeze());
                let respond = move |request: Request<Incoming>, busy: Busy| {
                    let target = format!("{} {}", request.method(), request.uri());
                    seen.borrow_mut().push(target);
                    answer(request, busy)
                };
                let forever = std::future::pending();
                if let Err(end) = serve(stream, version, &limits, forever, respond).await {
                    ends.borrow_mut().push(end.to_string());
                }
            });
        }
    });
    arena
}

async fn answer(mut request: Request<Incoming>, busy: Busy) -> Response<Body> {
    let status = |code| {
        let mut response = Response::new(Body::full("no"));
        *response.status_mut() = code;
        response
    };
    match (request.method(), request.uri().path()) {
        (&Method::CONNECT, _) if request.uri().host() == Some("allowed") => {
            tokio::task::spawn_local(echo(upgrade(request.extensions_mut())));
            Response::new(Body::Empty)
        }
        (&Method::CONNECT, _) => status(StatusCode::FORBIDDEN),
        (_, "/switch") => {
            tokio::task::spawn_local(echo(upgrade(request.extensions_mut())));
            let mut response = Response::new(Body::Empty);
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response
                .headers_mut()
                .insert("upgrade", "echo".parse().unwrap());
            response
                .headers_mut()
                .insert("connection", "upgrade".parse().unwrap());
            response
        }
        (_, "/read") => match request.into_body().collect().await {
            Ok(whole) => Response::new(Body::full(format!("{} bytes", whole.to_bytes().len()))),
            Err(error) => {
                let mut response = status(StatusCode::BAD_REQUEST);
                *response.body_mut() = Body::full(
                    violation(&error)
                        .map_or_else(|| "another error".to_owned(), |why| why.to_string()),
                );
                response
            }
        },
        (_, "/wait") => {
            let body: Result<_, _> = request.into_body().collect().await;
            std::future::pending::<()>().await;
            drop(body);
            Response::new(Body::Empty)
        }
        (_, "/heap") => {
            let frames = (0..16).map(move |n| {
                let _until_the_end = &busy;
                Ok::<_, BodyError>(http_body::Frame::data(vec![n; 65_536].into()))
            });
            Response::new(Body::wrap(StreamBody::new(futures::stream::iter(frames))))
        }
        (_, "/hold") => {
            let body = request.into_body();
            std::future::pending::<()>().await;
            drop(body);
            Response::new(Body::Empty)
        }
        (_, "/endless") => {
            let frame = || {
                Ok::<_, BodyError>(http_body::Frame::data(bytes::Bytes::from_static(
                    &[b'x'; 65_536],
                )))
            };
            let frames = futures::stream::repeat_with(frame);
            let body = StreamBody::new(futures::StreamExt::map(frames, move |frame| {
                let _until_the_end = &busy;
                frame
            }));
            Response::new(Body::wrap(body))
        }
        _ => Response::new(Body::full("ok")),
    }
}

async fn echo(upgrade: OnUpgrade) {
    let Ok(mut io) = upgrade.await else { return };
    let mut bytes = [0; 1024];
    while let Ok(n @ 1..) = io.read(&mut bytes).await {
        if io.write_all(&bytes[..n]).await.is_err() {
            return;
        }
    }
}

async fn honest(address: SocketAddr) -> Sender {
    let stream = Stream::new(
        TcpStream::connect(address).await.unwrap(),
        bytes::Bytes::new(),
    );
    open(stream, Version::Http1, &Limits::default())
        .await
        .unwrap()
}

async fn ask(client: &mut Sender) {
    assert!(client.ready().await, "an honest client's connection lives");
    let request = Request::get("/honest")
        .header("host", "a")
        .body(Body::Empty)
        .unwrap();
    let response = tokio::time::timeout(Duration::from_secs(5), client.request(request));
    let response = response.await.expect("in time").unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "ok"
    );
}

impl Arena {
    async fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Targets that reached the responder from others than the honest client.
    fn seen(&self) -> Vec<String> {
        let seen = self.seen.borrow();
        seen.iter()
            .filter(|t| !t.contains("/honest"))
            .cloned()
            .collect()
    }

    fn ends(&self) -> String {
        self.ends.borrow().join("; ")
    }
}

/// Reads until the server ends or resets the connection.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all).await;
    all
}
