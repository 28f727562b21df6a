//! Measures the data plane beside its peers in one run of the proxy benchmark, and keeps what came out as JSON and as a
//! table. The benchmark itself (`bench.py`, Envoy, nginx, HAProxy) is not part of the tree.
//!
//! ```text
//! HARNESS=/path/to/bench cargo xtask bench data-plane [--reps 3] [--secs 5] [--cases a,b] [--only envoy,lateen]
//! …                                          --from FILE: the table of what `bench.py --out FILE` has measured
//! ```

use super::table;
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What we add to the benchmark.
const PEERS: &str = "benches/peers";
/// Cases that are measured with an access log, too.
const LOGGED: [&str; 2] = ["h1-c16", "h1-c64"];
/// Where results are kept.
const RESULTS: &str = "benches/results";

/// What to measure.
#[derive(Debug)]
struct Wish {
    harness: PathBuf,
    reps: u32,
    secs: u32,
    /// Cases; empty: those with a target.
    cases: String,
    /// Peers beside us.
    only: String,
    /// Whether memory and start-up are measured, too.
    memory: bool,
    /// Lines of the benchmark that were measured before; nothing is measured then.
    from: Option<PathBuf>,
}

/// Runs `bench data-plane` with these arguments.
///
/// # Errors
/// The benchmark is not there or fails.
pub fn run(arguments: impl Iterator<Item = String>) -> Result<()> {
    let wish = wish(arguments)?;
    let binary = binary()?;
    let lines = match &wish.from {
        Some(file) => read(file)?,
        None => {
            let work = copied(&wish.harness)?;
            let lines = measured(&wish, &binary, &work);
            let removed = std::fs::remove_dir_all(&work);
            let lines = lines?;
            removed.with_context(|| format!("cannot remove {}", work.display()))?;
            lines
        }
    };
    let about = described(&binary)?;
    let summary = table::summary(&lines);
    ensure!(!summary.is_empty(), "the benchmark measured nothing");
    let kept = json!({ "about": about, "harness": meta(&lines), "cases": summary });
    std::fs::create_dir_all(RESULTS)?;
    let text = serde_json::to_string_pretty(&kept)? + "\n";
    std::fs::write(format!("{RESULTS}/data-plane.json"), text)?;
    let table = table::markdown(&kept);
    std::fs::write(format!("{RESULTS}/data-plane.md"), &table)?;
    println!("{table}");
    Ok(())
}

fn wish(mut arguments: impl Iterator<Item = String>) -> Result<Wish> {
    let mut wish = Wish {
        harness: PathBuf::from(std::env::var("HARNESS").unwrap_or_default()),
        reps: 3,
        secs: 5,
        cases: table::CASES.join(","),
        only: "envoy,nginx,haproxy,lateen".to_owned(),
        memory: true,
        from: None,
    };
    while let Some(name) = arguments.next() {
        if name == "--no-memory" {
            wish.memory = false;
            continue;
        }
        let value = arguments
            .next()
            .with_context(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--harness" => wish.harness = value.into(),
            "--reps" => wish.reps = value.parse().context("--reps is a number")?,
            "--secs" => wish.secs = value.parse().context("--secs is a number")?,
            "--cases" => wish.cases = value,
            "--only" => wish.only = value,
            "--from" => wish.from = Some(value.into()),
            _ => bail!("there is no {name} for benchmarks"),
        }
    }
    ensure!(
        wish.harness.join("bench.py").is_file(),
        "the proxy benchmark is not at {:?}: set HARNESS, or --harness, to the folder that has its bench.py",
        wish.harness
    );
    Ok(wish)
}

/// The program: `LATEEN_BIN`, or what is built for packages.
fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("LATEEN_BIN") {
        let path = PathBuf::from(path);
        return path
            .canonicalize()
            .with_context(|| format!("LATEEN_BIN: {} is not there", path.display()));
    }
    crate::dist::run()
}

/// The benchmark in a folder of its own, with us among its peers: it writes beside itself.
fn copied(harness: &Path) -> Result<PathBuf> {
    let work = std::env::temp_dir().join(format!("lateen-bench-{}", std::process::id()));
    let from = harness.join(".");
    command("cp", &["-r", &text(&from)?, &text(&work)?])?;
    command("chmod", &["-R", "u+rwX", &text(&work)?])?;
    for (folder, mode) in [("peers", "+x"), ("backend", "+x")] {
        command("chmod", &["-R", mode, &text(&work.join(folder))?])?;
    }
    for peer in std::fs::read_dir(PEERS).context("run this from the project's root")? {
        let peer = peer?;
        std::fs::copy(peer.path(), work.join("peers").join(peer.file_name()))?;
    }
    Ok(work)
}

fn measured(wish: &Wish, binary: &Path, work: &Path) -> Result<Vec<Value>> {
    let out = work.join("out.jsonl");
    let run = |suffixes: [&str; 2], arguments: &[&str]| {
        let only = entries(&wish.only, suffixes);
        let mut python = Command::new("python3");
        python.arg("bench.py").args(arguments);
        python.args(["--only", &only, "--out"]).arg(&out);
        let done = python.current_dir(work).env("LATEEN_BIN", binary).status();
        ensure!(
            done.context("cannot start python3")?.success(),
            "bench.py {} failed",
            arguments.join(" ")
        );
        Ok(())
    };
    let (reps, secs) = (wish.reps.to_string(), wish.secs.to_string());
    let wanted: Vec<&str> = wish.cases.split(',').collect();
    let logged: Vec<&str> = LOGGED.into_iter().filter(|c| wanted.contains(c)).collect();
    let plain = wanted.iter().copied().find(|case| *case == "tcp");
    for (plan, suffixes, cases) in [
        ("all", ["-w1"; 2], wish.cases.clone()),
        ("pair", ["-accesslog-w1", "-log-w1"], logged.join(",")),
        (
            "pair",
            ["-plain-w1"; 2],
            plain.unwrap_or_default().to_owned(),
        ),
    ] {
        if !cases.is_empty() {
            let fixed = ["run", "--plan", plan, "--cases", &cases];
            let times = ["--reps", &reps, "--secs", &secs];
            run(suffixes, &[fixed.as_slice(), &times].concat())?;
        }
    }
    if wish.memory {
        run(["-w1"; 2], &["memory", "--reps", &reps])?;
    }
    read(&out)
}

fn read(file: &Path) -> Result<Vec<Value>> {
    let lines = std::fs::read_to_string(file).context("the benchmark wrote nothing")?;
    let lines = lines.lines().map(serde_json::from_str);
    Ok(lines.collect::<Result<_, _>>()?)
}

/// The benchmark's names of these peers with a suffix: the first one of those that it knows itself, the second one of ours.
fn entries(peers: &str, suffixes: [&str; 2]) -> String {
    let named = |peer| format!("{peer}{}", suffixes[usize::from(peer == "lateen")]);
    let all: Vec<String> = peers.split(',').map(named).collect();
    all.join(",")
}

/// What was measured.
fn described(binary: &Path) -> Result<Value> {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        let text = output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
        text.unwrap_or_default()
    };
    let changed = !said("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty();
    Ok(json!({
        "commit": said("git", &["rev-parse", "--short=12", "HEAD"]),
        "uncommitted_changes": changed,
        "version": said(&text(binary)?, &["version"]),
        "bytes": std::fs::metadata(binary)?.len(),
    }))
}

/// What the benchmark says of the machine.
fn meta(lines: &[Value]) -> Value {
    let meta = lines.iter().find(|line| line["meta"] == 1);
    meta.cloned().unwrap_or_default()
}

fn command(program: &str, arguments: &[&str]) -> Result<()> {
    let done = Command::new(program).args(arguments).status()?;
    ensure!(done.success(), "{program} {} failed", arguments.join(" "));
    Ok(())
}

fn text(path: &Path) -> Result<String> {
    let text = path.to_str().context("a path that is not UTF-8")?;
    Ok(text.to_owned())
}
