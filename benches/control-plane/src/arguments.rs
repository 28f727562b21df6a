//! What is measured, as the command line says it.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Benchmarks of the control plane.
#[derive(Debug, Parser)]
#[command(name = "bench-control-plane")]
pub struct Arguments {
    /// What this process does.
    #[command(subcommand)]
    pub role: Role,
}

/// What a process does.
#[derive(Debug, Subcommand)]
pub enum Role {
    /// Measures.
    Run(Run),
    /// Is the control plane that is measured; started by `run`.
    #[command(hide = true)]
    Host(Host),
}

/// One measurement.
#[derive(Debug, Clone, Args)]
pub struct Run {
    /// Services.
    #[arg(long, default_value_t = 1000)]
    pub services: usize,
    /// Endpoints (pods) of each service.
    #[arg(long, default_value_t = 10)]
    pub endpoints: usize,
    /// VirtualServices and as many DestinationRules.
    #[arg(long, default_value_t = 500)]
    pub routes: usize,
    /// Connected proxies.
    #[arg(long, default_value_t = 100)]
    pub proxies: usize,
    /// Services that each proxy uses and is told of, on demand; absent: proxies are told of everything.
    #[arg(long)]
    pub uses: Option<usize>,
    /// Changes of a route that are timed, at rest and under churn each.
    #[arg(long, default_value_t = 100)]
    pub changes: usize,
    /// Changes of endpoints each second under churn.
    #[arg(long, default_value_t = 40)]
    pub churn: usize,
    /// Parts to leave out: idle, metadata, churn, reconnect, restart.
    #[arg(long, value_delimiter = ',')]
    pub skip: Vec<String>,
    /// Name of the results' files; absent: results are printed only.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// A sentence about the run, kept with the results.
    #[arg(long, default_value = "")]
    pub note: String,
    /// Milliseconds without a change after which changes are pushed; absent: the control plane's own setting.
    #[arg(long)]
    pub quiet: Option<u64>,
    /// Waits for Enter between parts, for profilers.
    #[arg(long)]
    pub pause: bool,
}

/// How the control plane is started.
#[derive(Debug, Clone, Args)]
pub struct Host {
    /// Kubeconfig of the made-up API server.
    #[arg(long)]
    pub kubeconfig: PathBuf,
    /// Ports: pages, secured, plain text, monitoring, webhooks.
    #[arg(long, value_delimiter = ',')]
    pub ports: Vec<u16>,
    /// See [`Run::quiet`].
    #[arg(long)]
    pub quiet: Option<u64>,
}
