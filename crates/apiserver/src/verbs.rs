//! What the verbs do to objects, below HTTP and authorisation.

pub mod delete;
pub mod read;
pub mod subresource;
pub mod watch;
pub mod write;
