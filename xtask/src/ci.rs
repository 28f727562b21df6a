//! What CI runs, in order; the first failure ends the run.

use anyhow::{Context as _, Result, ensure};
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

/// Seconds that each fuzz target runs.
const FUZZ: u32 = 15;

/// Everything: formatting, tidy, lints, tests, docs, fuzz targets, instruction counts, end-to-end.
///
/// # Errors
/// The first step that fails.
pub fn everything() -> Result<()> {
    step("fmt", &["fmt", "--all", "--check"], &[])?;
    step(
        "fmt of fuzz",
        &["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"],
        &[],
    )?;
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
    crate::fuzz::run(FUZZ, &[])?;
    crate::instructions::run(std::iter::empty())?;
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
    walk("e2e", &[], &[])
}

/// The walk-through of the CA's life, for a quarter of an hour: certificates of five minutes under 200 requests a second,
/// the root rotated twice, the CA away for three minutes. Variables that are set already count
/// (`LATEEN_SOAK_SECONDS`, `_RATE`, `_LIFETIME`, `_AWAY_SECONDS`).
///
/// # Errors
/// A request failed.
pub fn soak() -> Result<()> {
    let defaults = [
        ("LATEEN_SOAK_SECONDS", "900"),
        ("LATEEN_SOAK_RATE", "200"),
        ("LATEEN_SOAK_LIFETIME", "5m"),
        ("LATEEN_SOAK_AWAY_SECONDS", "180"),
    ];
    let unset = |(name, _): &(&str, &str)| std::env::var_os(name).is_none();
    let settings: Vec<_> = defaults.into_iter().filter(unset).collect();
    walk("soak", &["rotation_and_an_absent_authority"], &settings)
}

/// Runs the end-to-end tests whose names contain one of `only` (all when empty).
fn walk(name: &str, only: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    step(
        "build --release",
        &["build", "--release", "--package", "lateen-cli"],
        &[],
    )?;
    let binary = target_directory()?.join("release/lateen");
    let binary = binary
        .to_str()
        .context("the target directory's path is not UTF-8")?;
    let fixed = ["test", "--package", "lateen-tests", "--"];
    let how = ["--test-threads=1", "--nocapture"];
    let shared = [("LATEEN_BIN", binary), ("RUST_BACKTRACE", "0")];
    step(
        name,
        &[&fixed[..], only, &how].concat(),
        &[&shared[..], environment].concat(),
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

/// Where cargo builds.
///
/// # Errors
/// `cargo metadata` fails.
pub fn target_directory() -> Result<PathBuf> {
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
