//! Stands between a connection and its HTTP engine and looks at every byte before the engine does.
//!
//! A violation is answered by the engine itself: it is given bytes in place of the bad ones that it refuses in the right
//! words (400, or GOAWAY with ENHANCE_YOUR_CALM), in the right order after the requests before. In the middle of a body,
//! and for responses, reading fails with the [`Violation`]. Nothing after the bad byte is ever looked at.

use super::frames::Frames;
use super::framing::{Asked, Framing, Side, Stop};
use super::{Limits, Version, Violation};
use crate::stream::{Stream, Watch};
use bytes::{Buf, Bytes, BytesMut};
use futures::task::AtomicWaker;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes that are taken from a client while its request to change the protocol is not answered.
const HELD: usize = 64 * 1024;

/// What no engine takes for a part of a head.
const REFUSED: &[u8] = b"\0\r\n\r\n";

/// What the two sides of an engine tell each other.
#[derive(Debug, Default)]
pub(super) struct Control {
    /// Twice the number of the last answered request, plus one when it changed the protocol.
    answered: AtomicU64,
    reader: AtomicWaker,
    violation: OnceLock<Violation>,
    ended: AtomicWaker,
    asked: AtomicU8,
    /// Twice the number of heads so far, plus one while one is not whole.
    heads: AtomicU64,
}

impl Control {
    /// Request `number` has its answer; it changes the protocol or not.
    pub(super) fn answer(&self, number: u64, switched: bool) {
        self.answered
            .store(number << 1 | u64::from(switched), Ordering::Release);
        self.reader.wake();
    }

    fn is_switched(&self, number: u64) -> Option<bool> {
        let answered = self.answered.load(Ordering::Acquire);
        (answered >> 1 == number).then_some(answered & 1 == 1)
    }

    /// What the next response answers.
    pub(super) fn ask(&self, method: &http::Method) {
        let asked = match *method {
            http::Method::HEAD => Asked::Head,
            http::Method::CONNECT => Asked::Connect,
            _ => Asked::Other,
        };
        self.asked.store(asked as u8, Ordering::Release);
    }

    fn asked(&self) -> Asked {
        match self.asked.load(Ordering::Acquire) {
            n if n == Asked::Head as u8 => Asked::Head,
            n if n == Asked::Connect as u8 => Asked::Connect,
            _ => Asked::Other,
        }
    }

    /// A number for the head that the peer has begun and not ended; absent: none.
    pub(super) fn open_head(&self) -> Option<u64> {
        let heads = self.heads.load(Ordering::Acquire);
        (heads & 1 == 1).then_some(heads)
    }

    fn note_head(&self, heads: u64, is_open: bool) {
        self.heads
            .store(heads << 1 | u64::from(is_open), Ordering::Release);
    }

    /// What the peer did, if it was ended for something.
    pub(super) fn violation(&self) -> Option<Violation> {
        self.violation.get().copied()
    }

    /// Resolves at a violation.
    pub(super) async fn violated(&self) {
        std::future::poll_fn(|cx| {
            self.ended.register(cx.waker());
            match self.violation.get() {
                Some(_) => Poll::Ready(()),
                None => Poll::Pending,
            }
        })
        .await;
    }

    pub(super) fn accuse(&self, why: Violation) {
        if self.violation.set(why).is_ok() {
            why.count();
        }
        self.ended.wake();
    }
}

enum Rules {
    Http1(Framing),
    Http2(Box<Frames>),
}

/// A stream as an engine may see it.
pub(crate) struct Guarded {
    stream: Stream,
    watch: Watch,
    rules: Rules,
    control: Arc<Control>,
    /// Bytes that were read and not looked at.
    held: BytesMut,
    /// Bytes that the engine sees before the end.
    last: Bytes,
    over: Option<Over>,
}

/// How reading ends when the last bytes are gone.
#[derive(Debug, Clone, Copy)]
enum Over {
    End,
    Fails(Violation),
}

impl Guarded {
    /// Guards the end that serves.
    pub(super) fn server(stream: Stream, version: Version, limits: &Limits) -> Self {
        let rules = match version {
            Version::Http1 => Rules::Http1(Framing::new(Side::Requests)),
            Version::Http2 => Rules::Http2(Box::new(Frames::new(*limits, true))),
        };
        Self::new(stream, rules)
    }

    /// Guards the end that calls.
    pub(super) fn client(stream: Stream, version: Version, limits: &Limits) -> Self {
        let rules = match version {
            Version::Http1 => Rules::Http1(Framing::new(Side::Responses)),
            Version::Http2 => Rules::Http2(Box::new(Frames::new(*limits, false))),
        };
        Self::new(stream, rules)
    }

    fn new(stream: Stream, rules: Rules) -> Self {
        Self {
            watch: stream.watch(),
            stream,
            rules,
            control: Arc::default(),
            held: BytesMut::new(),
            last: Bytes::new(),
            over: None,
        }
    }

    pub(super) fn control(&self) -> Arc<Control> {
        Arc::clone(&self.control)
    }

    /// Whether bytes were dropped that the peer did not take.
    pub(super) fn has_dropped(&self) -> bool {
        self.stream.has_dropped()
    }

    /// Whether an idle peer has ended, or said something unasked.
    pub(super) fn is_spent(&self) -> bool {
        // The kernel is asked only where something has happened.
        self.watch.has_news() && self.watch.is_spent()
    }

    /// Looks at what `buf` has after `before`, leaves what is good, and says how much that is.
    fn look(&mut self, buf: &mut ReadBuf<'_>, before: usize) -> usize {
        let bytes = &buf.filled()[before..];
        let good = match &mut self.rules {
            Rules::Http1(framing) => {
                framing.asked = self.control.asked();
                let look = framing.look(bytes);
                self.control
                    .note_head(framing.heads(), framing.is_in_head());
                match look.stop {
                    None => {}
                    Some(Stop::Hold) => {
                        // These were taken before what is held now was read.
                        let later = self.held.split();
                        self.held.extend_from_slice(&bytes[look.good..]);
                        self.held.unsplit(later);
                    }
                    Some(Stop::Bad { why, in_head }) => {
                        let answerable = in_head && framing.side() == Side::Requests;
                        self.end(why, answerable.then(|| Bytes::from_static(REFUSED)));
                    }
                }
                look.good
            }
            Rules::Http2(frames) => {
                let look = frames.look(bytes, self.watch.bytes_written());
                self.control.note_head(frames.heads(), frames.is_in_head());
                if let Some(bad) = look.bad {
                    self.end(bad.why, bad.instead.map(Bytes::from));
                }
                look.good
            }
        };
        buf.set_filled(before + good);
        good
    }

    fn end(&mut self, why: Violation, last: Option<Bytes>) {
        self.over = Some(if last.is_some() {
            Over::End
        } else {
            Over::Fails(why)
        });
        self.last = last.unwrap_or_default();
        self.held = BytesMut::new();
        self.control.accuse(why);
    }

    /// Waits for the answer that says whose the next bytes are; notices the client's end meanwhile.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Held>> {
        loop {
            let Rules::Http1(framing) = &mut self.rules else {
                return Poll::Ready(Ok(Held::Released));
            };
            let Some(number) = framing.held_by() else {
                return Poll::Ready(Ok(Held::Released));
            };
            self.control.reader.register(cx.waker());
            if let Some(switched) = self.control.is_switched(number) {
                framing.release(switched);
                if framing.is_over() {
                    // A refused CONNECT: whatever the client sent was for somebody else.
                    self.held = BytesMut::new();
                    self.over = Some(Over::End);
                }
                return Poll::Ready(Ok(Held::Released));
            }
            if self.held.len() >= HELD {
                return Poll::Pending;
            }
            let mut bytes = [std::mem::MaybeUninit::uninit(); 2048];
            let mut buf = ReadBuf::uninit(&mut bytes);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf))?;
            if buf.filled().is_empty() {
                return Poll::Ready(Ok(Held::Left));
            }
            self.held.extend_from_slice(buf.filled());
        }
    }
}

enum Held {
    Released,
    /// The client ended while it waited.
    Left,
}

impl std::fmt::Debug for Guarded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guarded").finish_non_exhaustive()
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if !self.last.is_empty() {
                let n = self.last.len().min(buf.remaining());
                buf.put_slice(&self.last[..n]);
                self.last.advance(n);
                return Poll::Ready(Ok(()));
            }
            match self.over {
                None => {}
                Some(Over::End) => return Poll::Ready(Ok(())),
                Some(Over::Fails(why)) => {
                    let error = io::Error::new(io::ErrorKind::InvalidData, why);
                    return Poll::Ready(Err(error));
                }
            }
            match ready!(self.poll_held(cx))? {
                Held::Released if self.over.is_some() => continue,
                Held::Released => {}
                Held::Left => return Poll::Ready(Ok(())),
            }
            let before = buf.filled().len();
            if self.held.is_empty() {
                ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
                if buf.filled().len() == before {
                    return Poll::Ready(Ok(()));
                }
            } else {
                let n = self.held.len().min(buf.remaining());
                let bytes = self.held.split_to(n);
                buf.put_slice(&bytes);
            }
            if self.look(buf, before) > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
