//! The data plane: accept, decide, filter, balance, send. Sidecar and gateway are one spine with two configurations.
//!
//! ```text
//! control thread: xds updates -> Snapshot -> ArcSwap        admin, readiness, metrics, drain
//!                 certificates from the CA -> Membership -> ArcSwap
//! worker threads: accept -> end TLS -> decide::connection -> detect -> HTTP: decide::request -> filters -> upstream::send
//!                                                                   -> TCP:  admit -> upstream::dial -> copy
//! ```
//! It knows the model only: no Kubernetes, no user's YAML. It reads no environment: everything is in [`Config`].

mod admin;
mod app_health;
mod authorize;
mod body;
mod config;
mod connection;
mod control;
mod demand;
mod dns;
mod drain;
mod exchange;
mod external;
mod fault;
mod head;
mod identity;
mod labels;
mod limits;
mod live;
mod overload;
mod security;
mod serve;
mod shared;
mod start;
mod tcp;
mod tls;
mod upstream;
mod worker;

pub use app_health::{AppProbes, AppProbesError};
pub use config::{
    AppMetrics, Certificates, Config, ControlPlane, Destinations, DrainTimes, Identity,
    MemoryBound, Ports,
};
pub use start::{Addresses, Proxy, ProxyError, run};

#[cfg(test)]
mod tests;
