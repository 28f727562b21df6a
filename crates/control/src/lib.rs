//! The control plane: sources, push, injection, status.
