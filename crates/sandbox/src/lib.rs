//! A one-machine cluster: pods as processes in network namespaces, behind a Kubernetes-style API server.
//!
//! ```text
//! host process ──clone──▶ node (pid 1 of its own namespaces): API server, pod runner, controllers,
//!     │ listeners                │                           service proxy, DNS
//!     └────────────────────────▶ └──stage──▶ containers (own pid+mount, the pod's net+uts+ipc namespaces)
//! ```
//!
//! It is not a container runtime: there are no images (see [`images`]), and programs are those of this
//! machine. Nothing outside the node's namespaces is changed but the home directory.
//!
//! An executable that uses this crate calls [`maybe_run_stage`] as the first thing in `main`.

pub mod cluster_network;
pub mod controllers;
pub mod dns;
pub mod images;
pub mod node;
mod pod;
pub mod services;

pub use node::{Home, Publish, Sandbox, Status, Target, UpError, UpOptions, down, status, up};

/// Runs a hidden role (the node, or a container's first steps) when this process was started for one, and
/// then does not return. Call it before anything that starts a thread.
pub fn maybe_run_stage() {
    let argument = std::env::args().nth(1);
    pod::stage::run_if_asked(argument.as_deref());
    node::run_if_asked(argument.as_deref());
}
