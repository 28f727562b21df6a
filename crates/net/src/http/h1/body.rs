//! A body that is being read from a connection, and one that is being written to it.

use super::decoder::Decoder;
use super::encoder::Encoder;
use super::wire::{Polled, Shared};
use crate::http::{Body, BodyError, EngineError, Incoming};
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The body of the message that is being read.
pub(crate) struct Inbound {
    wire: Shared,
    /// As long as it is not over.
    hint: Option<u64>,
    done: bool,
}

/// The body that follows on `wire`.
pub(super) fn incoming(wire: &Shared, body: Decoder) -> Incoming {
    let hint = match body {
        Decoder::Done => return Incoming::empty(),
        Decoder::Sized(length) => Some(length),
        Decoder::Chunks(_) | Decoder::UntilEnd => None,
    };
    Incoming::one(Inbound {
        wire: Shared::clone(wire),
        hint,
        done: false,
    })
}

/// Bytes of a body that is to be sent; absent: not known.
pub(super) fn length(body: &Body) -> Option<u64> {
    match body.is_end_stream() {
        true => Some(0),
        false => body.size_hint().exact(),
    }
}

impl Inbound {
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Polled {
        if self.done {
            return Poll::Ready(None);
        }
        let mut wire = self.wire.borrow_mut();
        let polled = ready!(wire.poll_body(cx));
        self.done = wire.decoder == Decoder::Done || !matches!(polled, Some(Ok(_)));
        if let (Some(left), Some(Ok(frame))) = (&mut self.hint, &polled) {
            *left -= frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
        }
        Poll::Ready(polled)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.done
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.hint {
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        let mut wire = self.wire.borrow_mut();
        if !self.done {
            wire.abandoned = true;
            wire.call();
        }
        wire.left();
    }
}

impl std::fmt::Debug for Inbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbound")
            .field("hint", &self.hint)
            .field("done", &self.done)
            .finish_non_exhaustive()
    }
}

/// A message that is being written: its head is in the outbox, its body comes.
pub(super) struct Outbound {
    body: Option<Body>,
    encoder: Encoder,
    /// Why the body is not whole; told once what there is of it is out.
    failed: Option<EngineError>,
}

impl Outbound {
    /// `body`, written as `encoder` says.
    pub(super) fn new(body: Body, encoder: Encoder) -> Self {
        let none = encoder.is_over() || body.is_end_stream() && encoder == Encoder::UntilEnd;
        Self {
            body: (!none).then_some(body),
            encoder,
            failed: None,
        }
    }

    /// Writes all that there is; ready when the message is out. The body is dropped as soon as it is over.
    ///
    /// # Errors
    /// The body failed, or was shorter than it was said to be: what there was of it is out. Or the connection broke.
    pub(super) fn poll(
        &mut self,
        wire: &Shared,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), EngineError>> {
        loop {
            let mut waits = false;
            while let Some(body) = &mut self.body
                && !waits
                && wire.borrow().out.has_room()
            {
                // The body may come from the same connection: it is not borrowed here.
                match Pin::new(body).poll_frame(cx) {
                    Poll::Pending => waits = true,
                    Poll::Ready(frame) => self.add(wire, frame),
                }
            }
            ready!(wire.borrow_mut().poll_flush(cx))?;
            if self.body.is_none() {
                return Poll::Ready(self.failed.take().map_or(Ok(()), Err));
            }
            if waits {
                return Poll::Pending;
            }
        }
    }

    fn add(&mut self, wire: &Shared, frame: Option<Result<Frame<Bytes>, BodyError>>) {
        let mut wire = wire.borrow_mut();
        let out = &mut wire.out;
        let mut trailers = None;
        match frame {
            Some(Err(error)) => self.failed = Some(EngineError::Body(error)),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(bytes) => {
                    self.encoder.data(out, bytes);
                    let body = self.body.as_ref();
                    let more = !self.encoder.is_over() && body.is_some_and(|b| !b.is_end_stream());
                    if more {
                        return;
                    }
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            },
            None => {}
        }
        if self.failed.is_none() && !self.encoder.end(out, trailers.as_ref()) {
            let short = "a body that is shorter than its Content-Length";
            self.failed = Some(EngineError::Body(short.into()));
        }
        drop(wire);
        self.body = None;
    }
}
