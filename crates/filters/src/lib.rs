//! What happens to a message's head on its way through: one enum, run in order, each variant in one file.
//!
//! ```text
//! request:  Filter::on_request in chain order -> route edits -> upstream
//! response: upstream -> Filter::on_response in chain order -> route edits -> client
//! ```
//! Filters see heads only and never wait. Which route applies is decided before they run.

pub mod edits;
mod forwarded;
mod hop;
pub mod reply;
mod respond;

use http::{request, response};
use lateen_model::decide::plan::Direction;
use std::net::SocketAddr;
use std::time::Duration;

/// What filters know of the exchange beside the message.
#[derive(Debug, Clone)]
pub struct Context {
    /// Which way the connection goes.
    pub direction: Direction,
    /// The client's address.
    pub source: SocketAddr,
    /// Whether the client asks to change the protocol (WebSocket); set by [`Filter::HopByHop`].
    pub upgrade: bool,
    /// Time from sending the request to the response's head; absent when we answer ourselves.
    pub upstream_time: Option<Duration>,
}

impl Context {
    /// A context at the start of a request.
    pub fn new(direction: Direction, source: SocketAddr) -> Self {
        Self {
            direction,
            source,
            upgrade: false,
            upstream_time: None,
        }
    }
}

/// One step of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Headers that concern one connection only do not travel on (RFC 9110 §7.6.1).
    HopByHop,
    /// What an outside client may not tell us is removed; its address and scheme are noted (Envoy: `use_remote_address`).
    Edge,
    /// `x-forwarded-proto` where none is.
    Scheme,
    /// `x-request-id` where none is; at the edge, outside clients' own are replaced.
    RequestId,
    /// `server`, `date` and `x-envoy-upstream-service-time`.
    Respond,
}

/// The chain of every connection of a direction, in order.
pub fn chain(direction: Direction) -> &'static [Filter] {
    match direction {
        Direction::Gateway => &[
            Filter::HopByHop,
            Filter::Edge,
            Filter::RequestId,
            Filter::Respond,
        ],
        Direction::Inbound | Direction::Outbound => &[
            Filter::HopByHop,
            Filter::Scheme,
            Filter::RequestId,
            Filter::Respond,
        ],
    }
}

impl Filter {
    /// Changes a request's head before it is sent.
    pub fn on_request(self, cx: &mut Context, head: &mut request::Parts) {
        match self {
            Self::HopByHop => hop::on_request(cx, head),
            Self::Edge => forwarded::edge(cx, &mut head.headers),
            Self::Scheme => forwarded::scheme(&mut head.headers),
            Self::RequestId => forwarded::request_id(cx, &mut head.headers),
            Self::Respond => {}
        }
    }

    /// Changes a response's head before the client gets it.
    pub fn on_response(self, cx: &mut Context, head: &mut response::Parts) {
        match self {
            Self::HopByHop => hop::on_response(head),
            Self::Respond => respond::on_response(cx, &mut head.headers),
            Self::Edge | Self::Scheme | Self::RequestId => {}
        }
    }
}

#[cfg(test)]
mod tests;
