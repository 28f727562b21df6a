//! `cargo xtask fuzz`: builds the fuzz targets with coverage on the stable toolchain and runs each on its kept corpus.

use anyhow::{Context as _, Result, bail, ensure};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

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

/// Keeps a target from leaving another copy of an input where it is started.
const NO_COPY: &str = "-exact_artifact_path=/dev/null";

/// Last lines of a target's output that are shown when it fails.
const SHOWN: usize = 40;

/// Runs `only` (all when empty) for `seconds` each, two at once. The kept corpus is run first, however few seconds
/// there are.
///
/// # Errors
/// A target does not build, or finds an input that breaks it; the input's file is named.
pub fn run(seconds: u32, only: &[String]) -> Result<()> {
    for name in only {
        let known = TARGETS.contains(&name.as_str());
        ensure!(
            known,
            "there is no target {name:?}: there are {}",
            TARGETS.join(", ")
        );
    }
    let chosen = TARGETS.into_iter();
    let chosen = chosen.filter(|name| only.is_empty() || only.iter().any(|o| o == name));
    let chosen: Vec<&str> = chosen.collect();
    let folder = build(&chosen)?;
    println!("── fuzz: {seconds} s each: {}", chosen.join(", "));
    let mut broken = Vec::new();
    for pair in chosen.chunks(2) {
        let mut running = Vec::new();
        for name in pair {
            running.push(Run::start(&folder, name, seconds)?);
        }
        for run in running {
            broken.extend(run.finish()?);
        }
    }
    if !broken.is_empty() {
        bail!(
            "fuzz: {} found inputs that break them; mend what they broke, and keep the inputs in fuzz/corpus",
            broken.join(", ")
        );
    }
    Ok(())
}

/// Builds the targets and returns the folder with their programs. It has a target directory of its own, so that other
/// builds are not undone by its flags.
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
        // It would win over the other.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTFLAGS", FLAGS.join(" "));
    for name in chosen {
        command.args(["--bin", name]);
    }
    ensure!(
        command.status()?.success(),
        "the fuzz targets do not build; beside what the lines above say, they need a C++ compiler (g++)"
    );
    Ok(target.join(triple).join("release"))
}

fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.context("rustc names no host")?.to_owned())
}

/// A target at work.
struct Run {
    name: String,
    program: PathBuf,
    child: Child,
    /// Its output.
    log: PathBuf,
    /// Where it leaves inputs that break it: a folder, and the beginning of their names.
    artifacts: (PathBuf, String),
    since: SystemTime,
}

impl Run {
    fn start(folder: &Path, name: &str, seconds: u32) -> Result<Self> {
        // What is found goes to the build folder; what is worth keeping is copied into the corpus by hand.
        let found = folder.join(format!("corpus-{name}"));
        fs::create_dir_all(&found)?;
        let kept = Path::new("fuzz/corpus").join(name);
        let log = folder.join(format!("{name}.log"));
        let prefix = format!("broken-{name}-");
        let output =
            File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(folder.join(name));
        command.arg(&found);
        if kept.is_dir() {
            command.arg(&kept);
        } else {
            println!(
                "fuzz {name}: there is no {}: it begins with nothing",
                kept.display()
            );
        }
        command
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/{prefix}", folder.display()))
            .args(["-timeout=10", "-rss_limit_mb=1024", "-max_len=16384"])
            .arg("-print_final_stats=1")
            .stdout(output.try_clone()?)
            .stderr(output);
        println!("fuzz {name}: its output goes to {}", log.display());
        Ok(Self {
            name: name.to_owned(),
            program: folder.join(name),
            // Clocks of file systems are coarse.
            since: SystemTime::now() - Duration::from_secs(1),
            child: command
                .spawn()
                .with_context(|| format!("cannot start the fuzz target {name}"))?,
            log,
            artifacts: (folder.to_owned(), prefix),
        })
    }

    /// Waits for its end and tells what it did; its name when it found an input that breaks it.
    fn finish(mut self) -> Result<Option<String>> {
        let status = self.child.wait()?;
        let log = fs::read(&self.log)?;
        let log = String::from_utf8_lossy(&log);
        let stat = |name: &str| {
            let mut values = log.lines().filter_map(|line| line.strip_prefix(name));
            values.next().unwrap_or("?").trim().to_owned()
        };
        let Self { name, program, .. } = &self;
        println!(
            "fuzz {name}: {} inputs, {} a second",
            stat("stat::number_of_executed_units:"),
            stat("stat::average_exec_per_sec:")
        );
        if status.success() {
            return Ok(None);
        }
        let broken = self.broken()?;
        if !broken.is_empty() && broken.iter().all(|input| self.was_only_slow(input)) {
            println!("fuzz {name}: it stood still for a while, and not for its input");
            return Ok(None);
        }
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(SHOWN)..];
        println!("{}\nfuzz {name}: {status}", last.join("\n"));
        for input in broken {
            let (program, input) = (program.display(), input.display());
            println!(
                "fuzz {name}: an input that breaks it: {input}\n  run it alone: {program} {NO_COPY} {input}"
            );
        }
        Ok(Some(self.name))
    }

    /// Whether an input took too long, and takes no time by itself: the machine slept, or was busy with something else.
    fn was_only_slow(&self, input: &Path) -> bool {
        let name = input.to_string_lossy();
        let mut again = Command::new(&self.program);
        again.args(["-timeout=5", NO_COPY]).arg(input);
        let again = again.stdout(Stdio::null()).stderr(Stdio::null());
        name.contains("-timeout-") && again.status().is_ok_and(|status| status.success())
    }

    /// Inputs that it left in this run.
    fn broken(&self) -> Result<Vec<PathBuf>> {
        let (folder, prefix) = &self.artifacts;
        let mut found = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let is_ours = entry.file_name().to_string_lossy().starts_with(prefix);
            if is_ours && entry.metadata()?.modified()? >= self.since {
                found.push(entry.path());
            }
        }
        found.sort();
        Ok(found)
    }
}
