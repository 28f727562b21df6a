//! Sample applications that the walk-throughs use: bookinfo's four services, httpbin, helloworld, tcp-echo,
//! websocket, ext-authz. They are ordinary servers that know nothing of the mesh; `lateen sample <app>` runs one of them.

pub mod bookinfo;
pub mod ext_authz;
pub mod helloworld;
pub mod http;
pub mod httpbin;
pub mod tcp_echo;
pub mod websocket;

use std::future::Future;

/// Resolves when the process is asked to stop (SIGTERM or SIGINT).
///
/// # Errors
/// The signal handlers cannot be installed.
pub fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}
