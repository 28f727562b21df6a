//! Names: questions put to the machine's resolvers, and their answers with the time that they hold.
//!
//! ```text
//! Settings (resolv.conf) -> Forwarder: bytes of a question -> bytes of an answer
//!                              ^
//!                           Resolver: a name -> addresses and their time to live
//!                           Server: questions of others, of which its owner answers some
//! ```
//! It keeps nothing: who asks knows how long an answer is worth keeping, and what to do without one. What a server
//! knows is decided by its owner.

mod forward;
mod resolve;
mod server;
mod settings;
#[cfg(test)]
mod tests;

pub use forward::{AskError, Forwarder};
pub use resolve::{Found, LookupError, Resolver};
pub use server::{Counts, Server, Told};
pub use settings::Settings;

/// The longest message by UDP that is read (RFC 6891 lets both sides agree on more than 512 bytes).
pub const LONGEST_DATAGRAM: usize = 4096;
