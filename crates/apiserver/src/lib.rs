//! Embedded Kubernetes-style API server: discovery, CRUD, watch, patch, admission.
//! It serves real `kubectl` and kube-rs over TLS; it runs no pods itself (see [`pods`]) and no controllers
//! beyond garbage collection and namespace deletion.

pub mod admission;
pub mod auth;
pub mod error;
pub mod lookup;
pub mod pods;
pub mod schema;
pub mod stream;
pub mod tls;
pub mod token;
