//! Measures the control plane: N services with M endpoints each, P connected proxies, changes of routes and endpoints.
//!
//! ```text
//! this process: made-up API server, proxies, clock     child: lateen_control::run, alone
//!        api  --list/watch over HTTP-->  sources, graph, engine  --delta ADS over TCP-->  fleet
//! ```
//! Only the API server's content and the proxies are made up; what is measured is the real control plane, from the
//! watch on. CPU and memory are read from the child's `/proc` entry. It knows no peer and compares nothing.

mod api;
mod arguments;
mod fleet;
mod host;
mod mesh;
mod process;
mod report;
mod scenario;

use anyhow::Result;
use arguments::{Arguments, Role};
use clap::Parser as _;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.role {
        Role::Host(host) => host::run(&host),
        Role::Run(run) => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()?;
            runtime.block_on(scenario::run(&run))
        }
    }
}
