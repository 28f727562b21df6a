//! The serving end: one request after the other, until the client or we have had enough.
//!
//! ```text
//! head -> respond (meanwhile: has the client left?) -> response -> rest of the request's body -> head …
//! ```

use super::body::{Outbound, incoming, length};
use super::decoder::Decoder;
use super::head::{self, Asked, Bad};
use super::wire::{HeadError, Shared, Wire};
use super::write::{self, Form};
use crate::http::guard::Guarded;
use crate::http::server::{Activity, Busy, Told};
use crate::http::upgrade::{self, Upgraded};
use crate::http::{Body, EngineError, Incoming, Limits};
use http::{Method, Request, Response, Version};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// Most bytes of a request's body that are read only to get at the next request.
const REST: u64 = 64 * 1024;

/// What follows an exchange.
#[derive(PartialEq, Eq)]
enum Next {
    Request,
    Close,
    /// The connection is somebody else's.
    Nothing,
}

/// The connection of one client.
pub(crate) struct Server<'a> {
    wire: Shared,
    limits: &'a Limits,
    told: &'a Told,
    activity: Rc<Activity>,
}

impl<'a> Server<'a> {
    pub(crate) fn new(
        io: Guarded,
        limits: &'a Limits,
        told: &'a Told,
        activity: &Rc<Activity>,
    ) -> Self {
        Self {
            wire: Wire::new(io),
            limits,
            told,
            activity: Rc::clone(activity),
        }
    }

    /// Serves until the connection is to end, and ends it in order.
    ///
    /// # Errors
    /// It ended otherwise, or in the middle of a message.
    pub(crate) async fn serve<F, R>(self, respond: F) -> Result<(), EngineError>
    where
        F: Fn(Request<Incoming>, Busy) -> R,
        R: Future<Output = Response<Body>>,
    {
        loop {
            let next = match poll_fn(|cx| self.poll_asked(cx)).await {
                // Not there between requests.
                Ok(Some(asked)) => Box::pin(self.exchange(asked, &respond)).await?,
                Ok(None) => Next::Close,
                Err(HeadError::Ended(error)) => return Err(error),
                Err(HeadError::Bad(bad)) => {
                    self.refuse(bad).await?;
                    return Err(EngineError::Syntax(bad.reason()));
                }
            };
            match next {
                Next::Request => {}
                Next::Nothing => return Ok(()),
                Next::Close => break,
            }
        }
        // A client that is gone needs no farewell.
        let _ = poll_fn(|cx| self.wire.borrow_mut().poll_shutdown(cx)).await;
        Ok(())
    }

    fn poll_asked(&self, cx: &mut Context<'_>) -> Poll<Result<Option<Asked>, HeadError>> {
        if self.told.idle.get() {
            return Poll::Ready(Ok(None));
        }
        let most = self.limits.head_bytes as usize;
        let parse = |read: &mut _| head::request(read, self.limits);
        self.wire.borrow_mut().poll_head(cx, most, parse)
    }

    /// Tells the client what is wrong with its head.
    async fn refuse(&self, bad: Bad) -> Result<(), EngineError> {
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = bad.status();
        let (parts, body) = response.into_parts();
        let form = Form {
            method: &Method::GET,
            is_10: false,
            keep_alive: false,
            takes_trailers: false,
            length: Some(0),
        };
        let encoder = {
            let mut wire = self.wire.borrow_mut();
            write::response(wire.out.small(), &parts, &form).0
        };
        let mut outbound = Outbound::new(body, encoder);
        poll_fn(|cx| outbound.poll(&self.wire, cx)).await?;
        let _ = poll_fn(|cx| self.wire.borrow_mut().poll_shutdown(cx)).await;
        Ok(())
    }

    async fn exchange<F, R>(&self, asked: Asked, respond: &F) -> Result<Next, EngineError>
    where
        F: Fn(Request<Incoming>, Busy) -> R,
        R: Future<Output = Response<Body>>,
    {
        let mut asked = asked;
        let hand = asked
            .upgrades
            .then(|| upgrade::claim(&mut asked.parts.extensions));
        let said = Said::of(&asked);
        let (body, expects) = (asked.body, asked.expects);
        self.wire.borrow_mut().begin_body(body, expects);
        let incoming = incoming(&self.wire, body);
        let request = Request::from_parts(asked.parts, incoming);
        let (number, busy) = self.activity.begin();
        let mut response = {
            // Large, and not there while the response is sent.
            let mut answer = Box::pin(respond(request, busy));
            poll_fn(|cx| match answer.as_mut().poll(cx) {
                Poll::Ready(response) => Poll::Ready(Ok(response)),
                Poll::Pending => self.wire.borrow_mut().poll_gone(cx).map(Err),
            })
            .await?
        };
        let is_connect = said.method == Method::CONNECT;
        self.activity.answered(number, is_connect, &mut response);
        let mut begun = self.begin_response(&said, response);
        poll_fn(|cx| match begun.outbound.poll(&self.wire, cx) {
            Poll::Pending => self.wire.borrow_mut().poll_gone(cx).map(Err),
            done => done,
        })
        .await?;
        if begun.switched {
            return Ok(self.hand_over(hand));
        }
        if !begun.goes_on || !self.finish_request(begun.unheard).await {
            return Ok(Next::Close);
        }
        Ok(Next::Request)
    }

    /// Puts the response's head in the outbox.
    fn begin_response(&self, said: &Said, response: Response<Body>) -> Begun {
        let (parts, body) = response.into_parts();
        let ends = self.told.draining.get() || self.told.idle.get();
        let form = Form {
            method: &said.method,
            is_10: said.is_10,
            keep_alive: said.keep_alive && !ends,
            takes_trailers: said.takes_trailers,
            length: length(&body),
        };
        let switched = head::switches(&said.method, parts.status);
        let mut wire = self.wire.borrow_mut();
        // It has waited in vain: leave after a response would look like one to the next request.
        let unheard = std::mem::take(&mut wire.expects);
        let (encoder, goes_on) = write::response(wire.out.small(), &parts, &form);
        drop(wire);
        head::recycle(parts.headers, parts.extensions);
        Begun {
            outbound: Outbound::new(body, encoder),
            goes_on,
            switched,
            unheard,
        }
    }

    fn hand_over(&self, hand: Option<oneshot::Sender<Upgraded>>) -> Next {
        let Some(hand) = hand else {
            return Next::Close;
        };
        if let Some((io, read)) = self.wire.borrow_mut().take() {
            // Whoever asked for it may have left.
            let _ = hand.send(Upgraded::new(io, read));
        }
        Next::Nothing
    }

    /// Gets at the end of the request's body, if that is near; says whether it did.
    async fn finish_request(&self, unheard: bool) -> bool {
        // Somebody may still be reading it.
        poll_fn(|cx| {
            let mut wire = self.wire.borrow_mut();
            if wire.decoder == Decoder::Done || wire.abandoned {
                return Poll::Ready(());
            }
            wire.wait(cx);
            Poll::Pending
        })
        .await;
        if unheard {
            // Nobody knows whether the body comes now.
            return self.wire.borrow().decoder == Decoder::Done;
        }
        let mut rest = 0;
        poll_fn(|cx| {
            let mut wire = self.wire.borrow_mut();
            while wire.decoder != Decoder::Done && rest < REST {
                match wire.poll_body(cx) {
                    Poll::Ready(Some(Ok(frame))) => {
                        rest += frame.data_ref().map_or(1, |bytes| 1 + bytes.len() as u64);
                    }
                    // Nobody waits for what has not come.
                    Poll::Ready(_) | Poll::Pending => break,
                }
            }
            Poll::Ready(wire.decoder == Decoder::Done && !wire.broken)
        })
        .await
    }
}

/// What a request said that its response needs to know.
struct Said {
    method: Method,
    is_10: bool,
    keep_alive: bool,
    takes_trailers: bool,
}

/// A response on its way out.
struct Begun {
    outbound: Outbound,
    /// The connection goes on after it.
    goes_on: bool,
    /// In another protocol.
    switched: bool,
    /// The client waited for leave to send its body and did not get it.
    unheard: bool,
}

impl Said {
    fn of(asked: &Asked) -> Self {
        Self {
            method: asked.parts.method.clone(),
            is_10: asked.parts.version == Version::HTTP_10,
            keep_alive: asked.keep_alive,
            takes_trailers: asked.takes_trailers,
        }
    }
}
