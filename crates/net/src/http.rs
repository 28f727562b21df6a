//! HTTP/1 and HTTP/2, both ends, behind a small interface: the engines underneath (our own, and hyper for HTTP/2) are
//! named nowhere else. Between the connection and the engine stands a guard that ends what is hostile.
//!
//! ```text
//! stream -> guard (framing | frames) -> h1 | hyper -> respond
//!                 limits
//! ```
//!
//! Header case is kept from HTTP/1 to HTTP/1 through message extensions, so those must travel with the message.

pub mod body;
pub mod client;
mod error;
mod flow;
mod frames;
mod framing;
#[cfg(fuzzing)]
pub mod fuzz;
mod guard;
mod h1;
mod incoming;
pub mod limits;
pub mod server;
mod upgrade;
mod violation;

pub use body::{Body, BodyError};
pub use client::{Outgoing, SendFailure, Sender, Terms, open, open_on};
pub use error::EngineError;
pub use h1::recycle;
pub use incoming::Incoming;
pub use limits::Limits;
pub use server::{Busy, ServeError, serve};
pub use upgrade::{NoUpgrade, OnUpgrade, Upgraded, upgrade};
pub use violation::{Violation, violation, violations};

/// Which wire format a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// HTTP/1.0 and HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// Spawns what an engine needs on the worker's own thread.
#[derive(Debug, Clone, Copy)]
struct Local;

impl<F> hyper::rt::Executor<F> for Local
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// Copies both ways between two upgraded connections until both have ended; returns bytes from `a` and from `b`.
///
/// # Errors
/// Either side failed.
pub async fn tunnel(mut a: Upgraded, mut b: Upgraded) -> std::io::Result<(u64, u64)> {
    tokio::io::copy_bidirectional(&mut a, &mut b).await
}

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod tests;
