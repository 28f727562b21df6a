//! The `lateen` binary: every role is a subcommand. It parses, wires and prints; decisions live in the other crates.

mod analyze;
mod args;
mod bench;
mod ca;
mod check;
mod cluster;
mod forward;
mod install;
mod local;
mod objects;
mod progress;
mod proxy_view;
mod roles;
mod sandbox;
mod simulate;
mod status;
mod table;
mod view;
mod why;

use anyhow::Result;
use args::{Bench, Cli, Command};
use clap::Parser as _;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before anything that starts a thread: some processes are only stages of the sandbox.
    lateen_sandbox::maybe_run_stage();
    keep_small();
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lateen: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Long-running roles live on small pages: huge ones would count whole where a part is used. Programs that the
/// sandbox starts inherit the setting, so the sandbox itself leaves it alone.
fn keep_small() {
    let role = std::env::args().nth(1).unwrap_or_default();
    if ["control", "proxy", "ratelimit", "sample"].contains(&role.as_str()) {
        // A kernel without the setting only costs memory.
        let _ = nix::sys::prctl::set_thp_disable(true);
    }
}

/// A runtime for commands that talk to a cluster.
fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

fn run(command: Command) -> Result<ExitCode> {
    let done = match command {
        Command::Sandbox(verb) => return sandbox::run(verb),
        Command::Apply(args) => runtime()?.block_on(objects::apply(&args.connection, &args.files)),
        Command::Delete(args) => {
            runtime()?.block_on(objects::delete(&args.connection, &args.files))
        }
        Command::Get(args) => runtime()?.block_on(objects::get(&args)),
        Command::ProxyConfig(part) => runtime()?.block_on(proxy_view::config(&part)),
        Command::Check(args) => return runtime()?.block_on(check::run(&args)),
        Command::Analyze(args) => return runtime()?.block_on(analyze::run(&args)),
        Command::Ca(command) => runtime()?.block_on(ca::run(&command)),
        Command::ProxyStatus(connection) => runtime()?.block_on(status::proxies(&connection)),
        Command::Simulate(args) => runtime()?.block_on(simulate::run(&args)),
        Command::Why(args) => runtime()?.block_on(why::run(&args)),
        Command::Crds => {
            print!("{}", lateen_api::crds_yaml());
            Ok(())
        }
        Command::Control(args) => roles::control(&args),
        Command::Proxy(proxy) => roles::proxy(proxy),
        Command::Capture(args) => roles::capture(&args),
        Command::Ratelimit(args) => roles::ratelimit(args),
        Command::Sample(sample) => roles::sample(sample),
        Command::Bench(Bench::Load { url, rate, seconds }) => {
            runtime()?.block_on(bench::load::run(&url, rate, seconds))
        }
        Command::Bench(Bench::Propagation {
            changes,
            connection,
        }) => runtime()?.block_on(bench::propagation::run(changes, &connection)),
        Command::Version => {
            println!("lateen {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    };
    done.map(|()| ExitCode::SUCCESS)
}
