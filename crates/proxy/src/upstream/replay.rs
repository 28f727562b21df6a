//! A request's body that can be sent again while it is small: what was read is kept until a response comes.

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use lateen_net::http::{Body, BodyError, Incoming};
use std::cell::{Cell, RefCell};
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

/// The client did not send all of its body.
#[derive(Debug, thiserror::Error)]
#[error("the client ended its request early")]
struct Cut;

impl Replay {
    /// Takes over a request's body; `counted` grows with each byte that comes from the client.
    pub(crate) fn new(source: Incoming, counted: Rc<Cell<u64>>) -> Self {
        let source = (!source.is_end_stream()).then_some(source);
        let hint = source
            .as_ref()
            .map_or(SizeHint::with_exact(0), Incoming::size_hint);
        Self(Rc::new(RefCell::new(State {
            source,
            hint,
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
        if state.source.is_none() && state.kept.is_empty() {
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

impl State {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(source) = &mut self.source else {
            return Poll::Ready(None);
        };
        let polled = std::task::ready!(Pin::new(source).poll_frame(cx));
        match polled {
            Some(Ok(frame)) => {
                if let Some(bytes) = frame.data_ref() {
                    self.counted.set(self.counted.get() + bytes.len() as u64);
                }
                self.keep(&frame);
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
        if let Some(bytes) = frame.data_ref() {
            self.kept.push(Piece::Data(bytes.clone()));
        } else if let Some(trailers) = frame.trailers_ref() {
            self.kept.push(Piece::Trailers(trailers.clone()));
        }
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
            let frame = match piece.clone() {
                Piece::Data(bytes) => Frame::data(bytes),
                Piece::Trailers(trailers) => Frame::trailers(trailers),
            };
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
