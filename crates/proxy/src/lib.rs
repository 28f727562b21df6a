//! The data plane: accept, decide, filter, balance, send. Sidecar and gateway are one spine with two configurations.
//!
//! ```text
//! control thread: xds updates -> Snapshot -> ArcSwap        admin, readiness, metrics, drain
//! worker threads: accept -> decide::connection -> detect -> HTTP: decide::request -> filters -> upstream::send
//!                                                        -> TCP:  upstream::dial -> copy
//! ```
//! It knows the model only: no Kubernetes, no user's YAML. It reads no environment: everything is in [`Config`].

mod admin;
mod body;
mod config;
mod connection;
mod control;
mod drain;
mod exchange;
mod fault;
mod labels;
mod serve;
mod shared;
mod start;
mod tcp;
mod upstream;
mod worker;

pub use config::{AppMetrics, Config, Destinations, DrainTimes, Ports};
pub use start::{Addresses, Proxy, ProxyError, run};

#[cfg(test)]
mod tests;
