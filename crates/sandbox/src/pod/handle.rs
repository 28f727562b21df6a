//! One pod as the node holds it: the object, what its containers do, and the running processes. Shared by
//! the pod's worker, the containers' supervisors, and those who reach into pods (logs, exec, port-forward).

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodSpec};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::time::Instant;

use super::attach::Input;
use super::environment::Environment;
use super::logs::Log;
use super::process::Process;
use super::stage::Program;
use super::state::{Now, One, PodState};
use crate::cluster_network::PodNetwork;

/// A pod that this node runs.
#[derive(Debug)]
pub(crate) struct PodHandle {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Unique id of the object.
    pub uid: String,
    /// The pod's directory in the node.
    pub directory: PathBuf,
    latest: RwLock<Arc<Pod>>,
    state: Mutex<PodState>,
    changes: watch::Sender<u64>,
    /// Asks the worker to end the pod.
    pub stop: watch::Sender<Option<Stop>>,
    network: Mutex<Option<Arc<PodNetwork>>>,
    runs: Mutex<HashMap<String, Runs>>,
}

/// A request to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stop {
    /// When what still runs is killed.
    pub deadline: Instant,
    /// Whether the object is gone or going, rather than the whole node.
    pub delete: bool,
}

/// The runs of one container that are still of interest.
#[derive(Debug, Default, Clone)]
pub(crate) struct Runs {
    /// The current or latest run.
    pub current: Option<Run>,
    /// The log of the run before.
    pub previous: Option<Log>,
}

/// One run of a container.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    /// Its process.
    pub process: Process,
    /// What it runs; commands in the container share its environment and identity.
    pub program: Arc<Program>,
    /// Its bounding capabilities.
    pub capabilities: Option<Vec<u32>>,
    /// Its log.
    pub log: Log,
    /// Where what is typed to an attached client goes.
    pub input: Input,
}

impl PodHandle {
    /// A handle for a pod of which nothing runs yet.
    pub(crate) fn new(pod: Pod, pods_directory: &std::path::Path) -> Self {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let spec = pod.spec.clone().unwrap_or_default();
        let mut state = PodState::new(&spec, super::state::now_in_seconds());
        if let Some(status) = &pod.status {
            state.count_lost_runs(status);
        }
        Self {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            directory: pods_directory.join(&uid),
            uid,
            latest: RwLock::new(Arc::new(pod)),
            state: Mutex::new(state),
            changes: watch::channel(0).0,
            stop: watch::channel(None).0,
            network: Mutex::new(None),
            runs: Mutex::default(),
        }
    }

    /// The object as last seen.
    pub(crate) fn pod(&self) -> Arc<Pod> {
        self.latest.read().clone()
    }

    /// Its spec as last seen.
    pub(crate) fn spec(&self) -> PodSpec {
        self.pod().spec.clone().unwrap_or_default()
    }

    /// Takes a newer version of the object.
    pub(crate) fn update(&self, pod: Pod) {
        *self.latest.write() = Arc::new(pod);
        self.touch();
    }

    /// Changes with every change of the object or the state.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Has the status looked at again.
    pub(crate) fn touch(&self) {
        self.changes.send_modify(|version| *version += 1);
    }

    /// Asks for the pod's end; a later request can only make it sooner.
    pub(crate) fn request_stop(&self, grace: Duration, delete: bool) {
        let wanted = Stop {
            deadline: Instant::now() + grace,
            delete,
        };
        self.stop.send_if_modified(|stop| match stop {
            Some(current) if current.deadline <= wanted.deadline && (current.delete || !delete) => {
                false
            }
            Some(current) => {
                current.deadline = current.deadline.min(wanted.deadline);
                current.delete |= delete;
                true
            }
            None => {
                *stop = Some(wanted);
                true
            }
        });
    }

    /// Reads the state.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&PodState) -> T) -> T {
        read(&self.state.lock())
    }

    /// Changes the state and has it published.
    pub(crate) fn change(&self, change: impl FnOnce(&mut PodState)) {
        change(&mut self.state.lock());
        self.touch();
    }

    /// Changes one container's state and has it published.
    pub(crate) fn change_container(&self, name: &str, change: impl FnOnce(&mut One)) {
        self.change(|state| {
            if let Some(one) = state.containers.get_mut(name) {
                change(one);
            }
        });
    }

    /// Shows a container as waiting; it is then neither started nor ready.
    pub(crate) fn set_waiting(&self, name: &str, reason: &str, message: &str) {
        self.change_container(name, |one| {
            one.now = Now::Waiting {
                reason: reason.into(),
                message: message.into(),
            };
            one.ready = false;
            one.started = false;
        });
    }

    /// The pod's network, once it has one.
    pub(crate) fn network(&self) -> Option<Arc<PodNetwork>> {
        self.network.lock().clone()
    }

    /// Sets or takes away the pod's network.
    pub(crate) fn set_network(&self, network: Option<Arc<PodNetwork>>) {
        *self.network.lock() = network;
    }

    /// The runs of a container.
    pub(crate) fn runs(&self, container: &str) -> Runs {
        self.runs.lock().get(container).cloned().unwrap_or_default()
    }

    /// Changes the runs of a container.
    pub(crate) fn change_runs(&self, container: &str, change: impl FnOnce(&mut Runs)) {
        change(self.runs.lock().entry(container.to_owned()).or_default());
    }

    /// The process ids of running containers by name.
    pub(crate) fn running(&self) -> Vec<(String, i32)> {
        self.runs
            .lock()
            .iter()
            .filter_map(|(name, runs)| {
                let run = runs.current.as_ref()?;
                run.process
                    .running()
                    .then(|| (name.clone(), run.process.pid))
            })
            .collect()
    }

    /// A reference for events about this pod, or about one of its containers.
    pub(crate) fn reference(&self, container: Option<&str>) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(self.namespace.clone()),
            name: Some(self.name.clone()),
            uid: Some(self.uid.clone()),
            field_path: container.map(|name| format!("spec.containers{{{name}}}")),
            ..ObjectReference::default()
        }
    }

    /// The pod's own time to end.
    pub(crate) fn grace(&self) -> Duration {
        let seconds = self.spec().termination_grace_period_seconds.unwrap_or(30);
        Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
    }
}

/// What of a container's environment a command in it gets.
pub(crate) fn as_pairs(environment: &Environment) -> Vec<(String, String)> {
    environment
        .iter()
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

/// How long ago a time was.
pub(crate) fn since(time: Timestamp) -> Duration {
    Timestamp::now()
        .duration_since(time)
        .try_into()
        .unwrap_or_default()
}
