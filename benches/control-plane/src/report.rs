//! Results as a table for people and as JSON for programs, with the machine that they were measured on.

use crate::arguments::Run;
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use std::path::Path;

/// What was measured, in order.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    part: &'static str,
    what: String,
    value: f64,
    unit: &'static str,
}

impl Report {
    /// Adds one figure, and prints it.
    pub fn add(&mut self, part: &'static str, what: &str, value: f64, unit: &'static str) {
        println!("{part:12} {what:58} {:>12} {unit}", digits(value));
        self.rows.push(Row {
            part,
            what: what.to_owned(),
            value,
            unit,
        });
    }

    /// Adds middle, 99th of a hundred and worst of `samples` in milliseconds.
    pub fn add_times(&mut self, part: &'static str, what: &str, samples: &[f64]) {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        for (name, share) in [("p50", 0.5), ("p99", 0.99), ("worst", 1.0)] {
            if let Some(value) = quantile(&sorted, share) {
                self.add(
                    part,
                    &format!("{what}, {name} of {}", sorted.len()),
                    value,
                    "ms",
                );
            }
        }
    }

    /// Writes `<name>.json` and `<name>.md`.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn write(&self, run: &Run, name: &Path, machine: &Machine) -> Result<()> {
        if let Some(folder) = name.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
        let command = command.replacen("run", "cargo xtask bench control-plane", 1);
        let rows = self.rows.iter().map(|row| {
            json!({ "part": row.part, "what": row.what, "value": row.value, "unit": row.unit })
        });
        let all = json!({
            "command": command, "note": run.note, "machine": machine.json(),
            "services": run.services, "endpoints": run.endpoints, "routes": run.routes, "proxies": run.proxies,
            "figures": rows.collect::<Vec<Value>>(),
        });
        let write = |extension: &str, text: String| {
            let path = name.with_extension(extension);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        write("json", format!("{all:#}\n"))?;
        write("md", self.table(run, &command, machine))
    }

    fn table(&self, run: &Run, command: &str, machine: &Machine) -> String {
        let mut text = format!(
            "# Control plane: {} services, {} workloads, {} proxies\n\n`{command}`\n\n{machine}\n\n{}\n\n",
            run.services,
            run.services * run.endpoints,
            run.proxies,
            run.note,
        );
        text.push_str("| part | what | figure |\n|---|---|---:|\n");
        for row in &self.rows {
            let line = format!(
                "| {} | {} | {} {} |\n",
                row.part,
                row.what,
                digits(row.value),
                row.unit
            );
            text.push_str(&line);
        }
        text
    }
}

fn digits(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small positive number"
    )]
    let at = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied()
}

/// The machine.
#[derive(Debug)]
pub struct Machine {
    cpu: String,
    cores: usize,
    memory: String,
    kernel: String,
    load: String,
}

impl Machine {
    /// The machine as it is now.
    pub fn now() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let after = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| line.split_once(':'));
            value
                .map(|(_, value)| value.trim().to_owned())
                .unwrap_or_default()
        };
        Self {
            cpu: after(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory: after(&read("/proc/meminfo"), "MemTotal"),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: read("/proc/loadavg")
                .split_whitespace()
                .take(3)
                .collect::<Vec<_>>()
                .join(" "),
        }
    }

    fn json(&self) -> Value {
        json!({ "cpu": self.cpu, "cores": self.cores, "memory": self.memory, "kernel": self.kernel,
            "load before the run": self.load })
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            cpu,
            cores,
            memory,
            kernel,
            load,
        } = self;
        write!(
            f,
            "{cores} × {cpu}, {memory}, Linux {kernel}; load before the run {load}."
        )
    }
}
