//! Builds the benchmark of the control plane (`benches/control-plane`) and runs it with the arguments given.

use anyhow::{Result, ensure};
use std::process::Command;

/// Measures the control plane with a made-up cluster and many proxies.
///
/// # Errors
/// It cannot be built, or it fails.
pub fn run(arguments: impl Iterator<Item = String>) -> Result<()> {
    let status = Command::new(env!("CARGO"))
        .args([
            "run",
            "--release",
            "--package",
            "lateen-benches",
            "--",
            "run",
        ])
        .args(arguments)
        .status()?;
    ensure!(status.success(), "the benchmark failed");
    Ok(())
}
