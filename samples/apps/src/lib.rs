//! Sample applications.
