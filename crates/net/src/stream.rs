//! A TCP connection that can be watched from outside while an HTTP engine owns it,
//! and whose first bytes may already have been read.

use bytes::{Buf, Bytes};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A connection handed to an HTTP engine.
#[derive(Debug)]
pub struct Stream {
    shared: Arc<Shared>,
    prefix: Bytes,
    unsent: Unsent,
}

/// What becomes of bytes that the peer no longer takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unsent {
    /// Writing fails.
    Fails,
    /// They will be dropped once writing has failed.
    MayDrop,
    /// They are dropped.
    Dropped,
}

#[derive(Debug)]
struct Shared {
    tcp: TcpStream,
    read: AtomicU64,
}

/// A view of a [`Stream`] that somebody else owns.
#[derive(Debug, Clone)]
pub struct Watch(Arc<Shared>);

impl Stream {
    /// Wraps `tcp`; `prefix` holds bytes that were already read from it.
    pub fn new(tcp: TcpStream, prefix: Bytes) -> Self {
        Self {
            shared: Arc::new(Shared {
                tcp,
                read: AtomicU64::new(0),
            }),
            prefix,
            unsent: Unsent::Fails,
        }
    }

    /// Hears the peer out: when it takes no more bytes, what is written is dropped without an error, and reading tells
    /// what it had to say. A server may answer and close before it has read a whole request (RFC 9112 §9.6).
    #[must_use]
    pub fn hearing_out(mut self) -> Self {
        self.unsent = Unsent::MayDrop;
        self
    }

    /// A view that outlives handing the stream to an engine.
    pub fn watch(&self) -> Watch {
        Watch(Arc::clone(&self.shared))
    }
}

impl Watch {
    /// Bytes read from the peer so far.
    pub fn bytes_read(&self) -> u64 {
        self.0.read.load(Ordering::Relaxed)
    }

    /// Whether the peer has closed, reset, or sent bytes that nobody asked for: an idle connection must not be used again.
    pub fn is_spent(&self) -> bool {
        let mut byte = [std::mem::MaybeUninit::uninit(); 1];
        match socket2::SockRef::from(&self.0.tcp).peek(&mut byte) {
            Ok(_) => true,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    /// Whether the peer has said its last word: closed its half, or reset.
    pub fn has_ended(&self) -> bool {
        let mut byte = [std::mem::MaybeUninit::uninit(); 1];
        match socket2::SockRef::from(&self.0.tcp).peek(&mut byte) {
            Ok(read) => read == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    /// Says that nothing more comes, then reads and drops what the peer still sends, until it ends or `most` has passed. Closing a socket with bytes unread
    /// resets it, and a reset can destroy an answer that the peer has not read yet (RFC 9112 §9.6).
    pub async fn linger(&self, most: std::time::Duration) {
        let _ = socket2::SockRef::from(&self.0.tcp).shutdown(std::net::Shutdown::Write);
        let drop_all = async {
            let mut unread = vec![0; 16 * 1024];
            while self.0.tcp.readable().await.is_ok() {
                match self.0.tcp.try_read(&mut unread) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
            }
        };
        let _ = tokio::time::timeout(most, drop_all).await;
    }

    /// The socket, for addresses and options.
    pub fn tcp(&self) -> &TcpStream {
        &self.0.tcp
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.prefix.is_empty() {
            let n = self.prefix.len().min(buf.remaining());
            buf.put_slice(&self.prefix[..n]);
            self.prefix.advance(n);
            self.shared.read.fetch_add(n as u64, Ordering::Relaxed);
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.shared.tcp.poll_read_ready(cx))?;
            match self.shared.tcp.try_read_buf(buf) {
                Ok(n) => {
                    self.shared.read.fetch_add(n as u64, Ordering::Relaxed);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = || Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        if self.unsent == Unsent::Dropped {
            return all();
        }
        loop {
            ready!(self.shared.tcp.poll_write_ready(cx))?;
            match self.shared.tcp.try_write_vectored(bufs) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if self.unsent == Unsent::MayDrop && is_closed(&error) => {
                    self.unsent = Unsent::Dropped;
                    return all();
                }
                done => return Poll::Ready(done),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = socket2::SockRef::from(&self.shared.tcp).shutdown(std::net::Shutdown::Write);
        Poll::Ready(match done {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            other => other,
        })
    }
}
