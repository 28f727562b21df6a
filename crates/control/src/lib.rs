//! The control plane: what Istio calls istiod.
//!
//! ```text
//! API server --source--> graph (translate) --engine: debounce--> xds::server::Store --> proxies
//!      ^                   |                                            |
//!      +---- status -------+          pages: /ready /metrics /debug ----+
//! API server --webhook--> inject, validate
//! ```
//! It knows the API server only through kube-rs, and proxies only through the store. What objects mean is
//! `translate`'s business, how they travel is `xds`'s. It never listens to or sends the mesh's traffic.

mod allocate;
mod bundle;
pub mod ca;
mod certificate;
pub mod config;
mod credentials;
mod engine;
mod graph;
mod http;
pub mod inject;
pub mod jwks;
pub mod metrics;
mod pages;
mod places;
mod roots;
mod run;
mod source;
mod status;
mod webhook;

pub use config::Config;
pub use run::{ControlError, run};
