//! Lifecycle hooks: `postStart` and `preStop` by command, HTTP request or pause.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use super::handle::{PodHandle, Run};
use super::machine::Machine;
use super::{exec, probe};

/// Runs a hook within a time limit.
///
/// # Errors
/// The sentence for a `FailedPostStartHook` or `FailedPreStopHook` event.
pub(crate) async fn run(
    machine: &Machine,
    pod: &PodHandle,
    container: &Container,
    hook: &LifecycleHandler,
    (current, most): (&Run, Duration),
) -> Result<(), String> {
    if let Some(action) = &hook.exec {
        let command = action.command.clone().unwrap_or_default();
        let answer = exec::run_to_end(&machine.reaper, current, command, most).await?;
        if answer.code != 0 {
            return Err(format!("exited with {}: {}", answer.code, answer.output));
        }
    } else if let Some(action) = &hook.http_get {
        let address = pod
            .network()
            .map(|n| n.address)
            .ok_or("the pod has no address")?;
        probe::http_get(container, address, action, most).await?;
    } else if let Some(action) = &hook.sleep {
        let seconds = u64::try_from(action.seconds).unwrap_or_default();
        tokio::time::sleep(Duration::from_secs(seconds).min(most)).await;
    }
    Ok(())
}
