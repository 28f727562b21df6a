//! The process that is measured: the control plane, as the `lateen` binary runs it.

use crate::arguments::Host;
use anyhow::{Context as _, Result};
use lateen_control::config::Ports;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Runs a control plane until the process is ended.
///
/// # Errors
/// A port is taken, or the API server is not known.
pub fn run(host: &Host) -> Result<()> {
    // As the binary does for its long-running roles.
    let _ = nix::sys::prctl::set_thp_disable(true);
    let level = std::env::var("LATEEN_LOG").unwrap_or_else(|_| "error".to_owned());
    let _level = lateen_telemetry::logging::start(&level)?;
    let [http, secured, plaintext, monitoring, webhooks] = host.ports[..] else {
        anyhow::bail!("five ports are needed");
    };
    let mut config = lateen_control::Config {
        bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
        kubeconfig: Some(host.kubeconfig.clone()),
        ports: Ports {
            http,
            secured,
            plaintext: Some(plaintext),
            monitoring,
            webhooks,
        },
        ..lateen_control::Config::default()
    };
    if let Some(quiet) = host.quiet {
        config.debounce_quiet = Duration::from_millis(quiet);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let ended = CancellationToken::new();
    let stop = ended.clone();
    runtime.spawn(async move {
        let asked = signal(SignalKind::terminate());
        if let Ok(mut asked) = asked {
            asked.recv().await;
            stop.cancel();
        }
    });
    runtime
        .block_on(lateen_control::run(config, ended))
        .context("the control plane cannot run")
}
