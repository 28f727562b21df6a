//! The control plane: what Istio calls istiod.

pub mod inject;
