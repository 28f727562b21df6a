//! The pod runner: what a kubelet does, through the API server. It watches pods, gives each its network and
//! volumes, runs its containers in order, probes them, restarts them, publishes their state, and ends them.
//!
//! ```text
//! runner ─▶ worker (one task per pod) ─▶ container (one per container) ─▶ stage ─▶ program
//!                 │ state ─▶ status ─▶ API server        ├ probe
//!                 └ volumes, network                     └ hook, logs
//! ```

pub(crate) mod access;
mod attach;
mod backoff;
pub(crate) mod cache;
mod container;
mod environment;
mod events;
mod exec;
pub(crate) mod fields;
mod handle;
mod hook;
mod logs;
mod machine;
mod plan;
mod probe;
pub(crate) mod process;
mod runner;
pub(crate) mod stage;
mod state;
mod terminal;
mod volumes;
mod worker;

pub(crate) use runner::{Runner, RunnerOptions};
