//! What CI runs, in order; the first failure ends the run.

use anyhow::{Context as _, Result, ensure};
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

/// Everything: formatting, tidy, lints, tests, docs, end-to-end.
///
/// # Errors
/// The first step that fails.
pub fn everything() -> Result<()> {
    step("fmt", &["fmt", "--all", "--check"], &[])?;
    crate::tidy::run()?;
    step(
        "clippy",
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
        &[],
    )?;
    unit_tests()?;
    step(
        "docs",
        &["doc", "--workspace", "--no-deps", "--quiet"],
        &[("RUSTDOCFLAGS", "-D warnings")],
    )?;
    end_to_end()
}

/// Tests of every crate but the end-to-end ones.
///
/// # Errors
/// A test fails.
pub fn unit_tests() -> Result<()> {
    step(
        "test",
        &["test", "--workspace", "--exclude", "lateen-tests"],
        &[],
    )
}

/// Builds the release binary and runs the walk-throughs with it, one after the other: each has a mesh of its own.
///
/// # Errors
/// A walk-through fails.
pub fn end_to_end() -> Result<()> {
    step(
        "build --release",
        &["build", "--release", "--package", "lateen-cli"],
        &[],
    )?;
    let binary = target_directory()?.join("release/lateen");
    let binary = binary
        .to_str()
        .context("the target directory's path is not UTF-8")?;
    step(
        "e2e",
        &[
            "test",
            "--package",
            "lateen-tests",
            "--",
            "--test-threads=1",
            "--nocapture",
        ],
        &[("LATEEN_BIN", binary), ("RUST_BACKTRACE", "0")],
    )
}

/// Runs the tests with expectations rewritten to what they now produce.
///
/// # Errors
/// A test fails for another reason.
pub fn bless() -> Result<()> {
    step(
        "bless",
        &["test", "--workspace", "--exclude", "lateen-tests"],
        &[("UPDATE_EXPECT", "1")],
    )
}

fn target_directory() -> Result<PathBuf> {
    let metadata = crate::tidy::metadata()?;
    let path = metadata["target_directory"]
        .as_str()
        .context("cargo metadata names no target directory")?;
    Ok(PathBuf::from(path))
}

fn step(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    println!("── {name}");
    let start = Instant::now();
    let status = Command::new(env!("CARGO"))
        .args(arguments)
        .envs(environment.iter().copied())
        .status()
        .with_context(|| format!("cannot start cargo for {name}"))?;
    ensure!(
        status.success(),
        "{name} failed: cargo {}",
        arguments.join(" ")
    );
    println!("── {name}: {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}
