//! Mutual TLS and policies.

mod attributes;
mod authz;
mod canonical;
mod gateway;
mod mtls;
mod random;
mod simulate;

use proptest::prelude::ProptestConfig;

/// Random cases: `LATEEN_CASES` times as many as usual.
fn cases(usual: u32) -> ProptestConfig {
    let factor = std::env::var("LATEEN_CASES").ok();
    let factor: u32 = factor.and_then(|f| f.parse().ok()).unwrap_or(1);
    ProptestConfig {
        cases: usual.saturating_mul(factor),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}
