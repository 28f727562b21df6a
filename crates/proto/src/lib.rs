//! Protobuf messages and gRPC services as generated code, and nothing else. The sources are in
//! `proto/`; `cargo xtask codegen` rewrites `src/gen`. Only `xds` (and later the planes' other wire
//! crates) may know these types.

/// The incremental aggregated discovery protocol (xDS v3), in the part that is used.
#[allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    clippy::too_many_lines,
    reason = "generated code: documented in the .proto file"
)]
#[rustfmt::skip]
#[path = "gen/envoy.service.discovery.v3.rs"]
pub mod discovery;

/// Lateen's own resources.
#[allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    clippy::too_many_lines,
    reason = "generated code: documented in the .proto file"
)]
#[rustfmt::skip]
#[path = "gen/lateen.mesh.v1.rs"]
pub mod mesh;

/// The service that signs certificates of workloads (Istio: `istio.v1.auth`).
#[allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    clippy::too_many_lines,
    reason = "generated code: documented in the .proto file"
)]
#[rustfmt::skip]
#[path = "gen/istio.v1.auth.rs"]
pub mod ca;

/// External authorization over gRPC (Envoy: `envoy.service.auth.v3`), in the part that is used.
#[allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    clippy::too_many_lines,
    reason = "generated code: documented in the .proto file"
)]
#[rustfmt::skip]
#[path = "gen/envoy.service.auth.v3.rs"]
pub mod authorization;

/// The rate-limit service (Envoy: `envoy.service.ratelimit.v3`), in the part that is used.
#[allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    clippy::too_many_lines,
    reason = "generated code: documented in the .proto file"
)]
#[rustfmt::skip]
#[path = "gen/envoy.service.ratelimit.v3.rs"]
pub mod ratelimit;

/// The SPIFFE Workload API, X.509 profile. The standard gives it no package.
#[allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    clippy::too_many_lines,
    reason = "generated code: documented in the .proto file"
)]
#[rustfmt::skip]
#[path = "gen/_.rs"]
pub mod workload;
