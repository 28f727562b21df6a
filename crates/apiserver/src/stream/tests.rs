//! Logs, exec and port-forward over real sockets, against pods that are made of pipes.

mod kubectl;

use super::spdy::{Decoder, Encoder, Frame, data, ping, reset};
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

#[tokio::test]
async fn exec_over_websocket() {
    let (port, _deaths) = server().await;
    let run = async |query: &str, protocol: &str| {
        let mut client = websocket(
            port,
            &format!("/exec?stdout=true&stderr=true&{query}"),
            protocol,
        )
        .await;
        drain(&mut client).await
    };
    let [_, out, err, status] = run("command=both", V5).await;
    assert_eq!((out.as_str(), err.as_str()), ("out", "err"));
    assert_eq!(
        serde_json::from_str::<Value>(&status).unwrap()["status"],
        "Success"
    );

    let [_, out, _, status] = run("command=exit&command=3", "v4.channel.k8s.io").await;
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(
        (out.as_str(), &status["reason"]),
        ("bye\n", &json!("NonZeroExitCode"))
    );
    assert_eq!(
        status["details"]["causes"][0],
        json!({"reason": "ExitCode", "message": "3"})
    );
}

#[tokio::test]
async fn stdin_its_end_and_resizing() {
    let (port, _deaths) = server().await;
    let mut client = websocket(port, "/exec?stdin=true&stdout=true&command=cat", V5).await;
    let long = "x".repeat(100_000);
    for bytes in [
        b"\0hello ".to_vec(),
        format!("\0{long}").into_bytes(),
        vec![255, 0],
    ] {
        client.send(Message::Binary(bytes.into())).await.unwrap();
    }
    let [_, out, _, status] = drain(&mut client).await;
    assert!(
        out == format!("hello {long}") && status.contains("Success"),
        "{} {status}",
        out.len()
    );

    let mut client = websocket(
        port,
        "/exec?stdin=true&stdout=true&tty=true&command=size",
        V5,
    )
    .await;
    client
        .send(Message::Binary(
            b"\x04{\"Width\":80,\"Height\":24}".to_vec().into(),
        ))
        .await
        .unwrap();
    assert_eq!(drain(&mut client).await[1], "80x24");
}

#[tokio::test]
async fn a_client_that_leaves_kills_its_command() {
    let (port, mut deaths) = server().await;
    let client = websocket(port, "/exec?stdout=true&command=forever", V5).await;
    drop(client);
    deaths.recv().await.unwrap();
}

#[tokio::test]
async fn refusals_before_the_upgrade() {
    for (uri, upgrade, part) in [
        (
            "/exec?stdout=true&command=nope",
            "websocket:v5.channel.k8s.io",
            "no program",
        ),
        (
            "/exec?stdout=true",
            "websocket:v5.channel.k8s.io",
            "at least 1 command",
        ),
        (
            "/exec?command=cat",
            "websocket:v5.channel.k8s.io",
            "at least 1 of stdin, stdout, stderr",
        ),
        (
            "/exec?stdout=true&command=both",
            "websocket:base64.channel.k8s.io",
            "unsupported protocol(s) requested",
        ),
        (
            "/exec?stdout=true&command=both",
            "",
            "Upgrade request required",
        ),
        (
            "/attach?stdin=true",
            "websocket:v5.channel.k8s.io",
            "no standard input",
        ),
        (
            "/portforward",
            "websocket:v4.channel.k8s.io",
            "\\\"ports\\\" is required",
        ),
        (
            "/portforward?ports=0",
            "websocket:v4.channel.k8s.io",
            "as a port",
        ),
    ] {
        let (code, body) = get(uri, upgrade).await;
        assert!(code == 400 && body.contains(part), "{uri} {code} {body}");
    }
}

#[tokio::test]
async fn attach_follows_the_log() {
    let (port, _deaths) = server().await;
    let mut client = websocket(port, "/attach?stdout=true", V5).await;
    let [_, out, _, status] = drain(&mut client).await;
    assert!(
        out.contains("follow: true")
            && out.contains("tail_lines: Some(0)")
            && status.contains("Success"),
        "{out}"
    );
}

/// A SPDY client inside a WebSocket or on a raw connection.
struct Spdy {
    tunnel: Option<Client>,
    raw: Option<TokioIo<hyper::upgrade::Upgraded>>,
    decoder: Decoder,
    encoder: Encoder,
}

impl Spdy {
    async fn tunnel(port: u16) -> Self {
        let client = websocket(port, "/portforward", "SPDY/3.1+portforward.k8s.io").await;
        Self {
            tunnel: Some(client),
            raw: None,
            decoder: Decoder::default(),
            encoder: Encoder::new(),
        }
    }

    async fn raw(port: u16, uri: &str, protocol: &str) -> Self {
        let mut response = send(port, uri, &format!("spdy:{protocol}")).await;
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        let raw = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
        Self {
            tunnel: None,
            raw: Some(raw),
            decoder: Decoder::default(),
            encoder: Encoder::new(),
        }
    }

    async fn send(&mut self, frame: Bytes) {
        match (&mut self.tunnel, &mut self.raw) {
            (Some(tunnel), _) => tunnel.send(Message::Binary(frame)).await.unwrap(),
            (_, Some(raw)) => raw.write_all(&frame).await.unwrap(),
            _ => unreachable!(),
        }
    }

    async fn open(&mut self, stream: u32, headers: &[(&str, &str)]) {
        let frame = self.encoder.open(stream, headers, false);
        self.send(frame).await;
    }

    /// Opens error and data streams of a connection as kubectl does: the error stream is closed at once.
    async fn connect(&mut self, error: u32, port: &str) {
        let id = error.to_string();
        self.open(
            error,
            &[("streamtype", "error"), ("port", port), ("requestid", &id)],
        )
        .await;
        self.send(data(error, &[], true)).await;
        self.open(
            error + 2,
            &[("streamtype", "data"), ("port", port), ("requestid", &id)],
        )
        .await;
    }

    /// What comes on streams until all of `until` are finished.
    async fn finish(&mut self, until: &[u32]) -> std::collections::BTreeMap<u32, String> {
        let mut open = until.to_vec();
        let mut texts = std::collections::BTreeMap::new();
        while !open.is_empty() {
            while let Some(frame) = self.decoder.next().unwrap() {
                if let Frame::Data {
                    stream,
                    bytes,
                    finished,
                } = frame
                {
                    let text: &mut String = texts.entry(stream).or_default();
                    text.push_str(std::str::from_utf8(&bytes).unwrap());
                    open.retain(|one| !(finished && *one == stream));
                }
            }
            if !open.is_empty() {
                let bytes = self.read().await;
                self.decoder.feed(&bytes);
            }
        }
        texts
    }

    async fn read(&mut self) -> Bytes {
        match (&mut self.tunnel, &mut self.raw) {
            (Some(tunnel), _) => match tunnel.next().await.unwrap().unwrap() {
                Message::Binary(bytes) => bytes,
                other => panic!("{other:?}"),
            },
            (_, Some(raw)) => {
                let mut buffer = vec![0; 4096];
                let count = raw.read(&mut buffer).await.unwrap();
                assert!(count > 0, "the server closed");
                Bytes::copy_from_slice(&buffer[..count])
            }
            _ => unreachable!(),
        }
    }
}

/// The conversation that kubectl has, whatever carries it.
async fn forward(mut client: Spdy) {
    client.connect(1, "80").await;
    client.connect(5, "81").await;
    client.connect(9, "82").await;
    let long = "y".repeat(50_000);
    client.send(data(3, long.as_bytes(), false)).await;
    client.send(data(3, b" end", true)).await;
    let texts = client.finish(&[1, 3, 5, 7, 9, 11]).await;
    assert_eq!(
        texts[&3],
        format!("{long} end"),
        "echoed after the client's half close"
    );
    assert_eq!(
        (texts[&1].as_str(), texts[&7].as_str()),
        ("", "hello from 81")
    );
    assert_eq!(
        texts[&9],
        "error forwarding port 82 to pod p: connection refused"
    );

    // A reset ends the connection, and the error stream with it; the others go on.
    client.connect(13, "80").await;
    client.send(reset(15, 5)).await;
    client.connect(17, "80").await;
    client.send(data(19, b"still here", true)).await;
    let texts = client.finish(&[13, 17, 19]).await;
    assert_eq!(texts[&19], "still here");

    client.send(ping(21)).await;
    loop {
        match client.decoder.next().unwrap() {
            Some(Frame::Ping { id }) => break assert_eq!(id, 21),
            Some(_) => {}
            None => {
                let bytes = client.read().await;
                client.decoder.feed(&bytes);
            }
        }
    }
}

#[tokio::test]
async fn port_forward_through_the_tunnel() {
    let (port, _deaths) = server().await;
    forward(Spdy::tunnel(port).await).await;
}

#[tokio::test]
async fn port_forward_over_raw_spdy() {
    let (port, _deaths) = server().await;
    forward(Spdy::raw(port, "/portforward", "portforward.k8s.io").await).await;
}

#[tokio::test]
async fn exec_over_spdy() {
    let (port, mut deaths) = server().await;
    let mut client = Spdy::raw(
        port,
        "/exec?stdin=true&stdout=true&command=cat",
        "v4.channel.k8s.io",
    )
    .await;
    for (stream, kind) in [(1, "error"), (3, "stdin"), (5, "stdout")] {
        client.open(stream, &[("streamtype", kind)]).await;
    }
    client.send(data(3, b"through spdy", true)).await;
    let texts = client.finish(&[1, 5]).await;
    assert_eq!(texts[&5], "through spdy");
    assert!(texts[&1].contains("Success"), "{}", texts[&1]);

    let mut client = Spdy::raw(
        port,
        "/exec?stdout=true&command=forever",
        "v4.channel.k8s.io",
    )
    .await;
    for (stream, kind) in [(1, "error"), (3, "stdout")] {
        client.open(stream, &[("streamtype", kind)]).await;
    }
    drop(client);
    deaths.recv().await.unwrap();
}

#[tokio::test]
async fn port_forward_over_channels() {
    let (port, _deaths) = server().await;
    let mut client = websocket(port, "/portforward?ports=81,82", "v4.channel.k8s.io").await;
    let [greeting, none, empty, error] = drain_pairs(&mut client).await;
    let with_port = |port: u16, text: &str| [&port.to_le_bytes(), text.as_bytes()].concat();
    assert_eq!(greeting, with_port(81, "hello from 81"));
    assert_eq!((none, empty), (with_port(81, ""), with_port(82, "")));
    assert_eq!(
        error,
        with_port(82, "error forwarding port 82 to pod p: connection refused")
    );

    let mut client = websocket(port, "/portforward?ports=80", "v4.channel.k8s.io").await;
    client
        .send(Message::Binary(b"\0echo".to_vec().into()))
        .await
        .unwrap();
    let mut got = Vec::new();
    while !got.ends_with(b"echo") {
        if let Message::Binary(bytes) = client.next().await.unwrap().unwrap()
            && bytes[0] == 0
        {
            got.extend_from_slice(&bytes[1..]);
        }
    }
}

async fn drain_pairs(client: &mut Client) -> [Vec<u8>; 4] {
    let mut channels: [Vec<u8>; 4] = Default::default();
    while let Some(Ok(message)) = client.next().await {
        if let Message::Binary(bytes) = message {
            channels[bytes[0] as usize].extend_from_slice(&bytes[1..]);
        }
    }
    channels
}
