//! Connections to the control plane: TCP, then TLS verified with the mesh's root, for the CA and for discovery alike.
//! What is said on them is not decided here.

use crate::svid::Svid;
use crate::tls::{ControlPlane, control_client, explain};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};

/// Bound on resolving and on each TCP connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bound on the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Sets up a socket before it connects, such as the mark that exempts it from capture.
pub type Prepare = fn(&TcpSocket) -> io::Result<()>;

/// Tells the certificate to show now; absent: none yet.
pub type Shown = Arc<dyn Fn() -> Option<Arc<Svid>> + Send + Sync>;

/// Tells roots (PEM) known at the moment; empty: none.
pub type Known = Arc<dyn Fn() -> String + Send + Sync>;

/// How to reach the control plane. Cheap to clone.
#[derive(Clone)]
pub struct Connector {
    /// `host:port`.
    pub address: String,
    /// DNS names of which the server's certificate must carry one; the first is sent as server name.
    pub names: Vec<String>,
    /// What the certificate is verified with.
    pub roots: RootsSource,
    /// The own certificate; absent: none is ever shown.
    pub client: Option<Shown>,
    /// Called for every socket.
    pub prepare: Prepare,
}

/// Where roots come from. Both places are read anew for every connection; what they say adds up.
#[derive(Clone, Default)]
pub struct RootsSource {
    /// A PEM file, such as the mounted ConfigMap `istio-ca-root-cert`.
    pub file: Option<PathBuf>,
    /// Roots that came with the authority's answers.
    pub known: Option<Known>,
}

impl RootsSource {
    fn read(&self) -> io::Result<String> {
        let mut out = match &self.known {
            Some(known) => known(),
            None => String::new(),
        };
        let Some(path) = &self.file else {
            return Ok(out);
        };
        match std::fs::read_to_string(path) {
            Ok(text) => {
                out.push('\n');
                out.push_str(&text);
            }
            Err(error) if out.trim().is_empty() => {
                return Err(io::Error::new(
                    error.kind(),
                    format!(
                        "the mesh's root {} cannot be read: {error}; is the ConfigMap istio-ca-root-cert in this namespace?",
                        path.display()
                    ),
                ));
            }
            Err(_) => {}
        }
        Ok(out)
    }
}

impl Connector {
    /// Opens a connection: every address of the name in turn, then TLS with ALPN `h2`.
    ///
    /// # Errors
    /// Nobody answers, or the server's certificate is not that of the control plane. The sentence says which.
    pub async fn connect(&self) -> io::Result<TlsStream<TcpStream>> {
        let address = &self.address;
        let told = |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
        let name = self.names.first().map_or("", String::as_str);
        let name = ServerName::try_from(name.to_owned()).map_err(|_| {
            let why = format!("{name:?} is no DNS name that the control plane could have");
            told(io::Error::new(io::ErrorKind::InvalidInput, why))
        })?;
        let config = control_client(&ControlPlane {
            roots: &self.roots.read().map_err(told)?,
            names: &self.names,
            svid: self.client.as_ref().and_then(|shown| shown()).as_deref(),
        })
        .map_err(|error| told(io::Error::new(io::ErrorKind::InvalidData, error)))?;
        let tcp = dial(address, self.prepare).await.map_err(told)?;
        let handshake = tokio_rustls::TlsConnector::from(config).connect(name, tcp);
        match timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(told(sentence(error))),
            Err(_) => Err(told(io::Error::new(
                io::ErrorKind::TimedOut,
                "the TLS handshake took too long",
            ))),
        }
    }

    /// A gRPC channel over such a connection. A dead peer is noticed within 40 s, also without traffic.
    ///
    /// # Errors
    /// As for [`Connector::connect`].
    pub async fn channel(&self) -> io::Result<Channel> {
        let this = self.clone();
        // A dead peer would otherwise be noticed only when something is sent to it.
        let kept = endpoint()
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true);
        let open: Open = Box::new(move || {
            let this = this.clone();
            Box::pin(async move { Ok(Box::new(this.connect().await?) as Stream) })
        });
        join(kept, open).await
    }
}

/// The reason that the handshake's error carries, without the layers around it.
fn sentence(error: io::Error) -> io::Error {
    let inner = error
        .get_ref()
        .and_then(|e| e.downcast_ref::<rustls::Error>());
    match inner {
        Some(inner) => io::Error::new(error.kind(), explain(inner)),
        None => error,
    }
}

/// Tries every address of a name in turn.
async fn dial(address: &str, prepare: Prepare) -> io::Result<TcpStream> {
    let slow = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
    let found = timeout(CONNECT_TIMEOUT, tokio::net::lookup_host(address)).await;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for candidate in found.map_err(slow)?? {
        match timeout(CONNECT_TIMEOUT, connect(candidate, prepare)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(late) => last = slow(late),
        }
    }
    Err(last)
}

async fn connect(address: SocketAddr, prepare: Prepare) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_nodelay(true)?;
    prepare(&socket)?;
    socket.connect(address).await
}

/// Bytes both ways.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

pub(crate) type Stream = Box<dyn Io>;
pub(crate) type Opening = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

/// Opens a stream whenever the channel needs one.
pub(crate) type Open = Box<dyn Fn() -> Opening + Send>;

/// A gRPC channel over streams of this machine that somebody else opens. It sends no keep-alive: the kernel tells when
/// the peer is gone, and servers may take pings for an attack (grpc-go: at most one in five minutes).
pub(crate) async fn channel(open: Open) -> io::Result<Channel> {
    join(endpoint(), open).await
}

fn endpoint() -> Endpoint {
    // The streams know where they lead; the URI only fills the `:authority`.
    Endpoint::from_static("http://localhost").connect_timeout(CONNECT_TIMEOUT + HANDSHAKE_TIMEOUT)
}

async fn join(endpoint: Endpoint, open: Open) -> io::Result<Channel> {
    let joined = endpoint.connect_with_connector(Opener(open)).await;
    joined.map_err(|error| {
        let mut cause: &dyn std::error::Error = &error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        io::Error::other(cause.to_string())
    })
}

struct Opener(Open);

impl Service<Uri> for Opener {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let opening = (self.0)();
        Box::pin(async move { opening.await.map(TokioIo::new) })
    }
}

#[cfg(test)]
mod tests;
