//! What the user wrote: Istio and core Kubernetes kinds, YAML in, notices out.
//!
//! ```text
//! text --yaml::parse--> Document { object, notices, lines }        (files)
//! JSON --object::from_json--> (Object, Vec<Notice>)                (API server)
//! Object --validate::validate--> Vec<Notice>                       (admission, analyze)
//! ```
//! It knows names, types and rules of single objects. It does not know what they mean together (that is
//! `translate`), and does no IO.

pub mod authorization_policy;
pub mod check;
pub mod crd;
pub mod destination_rule;
pub mod fields;
pub mod gateway;
pub mod jwks;
pub mod kinds;
pub mod kubernetes;
pub mod mesh_config;
pub mod meta;
pub mod notice;
pub mod object;
pub mod path;
pub mod peer_authentication;
pub mod rate_limit_policy;
pub mod request_authentication;
pub mod schema;
pub mod service_entry;
pub mod sidecar;
pub mod validate;
pub mod virtual_service;
pub mod workload_entry;
pub mod yaml;

pub use crd::{crds, crds_yaml};
