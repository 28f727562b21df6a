//! Incremental derived collections: a transform sees its key and what it fetched.
