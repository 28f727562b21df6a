//! Medians of a benchmark's lines, and the table of them.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Cases with a target, in the table's order.
pub(super) const CASES: [&str; 14] = [
    "h1-c16",
    "h1-c64",
    "h1-c256",
    "h1-rate1500",
    "h2-c16m32",
    "grpc-c8m16",
    "body-1m",
    "conn-full",
    "conn-resume",
    "hs-full",
    "hs-resume",
    "tcp",
    "tls-h1-c64",
    "tls-h2-c16m32",
];

/// The peer that targets are ratios to.
const BASE: &str = "envoy";

/// The middle of what was measured for each case and peer.
pub(super) fn summary(lines: &[Value]) -> Vec<Value> {
    let mut cells: BTreeMap<(String, usize, String), Vec<&Value>> = BTreeMap::new();
    for line in lines {
        let failed = line.get("failed").is_some();
        let scenario = line["scenario"].as_str().unwrap_or_default().to_owned();
        let (peer, variant) = entry(line["entry"].as_str().unwrap_or_default());
        if line["nconf"].is_u64() && !failed {
            let cell = format!("memory-{} {peer}", line["nconf"]);
            let key = (scenario, CASES.len(), cell);
            cells.entry(key).or_default().push(line);
        } else if let (Some(case), false) = (line["case"].as_str(), failed) {
            let at = CASES.iter().position(|c| *c == case).unwrap_or(CASES.len());
            let key = (scenario, at, format!("{case}{variant} {peer}"));
            cells.entry(key).or_default().push(line);
        }
    }
    cells
        .iter()
        .map(|((scenario, _, cell), runs)| medians(scenario, cell, runs))
        .collect()
}

/// The peer that the benchmark calls `name`, and what is special about it, for the name of its cases.
fn entry(name: &str) -> (&str, &'static str) {
    let name = name.strip_suffix("-w1").unwrap_or(name);
    let (peer, variant) = name.split_once('-').unwrap_or((name, ""));
    let variant = match variant {
        "accesslog" | "log" => "+log",
        "plain" => "+plain",
        _ => "",
    };
    (peer, variant)
}

fn medians(scenario: &str, cell: &str, runs: &[&Value]) -> Value {
    let (case, peer) = cell.split_once(' ').unwrap_or((cell, ""));
    let mut out = Map::new();
    out.insert("scenario".to_owned(), json!(scenario));
    out.insert("case".to_owned(), json!(case));
    out.insert("peer".to_owned(), json!(peer));
    out.insert("runs".to_owned(), json!(runs.len()));
    let errors: i64 = runs.iter().filter_map(|run| run["errors"].as_i64()).sum();
    out.insert("errors".to_owned(), json!(errors));
    for field in [
        "cpu_per_10k",
        "cpu_per_gb",
        "rps",
        "gbps",
        "p50",
        "p99",
        "load1",
        "startup_s",
    ] {
        if let Some(middle) = median(runs.iter().filter_map(|run| run[field].as_f64())) {
            out.insert(field.to_owned(), json!(middle));
        }
    }
    for field in ["rss_peak_kb", "rss_kb"] {
        // Of several processes the largest: the target is for each proxy.
        let largest = |run: &Value| {
            let all = run[field].as_object()?.values().filter_map(Value::as_f64);
            all.reduce(f64::max)
        };
        if let Some(middle) = median(runs.iter().filter_map(|run| largest(run))) {
            out.insert("rss_mb".to_owned(), json!((middle / 102.4).round() / 10.0));
        }
    }
    out.into()
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut all: Vec<f64> = values.collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied()
}

/// The table of what is kept.
pub(super) fn markdown(kept: &Value) -> String {
    let (about, meta) = (&kept["about"], &kept["harness"]);
    let mut out = String::from(
        "# The data plane beside its peers\n\nWritten by `cargo xtask bench data-plane`; the same figures as JSON are in \
         data-plane.json. `+log`: with an access log; `+plain`: without TLS. CPU is user and system time of all proxies of a row, per 10,000 requests or per GB; medians. \
         Compare within a row only: the machine's pace changes from run to run.\n\n",
    );
    let word = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let _ = writeln!(
        out,
        "Commit {}{}, {}; {} × {}, {}, {}, {}; {}.\n",
        word(&about["commit"]),
        if about["uncommitted_changes"] == true {
            " with changes"
        } else {
            ""
        },
        word(&about["version"]),
        meta["ncpu"],
        word(&meta["cpu"]),
        word(&meta["mem"]),
        word(&meta["os"]),
        word(&meta["kernel"]),
        word(&meta["when"]),
    );
    out.push_str("| case | peer | CPU s | to Envoy | rate | p50 / p99 ms | MB each | errors | runs | load |\n");
    out.push_str("|---|---|---|---|---|---|---|---|---|---|\n");
    let rows = kept["cases"].as_array().map_or(&[][..], Vec::as_slice);
    for row in rows {
        let _ = writeln!(out, "{}", line(row, rows));
    }
    out
}

/// What CPU is told for: bytes where bytes are the work, else requests.
fn unit(row: &Value) -> &'static str {
    match row["case"].as_str() {
        Some("body-1m" | "tcp" | "tcp+plain") => "cpu_per_gb",
        _ => "cpu_per_10k",
    }
}

fn line(row: &Value, rows: &[Value]) -> String {
    let cpu = |row: &Value| row[unit(row)].as_f64();
    let same = |other: &&Value| {
        other["scenario"] == row["scenario"]
            && other["case"] == row["case"]
            && other["peer"] == BASE
    };
    let base = rows.iter().find(same).and_then(cpu);
    let show = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
    };
    let ratio = cpu(row).zip(base).map(|(ours, theirs)| ours / theirs);
    let rate = match (
        row["gbps"].as_f64(),
        row["rps"].as_f64(),
        row["startup_s"].as_f64(),
    ) {
        (_, _, Some(start)) => format!("ready in {start:.3} s"),
        (Some(gbps), _, _) if unit(row) == "cpu_per_gb" => format!("{gbps:.2} Gbit/s"),
        (_, Some(rps), _) => format!("{rps:.0}/s"),
        _ => "–".to_owned(),
    };
    let ms = |field: &str| row[field].as_f64().map(|micros| micros / 1000.0);
    format!(
        "| {} {} | {} | {} | {} | {rate} | {} / {} | {} | {} | {} | {} |",
        row["scenario"].as_str().unwrap_or_default(),
        row["case"].as_str().unwrap_or_default(),
        row["peer"].as_str().unwrap_or_default(),
        show(cpu(row), 3),
        show(ratio, 2),
        show(ms("p50"), 2),
        show(ms("p99"), 2),
        show(row["rss_mb"].as_f64(), 1),
        row["errors"],
        row["runs"],
        show(row["load1"].as_f64(), 1),
    )
}
