//! One pod from its taking to its end: network and volumes, init containers in order, main containers, and
//! an orderly end. Publishes the pod's status whenever something changes.

mod files;
mod publish;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::container::{Outcome, Supervised};
use super::handle::{PodHandle, Stop};
use super::machine::Machine;
use super::state::{self, Role};
use super::volumes::Volumes;
use files::{host_name, hosts, resolv_conf};
use publish::{forget, publish, publish_once};

/// After a pod's deletion its peers hear of it before its programs do: for this long they still take
/// requests that are already on their way.
const UNLISTING: Duration = Duration::from_millis(400);

/// What sidecars get at least to end, when the main containers used up the pod's time. Kubernetes: 2 s.
const SIDECAR_GRACE: Duration = Duration::from_secs(2);

/// Runs a pod until its object is gone.
pub(crate) async fn run(machine: Arc<Machine>, pod: Arc<PodHandle>) {
    let publisher = tokio::spawn(publish(machine.clone(), pod.clone()));
    let worker = Worker {
        volumes: Mutex::new(Volumes::new(&pod.directory, &machine.shared)),
        machine: machine.clone(),
        pod: pod.clone(),
    };
    let mut stop = pod.stop.subscribe();
    worker.live(&mut stop).await;
    worker.release().await;
    // The log of a finished pod stays until its object goes.
    let delete = stop
        .wait_for(|stop| stop.is_some())
        .await
        .is_ok_and(|stop| stop.is_some_and(|stop| stop.delete));
    publisher.abort();
    let _ = publisher.await;
    if delete {
        publish_once(&machine, &pod, &mut None).await;
        forget(&machine, &pod).await;
    }
    let _ = fs::remove_dir_all(&pod.directory);
}

struct Worker {
    machine: Arc<Machine>,
    pod: Arc<PodHandle>,
    volumes: Mutex<Volumes>,
}

/// A started container: its own stop signal, and its supervision.
struct Started {
    stop: watch::Sender<Option<Stop>>,
    task: JoinHandle<Outcome>,
}

impl Worker {
    async fn live(&self, stop: &mut watch::Receiver<Option<Stop>>) {
        let ready = tokio::select! {
            ready = self.set_up() => ready,
            _ = wait(stop) => false,
        };
        if !ready {
            return;
        }
        let keep_current = self.keep_volumes_current();
        let containers = self.run_containers(stop);
        tokio::select! {
            () = containers => {}
            never = keep_current => match never {},
        }
    }

    async fn run_containers(&self, stop: &mut watch::Receiver<Option<Stop>>) {
        let mut sidecars = Vec::new();
        let finished = self.initialize(&mut sidecars, stop).await;
        if finished {
            self.run_main(stop).await;
        }
        self.stop_sidecars(sidecars, stop).await;
    }

    /// Network, files and volumes; tried again until it works.
    async fn set_up(&self) -> bool {
        let mut changes = self.machine.cache.changes();
        let mut told = String::new();
        loop {
            changes.mark_unchanged();
            let failure = match self.set_up_once().await {
                Ok(()) => return true,
                Err(failure) => failure,
            };
            if failure.1 != told {
                let about = self.pod.reference(None);
                self.machine
                    .events
                    .warning(about, failure.0, failure.1.clone());
                told = failure.1;
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep(Duration::from_secs(2)) => {}
            }
        }
    }

    async fn set_up_once(&self) -> Result<(), (&'static str, String)> {
        let pod = self.pod.pod();
        if self.pod.network().is_none() {
            let sandbox = |e: String| ("FailedCreatePodSandBox", e);
            let host_name = host_name(&pod);
            for directory in ["etc", "logs", "containers", "volumes"] {
                let path = self.pod.directory.join(directory);
                fs::create_dir_all(&path)
                    .map_err(|e| sandbox(format!("cannot create {}: {e}", path.display())))?;
            }
            let network = self
                .machine
                .network
                .add_pod(&host_name)
                .await
                .map_err(|e| sandbox(e.to_string()))?;
            for (name, text) in [
                ("hostname", format!("{host_name}\n")),
                ("hosts", hosts(&pod, &host_name, network.address)),
                ("resolv.conf", resolv_conf(&pod)),
            ] {
                fs::write(self.pod.directory.join("etc").join(name), text)
                    .map_err(|e| sandbox(format!("cannot write {name}: {e}")))?;
            }
            let address = network.address;
            self.pod.set_network(Some(Arc::new(network)));
            self.pod.change(|state| state.address = Some(address));
        }
        let address = self.pod.network().map(|n| n.address);
        let address = address.ok_or(("FailedCreatePodSandBox", "the pod has no address".into()))?;
        self.volumes
            .lock()
            .await
            .refresh(&self.machine.cache, &pod, address)
            .await
            .map_err(|e| ("FailedMount", e))
    }

    /// Follows changes of ConfigMaps, Secrets and labels, and renews tokens.
    async fn keep_volumes_current(&self) -> std::convert::Infallible {
        let mut changes = self.machine.cache.changes();
        loop {
            let due = self.volumes.lock().await.renew_at();
            let due = due.map_or(Duration::from_secs(60), |at| {
                at.duration_since(jiff::Timestamp::now())
                    .try_into()
                    .unwrap_or_default()
            });
            tokio::select! {
                _ = changes.changed() => {}
                // Labels and annotations in files follow within a minute, as with kubelets.
                () = tokio::time::sleep(due.clamp(Duration::from_secs(1), Duration::from_secs(60))) => {}
            }
            // Token renewal is due only near its time; other content is compared and left alone when equal.
            let Some(address) = self.pod.network().map(|n| n.address) else {
                continue;
            };
            let mut volumes = self.volumes.lock().await;
            let refreshed = volumes
                .refresh(&self.machine.cache, &self.pod.pod(), address)
                .await;
            if let Err(message) = refreshed {
                tracing::debug!(
                    pod = self.pod.name,
                    message,
                    "volumes keep their old content"
                );
            }
        }
    }

    /// Runs init containers and starts sidecars, in order. False when the pod must not go on.
    async fn initialize(
        &self,
        sidecars: &mut Vec<Started>,
        stop: &mut watch::Receiver<Option<Stop>>,
    ) -> bool {
        let spec = self.pod.spec();
        let init = state::containers(&spec)
            .into_iter()
            .filter(|(role, _)| *role != Role::Main);
        for (role, container) in init {
            let mut started = self.start(container.name.clone(), role);
            if role == Role::Sidecar {
                let name = container.name.clone();
                sidecars.push(started);
                tokio::select! {
                    () = self.until_started(&name) => continue,
                    _ = wait(stop) => return false,
                }
            }
            let outcome = tokio::select! {
                outcome = &mut started.task => outcome.unwrap_or(Outcome::Finished(false)),
                _ = wait(stop) => {
                    let request = *stop.borrow();
                    end(started, request).await;
                    return false;
                }
            };
            if outcome != Outcome::Finished(true) {
                return false;
            }
        }
        stop.borrow().is_none()
    }

    async fn until_started(&self, name: &str) {
        let started = || {
            self.pod
                .read(|s| s.containers.get(name).is_some_and(|one| one.started))
        };
        let mut changes = self.pod.changes();
        while !started() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Runs the main containers until all are finished or the pod is to end.
    async fn run_main(&self, stop: &mut watch::Receiver<Option<Stop>>) {
        let spec = self.pod.spec();
        let mut all: Vec<Started> = spec
            .containers
            .iter()
            .map(|container| self.start(container.name.clone(), Role::Main))
            .collect();
        tokio::select! {
            _ = join_all(all.iter_mut().map(|started| &mut started.task)) => return,
            _ = wait(stop) => {}
        }
        let request = *stop.borrow();
        let left = request.map_or(Duration::ZERO, |r| {
            r.deadline.saturating_duration_since(Instant::now())
        });
        let delete = request.is_some_and(|r| r.delete);
        if delete && left > UNLISTING && self.pod.read(state::PodState::ready) {
            tokio::time::sleep(UNLISTING).await;
        }
        let mut tasks: Vec<JoinHandle<Outcome>> = Vec::new();
        let mut senders: Vec<watch::Sender<Option<Stop>>> = Vec::new();
        for started in all {
            tasks.push(started.task);
            senders.push(started.stop);
        }
        let mut done = std::pin::pin!(join_all(
            tasks.into_iter().filter(|task| !task.is_finished())
        ));
        // A later, sooner request reaches the containers too.
        loop {
            let request = *stop.borrow_and_update();
            for sender in &senders {
                sender.send_replace(request);
            }
            tokio::select! {
                _ = &mut done => return,
                changed = stop.changed() => if changed.is_err() {
                    return;
                },
            }
        }
    }

    /// Ends sidecars one after the other, the last started first.
    async fn stop_sidecars(&self, sidecars: Vec<Started>, stop: &watch::Receiver<Option<Stop>>) {
        let request = *stop.borrow();
        for sidecar in sidecars.into_iter().rev() {
            let soonest = Instant::now() + SIDECAR_GRACE;
            let stop = match request {
                Some(stop) if stop.delete => Stop {
                    deadline: stop.deadline.max(soonest),
                    ..stop
                },
                Some(stop) => stop,
                None => Stop {
                    deadline: Instant::now() + self.pod.grace(),
                    delete: false,
                },
            };
            end(sidecar, Some(stop)).await;
        }
    }

    fn start(&self, name: String, role: Role) -> Started {
        let (sender, receiver) = watch::channel(None);
        let machine = self.machine.clone();
        let pod = self.pod.clone();
        let task = tokio::spawn(async move {
            let spec = pod.spec();
            let container = state::containers(&spec)
                .into_iter()
                .find(|(_, c)| c.name == name)
                .map(|(_, c)| c.clone())
                .unwrap_or_default();
            let supervised = Supervised {
                machine,
                pod,
                container,
                role,
            };
            supervised.run(receiver).await
        });
        Started { stop: sender, task }
    }

    /// Gives back what a pod that has ended does not need.
    async fn release(&self) {
        if let Some(network) = self.pod.network() {
            self.machine.network.remove_pod(&network).await;
        }
        self.pod.set_network(None);
        self.volumes.lock().await.remove();
        for directory in ["containers", "volumes"] {
            let _ = fs::remove_dir_all(self.pod.directory.join(directory));
        }
        self.pod.touch();
    }
}

/// Asks a container to end and waits for it.
async fn end(started: Started, stop: Option<Stop>) {
    started.stop.send_replace(Some(stop.unwrap_or(Stop {
        deadline: Instant::now(),
        delete: false,
    })));
    let _ = started.task.await;
}

async fn wait(stop: &mut watch::Receiver<Option<Stop>>) {
    let _ = stop.wait_for(Option::is_some).await;
}
