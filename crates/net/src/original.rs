//! Where a captured connection was going before it was redirected to us.

use socket2::SockRef;
use std::io;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// The original destination of an accepted connection (`SO_ORIGINAL_DST`, IPv4 and IPv6).
/// A connection that was not redirected has none.
///
/// # Errors
/// The socket was not redirected in this network namespace, or is already closed.
pub fn original_destination(stream: &TcpStream) -> io::Result<SocketAddr> {
    let socket = SockRef::from(stream);
    let v6 = stream.local_addr()?.is_ipv6();
    let found = if v6 {
        socket.original_dst_v6()?
    } else {
        socket.original_dst_v4()?
    };
    found
        .as_socket()
        .map(canonical)
        .ok_or_else(|| io::Error::other("the kernel returned an address that is not IP"))
}

/// The address with IPv4-mapped IPv6 written as IPv4, so that one peer has one form.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
