//! A message's body as it arrives from a peer, whichever engine reads it.

use super::EngineError;
use super::h1::body::Inbound;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};

/// A received body.
#[derive(Debug)]
pub struct Incoming(Kind);

#[derive(Debug)]
enum Kind {
    Empty,
    One(Inbound),
    Two(hyper::body::Incoming),
}

impl Incoming {
    /// No bytes.
    pub(super) fn empty() -> Self {
        Self(Kind::Empty)
    }

    pub(super) fn one(body: Inbound) -> Self {
        Self(Kind::One(body))
    }

    pub(super) fn two(body: hyper::body::Incoming) -> Self {
        Self(Kind::Two(body))
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = EngineError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, EngineError>>> {
        match &mut self.get_mut().0 {
            Kind::Empty => Poll::Ready(None),
            Kind::One(body) => body.poll_frame(cx),
            Kind::Two(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::One(body) => body.is_over(),
            Kind::Two(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::One(body) => body.size_hint(),
            Kind::Two(body) => body.size_hint(),
        }
    }
}
