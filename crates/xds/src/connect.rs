//! Makes a gRPC channel of the connections that the client's owner opens.

use crate::client::{Connect, Io, Prepare};
use hyper_util::rt::TokioIo;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};

/// Bound on resolving, connecting and the TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why no channel came about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("{0:?} is not an address: write host:port")]
    Address(String),
    #[error("{}", root(.0))]
    Transport(tonic::transport::Error),
}

/// The innermost cause: the others only say that a transport failed.
fn root(error: &tonic::transport::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// A channel to `address` (`host:port`) over a connection of `connect`. A dead peer is noticed within 40 s also
/// on an idle stream.
pub(crate) async fn channel(address: &str, connect: Connect) -> Result<Channel, ConnectError> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| ConnectError::Address(address.to_owned()))?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true);
    endpoint
        .connect_with_connector(Connector(connect))
        .await
        .map_err(ConnectError::Transport)
}

struct Connector(Connect);

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Io>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connecting = (self.0)();
        Box::pin(async move { connecting.await.map(TokioIo::new) })
    }
}

/// Tries every address of the name in turn.
pub(crate) async fn dial(address: &str, prepare: Prepare) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{address} has no address"));
    for candidate in tokio::net::lookup_host(address).await? {
        match connect(candidate, prepare).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
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
