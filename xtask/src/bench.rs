//! Benchmarks that are kept: which of them is run is the second word.

mod control_plane;
mod data_plane;
mod table;

use anyhow::{Result, bail};

/// Runs `bench <what> …`.
///
/// # Errors
/// There is no such benchmark, or it fails.
pub fn run(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    match arguments.next().unwrap_or_default().as_str() {
        "control-plane" => control_plane::run(arguments),
        "data-plane" => data_plane::run(arguments),
        other => {
            bail!("`cargo xtask bench control-plane|data-plane`: there is no benchmark {other:?}")
        }
    }
}
