//! Runs one of the data plane's hot paths so many times, and nothing else: `lateen-instructions <case> <times>`. What it
//! costs is counted from outside (callgrind); allocations are counted here and told at the end. `cargo xtask
//! instructions` compares both with what they may be.

mod allocations;
mod features;
mod mesh;
mod pair;
mod pure;
mod streams;

use std::process::ExitCode;

/// What can be run, each with how many times are enough for one count.
const CASES: [(&str, Case); 9] = [
    ("route", pure::route),
    ("policy", pure::policy),
    ("decode", pure::decode),
    ("encode", pure::encode),
    ("copy", pair::copy),
    ("request", pair::http1),
    ("request-h2", streams::http2),
    ("request-balanced", pair::balanced),
    ("features", features::features),
];

/// Does its work so many times and says how many allocations that took.
type Case = fn(u64) -> u64;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let times = arguments.next().and_then(|n| n.parse::<u64>().ok());
    let found = CASES.iter().find(|(case, _)| *case == name);
    let (Some((_, case)), Some(times)) = (found, times) else {
        let names: Vec<&str> = CASES.iter().map(|(name, _)| *name).collect();
        eprintln!(
            "lateen-instructions <case> <times>; cases: {}",
            names.join(" ")
        );
        return ExitCode::FAILURE;
    };
    println!("{{\"times\": {times}, \"allocations\": {}}}", case(times));
    ExitCode::SUCCESS
}
