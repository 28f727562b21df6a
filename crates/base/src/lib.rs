//! Small pieces that every crate may use: shared strings and retry backoff.
//! It does no IO, knows no mesh word and starts no task.

pub mod backoff;

/// An immutable string shared by reference count. Cloning never allocates.
pub type Str = std::sync::Arc<str>;

/// A map for keys that no client of a proxy chooses: quick to look up, with a seed of its own, but no defence against
/// keys that are made to collide.
pub type Map<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;
