//! The runner: registers the node, takes pods as they are created, starts a worker for each, and tells
//! workers of deletions.

mod node_object;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::access::Registry;
use super::cache::Cache;
use super::events::Events;
use super::fields::NODE_NAME;
use super::handle::PodHandle;
use super::machine::{Machine, real_root};
use super::process::Reaper;
use super::worker;
use crate::cluster_network::ClusterNetwork;
use crate::images::Images;

/// What a runner needs.
pub(crate) struct RunnerOptions {
    /// Client of the API server.
    pub client: Client,
    /// Makes pod networks.
    pub network: ClusterNetwork,
    /// Launches processes.
    pub reaper: Reaper,
    /// Where logs, exec and port-forward find pods.
    pub registry: Registry,
    /// The executable as containers' mounts have it.
    pub executable: PathBuf,
    /// Directory for everything of pods.
    pub directory: PathBuf,
    /// The user's image table.
    pub images_file: Option<PathBuf>,
}

/// Runs pods.
pub(crate) struct Runner {
    machine: Arc<Machine>,
    registry: Registry,
    workers: Mutex<HashMap<String, JoinHandle<()>>>,
}

/// A container that runs.
#[derive(Debug)]
pub(crate) struct RunningContainer {
    pub namespace: String,
    pub pod: String,
    pub container: String,
    /// Its first process, in the node's pid namespace.
    pub pid: i32,
}

impl Runner {
    /// Registers the node and begins to take pods. The watch ends with the runtime.
    ///
    /// # Errors
    /// The node cannot be registered, or the image table cannot be read.
    pub(crate) async fn start(options: RunnerOptions) -> Result<Arc<Self>, String> {
        let images = match &options.images_file {
            Some(file) => Images::with_file(file).map_err(|e| e.to_string())?,
            None => Images::built_in(),
        };
        let machine = Arc::new(Machine {
            cache: Cache::start(options.client.clone()),
            events: Events::start(options.client.clone()),
            client: options.client,
            network: options.network,
            reaper: options.reaper,
            executable: options.executable,
            pods: options.directory.clone(),
            shared: options.directory.join("shared"),
            real_root: real_root(),
            images_file: options.images_file,
            images,
        });
        node_object::register(&machine.client)
            .await
            .map_err(|e| format!("cannot register the node: {e}"))?;
        let runner = Arc::new(Self {
            machine,
            registry: options.registry,
            workers: Mutex::default(),
        });
        tokio::spawn(runner.clone().watch());
        Ok(runner)
    }

    /// Objects that pods refer to, for others in the node.
    pub(crate) fn cache(&self) -> &Cache {
        &self.machine.cache
    }

    /// Containers that run now.
    pub(crate) fn running_containers(&self) -> Vec<RunningContainer> {
        let mut all: Vec<RunningContainer> = Vec::new();
        for pod in self.registry.all() {
            for (container, pid) in pod.running() {
                all.push(RunningContainer {
                    namespace: pod.namespace.clone(),
                    pod: pod.name.clone(),
                    container,
                    pid,
                });
            }
        }
        all.sort_by(|a, b| {
            (&a.namespace, &a.pod, &a.container).cmp(&(&b.namespace, &b.pod, &b.container))
        });
        all
    }

    /// Ends all pods, each within its own grace period but no longer than this.
    pub(crate) async fn stop_all(&self, most: Duration) {
        for pod in self.registry.all() {
            pod.request_stop(pod.grace().min(most), false);
        }
        let workers: Vec<JoinHandle<()>> = self.workers.lock().drain().map(|(_, w)| w).collect();
        let all = futures::future::join_all(workers);
        let _ = tokio::time::timeout(most + Duration::from_secs(1), all).await;
    }

    async fn watch(self: Arc<Self>) {
        let api: Api<Pod> = Api::all(self.machine.client.clone());
        let events = watcher(api, watcher::Config::default()).default_backoff();
        let mut events = std::pin::pin!(events);
        let mut listed: Vec<String> = Vec::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => listed.clear(),
                Ok(watcher::Event::InitApply(pod)) => {
                    listed.extend(pod.metadata.uid.clone());
                    self.see(pod);
                }
                Ok(watcher::Event::InitDone) => {
                    for pod in self.registry.all() {
                        if !listed.contains(&pod.uid) {
                            pod.request_stop(Duration::ZERO, true);
                        }
                    }
                }
                Ok(watcher::Event::Apply(pod)) => self.see(pod),
                Ok(watcher::Event::Delete(pod)) => {
                    if let Some(handle) =
                        pod.metadata.uid.and_then(|uid| self.registry.by_uid(&uid))
                    {
                        handle.request_stop(Duration::ZERO, true);
                    }
                }
                Err(error) => tracing::debug!(%error, "the watch of pods was interrupted"),
            }
        }
    }

    fn see(self: &Arc<Self>, pod: Pod) {
        let Some(uid) = pod.metadata.uid.clone() else {
            return;
        };
        let deletion = pod.metadata.deletion_timestamp.is_some().then(|| {
            let seconds = pod.metadata.deletion_grace_period_seconds.unwrap_or(30);
            Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
        });
        if let Some(handle) = self.registry.by_uid(&uid) {
            handle.update(pod);
            if let Some(grace) = deletion {
                handle.request_stop(grace, true);
            }
            return;
        }
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        let over = matches!(phase, Some("Succeeded" | "Failed"));
        let spec = pod.spec.as_ref();
        let gated =
            spec.is_some_and(|s| s.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty()));
        let bound = spec
            .and_then(|s| s.node_name.as_deref())
            .filter(|n| !n.is_empty());
        if (over || gated) && deletion.is_none() || bound.is_some_and(|node| node != NODE_NAME) {
            return;
        }
        if bound.is_none() && deletion.is_none() {
            if let Err(message) = node_object::fits(spec) {
                tokio::spawn(unschedulable(self.machine.clone(), pod, message));
                return;
            }
            // The binding and the start go on at the same time: there is no other node to choose.
            tokio::spawn(bind(self.machine.clone(), pod.clone()));
        }
        let handle = Arc::new(PodHandle::new(pod, &self.machine.pods));
        if deletion.is_some() {
            // Never started here, or by a sandbox that is gone: there is nothing to end.
            handle.request_stop(Duration::ZERO, true);
        }
        self.registry.add(handle.clone());
        let runner = self.clone();
        let task = tokio::spawn(async move {
            worker::run(runner.machine.clone(), handle.clone()).await;
            runner.registry.remove(&handle.uid);
            runner.workers.lock().remove(&handle.uid);
        });
        self.workers.lock().insert(uid, task);
    }
}

async fn bind(machine: Arc<Machine>, pod: Pod) {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let name = pod.metadata.name.clone().unwrap_or_default();
    let binding = Binding {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace.clone()),
            uid: pod.metadata.uid.clone(),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(NODE_NAME.into()),
            ..ObjectReference::default()
        },
    };
    let api: Api<Pod> = Api::namespaced(machine.client.clone(), &namespace);
    let bound: Result<serde_json::Value, kube::Error> = api
        .create_subresource("binding", &name, &PostParams::default(), &binding)
        .await;
    match bound {
        Ok(_) => machine.events.normal(
            reference(&pod),
            "Scheduled",
            format!("Successfully assigned {namespace}/{name} to {NODE_NAME}"),
        ),
        Err(error) => tracing::debug!(name, %error, "a pod was not bound"),
    }
}

async fn unschedulable(machine: Arc<Machine>, pod: Pod, message: String) {
    let message = format!("0/1 nodes are available: {message}");
    let known = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let told = known
        .into_iter()
        .flatten()
        .any(|c| c.reason.as_deref() == Some("Unschedulable"));
    if told {
        return;
    }
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let name = pod.metadata.name.clone().unwrap_or_default();
    machine
        .events
        .warning(reference(&pod), "FailedScheduling", message.clone());
    let status = serde_json::json!({"status": {"phase": "Pending", "conditions": [{
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
    }]}});
    let api: Api<Pod> = Api::namespaced(machine.client.clone(), &namespace);
    let patched = api
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(status))
        .await;
    if let Err(error) = patched {
        tracing::debug!(name, %error, "a status was not written");
    }
}

fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}
