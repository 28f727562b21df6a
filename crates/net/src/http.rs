//! HTTP/1 and HTTP/2, both ends, behind a small interface: the engine underneath (hyper) is named nowhere else
//! but in body and upgrade types. Between the connection and the engine stands a guard that ends what is hostile.
//!
//! ```text
//! stream -> guard (framing | frames) -> engine -> respond
//!                 limits
//! ```
//!
//! Header case is kept from HTTP/1 to HTTP/1 through message extensions, so those must travel with the message.

pub mod body;
pub mod client;
mod flow;
mod frames;
mod framing;
#[cfg(fuzzing)]
pub mod fuzz;
mod guard;
pub mod limits;
pub mod server;
mod violation;

pub use body::{Body, BodyError};
pub use client::{SendFailure, Sender, Terms, open, open_on};
pub use hyper::body::Incoming;
pub use hyper::upgrade::{OnUpgrade, Upgraded, on as upgrade};
pub use limits::Limits;
pub use server::{Busy, ServeError, serve};
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
pub async fn tunnel(a: Upgraded, b: Upgraded) -> std::io::Result<(u64, u64)> {
    let mut a = hyper_util::rt::TokioIo::new(a);
    let mut b = hyper_util::rt::TokioIo::new(b);
    tokio::io::copy_bidirectional(&mut a, &mut b).await
}

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod tests;
