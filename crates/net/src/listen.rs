//! Listening sockets and the options of accepted ones. One listener per worker: the kernel spreads connections.

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::time::Duration;
use tokio::net::TcpStream;

/// Connections that may wait for accept, per listener.
const BACKLOG: i32 = 4096;

/// A socket cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}{}", cure(source))]
pub struct ListenError {
    /// Where.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

fn cure(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            " (another process holds the port: stop it or choose another port)"
        }
        io::ErrorKind::PermissionDenied => {
            " (ports below 1024 need CAP_NET_BIND_SERVICE: use a higher port)"
        }
        io::ErrorKind::AddrNotAvailable => " (no interface has this address)",
        _ => "",
    }
}

/// Listens on `address` with `SO_REUSEPORT`, so that every worker has a listener of its own.
/// IPv6 sockets take IPv6 only. The socket is non-blocking, ready to be given to a worker's runtime.
///
/// # Errors
/// The port is taken by a socket without `SO_REUSEPORT`, is not permitted, or the address is not local.
pub fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    bind(address).map_err(|source| ListenError { address, source })
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    // Accepted sockets have what the listening one has (Linux): five calls less for each.
    tune(&socket);
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Listens on every address of the machine: IPv4, and IPv6 where the kernel has it.
///
/// # Errors
/// As [`listen`], for IPv4; a machine without IPv6 is no error.
pub fn listen_everywhere(port: u16) -> Result<Vec<TcpListener>, ListenError> {
    let v4 = listen(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port))?;
    // Port 0 is chosen by the kernel for IPv4; IPv6 then takes the same.
    let port = v4.local_addr().map_or(port, |a| a.port());
    let v6 = listen(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port));
    Ok(std::iter::once(v4).chain(v6.ok()).collect())
}

/// Sets what every proxied connection has, on it or on the socket that it is accepted from: no Nagle delay, and keepalive
/// probes after three minutes of silence. Failures are ignored: the connection works without.
pub fn tune<S: AsFd>(socket: &S) {
    let socket = SockRef::from(socket);
    let _ = socket.set_tcp_nodelay(true);
    let probes = TcpKeepalive::new()
        .with_time(Duration::from_secs(180))
        .with_interval(Duration::from_secs(60))
        .with_retries(3);
    let _ = socket.set_tcp_keepalive(&probes);
}

/// Makes the closing of `stream` a reset, so that the peer sees an error and not an orderly end.
pub fn reset_on_close(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_connections_do_not_delay_and_are_probed() {
        let listener = listen(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)).expect("a port");
        listener.set_nonblocking(false).expect("a socket");
        let address = listener.local_addr().expect("its address");
        let _client = std::net::TcpStream::connect(address).expect("connected");
        let (accepted, _) = listener.accept().expect("accepted");
        let socket = SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().expect("an option"));
        assert!(socket.keepalive().expect("an option"));
        let time = socket.tcp_keepalive_time().expect("an option");
        assert_eq!(time, Duration::from_secs(180));
    }
}
