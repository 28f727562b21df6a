//! HTTP/1's engine, both ends, behind the guard: it parses and writes heads, follows bodies, and drives one exchange in
//! the task that wants it. What a message may look like is the guard's to judge; what it means is the proxy's.
//!
//! ```text
//! guard -> wire (read, outbox) -> head -> decoder -> Inbound          server: head -> respond -> Outbound
//!                              <- head <- encoder <- Outbound         client: Outbound + head -> Inbound
//! ```

pub(super) mod body;
pub(super) mod client;
mod decoder;
mod encoder;
mod head;
pub(super) mod server;
mod spelling;
mod wire;
mod write;

use http::request;

/// Keeps the memory of a request's head for the next message of this worker.
pub fn recycle(head: request::Parts) {
    head::recycle(head.headers, head.extensions);
}
