//! Counts what the data plane's hot paths cost, in instructions (callgrind) and allocations, and compares that with what
//! they may cost. Neither moves with the machine's load; both are kept in `benches/instructions/bounds.json`.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::process::Command;

const BOUNDS: &str = "benches/instructions/bounds.json";

/// Each hot path, and how many times it is run to count it once.
const CASES: [(&str, u64); 8] = [
    ("route", 500),
    ("policy", 500),
    ("encode", 100),
    ("decode", 100),
    ("copy", 100),
    ("request", 300),
    ("request-h2", 300),
    ("request-balanced", 300),
];

/// What a path may cost more than it did when its bound was kept, in percent.
const SLACK: f64 = 5.0;

/// What one time costs.
#[derive(Debug, Clone, Copy)]
struct Cost {
    instructions: f64,
    allocations: f64,
}

/// Counts every path, or those named; with `bless` the counts become the bounds.
///
/// # Errors
/// A path costs more than it may, or cannot be counted.
pub fn run(arguments: impl Iterator<Item = String>) -> Result<()> {
    let mut bless = false;
    let mut only = Vec::new();
    for argument in arguments {
        match argument.as_str() {
            "bless" => bless = true,
            name if CASES.iter().any(|(case, _)| *case == name) => only.push(argument),
            other => bail!("there is no hot path {other:?}"),
        }
    }
    println!("── instructions");
    let program = built()?;
    let mut bounds = bounds()?;
    let mut over = Vec::new();
    for (case, times) in CASES {
        if !only.is_empty() && !only.iter().any(|name| name == case) {
            continue;
        }
        let cost = count(&program, case, times)?;
        let bound = bounds.get(case).cloned().unwrap_or_default();
        println!("{}", compared(case, cost, &bound));
        if bless {
            bounds.insert(case.to_owned(), kept(cost));
        } else if let Some(why) = excess(cost, &bound) {
            over.push(format!("{case}: {why}"));
        }
    }
    if bless {
        let text = serde_json::to_string_pretty(&Value::from(bounds))? + "\n";
        std::fs::write(BOUNDS, text).with_context(|| format!("cannot write {BOUNDS}"))?;
    }
    ensure!(
        over.is_empty(),
        "instructions: more than {SLACK} % over their bound\n  {}\n\
         find out why (docs/profiling.md); where it is worth it: cargo xtask instructions bless",
        over.join("\n  ")
    );
    Ok(())
}

/// The program that runs the paths: `LATEEN_INSTRUCTIONS`, or one that is built together with the binary, so that both
/// share what is built.
fn built() -> Result<std::path::PathBuf> {
    if let Some(path) = std::env::var_os("LATEEN_INSTRUCTIONS") {
        return Ok(path.into());
    }
    let packages = [
        "--package",
        "lateen-cli",
        "--package",
        "lateen-instructions",
    ];
    let done = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release"])
        .args(packages)
        .status()
        .context("cannot start cargo")?;
    ensure!(
        done.success(),
        "the program that runs the hot paths cannot be built"
    );
    Ok(crate::ci::target_directory()?.join("release/lateen-instructions"))
}

fn bounds() -> Result<Map<String, Value>> {
    let text = std::fs::read_to_string(BOUNDS).unwrap_or_else(|_| "{}".to_owned());
    serde_json::from_str(&text).with_context(|| format!("{BOUNDS} is not what it should be"))
}

/// One time's cost: what three times as many runs cost more, so that starting and warming up do not count.
fn count(program: &Path, case: &str, times: u64) -> Result<Cost> {
    let (few, many) = (
        run_under(program, case, times)?,
        run_under(program, case, 3 * times)?,
    );
    let each = |few: f64, many: f64| (many - few) / (2 * times) as f64;
    Ok(Cost {
        instructions: each(few.instructions, many.instructions),
        allocations: each(few.allocations, many.allocations),
    })
}

fn run_under(program: &Path, case: &str, times: u64) -> Result<Cost> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([case, &times.to_string()])
        .output()
        .context("valgrind cannot be started: install it (Debian: valgrind)")?;
    let (said, told) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    ensure!(
        output.status.success(),
        "{case} failed under valgrind:\n{told}"
    );
    let told: Value = match said.lines().last() {
        Some(line) => serde_json::from_str(line)?,
        None => bail!("{case} said nothing"),
    };
    let collected = String::from_utf8_lossy(&output.stderr);
    let collected = collected
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let instructions = collected.and_then(|(_, n)| n.trim().parse().ok());
    Ok(Cost {
        instructions: instructions.context("callgrind told no count")?,
        allocations: told["allocations"].as_f64().unwrap_or_default(),
    })
}

fn kept(cost: Cost) -> Value {
    // Whole numbers: the rest is noise.
    json!({
        "instructions": cost.instructions.round(),
        "allocations": (cost.allocations * 10.0).round() / 10.0,
    })
}

fn compared(case: &str, cost: Cost, bound: &Value) -> String {
    let change = match bound["instructions"].as_f64() {
        Some(before) => format!("{:+.1} %", (cost.instructions / before - 1.0) * 100.0),
        None => "no bound yet".to_owned(),
    };
    let Cost {
        instructions,
        allocations,
    } = cost;
    format!(
        "{case:<18} {instructions:>10.0} instructions  {allocations:>6.1} allocations  {change}"
    )
}

/// What is too much; absent: nothing, or there is no bound yet.
fn excess(cost: Cost, bound: &Value) -> Option<String> {
    let instructions = bound["instructions"].as_f64()?;
    let allocations = bound["allocations"].as_f64()?;
    let most = |bound: f64| bound * (1.0 + SLACK / 100.0);
    if cost.instructions > most(instructions) {
        return Some(format!(
            "{:.0} instructions, bound {instructions}",
            cost.instructions
        ));
    }
    // Half of one is what a rare wake-up adds.
    (cost.allocations > most(allocations) + 0.5)
        .then(|| format!("{:.1} allocations, bound {allocations}", cost.allocations))
}
