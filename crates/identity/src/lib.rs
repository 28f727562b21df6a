//! Identities of workloads as X.509 certificates with SPIFFE ids: the certificate a workload shows ([`svid`]), whom it
//! believes ([`trust`]), the TLS settings made from both ([`tls`]), where certificates come from ([`source`],
//! [`istiod`]), and the authority that signs them ([`ca`]).
//!
//! It opens connections to the control plane and to the SPIFFE Workload API only. Accepting and copying bytes, deciding
//! who may do what, and storing the authority's secrets are elsewhere.

mod anchors;
pub mod ca;
mod certificate;
pub mod istiod;
mod pem;
pub mod source;
pub mod svid;
pub mod tls;
pub mod trust;

pub use pem::PemError;
pub use trust::peer_id;

#[cfg(test)]
mod fixture;
