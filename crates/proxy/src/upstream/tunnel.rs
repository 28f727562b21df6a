//! A tunnel for opaque bytes: the endpoint is a proxy that is asked, in HTTP/1.1, to connect to somebody else.

use bytes::BytesMut;
use lateen_model::traffic::Tunnel;
use lateen_net::stream::Stream;
use std::io;
use std::time::Duration;

/// Bytes that the head of the answer may have.
const MOST: usize = 16 * 1024;

/// Asks for the tunnel and waits until it is open.
///
/// # Errors
/// The connection broke, nothing came within `limit`, or the answer is no.
pub(super) async fn ask(stream: &mut Stream, tunnel: &Tunnel, limit: Duration) -> io::Result<()> {
    let opened = async {
        stream.write_all(request(tunnel).as_bytes()).await?;
        let mut head = BytesMut::new();
        loop {
            if let Some(end) = end_of_head(&head) {
                let answer = verdict(&head[..end]);
                let rest = head.split_off(end);
                stream.unread(rest.freeze());
                return answer;
            }
            if head.len() > MOST {
                return Err(refused("its answer has too long a head"));
            }
            if stream.read_more(&mut head).await? == 0 {
                return Err(refused("it ended the connection"));
            }
        }
    };
    let late = || io::Error::new(io::ErrorKind::TimedOut, "the tunnel did not open in time");
    let done = tokio::time::timeout(limit, opened).await;
    done.unwrap_or_else(|_| Err(late()))
}

fn request(tunnel: &Tunnel) -> String {
    let Tunnel { host, port, .. } = tunnel;
    let host = match host.parse::<std::net::Ipv6Addr>() {
        Ok(ip) => format!("[{ip}]:{port}"),
        Err(_) => format!("{host}:{port}"),
    };
    match tunnel.post {
        false => format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        // Everything after the head is the tunnel's (Envoy: POST tunneling has no length).
        true => format!("POST / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"),
    }
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let at = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(at + 4)
}

fn verdict(head: &[u8]) -> io::Result<()> {
    let status = head.split(|b| *b == b' ').nth(1).unwrap_or_default();
    match (head.starts_with(b"HTTP/1."), status) {
        (true, [b'2', _, _]) => Ok(()),
        (true, status) => {
            let status = String::from_utf8_lossy(status).into_owned();
            Err(refused(&format!("the tunnel is refused with {status}")))
        }
        _ => Err(refused("its answer is not HTTP")),
    }
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionRefused, why.to_owned())
}
