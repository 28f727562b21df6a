//! What the proxies count together.

use super::Known;
use parking_lot::Mutex;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Shared by the proxies of a fleet.
#[derive(Debug)]
pub(super) struct Shared {
    pub bytes: Arc<AtomicU64>,
    pub resources: AtomicU64,
    pub removed: AtomicU64,
    pub messages: AtomicU64,
    pub largest: AtomicU64,
    pub synced: AtomicUsize,
    pub lost: AtomicUsize,
    /// Name of the route table whose arrivals are told.
    pub watched: Mutex<String>,
    /// What is written down of names and versions.
    pub versions: Mutex<Known>,
}

/// What came to all proxies.
#[derive(Debug, Clone, Copy)]
pub struct Counts {
    /// Bytes read from sockets.
    pub bytes: u64,
    /// Resources.
    pub resources: u64,
    /// Names of resources that went.
    pub removed: u64,
    /// Responses.
    pub messages: u64,
    /// Size of the largest response, in bytes, without the envelope.
    pub largest: u64,
}

impl Shared {
    pub(super) fn new(versions: Mutex<Known>) -> Self {
        Self {
            bytes: Arc::default(),
            resources: AtomicU64::new(0),
            removed: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            largest: AtomicU64::new(0),
            synced: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
            watched: Mutex::default(),
            versions,
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            bytes: of(&self.bytes),
            resources: of(&self.resources),
            removed: of(&self.removed),
            messages: of(&self.messages),
            largest: of(&self.largest),
        }
    }
}

/// A connection that counts what is read from it.
#[derive(Debug)]
pub(super) struct Counted {
    pub stream: TcpStream,
    pub bytes: Arc<AtomicU64>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let more = buffer.filled().len() - before;
        self.bytes.fetch_add(more as u64, Ordering::Relaxed);
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
