//! Rules about the tree that no compiler checks: arrows between crates, first lines, sizes, module files.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Most lines of one source file outside its tests.
const FILE_LIMIT: usize = 600;

/// Checks every rule and lists everything that breaks one.
///
/// # Errors
/// At least one rule is broken, or the tree cannot be read.
pub fn run() -> Result<()> {
    println!("── tidy");
    let mut broken = Vec::new();
    arrows(&mut broken)?;
    let mut sources = Vec::new();
    for folder in ["crates", "benches", "samples", "tests", "xtask"] {
        walk(Path::new(folder), &mut sources)?;
    }
    for path in &sources {
        file_rules(path, &mut broken)?;
    }
    if broken.is_empty() {
        println!("── tidy: {} files", sources.len());
        return Ok(());
    }
    bail!(
        "tidy: {} rules broken\n  {}",
        broken.len(),
        broken.join("\n  ")
    );
}

/// The workspace as cargo sees it.
///
/// # Errors
/// `cargo metadata` fails.
pub fn metadata() -> Result<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .output()
        .context("cannot start cargo metadata")?;
    ensure!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The arrows that ARCHITECTURE.md allows: crate → crates it may know. `None`: any.
fn allowed() -> Result<BTreeMap<String, Option<BTreeSet<String>>>> {
    let text =
        std::fs::read_to_string("ARCHITECTURE.md").context("run this from the project's root")?;
    let block = text
        .split("<!-- arrows -->")
        .nth(1)
        .and_then(|rest| rest.split("```").nth(1))
        .context("ARCHITECTURE.md has no block of arrows after <!-- arrows -->")?;
    let mut out = BTreeMap::new();
    for line in block.lines().filter(|line| line.contains("->")) {
        let (from, to) = line.split_once("->").context("an arrow has two sides")?;
        let to = to.split("  ").next().unwrap_or_default().trim();
        let to = match to {
            "(nothing)" => Some(BTreeSet::new()),
            "(any)" => None,
            names => Some(names.split_whitespace().map(str::to_owned).collect()),
        };
        for name in from.split(',') {
            out.insert(name.trim().to_owned(), to.clone());
        }
    }
    Ok(out)
}

fn arrows(broken: &mut Vec<String>) -> Result<()> {
    let allowed = allowed()?;
    let metadata = metadata()?;
    for package in metadata["packages"]
        .as_array()
        .context("cargo metadata lists no packages")?
    {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(name) = name.strip_prefix("lateen-") else {
            continue;
        };
        let Some(may) = allowed.get(name) else {
            broken.push(format!("crate {name} has no arrow in ARCHITECTURE.md"));
            continue;
        };
        let Some(may) = may else { continue };
        let mut unused = may.clone();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let target = dependency["name"].as_str().unwrap_or_default();
            let dev = dependency["kind"] == "dev";
            if !dev {
                unused.remove(target.trim_start_matches("lateen-"));
            }
            if let Some(target) = target.strip_prefix("lateen-")
                && !dev
                && !may.contains(target)
            {
                broken.push(format!(
                    "{name} -> {target} is not an arrow in ARCHITECTURE.md"
                ));
            }
            broken.extend(reserved(name, target).filter(|_| !dev));
        }
        broken.extend(
            unused
                .iter()
                .map(|to| format!("{name} -> {to} in ARCHITECTURE.md is not a dependency")),
        );
    }
    Ok(())
}

/// Third-party crates that only some of ours may name, and why.
fn reserved(name: &str, target: &str) -> Option<String> {
    let (owners, why): (&[&str], &str) = match target {
        "kube" => (
            &["control", "node", "sandbox", "cli"],
            "one path to the platform",
        ),
        "prost" => (
            &["proto", "xds", "identity", "envoy"],
            "the wire format is their business alone",
        ),
        "anyhow" => (
            &["cli", "apps", "tests", "benches"],
            "libraries have typed errors",
        ),
        "tokio" if ["model", "api", "translate", "collections"].contains(&name) => {
            (&[], "pure crates do no IO")
        }
        "tower" => (&[], "no layer stacks in the data plane"),
        _ => return None,
    };
    (!owners.contains(&name)).then(|| format!("{name} depends on {target}: {why}"))
}

fn walk(folder: &Path, out: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if path.is_dir() && name != "gen" && name != "target" {
            walk(&path, out)?;
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            out.push(path);
        }
    }
    Ok(())
}

fn file_rules(path: &Path, broken: &mut Vec<String>) -> Result<()> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    if !text.starts_with("//!") {
        broken.push(format!(
            "{shown}: the first line must be `//!` and say what the file is for"
        ));
    }
    if path.file_name().is_some_and(|name| name == "mod.rs") {
        broken.push(format!("{shown}: use foo.rs beside foo/, not mod.rs"));
    }
    let is_test = path
        .components()
        .any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs");
    let lines = text
        .lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .count();
    if lines > FILE_LIMIT && !is_test {
        broken.push(format!(
            "{shown}: {lines} lines outside tests, at most {FILE_LIMIT}: is it one thing?"
        ));
    }
    Ok(())
}
