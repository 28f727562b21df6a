//! One HTTP/1 connection with its buffers, as both ends use it: who serves or calls on it, and whoever holds the body of
//! the message that is being read. Nothing is buffered while it idles.

use super::decoder::{Decoder, Found};
use super::encoder::Outbox;
use super::head::Bad;
use crate::http::EngineError;
use crate::http::guard::Guarded;
use bytes::{Bytes, BytesMut};
use http_body::Frame;
use std::any::Any;
use std::cell::RefCell;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWrite as _, ReadBuf};

/// Most bytes that are read at once where a head is expected.
const HEAD: usize = 16 * 1024;
/// Room for the first read of a body, and for later ones when bodies turn out to be large.
const FIRST: usize = 16 * 1024;
const LATER: usize = 128 * 1024;

/// What a client is told that waits for leave to send its body.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; HEAD]);
}

/// A frame of a body, its end, or why it has none.
pub(super) type Polled = Poll<Option<Result<Frame<Bytes>, EngineError>>>;

/// A connection. Shared within its worker; nobody keeps it borrowed while others are called.
pub(super) struct Wire {
    /// Absent once it belongs to another protocol.
    io: Option<Guarded>,
    /// What was read and not used yet.
    read: BytesMut,
    /// How much of that has been looked at in vain.
    looked: usize,
    /// Room for the next read of a body.
    room: usize,
    /// Where the message that is being read ends.
    pub(super) decoder: Decoder,
    pub(super) out: Outbox,
    /// The peer waits for leave to send its body.
    pub(super) expects: bool,
    /// Nobody will read the rest of the body.
    pub(super) abandoned: bool,
    /// It takes no other message.
    pub(super) closed: bool,
    /// What is left of the message will not come.
    pub(super) broken: bool,
    /// Somebody else than the reader still sends on it.
    pub(super) sending: bool,
    /// Who waits for what others do to it.
    waiting: Option<Waker>,
    /// Who sends on it beside its reader.
    pub(super) sender: Option<Waker>,
    /// Dropped with it.
    pub(super) kept: Option<Box<dyn Any>>,
}

/// A connection's handle.
pub(super) type Shared = Rc<RefCell<Wire>>;

impl Wire {
    pub(super) fn new(io: Guarded) -> Shared {
        Rc::new(RefCell::new(Self {
            io: Some(io),
            read: BytesMut::new(),
            looked: 0,
            room: FIRST,
            decoder: Decoder::Done,
            out: Outbox::default(),
            expects: false,
            abandoned: false,
            closed: false,
            broken: false,
            sending: false,
            waiting: None,
            sender: None,
            kept: None,
        }))
    }

    /// The message's head was read, and its body follows.
    pub(super) fn begin_body(&mut self, body: Decoder, expects: bool) {
        self.decoder = body;
        self.expects = expects;
        self.abandoned = false;
        self.room = FIRST;
        self.looked = 0;
    }

    /// Takes the connection away, with what was read.
    pub(super) fn take(&mut self) -> Option<(Guarded, Bytes)> {
        self.closed = true;
        let io = self.io.take()?;
        Some((io, std::mem::take(&mut self.read).freeze()))
    }

    /// Whether the peer has begun to say something.
    pub(super) fn has_read(&self) -> bool {
        !self.read.is_empty()
    }

    /// Reads a head with `parse`, which looks at what was read; absent: the peer has ended before it.
    pub(super) fn poll_head<T>(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
        mut parse: impl FnMut(&mut BytesMut) -> Result<Option<T>, Bad>,
    ) -> Poll<Result<Option<T>, HeadError>> {
        loop {
            // A head ends with a line: without news of one there is nothing to look at, but for what is none from the start.
            let fresh = &self.read[self.looked..];
            let is_new = self.looked == 0 && !fresh.is_empty() || fresh.contains(&b'\n');
            self.looked = self.read.len();
            if is_new && let Some(head) = parse(&mut self.read)? {
                self.looked = 0;
                return Poll::Ready(Ok(Some(head)));
            }
            if self.read.len() > most {
                return Poll::Ready(Err(Bad::Large.into()));
            }
            if ready!(self.poll_fill(cx)).map_err(EngineError::from)? == 0 {
                let begun = self.read.iter().any(|b| !b"\r\n".contains(b));
                return Poll::Ready(match begun {
                    true => Err(EngineError::Incomplete.into()),
                    false => Ok(None),
                });
            }
        }
    }

    /// Reads what comes next of the message's body.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Polled {
        // Also to one that has not waited: some wait for what they were promised (Envoy as well).
        if let Err(error) = self.grant(cx) {
            return self.fail(error.into());
        }
        loop {
            let found = match self.decoder.next(&mut self.read) {
                Ok(found) => found,
                Err(why) => return self.fail(EngineError::Syntax(why)),
            };
            match found {
                Found::Data(bytes) => {
                    if self.read.is_empty() {
                        // The next piece finds memory that somebody has just let go of, warm; an idle connection holds none.
                        self.read = BytesMut::new();
                    }
                    self.if_over();
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Found::Trailers(trailers) => {
                    self.if_over();
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Found::End => {
                    self.if_over();
                    return Poll::Ready(None);
                }
                Found::Nothing => {}
            }
            if self.broken {
                return self.fail(EngineError::Incomplete);
            }
            match self.poll_fill(cx) {
                Poll::Ready(Ok(0)) if self.decoder == Decoder::UntilEnd => {
                    self.decoder = Decoder::Done;
                    self.closed = true;
                    self.if_over();
                    return Poll::Ready(None);
                }
                Poll::Ready(Ok(0)) => return self.fail(EngineError::Incomplete),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return self.fail(error.into()),
                Poll::Pending => {
                    if self.sending {
                        self.wait(cx);
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn fail(&mut self, error: EngineError) -> Polled {
        self.closed = true;
        self.broken = true;
        self.abandoned = true;
        self.call();
        Poll::Ready(Some(Err(error)))
    }

    fn if_over(&mut self) {
        if self.decoder == Decoder::Done {
            self.call();
        }
    }

    /// Lets a client send its body that waits for leave.
    fn grant(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.expects {
            return Ok(());
        }
        self.expects = false;
        self.out.small().extend_from_slice(CONTINUE);
        // What the socket does not take now goes before the response.
        match self.poll_flush(cx) {
            Poll::Ready(done) => done,
            Poll::Pending => Ok(()),
        }
    }

    /// Waits for the peer's end; ready when it has come. Says nothing while the body is somebody else's to read, or the
    /// next message has begun.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<EngineError> {
        if self.decoder != Decoder::Done {
            self.wait(cx);
            return Poll::Pending;
        }
        if !self.read.is_empty() {
            return Poll::Pending;
        }
        match ready!(self.poll_fill(cx)) {
            Ok(0) => Poll::Ready(EngineError::Incomplete),
            // The next message: it waits for its turn.
            Ok(_) => Poll::Pending,
            Err(error) => Poll::Ready(error.into()),
        }
    }

    /// Reads once; 0 is the peer's end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.decoder == Decoder::Done {
            return self.poll_scratch(cx);
        }
        let room = self.room;
        let Some(io) = &mut self.io else {
            return Poll::Ready(Ok(0));
        };
        self.read.reserve(room);
        // It holds nothing between polls.
        let got = ready!(pin!(io.read_buf(&mut self.read)).poll(cx))?;
        if got >= room {
            self.room = LATER;
        }
        Poll::Ready(Ok(got))
    }

    // Of a head only as much memory is kept as it has bytes.
    fn poll_scratch(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(io) = &mut self.io else {
            return Poll::Ready(Ok(0));
        };
        let read = &mut self.read;
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buf = ReadBuf::new(scratch);
            ready!(Pin::new(io).poll_read(cx, &mut buf))?;
            read.extend_from_slice(buf.filled());
            Poll::Ready(Ok(buf.filled().len()))
        })
    }

    /// Gives the socket what waits for it.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Some(io) => self.out.poll_flush(io, cx),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// Ends our half.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Some(io) => Pin::new(io).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Whether bytes were dropped that the peer did not take.
    pub(super) fn has_dropped(&self) -> bool {
        self.io.as_ref().is_none_or(Guarded::has_dropped)
    }

    /// Whether the peer has ended or said something unasked, on a connection that idles.
    pub(super) fn is_spent(&self) -> bool {
        self.io.as_ref().is_none_or(Guarded::is_spent)
    }

    /// Wakes this task when somebody else has done something to the connection.
    pub(super) fn wait(&mut self, cx: &Context<'_>) {
        match &self.waiting {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => self.waiting = Some(cx.waker().clone()),
        }
    }

    /// Wakes who waits.
    pub(super) fn call(&mut self) {
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    /// Lets who sends see whether anybody is left to send for.
    pub(super) fn left(&mut self) {
        if let Some(waker) = self.sender.take() {
            waker.wake();
        }
    }
}

/// Why there is no head.
#[derive(Debug)]
pub(super) enum HeadError {
    /// It is bad, and the peer may be told so.
    Bad(Bad),
    /// The connection ended.
    Ended(EngineError),
}

impl From<Bad> for HeadError {
    fn from(bad: Bad) -> Self {
        Self::Bad(bad)
    }
}

impl From<EngineError> for HeadError {
    fn from(error: EngineError) -> Self {
        Self::Ended(error)
    }
}
