//! Model to protobuf and back, and the delta-ADS state machines at both ends.
//!
//! ```text
//! control: Store::apply --encode once--> session (event in, messages out) --gRPC--> proxy: client --> Update
//! ```
//! It decides nothing about traffic and knows no Kubernetes.

pub mod client;
pub mod codec;
pub mod server;
