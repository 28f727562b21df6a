//! Harness-free package: see `it/`.
