//! One container's life: start, probe, hear of its end, restart or not, terminate. One supervisor task each.

mod launch;
mod live;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Container;
use tokio::sync::watch;

use super::backoff::RestartBackoff;
use super::handle::{PodHandle, Stop, since};
use super::machine::Machine;
use super::state::{Ended, Now, Role};

/// A container with all its supervisor needs.
pub(super) struct Supervised {
    pub machine: Arc<Machine>,
    pub pod: Arc<PodHandle>,
    pub container: Container,
    pub role: Role,
}

/// How a container's supervision ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It ended by itself and is not to be restarted; whether with code 0.
    Finished(bool),
    /// It was asked to end.
    Stopped,
}

/// Why a container did not start.
#[derive(Debug)]
enum StartError {
    /// It will not run until something else changes: shown as waiting.
    Waiting {
        reason: &'static str,
        message: String,
    },
    /// Its program could not be started: shown as terminated with code 128.
    Program(String),
}

/// How soon a start that waits for something is tried again at the latest.
const RETRY: Duration = Duration::from_secs(5);

impl Supervised {
    /// Runs the container until it is finished or stopped.
    pub(super) async fn run(&self, mut stop: watch::Receiver<Option<Stop>>) -> Outcome {
        let mut backoff = RestartBackoff::default();
        let mut changes = self.machine.cache.changes();
        let mut attempt = 0u32;
        loop {
            if stop.borrow().is_some() {
                return Outcome::Stopped;
            }
            changes.mark_unchanged();
            let ended = match self.start(attempt).await {
                Ok(run) => {
                    attempt += 1;
                    self.live(run, &mut stop).await
                }
                Err(StartError::Waiting { reason, message }) => {
                    self.show_waiting(reason, message);
                    tokio::select! {
                        _ = stop.changed() => {}
                        _ = changes.changed() => {}
                        () = tokio::time::sleep(RETRY) => {}
                    }
                    continue;
                }
                Err(StartError::Program(message)) => {
                    attempt += 1;
                    self.failed_to_start(message)
                }
            };
            let stopping = stop.borrow().is_some();
            self.record_end(ended.clone());
            if stopping {
                return Outcome::Stopped;
            }
            if !self.restarts(&ended) {
                return Outcome::Finished(ended.code == 0);
            }
            let ran = since(ended.started);
            let pause = backoff.after_run(ran);
            if !pause.is_zero() && !self.wait_to_restart(pause, &mut stop).await {
                // It goes as it is: ended, and not waiting for a restart that will not come.
                self.pod.change_container(&self.container.name, |one| {
                    one.now = Now::Terminated(ended);
                });
                return Outcome::Stopped;
            }
        }
    }

    /// Whether a container that ended like this runs again.
    fn restarts(&self, ended: &Ended) -> bool {
        let spec = self.pod.spec();
        let policy = spec.restart_policy.as_deref().unwrap_or("Always");
        match self.role {
            Role::Sidecar => true,
            Role::Init => ended.code != 0 && policy != "Never",
            Role::Main => match policy {
                "Never" => false,
                "OnFailure" => ended.code != 0,
                _ => true,
            },
        }
    }

    fn show_waiting(&self, reason: &'static str, message: String) {
        let name = &self.container.name;
        let again = self.pod.read(|state| {
            state.containers.get(name).is_some_and(|one| {
                matches!(&one.now, Now::Waiting { reason: r, .. } if r == reason || r == "ImagePullBackOff")
            })
        });
        // The table was asked again and still has no entry: Kubernetes' word for that is a back-off.
        let reason = match reason {
            "ErrImagePull" if again => "ImagePullBackOff",
            other => other,
        };
        self.pod.set_waiting(name, reason, &message);
        if !again {
            self.warn("Failed", message);
        }
    }

    fn failed_to_start(&self, message: String) -> Ended {
        self.warn("Failed", format!("Error: {message}"));
        let now = super::state::now_in_seconds();
        Ended {
            code: 128,
            signal: None,
            reason: "StartError".into(),
            message,
            started: now,
            finished: now,
            id: None,
        }
    }

    fn record_end(&self, ended: Ended) {
        self.pod.change_container(&self.container.name, |one| {
            one.ready = false;
            one.started = false;
            one.now = Now::Terminated(ended);
        });
    }

    /// Waits in `CrashLoopBackOff`; false when asked to end meanwhile.
    async fn wait_to_restart(
        &self,
        pause: Duration,
        stop: &mut watch::Receiver<Option<Stop>>,
    ) -> bool {
        let message = format!(
            "back-off {}s restarting failed container={} pod={}_{}({})",
            pause.as_secs(),
            self.container.name,
            self.pod.name,
            self.pod.namespace,
            self.pod.uid
        );
        self.warn(
            "BackOff",
            format!(
                "Back-off restarting failed container {} in pod {}",
                self.container.name, self.pod.name
            ),
        );
        self.pod.change_container(&self.container.name, |one| {
            if let Now::Terminated(end) = &one.now {
                one.last = Some(end.clone());
            }
            one.now = Now::Waiting {
                reason: "CrashLoopBackOff".into(),
                message,
            };
        });
        tokio::select! {
            _ = stop.changed() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }

    fn warn(&self, reason: &str, note: String) {
        let about = self.pod.reference(Some(&self.container.name));
        self.machine.events.warning(about, reason, note);
    }

    fn tell(&self, reason: &str, note: String) {
        let about = self.pod.reference(Some(&self.container.name));
        self.machine.events.normal(about, reason, note);
    }
}
