//! What the verbs do to objects, below HTTP and authorisation.

mod accept;
pub mod delete;
mod keep;
pub mod read;
pub mod subresource;
pub mod watch;
pub mod write;
