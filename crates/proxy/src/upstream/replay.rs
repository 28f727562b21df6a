//! A request's body that can be sent again while it is small: what was read is kept until a response comes. Crumbs are
//! kept together, so that a body holds about as much memory as it has bytes, however its client cuts it.

use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};
use lateen_filters::trailers;
use lateen_net::http::{Body, BodyError, Incoming};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// Bytes kept for sending again (Envoy keeps as much per stream by default).
const MOST: usize = 64 * 1024;

/// Pieces below this size are copied together; larger ones stay what they are.
const SMALL: usize = 1024;

/// What a piece costs beside its bytes.
const OVERHEAD: usize = 128;

/// A request's body.
#[derive(Clone)]
pub(crate) struct Replay(Rc<RefCell<State>>);

struct State {
    source: Option<Incoming>,
    hint: SizeHint,
    /// Read from the client before any try asked for it.
    ahead: Pieces,
    kept: Pieces,
    keeping: bool,
    /// Most bytes that the client may send.
    most: u64,
    /// Whether it sent more.
    is_too_large: bool,
    /// Whether anything was read from the client that is not kept.
    lost: bool,
    /// Whether the client failed to send all of it.
    failed: bool,
    /// The try that may read; earlier ones get nothing more.
    turn: u64,
    /// Whether a try has read any data.
    sent: bool,
    /// When the client had sent all of it, or failed to; absent: it still sends.
    ended: Option<Instant>,
    /// Who is told of that, once somebody has asked.
    news: Option<Rc<Ended>>,
    /// Who else gets what comes from the client.
    copies: Vec<Copying>,
    counted: Rc<Cell<u64>>,
}

enum Piece {
    Data(Bytes),
    /// Put together from small ones.
    Crumbs(BytesMut),
    Trailers(http::HeaderMap),
}

/// Pieces of a body in order.
#[derive(Default)]
struct Pieces {
    all: VecDeque<Piece>,
    /// Bytes of data.
    size: usize,
}

/// When the client had sent all of its body, or failed to.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    at: Cell<Option<Instant>>,
    news: Notify,
}

impl Ended {
    fn set(&self, at: Instant) {
        self.at.set(Some(at));
        self.news.notify_waiters();
    }

    /// When it was; absent: the client still sends.
    pub(crate) fn at(&self) -> Option<Instant> {
        self.at.get()
    }

    /// Waits for it; says when it was.
    pub(crate) async fn wait(&self) -> Instant {
        loop {
            let news = self.news.notified();
            if let Some(at) = self.at.get() {
                return at;
            }
            news.await;
        }
    }
}

/// The beginning of a body.
pub(crate) struct Beginning {
    pub(crate) bytes: Bytes,
    /// Whether that is all of it.
    pub(crate) whole: bool,
}

/// The client did not send all of its body.
#[derive(Debug, thiserror::Error)]
#[error("the client ended its request early")]
pub(crate) struct Cut;

impl Replay {
    /// Takes over a request's body; `counted` grows with each byte that comes from the client.
    pub(crate) fn new(source: Incoming, counted: Rc<Cell<u64>>) -> Self {
        let source = (!source.is_end_stream()).then_some(source);
        let hint = source
            .as_ref()
            .map_or(SizeHint::with_exact(0), Incoming::size_hint);
        Self::of(source, hint, Pieces::default(), counted)
    }

    /// A body of our own.
    pub(crate) fn full(bytes: Bytes) -> Self {
        let hint = SizeHint::with_exact(bytes.len() as u64);
        let mut pieces = Pieces::default();
        pieces.push(&Frame::data(bytes));
        Self::of(None, hint, pieces, Rc::default())
    }

    fn of(source: Option<Incoming>, hint: SizeHint, ahead: Pieces, counted: Rc<Cell<u64>>) -> Self {
        Self(Rc::new(RefCell::new(State {
            ended: source.is_none().then(Instant::now),
            source,
            hint,
            ahead,
            kept: Pieces::default(),
            keeping: true,
            most: u64::MAX,
            is_too_large: false,
            lost: false,
            failed: false,
            turn: 0,
            sent: false,
            news: None,
            copies: Vec::new(),
            counted,
        })))
    }

    /// The body for one more try; earlier tries' bodies end with an error.
    pub(crate) fn body(&self) -> Body {
        let mut state = self.0.borrow_mut();
        if state.source.is_none() && state.kept.all.is_empty() && state.ahead.all.is_empty() {
            return Body::Empty;
        }
        state.turn += 1;
        let (turn, hint) = (state.turn, state.hint);
        drop(state);
        Body::wrap(Try {
            state: Rc::clone(&self.0),
            turn,
            at: 0,
            sent: 0,
            hint,
        })
    }

    /// The body fails once the client has sent more than `most` bytes.
    pub(crate) fn bound(&self, most: u64) {
        self.0.borrow_mut().most = most;
    }

    /// Whether the client sent more than it may.
    pub(crate) fn is_too_large(&self) -> bool {
        self.0.borrow().is_too_large
    }

    /// The body's length, when the client has said it.
    pub(crate) fn length(&self) -> Option<u64> {
        self.0.borrow().hint.exact()
    }

    /// The first bytes of the body, at most `most`: waits until so many are there or the body has ended. What was read
    /// is still sent later.
    pub(crate) async fn beginning(&self, most: usize) -> Result<Beginning, Cut> {
        poll_fn(|cx| self.0.borrow_mut().poll_ahead(cx, most)).await?;
        let state = self.0.borrow();
        let mut bytes = Vec::with_capacity(state.ahead.size.min(most));
        for piece in state.ahead.all.iter().filter_map(Piece::data) {
            let rest = most - bytes.len();
            bytes.extend_from_slice(&piece[..piece.len().min(rest)]);
        }
        let whole = state.ahead.size <= most && state.source.is_none();
        Ok(Beginning {
            bytes: bytes.into(),
            whole,
        })
    }

    /// Whether the whole body can be sent again.
    pub(crate) fn is_repeatable(&self) -> bool {
        let state = self.0.borrow();
        !state.lost && !state.failed
    }

    /// When the client has sent all of it.
    pub(crate) fn ended(&self) -> Rc<Ended> {
        let mut state = self.0.borrow_mut();
        let at = state.ended;
        let news = state.news.get_or_insert_with(|| {
            let news = Rc::new(Ended::default());
            news.at.set(at);
            news
        });
        Rc::clone(news)
    }

    /// Whether some of the body has been sent to an endpoint.
    pub(crate) fn was_sent(&self) -> bool {
        self.0.borrow().sent
    }

    /// The whole body, once the client has sent it; nothing when it is longer than `most` bytes, or never read to its
    /// end. Ask before anybody reads it.
    pub(crate) fn copy(&self, most: usize) -> oneshot::Receiver<Bytes> {
        let (whole, receiver) = oneshot::channel();
        let mut state = self.0.borrow_mut();
        let mut copy = Copying {
            read: BytesMut::new(),
            most,
            whole,
        };
        let mut ahead = state.ahead.all.iter().filter_map(Piece::data);
        let fits = ahead.all(|piece| copy.add(piece));
        match (&state.source, fits) {
            (_, false) => {}
            (None, true) => copy.finish(),
            (Some(_), true) => state.copies.push(copy),
        }
        receiver
    }

    /// Whether the client failed to send all of it.
    pub(crate) fn has_failed(&self) -> bool {
        self.0.borrow().failed
    }

    /// Stops keeping: there will be no further try.
    pub(crate) fn seal(&self) {
        self.0.borrow_mut().keeping = false;
    }
}

struct Try {
    state: Rc<RefCell<State>>,
    turn: u64,
    at: usize,
    sent: u64,
    hint: SizeHint,
}

/// What has been read for somebody else.
struct Copying {
    read: BytesMut,
    most: usize,
    whole: oneshot::Sender<Bytes>,
}

impl Copying {
    /// Adds bytes; says whether all is still within bounds.
    fn add(&mut self, bytes: &[u8]) -> bool {
        let fits = self.read.len() + bytes.len() <= self.most;
        if fits {
            self.read.extend_from_slice(bytes);
        }
        fits
    }

    fn finish(self) {
        // Whoever asked may have left.
        let _ = self.whole.send(self.read.freeze());
    }
}

impl Piece {
    fn into_frame(self) -> Frame<Bytes> {
        match self {
            Self::Data(bytes) => Frame::data(bytes),
            Self::Crumbs(bytes) => Frame::data(bytes.freeze()),
            Self::Trailers(trailers) => Frame::trailers(trailers),
        }
    }

    fn to_frame(&self) -> Frame<Bytes> {
        match self {
            Self::Data(bytes) => Frame::data(bytes.clone()),
            Self::Crumbs(bytes) => Frame::data(Bytes::copy_from_slice(bytes)),
            Self::Trailers(trailers) => Frame::trailers(trailers.clone()),
        }
    }

    fn data(&self) -> Option<&[u8]> {
        match self {
            Self::Data(bytes) => Some(bytes),
            Self::Crumbs(bytes) => Some(bytes),
            Self::Trailers(_) => None,
        }
    }
}

impl Pieces {
    fn push(&mut self, frame: &Frame<Bytes>) {
        if let Some(trailers) = frame.trailers_ref() {
            self.all.push_back(Piece::Trailers(trailers.clone()));
        }
        let Some(bytes) = frame.data_ref().filter(|bytes| !bytes.is_empty()) else {
            return;
        };
        self.size += bytes.len();
        match self.all.back_mut() {
            _ if bytes.len() >= SMALL => self.all.push_back(Piece::Data(bytes.clone())),
            Some(Piece::Crumbs(crumbs)) if crumbs.len() < MOST => crumbs.extend_from_slice(bytes),
            // A small slice would keep all of what it was read with.
            _ => self
                .all
                .push_back(Piece::Crumbs(BytesMut::from(&bytes[..]))),
        }
    }

    fn pop(&mut self) -> Option<Frame<Bytes>> {
        let piece = self.all.pop_front()?;
        self.size -= piece.data().map_or(0, <[u8]>::len);
        Some(piece.into_frame())
    }

    fn cost(&self) -> usize {
        self.size + self.all.len() * OVERHEAD
    }
}

impl State {
    // One byte more than asked for tells whether there is more.
    fn poll_ahead(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<Result<(), Cut>> {
        while self.ahead.size <= most && self.source.is_some() {
            match std::task::ready!(self.poll_source(cx)) {
                Some(Ok(frame)) => self.ahead.push(&frame),
                Some(Err(_)) => return Poll::Ready(Err(Cut)),
                None => {}
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = match self.ahead.pop() {
            Some(frame) => Some(Ok(frame)),
            None => std::task::ready!(self.poll_source(cx)),
        };
        if let Some(Ok(frame)) = &polled {
            self.keep(frame);
        }
        Poll::Ready(polled)
    }

    fn poll_source(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(source) = &mut self.source else {
            return Poll::Ready(None);
        };
        let polled = std::task::ready!(Pin::new(source).poll_frame(cx));
        match polled {
            Some(Ok(mut frame)) => {
                if let Some(bytes) = frame.data_ref() {
                    self.counted.set(self.counted.get() + bytes.len() as u64);
                    self.copies.retain_mut(|copy| copy.add(bytes));
                }
                if self.counted.get() > self.most {
                    self.is_too_large = true;
                    self.failed = true;
                    self.end();
                    return Poll::Ready(Some(Err(Box::new(Cut))));
                }
                if let Some(trailers) = frame.trailers_mut() {
                    trailers::clean(trailers);
                }
                // Of a body whose length is known, nobody asks for what comes after it.
                if self.source.as_ref().is_some_and(Incoming::is_end_stream) {
                    self.whole();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                self.failed = true;
                self.end();
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                self.whole();
                Poll::Ready(None)
            }
        }
    }

    /// All of it is there.
    fn whole(&mut self) {
        self.end();
        for copy in self.copies.drain(..) {
            copy.finish();
        }
    }

    fn end(&mut self) {
        self.source = None;
        if self.ended.is_none() {
            let now = Instant::now();
            self.ended = Some(now);
            if let Some(news) = &self.news {
                news.set(now);
            }
        }
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        let more = frame.data_ref().map_or(0, Bytes::len);
        if !self.keeping || self.kept.cost() + more > MOST + OVERHEAD {
            self.keeping = false;
            self.lost = true;
            return;
        }
        self.kept.push(frame);
    }
}

impl http_body::Body for Try {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let mut state = this.state.borrow_mut();
        if state.turn != this.turn || state.failed {
            return Poll::Ready(Some(Err(Box::new(Cut))));
        }
        if let Some(piece) = state.kept.all.get(this.at) {
            this.at += 1;
            let frame = piece.to_frame();
            this.sent += frame.data_ref().map_or(0, |b| b.len() as u64);
            return Poll::Ready(Some(Ok(frame)));
        }
        if !state.keeping && this.at > 0 {
            // Nobody will ask for it again.
            state.kept = Pieces::default();
            state.lost = true;
            this.at = 0;
        }
        let polled = state.poll(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            state.sent |= frame.is_data();
            this.sent += frame.data_ref().map_or(0, |b| b.len() as u64);
            this.at = state.kept.all.len();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let state = self.state.borrow();
        state.turn == self.turn
            && state.source.as_ref().is_none_or(Incoming::is_end_stream)
            && state.ahead.all.is_empty()
            && self.at >= state.kept.all.len()
            && !state.failed
    }

    fn size_hint(&self) -> SizeHint {
        match self.hint.exact() {
            Some(whole) => SizeHint::with_exact(whole.saturating_sub(self.sent)),
            None => SizeHint::default(),
        }
    }
}
