//! How a body is put on the wire, and what waits to be written.

use super::super::guard::Guarded;
use bytes::{Buf as _, Bytes};
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    HOST, MAX_FORWARDS, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName};
use std::cell::RefCell;
use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite as _;

/// Pieces up to this size are copied behind each other; larger ones are written from where they are.
const SMALL: usize = 4 * 1024;
/// Bytes that gather before they are written.
const FULL: usize = 16 * 1024;
/// Buffers that a worker keeps for the next message; larger ones than twice [`FULL`] are not kept.
const SPARE: usize = 8;

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// How a body is written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Encoder {
    /// There is none.
    Nothing,
    /// So many bytes are left.
    Sized(u64),
    /// In chunks; these trailers were announced.
    Chunks(Vec<HeaderName>),
    /// As it is, until the connection ends.
    UntilEnd,
}

impl Encoder {
    /// A body of so many bytes.
    pub(super) fn sized(length: u64) -> Self {
        match length {
            0 => Self::Nothing,
            length => Self::Sized(length),
        }
    }

    /// Chunks, with the trailers that these headers announce, if the peer takes any.
    pub(super) fn chunks(headers: &HeaderMap, takes_trailers: bool) -> Self {
        let mut announced = Vec::new();
        if takes_trailers && headers.contains_key(TRAILER) {
            let values = headers.get_all(TRAILER).iter();
            let values = values.filter_map(|value| value.to_str().ok());
            let names = values.flat_map(|value| value.split(','));
            announced
                .extend(names.filter_map(|n| HeaderName::from_bytes(n.trim().as_bytes()).ok()));
        }
        Self::Chunks(announced)
    }

    /// Whether no more bytes are wanted.
    pub(super) fn is_over(&self) -> bool {
        *self == Self::Nothing
    }

    /// Writes a piece of the body. What is more than was announced is left out.
    pub(super) fn data(&mut self, out: &mut Outbox, mut bytes: Bytes) {
        match self {
            Self::Nothing => {}
            Self::UntilEnd => out.put(bytes),
            Self::Sized(left) => {
                // Less than a length where it counts.
                bytes.truncate((*left).min(bytes.len() as u64) as usize);
                *self = Self::sized(*left - bytes.len() as u64);
                out.put(bytes);
            }
            Self::Chunks(_) if bytes.is_empty() => {}
            Self::Chunks(_) => {
                // Writing to memory does not fail.
                let _ = write!(out.small(), "{:x}\r\n", bytes.len());
                out.put(bytes);
                out.put_after(b"\r\n");
            }
        }
    }

    /// Ends the body; says whether all of it was there.
    pub(super) fn end(&mut self, out: &mut Outbox, trailers: Option<&HeaderMap>) -> bool {
        match std::mem::replace(self, Self::Nothing) {
            Self::Nothing | Self::UntilEnd => true,
            Self::Sized(_) => false,
            Self::Chunks(announced) => {
                out.put_after(b"0\r\n");
                for (name, value) in trailers.into_iter().flatten() {
                    if announced.contains(name) && may_follow(name) {
                        let small = out.small();
                        small.extend_from_slice(name.as_str().as_bytes());
                        small.extend_from_slice(b": ");
                        small.extend_from_slice(value.as_bytes());
                        small.extend_from_slice(b"\r\n");
                    }
                }
                out.put_after(b"\r\n");
                true
            }
        }
    }
}

/// Whether a field may stand in trailers: none that frames, routes or describes what came before (RFC 9110 §6.5.1).
fn may_follow(name: &HeaderName) -> bool {
    const NEVER: [HeaderName; 12] = [
        AUTHORIZATION,
        CACHE_CONTROL,
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        CONTENT_RANGE,
        CONTENT_TYPE,
        HOST,
        MAX_FORWARDS,
        SET_COOKIE,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
    ];
    !NEVER.contains(name)
}

/// Bytes on their way to the socket, in order: small ones that were put together, then a large one, then small ones
/// behind it. It holds no memory while it is empty.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    before: Vec<u8>,
    sent: usize,
    large: Bytes,
    after: Vec<u8>,
    /// Whether the socket has been given anything since [`Outbox::begin`].
    touched: bool,
}

impl Outbox {
    /// A message begins.
    pub(super) fn begin(&mut self) {
        self.touched = false;
    }

    /// Whether any byte has left since the message began.
    pub(super) fn is_touched(&self) -> bool {
        self.touched
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.before.len() && self.large.is_empty() && self.after.is_empty()
    }

    /// Whether more may gather before it is written.
    pub(super) fn has_room(&self) -> bool {
        self.large.is_empty() && self.before.len() - self.sent < FULL
    }

    /// Where small bytes go that come after everything else.
    pub(super) fn small(&mut self) -> &mut Vec<u8> {
        let last = if self.large.is_empty() {
            &mut self.before
        } else {
            &mut self.after
        };
        if last.capacity() == 0 {
            *last = BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default();
        }
        last
    }

    fn put_after(&mut self, bytes: &[u8]) {
        self.small().extend_from_slice(bytes);
    }

    fn put(&mut self, bytes: Bytes) {
        if bytes.len() <= SMALL || !self.large.is_empty() {
            self.small().extend_from_slice(&bytes);
        } else {
            self.large = bytes;
        }
    }

    fn took(&mut self, mut n: usize) {
        let first = n.min(self.before.len() - self.sent);
        self.sent += first;
        n -= first;
        if self.sent == self.before.len() {
            keep(std::mem::take(&mut self.before));
            self.sent = 0;
        }
        let second = n.min(self.large.len());
        self.large.advance(second);
        n -= second;
        if self.large.is_empty() {
            self.large = Bytes::new();
            if self.before.is_empty() {
                self.before = std::mem::take(&mut self.after);
                if n > 0 {
                    self.took(n);
                }
            }
        }
    }

    /// Gives the socket all of it.
    pub(super) fn poll_flush(
        &mut self,
        io: &mut Guarded,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let first = IoSlice::new(&self.before[self.sent..]);
            let n = if self.large.is_empty() {
                ready!(Pin::new(&mut *io).poll_write(cx, &first))?
            } else {
                let all = [first, IoSlice::new(&self.large), IoSlice::new(&self.after)];
                let all = if first.is_empty() {
                    &all[1..]
                } else {
                    &all[..]
                };
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, all))?
            };
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.touched = true;
            self.took(n);
        }
        Pin::new(io).poll_flush(cx)
    }
}

/// Keeps a buffer for the next message of this worker.
fn keep(mut buffer: Vec<u8>) {
    if buffer.capacity() == 0 || buffer.capacity() > 2 * FULL {
        return;
    }
    buffer.clear();
    BUFFERS.with_borrow_mut(|buffers| {
        if buffers.len() < SPARE {
            buffers.push(buffer);
        }
    });
}
