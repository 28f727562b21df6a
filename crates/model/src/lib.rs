//! What the mesh means, as plain data, and [`decide`]: every pure decision over it.
//!
//! ```text
//! api (written) --translate--> model (meant) --decide--> plans --proxy--> done
//! ```
//! It does no IO, knows no wire format and no Kubernetes: `translate` makes these values, `xds` carries
//! them, `proxy` acts on what [`decide`] says. Times are unix milliseconds, durations `std::time::Duration`.

pub mod decide;
pub mod gateway;
pub mod identity;
pub mod limit;
pub mod lookup;
pub mod matching;
pub mod mesh;
pub mod name;
pub mod resource;
pub mod route;
pub mod security;
pub mod service;
pub mod tls;
pub mod traffic;
pub mod workload;
