//! A whole proxy in one process, with real sockets on loopback: resources and bytes in, bytes out.
//! Workloads live at `127.1.0.N`, virtual addresses are `10.96.0.N`; where a connection was going is told by
//! `Destinations::Fixed`.

mod admin;
mod attacks;
mod authz;
mod balance;
mod captured;
mod control;
mod effects;
mod external;
mod gateway_clients;
mod gateway_tls;
mod guarded;
mod headers;
mod http;
mod jwt;
mod limits;
mod member;
mod mesh;
mod mtls;
mod names;
mod origination;
mod outlier;
mod overload;
mod rate_limits;
mod resilience;
mod rotation;
mod smuggling;
mod tcp;
mod telemetry;
mod windows;

use crate::{Config, Destinations, DrainTimes, Ports, Proxy};
use lateen_model::resource::Resource;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Runs a test where local tasks can be spawned; a test that hangs fails.
fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())
        .unwrap();
    runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(20), test).await })
        .expect("the test ends in time");
}

/// What the proxy logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// The log once it has `count` lines.
    async fn lines(&self, count: usize) -> Vec<String> {
        loop {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            let lines: Vec<_> = text.lines().map(str::to_owned).collect();
            if lines.len() >= count {
                return lines;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// A proxy under test.
struct Bench {
    proxy: Proxy,
    log: Log,
}

impl Bench {
    /// A sidecar; every captured connection was going to `destination`.
    async fn sidecar(destination: &str, resources: Vec<Resource>) -> Self {
        let mut config = Config::new(mesh::scope(lateen_model::mesh::Role::Sidecar));
        config.destinations = Destinations::Fixed(destination.parse().unwrap());
        Self::with(config, resources).await
    }

    async fn with(mut config: Config, resources: Vec<Resource>) -> Self {
        config.resources = Some(resources);
        Self::start(config).await
    }

    /// Starts a proxy on ports of its own and waits until it is ready.
    async fn start(config: Config) -> Self {
        let bench = Self::launch(config);
        while !bench
            .get(bench.proxy.addresses().ready, "/healthz/ready")
            .await
            .starts_with("HTTP/1.1 200")
        {
            tokio::task::yield_now().await;
        }
        bench
    }

    /// Starts a proxy on ports of its own.
    fn launch(mut config: Config) -> Self {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        config.ports = Ports {
            bind: loopback,
            outbound: 0,
            inbound: 0,
            admin: 0,
            merged: 0,
            ready: 0,
            metrics: 0,
        };
        config.concurrency = config.concurrency.max(1);
        config.drain = DrainTimes {
            least: Duration::ZERO,
            ..config.drain
        };
        config.version = "test".to_owned();
        let log = Log::default();
        let proxy = Proxy::start(config, log.clone()).unwrap();
        Self { proxy, log }
    }

    /// A connection of the application, captured on its way out.
    async fn outbound(&self) -> TcpStream {
        TcpStream::connect(self.proxy.addresses().outbound.unwrap())
            .await
            .unwrap()
    }

    /// A connection from `source`, captured on its way in.
    async fn inbound(&self, source: &str) -> TcpStream {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket
            .bind(SocketAddr::new(source.parse().unwrap(), 0))
            .unwrap();
        socket
            .connect(self.proxy.addresses().inbound.unwrap())
            .await
            .unwrap()
    }

    /// One outbound request on its own connection.
    async fn ask(&self, request: &str) -> String {
        exchange(&mut self.outbound().await, request).await
    }

    /// One request to one of the proxy's own servers.
    async fn get(&self, server: SocketAddr, path: &str) -> String {
        self.call(server, "GET", path).await
    }

    async fn call(&self, server: SocketAddr, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(server).await.unwrap();
        exchange(
            &mut stream,
            &format!("{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n"),
        )
        .await
    }

    /// The metrics, once they have a line that begins with `name`.
    async fn metrics(&self, name: &str) -> Vec<String> {
        loop {
            let text = self
                .get(self.proxy.addresses().metrics, "/stats/prometheus")
                .await;
            let lines: Vec<_> = text
                .lines()
                .filter(|l| l.starts_with(name))
                .map(str::to_owned)
                .collect();
            if !lines.is_empty() {
                return lines;
            }
            tokio::task::yield_now().await;
        }
    }
}

/// Sends a request and reads one whole response: head, and a body of `content-length` or until the end of chunks.
async fn exchange(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    response(stream).await
}

/// Reads one whole response.
async fn response(stream: &mut TcpStream) -> String {
    let mut got = Vec::new();
    while !is_whole(&got) {
        match stream.read_buf(&mut got).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    String::from_utf8(got).unwrap()
}

fn is_whole(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let head = head.to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok());
    match length {
        Some(length) => body.len() >= length,
        None if head.contains("transfer-encoding: chunked") => {
            body.starts_with("0\r\n") && body.ends_with("\r\n\r\n")
                || body.contains("\r\n0\r\n") && body.ends_with("\r\n\r\n")
        }
        None => head.starts_with("http/1.1 101") || !head.starts_with("http/"),
    }
}

/// A server that answers each connection by `serve`; returns its address.
async fn server<S, R>(ip: &str, serve: S) -> SocketAddr
where
    S: Fn(TcpStream, usize) -> R + 'static,
    R: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        let mut count = 0;
        while let Ok((stream, _)) = listener.accept().await {
            tokio::task::spawn_local(serve(stream, count));
            count += 1;
        }
    });
    address
}

/// A server that answers every request with `body`, keeping connections.
async fn web(ip: &str, body: &'static str) -> SocketAddr {
    server(ip, move |mut stream, _| async move {
        while read_head(&mut stream).await.is_some() {
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await
}

/// Reads to the end of a head; none at the end of the connection.
async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut got = Vec::new();
    while !got.ends_with(b"\r\n\r\n") {
        got.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(got).ok()
}

/// An address that refuses connections.
async fn nobody(ip: &str) -> SocketAddr {
    TcpListener::bind((ip, 0))
        .await
        .unwrap()
        .local_addr()
        .unwrap()
}

/// A server of HTTP/2 with prior knowledge that answers every request with `body`.
async fn web2(ip: &str, body: &'static str) -> SocketAddr {
    use lateen_net::http::{Body, Limits, Version, serve};
    server(ip, move |stream, _| async move {
        let stream = lateen_net::stream::Stream::new(stream, bytes::Bytes::new());
        let respond = move |_, busy| async move {
            let _busy = busy;
            ::http::Response::new(Body::full(bytes::Bytes::from_static(body.as_bytes())))
        };
        let limits = Limits::default();
        let _ = serve(
            stream,
            Version::Http2,
            &limits,
            std::future::pending(),
            respond,
        )
        .await;
    })
    .await
}
