//! Embedded Kubernetes-style API server: discovery, CRUD, watch, patch, admission.
//! It serves real `kubectl` and kube-rs over TLS; it runs no pods itself (see [`pods`]) and no controllers
//! beyond garbage collection and the emptying of deleted namespaces.

pub mod admission;
mod admit;
pub mod api;
pub mod auth;
mod bootstrap;
pub mod builtin;
mod collect;
mod crd;
pub mod discovery;
pub mod error;
pub mod kinds;
pub mod lookup;
mod meta;
pub mod negotiate;
mod openapi;
mod patch;
pub mod pods;
mod protobuf;
mod router;
pub mod schema;
mod select;
mod server;
pub mod shape;
pub mod store;
pub mod stream;
mod table;
pub mod target;
pub mod tls;
pub mod token;
pub mod verbs;
pub mod wire;

pub use server::{Options, Server, StartError};

#[cfg(test)]
mod tests;
