//! Incremental derived collections: a transform sees its key, its value and what it fetches, and what it
//! fetched is what runs it again.
//!
//! ```text
//! source --set/remove--> commit --> derive (Fetch: by key, by index, by filter) --> join / hold --> observe
//! ```
//! One [`Graph`] owns everything; a [`Collection`] or [`Index`] is a small handle into it. Nothing here does IO,
//! waits, locks or knows a word of the mesh: whoever owns the graph decides when to commit and on which thread.
//!
//! Laws, held by property tests:
//! - after any sequence of commits a derived collection equals the one derived from scratch
//!   ([`Graph::hold`] is the one exception, and it is its purpose);
//! - a transform runs again only if its value or something that it fetched changed;
//! - an output equal to the old one is no change: propagation ends there;
//! - within a commit every entry of a collection changes at most once, and observers see the end state only.
//!
//! A transform must be a function of its arguments: no state, no clock, no IO.

mod derive;
mod fetch;
mod few;
mod graph;
mod hold;
mod index;
mod join;
mod map;
mod runs;
mod source;
mod table;
#[cfg(test)]
mod tests;

pub use fetch::Fetch;
pub use graph::{Collection, Graph, Index, NodeStats};
pub use hold::Held;
pub use table::{Change, Key, Value};
