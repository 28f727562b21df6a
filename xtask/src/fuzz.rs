//! `cargo xtask fuzz`: builds the fuzz targets with coverage on the stable toolchain and runs each on its kept corpus.

use anyhow::{Context as _, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

/// The targets, by name of their file in `fuzz/targets`.
pub const TARGETS: [&str; 5] = ["http1_head", "client_hello", "jwt", "policy", "yaml"];

/// Coverage as libFuzzer wants it; these are options of stable compilers. Only code for the target is built so, not
/// build scripts.
const FLAGS: [&str; 6] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// Runs `only` (all when empty) for `seconds` each, two at once.
///
/// # Errors
/// A target does not build, or finds an input that breaks it; the input's file is named.
pub fn run(seconds: u32, only: &[String]) -> Result<()> {
    let chosen: Vec<&str> = TARGETS
        .into_iter()
        .filter(|name| only.is_empty() || only.iter().any(|o| o == name))
        .collect();
    ensure!(
        !chosen.is_empty(),
        "no such target: there are {}",
        TARGETS.join(", ")
    );
    let folder = build(&chosen)?;
    println!("── fuzz: {seconds} s each: {}", chosen.join(", "));
    let mut broken = Vec::new();
    for pair in chosen.chunks(2) {
        let running: Vec<_> = pair
            .iter()
            .map(|name| start(&folder, name, seconds).map(|child| (*name, child)))
            .collect::<Result<_>>()?;
        for (name, mut child) in running {
            if !child.wait()?.success() {
                broken.push(name);
            }
        }
    }
    if !broken.is_empty() {
        bail!(
            "fuzz: {} found inputs that break them: see crash-* in {} and the lines above; keep the input in fuzz/corpus",
            broken.join(", "),
            folder.display()
        );
    }
    Ok(())
}

/// Builds the targets and returns the folder with their programs.
fn build(chosen: &[&str]) -> Result<PathBuf> {
    println!("── fuzz: build");
    let metadata = crate::tidy::metadata()?;
    let target = metadata["target_directory"]
        .as_str()
        .context("cargo metadata names no target directory")?;
    let target = Path::new(target).join("fuzz");
    let triple = host()?;
    let mut command = Command::new(env!("CARGO"));
    command
        .args(["build", "--release", "--manifest-path", "fuzz/Cargo.toml"])
        .args(["--target", &triple, "--target-dir"])
        .arg(&target)
        .env("RUSTFLAGS", FLAGS.join(" "));
    for name in chosen {
        command.args(["--bin", name]);
    }
    ensure!(
        command.status()?.success(),
        "the fuzz targets do not build (a C++ compiler is needed)"
    );
    Ok(target.join(triple).join("release"))
}

fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.context("rustc names no host")?.to_owned())
}

fn start(folder: &Path, name: &str, seconds: u32) -> Result<Child> {
    // What is found goes to the build folder; what is worth keeping is copied into the corpus by hand.
    let found = folder.join(format!("corpus-{name}"));
    std::fs::create_dir_all(&found)?;
    let kept = Path::new("fuzz/corpus").join(name);
    Command::new(folder.join(name))
        .arg(&found)
        .arg(&kept)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!(
            "-artifact_prefix={}/crash-{name}-",
            folder.display()
        ))
        .args(["-timeout=10", "-rss_limit_mb=1024", "-max_len=16384"])
        .args(["-print_final_stats=1", "-verbosity=0"])
        .spawn()
        .with_context(|| format!("cannot start the fuzz target {name}"))
}
