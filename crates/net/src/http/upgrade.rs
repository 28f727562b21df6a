//! Connections that leave HTTP: what is left of one when both sides have agreed on another protocol.

use super::guard::Guarded;
use bytes::{Buf as _, Bytes};
use http::Extensions;
use hyper_util::rt::TokioIo;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

/// The peer's message did not lead to another protocol, or the connection ended before.
#[derive(Debug, thiserror::Error)]
#[error("the connection speaks no other protocol")]
pub struct NoUpgrade;

/// Resolves to the connection once the response that changes its protocol is out; the default never does.
#[derive(Debug, Default)]
pub struct OnUpgrade(Source);

#[derive(Debug, Default)]
enum Source {
    #[default]
    Never,
    One(oneshot::Receiver<Upgraded>),
    Other(hyper::upgrade::OnUpgrade),
}

/// A connection in another protocol.
#[derive(Debug)]
pub struct Upgraded(Kind);

#[derive(Debug)]
enum Kind {
    One { io: Box<Guarded>, read: Bytes },
    Other(TokioIo<hyper::upgrade::Upgraded>),
}

/// The message's claim to its connection.
#[derive(Debug, Clone)]
struct Claim(Arc<Mutex<Option<oneshot::Receiver<Upgraded>>>>);

/// Leaves a claim with a message; whoever has the other end fulfils it.
pub(super) fn claim(extensions: &mut Extensions) -> oneshot::Sender<Upgraded> {
    let (hand, handed) = oneshot::channel();
    extensions.insert(Claim(Arc::new(Mutex::new(Some(handed)))));
    hand
}

/// Takes the claim that a message has to its connection. Without one the result never leads to anything.
pub fn upgrade(extensions: &mut Extensions) -> OnUpgrade {
    if extensions.is_empty() {
        return OnUpgrade(Source::Never);
    }
    if let Some(Claim(claim)) = extensions.remove() {
        let handed = claim.lock().unwrap_or_else(PoisonError::into_inner).take();
        return OnUpgrade(handed.map_or(Source::Never, Source::One));
    }
    let other = extensions.remove::<hyper::upgrade::OnUpgrade>();
    OnUpgrade(other.map_or(Source::Never, Source::Other))
}

impl Future for OnUpgrade {
    type Output = Result<Upgraded, NoUpgrade>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.get_mut().0 {
            Source::Never => Poll::Ready(Err(NoUpgrade)),
            Source::One(handed) => Pin::new(handed).poll(cx).map_err(|_| NoUpgrade),
            Source::Other(other) => Pin::new(other)
                .poll(cx)
                .map_ok(|upgraded| Upgraded(Kind::Other(TokioIo::new(upgraded))))
                .map_err(|_| NoUpgrade),
        }
    }
}

impl Upgraded {
    /// A connection of HTTP/1, and what was read from it and is not HTTP.
    pub(super) fn new(io: Guarded, read: Bytes) -> Self {
        let io = Box::new(io);
        Self(Kind::One { io, read })
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Kind::One { read, .. } if !read.is_empty() => {
                let n = read.len().min(buf.remaining());
                buf.put_slice(&read[..n]);
                read.advance(n);
                Poll::Ready(Ok(()))
            }
            Kind::One { io, .. } => Pin::new(&mut **io).poll_read(cx, buf),
            Kind::Other(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Kind::One { io, .. } => Pin::new(&mut **io).poll_write(cx, buf),
            Kind::Other(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Kind::One { io, .. } => Pin::new(&mut **io).poll_write_vectored(cx, bufs),
            Kind::Other(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Kind::One { io, .. } => Pin::new(&mut **io).poll_flush(cx),
            Kind::Other(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Kind::One { io, .. } => Pin::new(&mut **io).poll_shutdown(cx),
            Kind::Other(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
