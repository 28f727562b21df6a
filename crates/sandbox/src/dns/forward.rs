//! Questions that the cluster cannot answer, put to the machine's own resolvers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use hickory_proto::op::{Message, Query};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How long one resolver may take.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Questions under way at a time; more get SERVFAIL.
const AT_A_TIME: usize = 256;
/// Resolvers that are asked. resolv.conf(5): at most three.
const MOST: usize = 3;

/// Asks resolvers.
pub(super) struct Forwarder {
    resolvers: Vec<SocketAddr>,
    room: Semaphore,
}

/// The resolvers that a file like `/etc/resolv.conf` names, without ourselves.
pub(super) fn resolvers(file: &Path, own: IpAddr) -> Vec<SocketAddr> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    parse(&text, own)
}

fn parse(text: &str, own: IpAddr) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("nameserver")).then(|| words.next()?.parse::<IpAddr>().ok())?
        })
        .filter(|ip| *ip != own)
        .take(MOST)
        .map(|ip| SocketAddr::new(ip, 53))
        .collect()
}

impl Forwarder {
    /// A forwarder to these resolvers, in this order.
    pub(super) fn new(resolvers: Vec<SocketAddr>) -> Forwarder {
        Forwarder {
            resolvers,
            room: Semaphore::new(AT_A_TIME),
        }
    }

    /// The first answer of a resolver; absent: none can be reached in time.
    pub(super) async fn ask(&self, query: &Query, over_tcp: bool) -> Option<Message> {
        let _room = self.room.try_acquire().ok()?;
        let mut question = Message::query();
        question.metadata.recursion_desired = true;
        question.add_query(query.clone());
        let bytes = question.to_vec().ok()?;
        for resolver in &self.resolvers {
            let answer = if over_tcp {
                timeout(PATIENCE, ask_tcp(*resolver, &bytes)).await
            } else {
                timeout(PATIENCE, ask_udp(*resolver, &bytes)).await
            };
            let Ok(Ok(answer)) = answer else { continue };
            match Message::from_vec(&answer) {
                Ok(message)
                    if message.metadata.id == question.metadata.id
                        && message.queries == question.queries =>
                {
                    return Some(message);
                }
                _ => {}
            }
        }
        None
    }
}

async fn ask_udp(resolver: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match resolver {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // A fresh socket has a random port, and being connected takes answers of this resolver only.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(resolver).await?;
    socket.send(question).await?;
    let mut answer = vec![0; 4096];
    let length = socket.recv(&mut answer).await?;
    answer.truncate(length);
    Ok(answer)
}

async fn ask_tcp(resolver: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(resolver).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes(), question].concat())
        .await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf() {
        let text = "# nameserver 9.9.9.9\nsearch x\nnameserver 10.96.0.10\nnameserver 1.1.1.1\n\
                    nameserver fe80::1%eth0\nnameserver 2001:db8::1\noptions ndots:5\n";
        let found = parse(text, Ipv4Addr::new(10, 96, 0, 10).into());
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, ["1.1.1.1:53", "[2001:db8::1]:53"]);
    }

    #[tokio::test]
    async fn nobody_to_ask() {
        assert!(
            Forwarder::new(Vec::new())
                .ask(&Query::new(), false)
                .await
                .is_none()
        );
    }
}
