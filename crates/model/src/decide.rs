//! Every decision of the data plane as pure functions: snapshot in, plan out.
//!
//! ```text
//! ResourceSet + Scope --Snapshot::build--> Snapshot
//! connection(&Snapshot, &ConnectionFacts) --> ConnectionPlan   (on accept)
//! server_name(&Snapshot, &ConnectionFacts, sni) --> TcpPlan    (TLS passed through)
//! request(&Snapshot, &ConnectionFacts, &RequestHead, dice) --> RequestPlan
//! ```
//! Nothing here waits, logs, counts or looks at a clock; chance comes in as a number.

pub mod cluster;
pub mod plan;
