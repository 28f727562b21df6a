//! Model to protobuf and back, and the delta-ADS state machines at both ends.
//!
//! ```text
//! control: Store::apply --encode once--> session (event in, messages out) --gRPC--> proxy: client --> Update
//! ```
//! It decides nothing about traffic and knows no Kubernetes. The state machines (`session`,
//! `subscription`) and their data (`table`, `bits`) do no IO; `server`, `client` and `cache` do.

pub mod client;
pub mod codec;
pub mod encoded;
pub mod node;
pub mod server;

mod bits;
mod cache;
mod connect;
mod session;
mod subscription;
mod table;

#[cfg(test)]
mod tests;
