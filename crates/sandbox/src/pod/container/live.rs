//! A running container: hooks and probes, its end by itself or on request, and the record of that end.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Probe;
use nix::sys::signal::Signal;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::handle::{PodHandle, Run, Stop};
use super::super::hook;
use super::super::machine::Machine;
use super::super::probe::{self, Kind, Verdict};
use super::super::process::Exit;
use super::super::state::{Ended, now_in_seconds};
use super::Supervised;

/// A hook that has no other limit.
const HOOK_LIMIT: Duration = Duration::from_secs(600);

impl Supervised {
    /// Watches over a run until its end.
    pub(super) async fn live(&self, run: Run, stop: &mut watch::Receiver<Option<Stop>>) -> Ended {
        let started = now_in_seconds();
        let (unhealthy, mut kill) = mpsc::channel::<String>(1);
        let mut tasks = JoinSet::new();
        tasks.spawn(attend(Attended {
            machine: self.machine.clone(),
            pod: self.pod.clone(),
            container: self.container.clone(),
            run: run.clone(),
            unhealthy,
        }));
        let exit = tokio::select! {
            exit = run.process.ended() => exit,
            _ = wait_for_stop(stop) => {
                let exit = self.terminate(&run, stop).await;
                tasks.abort_all();
                exit
            }
            Some(message) = kill.recv() => {
                tasks.abort_all();
                self.tell("Killing", message);
                self.end(&run, Instant::now() + self.own_grace(), stop).await
            }
        };
        tasks.abort_all();
        self.ended(&run, exit, started)
    }

    /// Ends the container on request: hook, SIGTERM, and SIGKILL when the time is over.
    async fn terminate(&self, run: &Run, stop: &mut watch::Receiver<Option<Stop>>) -> Exit {
        let deadline = stop.borrow().map_or_else(Instant::now, |s| s.deadline);
        self.tell(
            "Killing",
            format!("Stopping container {}", self.container.name),
        );
        self.end(run, deadline, stop).await
    }

    async fn end(
        &self,
        run: &Run,
        mut deadline: Instant,
        stop: &mut watch::Receiver<Option<Stop>>,
    ) -> Exit {
        let hook = self
            .container
            .lifecycle
            .as_ref()
            .and_then(|l| l.pre_stop.as_ref());
        if let Some(hook) = hook {
            let most = deadline.saturating_duration_since(Instant::now());
            let done = hook::run(&self.machine, &self.pod, &self.container, hook, (run, most));
            tokio::select! {
                result = done => if let Err(message) = result {
                    self.warn("FailedPreStopHook", format!("PreStopHook failed: {message}"));
                },
                exit = run.process.ended() => return exit,
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
        run.process.signal(Signal::SIGTERM);
        loop {
            tokio::select! {
                exit = run.process.ended() => return exit,
                () = tokio::time::sleep_until(deadline) => {
                    run.process.signal(Signal::SIGKILL);
                    return run.process.ended().await;
                }
                changed = stop.changed() => match (changed, *stop.borrow_and_update()) {
                    (Ok(()), Some(sooner)) => deadline = deadline.min(sooner.deadline),
                    (Ok(()), None) => {}
                    // The worker itself is gone: nobody waits for a graceful end.
                    (Err(_), _) => deadline = Instant::now(),
                },
            }
        }
    }

    fn own_grace(&self) -> Duration {
        let probe = self.container.liveness_probe.as_ref();
        let seconds = probe.and_then(|p| p.termination_grace_period_seconds);
        match seconds.and_then(|s| u64::try_from(s).ok()) {
            Some(seconds) => Duration::from_secs(seconds),
            None => self.pod.grace(),
        }
    }

    fn ended(&self, run: &Run, exit: Exit, started: Timestamp) -> Ended {
        let name = &self.container.name;
        let directory = self.pod.directory.join("containers").join(name);
        let mut message =
            std::fs::read_to_string(directory.join("termination-log")).unwrap_or_default();
        let from_logs =
            self.container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
        if message.is_empty() && from_logs && exit.code != 0 {
            message = run.log.tail(80, 2048);
        }
        let mut end = message.len().min(4096);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        Ended {
            code: exit.code,
            signal: exit.signal,
            reason: if exit.code == 0 { "Completed" } else { "Error" }.into(),
            message,
            started,
            finished: now_in_seconds(),
            id: self
                .pod
                .read(|s| s.containers.get(name).and_then(|one| one.id.clone())),
        }
    }
}

async fn wait_for_stop(stop: &mut watch::Receiver<Option<Stop>>) {
    // An error means that the worker is gone, which ends its containers too.
    let _ = stop.wait_for(Option::is_some).await;
}

/// What attends a run needs.
struct Attended {
    machine: Arc<Machine>,
    pod: Arc<PodHandle>,
    container: k8s_openapi::api::core::v1::Container,
    run: Run,
    unhealthy: mpsc::Sender<String>,
}

/// Hook, startup probe, then readiness and liveness side by side.
async fn attend(on: Attended) {
    let hook = on
        .container
        .lifecycle
        .as_ref()
        .and_then(|l| l.post_start.as_ref());
    if let Some(hook) = hook {
        let limits = (&on.run, HOOK_LIMIT);
        if let Err(message) = hook::run(&on.machine, &on.pod, &on.container, hook, limits).await {
            let about = on.pod.reference(Some(&on.container.name));
            on.machine.events.warning(
                about,
                "FailedPostStartHook",
                format!("PostStartHook failed: {message}"),
            );
            let _ = on.unhealthy.send("FailedPostStartHook".into()).await;
            return;
        }
    }
    if let Some(probe) = &on.container.startup_probe {
        let (done, wait) = tokio::sync::oneshot::channel();
        let mut done = Some(done);
        let watch = on.watch(probe, Kind::Startup, |verdict| match verdict {
            Verdict::Good => {
                if let Some(done) = done.take() {
                    let _ = done.send(());
                }
            }
            Verdict::Bad(message) => on.restart("startup", &message),
        });
        tokio::select! {
            () = watch => {}
            _ = wait => {}
        }
    }
    let gate = on.container.readiness_probe.is_some();
    on.pod.change_container(&on.container.name, |one| {
        one.started = true;
        one.ready = !gate;
    });
    let readiness = async {
        if let Some(probe) = &on.container.readiness_probe {
            on.watch(probe, Kind::Readiness, |verdict| {
                if let Verdict::Bad(message) = &verdict {
                    on.unhealthy_event("Readiness", message);
                }
                let good = verdict == Verdict::Good;
                on.pod
                    .change_container(&on.container.name, |one| one.ready = good);
            })
            .await;
        }
    };
    let liveness = async {
        if let Some(probe) = &on.container.liveness_probe {
            on.watch(probe, Kind::Liveness, |verdict| {
                if let Verdict::Bad(message) = verdict {
                    on.restart("liveness", &message);
                }
            })
            .await;
        }
    };
    tokio::join!(readiness, liveness);
}

impl Attended {
    async fn watch(&self, probe: &Probe, kind: Kind, verdict: impl FnMut(Verdict)) {
        let subject = (probe, kind, &self.run);
        probe::watch(&self.machine, &self.pod, &self.container, subject, verdict).await;
    }

    fn restart(&self, which: &str, message: &str) {
        let mut name = which.to_owned();
        name[..1].make_ascii_uppercase();
        self.unhealthy_event(&name, message);
        let _ = self.unhealthy.try_send(format!(
            "Container {} failed {which} probe, will be restarted",
            self.container.name
        ));
    }

    fn unhealthy_event(&self, which: &str, message: &str) {
        let about = self.pod.reference(Some(&self.container.name));
        let note = format!("{which} probe failed: {message}");
        self.machine.events.warning(about, "Unhealthy", note);
    }
}
