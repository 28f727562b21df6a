//! What may happen to an HTTP connection beside what its peer does against HTTP.

use super::BodyError;
use std::io;

/// How an exchange or a connection ended early.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The connection broke, TLS failed, or the guard ended it (the source is a [`super::Violation`] then).
    #[error("connection error: {0}")]
    Io(#[from] io::Error),
    /// The peer ended the connection in the middle of a message.
    #[error("connection closed before message completed")]
    Incomplete,
    /// The peer sent something that is not HTTP/1.
    #[error("not HTTP/1: {0}")]
    Syntax(&'static str),
    /// What was to be sent could not be had.
    #[error("error from the body that is sent: {0}")]
    Body(#[source] BodyError),
    /// HTTP/2's engine.
    #[error(transparent)]
    Http2(#[from] hyper::Error),
}
