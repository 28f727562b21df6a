//! The calling end: one request after the other, driven by whoever waits for the response. Only a request whose body is
//! not sent when the response comes gets a task of its own.

use super::body::{Outbound, incoming, length};
use super::decoder::Decoder;
use super::head::{self, Answered};
use super::wire::{HeadError, Shared, Wire};
use super::write;
use crate::http::guard::{Control, Guarded};
use crate::http::upgrade::{self, Upgraded};
use crate::http::{EngineError, Incoming, Limits, Outgoing, SendFailure};
use http::{Method, Response};
use std::any::Any;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A connection that takes one request at a time. Dropping it ends the connection, once the response under way is over.
pub struct One {
    wire: Shared,
    control: Arc<Control>,
    limits: Limits,
}

impl std::fmt::Debug for One {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("One").finish_non_exhaustive()
    }
}

impl One {
    /// Calls on `io`; `kept` is dropped when the connection has ended.
    pub(crate) fn new(io: Guarded, limits: &Limits, kept: Option<Box<dyn Any>>) -> Self {
        let control = io.control();
        let wire = Wire::new(io);
        wire.borrow_mut().kept = kept;
        Self {
            wire,
            control,
            limits: *limits,
        }
    }

    /// Whether another request can be sent at once.
    pub(crate) fn is_ready(&self) -> bool {
        let wire = self.wire.borrow();
        let is_idle = !wire.closed && !wire.sending && wire.decoder == Decoder::Done;
        is_idle
            && wire.out.is_empty()
            && !wire.has_read()
            && !wire.has_dropped()
            && !wire.is_spent()
    }

    /// Waits until another request can be sent, or none ever can (`false`).
    pub(crate) async fn ready(&self) -> bool {
        poll_fn(|cx| {
            let mut wire = self.wire.borrow_mut();
            let reads = wire.decoder != Decoder::Done && !wire.abandoned;
            let waits = !wire.closed && (wire.sending || reads);
            if waits {
                wire.wait(cx);
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
        self.is_ready()
    }

    /// Sends a request and waits for the response's head.
    pub(crate) async fn send(
        &self,
        request: Outgoing<'_>,
    ) -> Result<Response<Incoming>, SendFailure> {
        let method = &request.head.method;
        self.control.ask(method);
        let encoder = {
            let mut wire = self.wire.borrow_mut();
            if wire.closed || wire.sending {
                return Err(SendFailure::unsent(EngineError::Incomplete));
            }
            // Until the response is over: a future that is dropped leaves it so.
            wire.closed = true;
            wire.out.begin();
            write::request(wire.out.small(), &request, length(&request.body))
        };
        let mut sending = Some(Outbound::new(request.body, encoder));
        let answered = poll_fn(|cx| self.poll_answer(cx, &mut sending, method)).await;
        match answered {
            Ok(answered) => Ok(self.answer(answered, sending)),
            Err(error) => Err(SendFailure {
                unsent: !self.wire.borrow().out.is_touched(),
                refused: false,
                error,
            }),
        }
    }

    fn poll_answer(
        &self,
        cx: &mut Context<'_>,
        sending: &mut Option<Outbound>,
        method: &Method,
    ) -> Poll<Result<Answered, EngineError>> {
        if let Some(outbound) = sending
            && let Poll::Ready(done) = outbound.poll(&self.wire, cx)
        {
            *sending = None;
            match done {
                // The peer may have said why it takes no more.
                Ok(()) | Err(EngineError::Io(_)) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        loop {
            let mut wire = self.wire.borrow_mut();
            let most = self.limits.head_bytes as usize;
            let parse = |read: &mut _| head::response(read, &self.limits, method);
            let polled = std::task::ready!(wire.poll_head(cx, most, parse));
            return Poll::Ready(match polled {
                // RFC 9110 §15.2: there may be any number of them, and the guard bounds it.
                Ok(Some(interim))
                    if interim.parts.status.is_informational() && !interim.switched =>
                {
                    continue;
                }
                Ok(Some(answered)) => Ok(answered),
                Ok(None) => Err(EngineError::Incomplete),
                Err(HeadError::Bad(bad)) => Err(EngineError::Syntax(bad.reason())),
                Err(HeadError::Ended(error)) => Err(error),
            });
        }
    }

    /// The response whose head has come.
    fn answer(&self, answered: Answered, sending: Option<Outbound>) -> Response<Incoming> {
        let Answered {
            mut parts,
            body,
            keep_alive,
            switched,
        } = answered;
        let mut wire = self.wire.borrow_mut();
        if switched {
            let hand = upgrade::claim(&mut parts.extensions);
            if let Some((io, read)) = wire.take() {
                let _ = hand.send(Upgraded::new(io, read));
            }
            return Response::from_parts(parts, Incoming::empty());
        }
        wire.begin_body(body, false);
        wire.closed = !keep_alive;
        if let Some(outbound) = sending {
            wire.sending = true;
            tokio::task::spawn_local(go_on(Rc::clone(&self.wire), outbound));
        }
        drop(wire);
        Response::from_parts(parts, incoming(&self.wire, body))
    }
}

impl Drop for One {
    fn drop(&mut self) {
        // Who still sends may be the last.
        self.wire.borrow_mut().left();
    }
}

/// Sends the rest of a request while its response is read.
async fn go_on(wire: Shared, mut outbound: Outbound) {
    let done = poll_fn(|cx| {
        if Rc::strong_count(&wire) == 1 {
            return Poll::Ready(Err(EngineError::Incomplete));
        }
        wire.borrow_mut().sender = Some(cx.waker().clone());
        outbound.poll(&wire, cx)
    })
    .await;
    drop(outbound);
    let mut wire = wire.borrow_mut();
    wire.sending = false;
    if done.is_err() {
        // Of a request that is not whole the peer would wait for the rest.
        wire.closed = true;
        wire.broken = true;
    }
    wire.call();
}
