//! The PROXY header before a gateway's connection: who the client is behind a load balancer.

use crate::tls::PATIENCE;
use bytes::{Buf, BytesMut};
use lateen_net::proxy_header::{LONGEST, Parsed, parse};
use lateen_net::stream::Stream;
use std::net::SocketAddr;

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum Missing {
    #[error("{0}, which gatewayTopology.proxyProtocol asks for")]
    Bad(&'static str),
    #[error("the client left within its PROXY header: {0}")]
    Left(std::io::Error),
    #[error("no whole PROXY header in time")]
    Late,
}

/// Takes the header off the stream. Gives the client's address; absent: the balancer speaks for itself.
pub(super) async fn read(stream: &mut Stream) -> Result<Option<SocketAddr>, Missing> {
    let reading = tokio::time::timeout(PATIENCE, header(stream));
    reading.await.unwrap_or(Err(Missing::Late))
}

async fn header(stream: &mut Stream) -> Result<Option<SocketAddr>, Missing> {
    let mut read = BytesMut::with_capacity(LONGEST);
    loop {
        match parse(&read) {
            Parsed::Header { source, length } => {
                read.advance(length);
                stream.unread(read.freeze());
                return Ok(source);
            }
            Parsed::Bad(reason) => return Err(Missing::Bad(reason)),
            Parsed::Incomplete => {}
        }
        let more = stream.read_more(&mut read).await.map_err(Missing::Left)?;
        if more == 0 {
            return Err(Missing::Left(std::io::ErrorKind::UnexpectedEof.into()));
        }
    }
}
