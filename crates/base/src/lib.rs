//! Small pieces that every crate may use: shared strings and retry backoff.
//! It does no IO, knows no mesh word and starts no task.

pub mod backoff;

/// An immutable string shared by reference count. Cloning never allocates.
pub type Str = std::sync::Arc<str>;
