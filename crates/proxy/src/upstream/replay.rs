//! A request's body that can be sent again while it is small: what was read is kept until a response comes.

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use lateen_net::http::{Body, BodyError, Incoming};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Bytes kept for sending again (Envoy keeps as much per stream by default).
const MOST: usize = 64 * 1024;

/// A request's body.
#[derive(Clone)]
pub(crate) struct Replay(Rc<RefCell<State>>);

struct State {
    source: Option<Incoming>,
    hint: SizeHint,
    /// Read from the client before any try asked for it.
    ahead: VecDeque<Piece>,
    kept: Vec<Piece>,
    size: usize,
    keeping: bool,
    /// Whether anything was read from the client that is not kept.
    lost: bool,
    /// Whether the client failed to send all of it.
    failed: bool,
    /// The try that may read; earlier ones get nothing more.
    turn: u64,
    counted: Rc<Cell<u64>>,
}

#[derive(Clone)]
enum Piece {
    Data(Bytes),
    Trailers(http::HeaderMap),
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
        Self::of(source, hint, VecDeque::new(), counted)
    }

    /// A body of our own.
    pub(crate) fn full(bytes: Bytes) -> Self {
        let hint = SizeHint::with_exact(bytes.len() as u64);
        let pieces = (!bytes.is_empty()).then_some(Piece::Data(bytes));
        Self::of(None, hint, pieces.into_iter().collect(), Rc::default())
    }

    fn of(
        source: Option<Incoming>,
        hint: SizeHint,
        ahead: VecDeque<Piece>,
        counted: Rc<Cell<u64>>,
    ) -> Self {
        Self(Rc::new(RefCell::new(State {
            source,
            hint,
            ahead,
            kept: Vec::new(),
            size: 0,
            keeping: true,
            lost: false,
            failed: false,
            turn: 0,
            counted,
        })))
    }

    /// The body for one more try; earlier tries' bodies end with an error.
    pub(crate) fn body(&self) -> Body {
        let mut state = self.0.borrow_mut();
        if state.source.is_none() && state.kept.is_empty() && state.ahead.is_empty() {
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

    /// The body's length, when the client has said it.
    pub(crate) fn length(&self) -> Option<u64> {
        self.0.borrow().hint.exact()
    }

    /// The first bytes of the body, at most `most`: waits until so many are there or the body has ended. What was read
    /// is still sent later.
    pub(crate) async fn beginning(&self, most: usize) -> Result<Beginning, Cut> {
        poll_fn(|cx| self.0.borrow_mut().poll_ahead(cx, most)).await?;
        let state = self.0.borrow();
        let pieces = state.ahead.iter().filter_map(Piece::data);
        let mut bytes: Vec<u8> = pieces.flat_map(|piece| piece.iter().copied()).collect();
        let whole = bytes.len() <= most && state.source.is_none();
        bytes.truncate(most);
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

impl Piece {
    fn of(frame: &Frame<Bytes>) -> Option<Self> {
        let data = frame.data_ref().cloned().map(Self::Data);
        data.or_else(|| frame.trailers_ref().cloned().map(Self::Trailers))
    }

    fn frame(self) -> Frame<Bytes> {
        match self {
            Self::Data(bytes) => Frame::data(bytes),
            Self::Trailers(trailers) => Frame::trailers(trailers),
        }
    }

    fn data(&self) -> Option<&Bytes> {
        match self {
            Self::Data(bytes) => Some(bytes),
            Self::Trailers(_) => None,
        }
    }
}

impl State {
    // One byte more than asked for tells whether there is more.
    fn poll_ahead(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<Result<(), Cut>> {
        let pieces = self.ahead.iter().filter_map(Piece::data);
        let mut held: usize = pieces.map(Bytes::len).sum();
        while held <= most && self.source.is_some() {
            match std::task::ready!(self.poll_source(cx)) {
                Some(Ok(frame)) => {
                    held += frame.data_ref().map_or(0, Bytes::len);
                    self.ahead.extend(Piece::of(&frame));
                }
                Some(Err(_)) => return Poll::Ready(Err(Cut)),
                None => {}
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = match self.ahead.pop_front() {
            Some(piece) => Some(Ok(piece.frame())),
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
            Some(Ok(frame)) => {
                if let Some(bytes) = frame.data_ref() {
                    self.counted.set(self.counted.get() + bytes.len() as u64);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                self.failed = true;
                self.source = None;
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                self.source = None;
                Poll::Ready(None)
            }
        }
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        self.size += frame.data_ref().map_or(0, Bytes::len);
        if !self.keeping || self.size > MOST {
            self.keeping = false;
            self.lost = true;
            return;
        }
        self.kept.extend(Piece::of(frame));
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
        if let Some(piece) = state.kept.get(this.at) {
            this.at += 1;
            let frame = piece.clone().frame();
            this.sent += frame.data_ref().map_or(0, |b| b.len() as u64);
            return Poll::Ready(Some(Ok(frame)));
        }
        if !state.keeping && this.at > 0 {
            // Nobody will ask for it again.
            state.kept.clear();
            state.lost = true;
            this.at = 0;
        }
        let polled = state.poll(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            this.sent += frame.data_ref().map_or(0, |b| b.len() as u64);
            this.at = state.kept.len();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let state = self.state.borrow();
        state.turn == self.turn
            && state.source.as_ref().is_none_or(Incoming::is_end_stream)
            && state.ahead.is_empty()
            && self.at >= state.kept.len()
            && !state.failed
    }

    fn size_hint(&self) -> SizeHint {
        match self.hint.exact() {
            Some(whole) => SizeHint::with_exact(whole.saturating_sub(self.sent)),
            None => SizeHint::default(),
        }
    }
}
