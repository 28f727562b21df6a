//! The control plane: what Istio calls istiod.

mod bundle;
mod certificate;
pub mod config;
mod http;
pub mod inject;
pub mod metrics;
mod source;
mod webhook;
