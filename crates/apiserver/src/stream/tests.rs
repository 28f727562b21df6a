//! Logs, exec and port-forward over real sockets, against pods that are made of pipes.

mod exec;
mod kubectl;
mod spdy;

use super::*;
use crate::pods::{ExecOptions, Execution, LogOptions, PodAccess, Reader, Writer};
use crate::wire;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

/// Pods whose programs are in this file: `cat`, `size`, `exit N`, `both`, `forever`; ports 80 (echo) and 81 (greets).
#[derive(Clone)]
struct Fake {
    /// Told when a running command is dropped.
    killed: mpsc::UnboundedSender<()>,
}

struct Killed(mpsc::UnboundedSender<()>);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

fn text(text: impl Into<Vec<u8>>) -> Reader {
    Box::new(std::io::Cursor::new(text.into()))
}

impl PodAccess for Fake {
    fn logs(
        &self,
        target: Target,
        options: LogOptions,
    ) -> BoxFuture<'static, Result<Reader, PodError>> {
        Box::pin(async move {
            if options.previous {
                return Err(PodError::Invalid(
                    "previous terminated container not found".into(),
                ));
            }
            Ok(text(format!("{} {options:?}\n", target.container.unwrap())))
        })
    }

    fn exec(
        &self,
        _: Target,
        options: ExecOptions,
    ) -> BoxFuture<'static, Result<Execution, PodError>> {
        let killed = Killed(self.killed.clone());
        Box::pin(async move {
            let (resize, mut sizes) = mpsc::channel(1);
            let (stdin, theirs) = tokio::io::duplex(1024);
            let command: Vec<&str> = options.command.iter().map(String::as_str).collect();
            let (stdout, stderr, exit): (Reader, Option<Reader>, BoxFuture<'static, i32>) =
                match command.as_slice() {
                    ["cat"] => (Box::new(theirs), None, Box::pin(async { 0 })),
                    ["exit", code] => {
                        let code = code.parse().unwrap();
                        (text("bye\n"), None, Box::pin(async move { code }))
                    }
                    ["both"] => (text("out"), Some(text("err")), Box::pin(async { 0 })),
                    ["size"] => {
                        let (mut near, far) = tokio::io::duplex(64);
                        tokio::spawn(async move {
                            let (columns, rows) = sizes.recv().await.unwrap();
                            near.write_all(format!("{columns}x{rows}").as_bytes())
                                .await
                                .unwrap();
                        });
                        (Box::new(far), None, Box::pin(async { 0 }))
                    }
                    ["forever"] => {
                        let (near, far) = tokio::io::duplex(64);
                        let never = async move {
                            let _held = (near, killed);
                            std::future::pending::<i32>().await
                        };
                        (Box::new(far), None, Box::pin(never))
                    }
                    _ => {
                        return Err(PodError::Invalid(format!(
                            "no program {command:?} in this image"
                        )));
                    }
                };
            let stdin = options.stdin.then(|| Box::new(stdin) as Writer);
            Ok(Execution {
                stdin,
                stdout,
                stderr,
                resize,
                exit,
            })
        })
    }

    fn connect(
        &self,
        _: Target,
        port: u16,
    ) -> BoxFuture<'static, Result<(Reader, Writer), PodError>> {
        Box::pin(async move {
            let (near, far) = tokio::io::duplex(64 * 1024);
            let (reader, writer) = tokio::io::split(near);
            match port {
                80 => tokio::spawn(echo(far)),
                81 => tokio::spawn(async move {
                    let mut far: DuplexStream = far;
                    far.write_all(b"hello from 81").await.unwrap();
                }),
                _ => return Err(PodError::Failed("connection refused".into())),
            };
            Ok((Box::new(reader) as Reader, Box::new(writer) as Writer))
        })
    }
}

async fn echo(stream: DuplexStream) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let _ = tokio::io::copy(&mut reader, &mut writer).await;
    let _ = writer.shutdown().await;
}

fn pod() -> Value {
    json!({"metadata": {"name": "p", "namespace": "a"}, "status": {"phase": "Running"},
        "spec": {"containers": [{"name": "main"}], "initContainers": [{"name": "init"}]}})
}

async fn serve(
    request: Request<Incoming>,
    fake: Fake,
) -> Result<Response<wire::Body>, std::convert::Infallible> {
    let pods: Arc<dyn PodAccess> = Arc::new(fake);
    let answer = match request.uri().path() {
        "/log" => logs(request, pods, &pod()).await,
        "/exec" => exec(request, pods, &pod()).await,
        "/attach" => attach(request, pods, &pod()).await,
        _ => port_forward(request, pods, &pod()).await,
    };
    Ok(answer.unwrap_or_else(|error| wire::error(&error)))
}

/// A server on loopback and what tells of killed commands.
async fn server() -> (u16, mpsc::UnboundedReceiver<()>) {
    let (killed, deaths) = mpsc::unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let fake = Fake {
                killed: killed.clone(),
            };
            let service = hyper::service::service_fn(move |request| serve(request, fake.clone()));
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection.with_upgrades());
        }
    });
    (port, deaths)
}

/// Sends a request; an upgrade when a protocol is given as `websocket:<protocol>` or `spdy:<protocol>`.
async fn send(port: u16, uri: &str, upgrade: &str) -> Response<Incoming> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection.with_upgrades());
    let mut request = Request::get(uri).header("host", "test");
    match upgrade.split_once(':') {
        Some(("websocket", protocol)) => {
            request = request
                .header("connection", "Upgrade")
                .header("upgrade", "websocket");
            request = request
                .header("sec-websocket-version", "13")
                .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
            request = request.header("sec-websocket-protocol", protocol);
        }
        Some((_, protocol)) => {
            request = request
                .header("connection", "Upgrade")
                .header("upgrade", "SPDY/3.1");
            request = request.header("x-stream-protocol-version", protocol);
        }
        None => {}
    }
    sender
        .send_request(request.body(Empty::<Bytes>::new()).unwrap())
        .await
        .unwrap()
}

/// Status code and body of a plain answer.
async fn get(uri: &str, upgrade: &str) -> (u16, String) {
    let (port, _deaths) = server().await;
    let response = send(port, uri, upgrade).await;
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, String::from_utf8(bytes.to_vec()).unwrap())
}

type Client = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

async fn websocket(port: u16, uri: &str, protocol: &str) -> Client {
    let mut response = send(port, uri, &format!("websocket:{protocol}")).await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS, "{uri}");
    let upgraded = hyper::upgrade::on(&mut response).await.unwrap();
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await
}

/// Everything that comes until the server closes, by channel.
async fn drain(client: &mut Client) -> [String; 4] {
    let mut channels: [Vec<u8>; 4] = Default::default();
    while let Some(Ok(message)) = client.next().await {
        match message {
            Message::Binary(bytes) => channels[bytes[0] as usize].extend_from_slice(&bytes[1..]),
            Message::Close(frame) => assert_eq!(u16::from(frame.unwrap().code), 1000),
            _ => {}
        }
    }
    channels.map(|bytes| String::from_utf8(bytes).unwrap())
}

#[tokio::test]
async fn log_options_and_errors() {
    let (code, body) = get(
        "/log?tailLines=3&timestamps=true&limitBytes=10&sinceSeconds=60",
        "",
    )
    .await;
    assert_eq!(code, 200);
    assert!(body.starts_with("main LogOptions"), "{body}");
    for part in [
        "tail_lines: Some(3)",
        "timestamps: true",
        "limit_bytes: Some(10)",
        "since_seconds: Some(60)",
        "follow: false",
    ] {
        assert!(body.contains(part), "{body}");
    }
    assert!(get("/log?container=init", "").await.1.starts_with("init "));
    assert!(
        get("/log?sinceTime=2020-01-01T00:00:00Z", "")
            .await
            .1
            .contains("since_seconds: Some(")
    );
    for (uri, code, part) in [
        (
            "/log?container=other",
            400,
            "container other is not valid for pod p",
        ),
        (
            "/log?previous=true",
            400,
            "previous terminated container not found",
        ),
        (
            "/log?tailLines=-1",
            422,
            "must be greater than or equal to 0",
        ),
        (
            "/log?sinceSeconds=1&sinceTime=2020-01-01T00:00:00Z",
            422,
            "at most one of",
        ),
    ] {
        let (got, body) = get(uri, "").await;
        assert!(got == code && body.contains(part), "{uri} {got} {body}");
    }
}

#[test]
fn containers() {
    let mut two = pod();
    two["spec"]["containers"] = json!([{"name": "a"}, {"name": "b"}]);
    let error = target(&two, None).unwrap_err();
    assert_eq!(
        error.message,
        "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [init]"
    );
    assert_eq!(
        target(&two, Some("b")).unwrap().container.as_deref(),
        Some("b")
    );
    two["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/default-container": "b"});
    assert_eq!(target(&two, None).unwrap().container.as_deref(), Some("b"));
}

const V5: &str = "v5.channel.k8s.io";
