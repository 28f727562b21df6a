//! What the node knows of a pod's containers, and the pod status that follows from it. Pure.

use indexmap::IndexMap;
use std::net::Ipv4Addr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::cluster_network::NODE_ADDRESS;

/// What a container is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to completion before the next one begins.
    Init,
    /// An init container with `restartPolicy: Always`: runs beside the main containers.
    Sidecar,
    /// A main container.
    Main,
}

/// A pod's state.
#[derive(Debug, Clone)]
pub(crate) struct PodState {
    /// When the node took the pod.
    pub taken: Timestamp,
    /// The pod's address, once its network is there.
    pub address: Option<Ipv4Addr>,
    /// By container name; all containers are there from the beginning.
    pub containers: IndexMap<String, One>,
    /// Set when the pod failed as a whole, with the reason.
    pub failed: Option<(String, String)>,
}

/// A container's state.
#[derive(Debug, Clone)]
pub(crate) struct One {
    /// What it is for.
    pub role: Role,
    /// What it does.
    pub now: Now,
    /// Its previous end.
    pub last: Option<Ended>,
    /// How often it was restarted.
    pub restarts: i32,
    /// Startup probe and `postStart` are done.
    pub started: bool,
    /// The readiness probe says so, or there is none and it is started.
    pub ready: bool,
    /// Identifies the current or latest run.
    pub id: Option<String>,
}

/// What a container does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Now {
    /// Not running yet, or not again.
    Waiting {
        /// One word.
        reason: String,
        /// One sentence, or empty.
        message: String,
    },
    /// Running since.
    Running(Timestamp),
    /// Not running any more.
    Terminated(Ended),
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Exit code.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// `Completed`, `Error`, `StartError`.
    pub reason: String,
    /// The termination message.
    pub message: String,
    /// Start of the run.
    pub started: Timestamp,
    /// End of the run.
    pub finished: Timestamp,
    /// Identifies the run.
    pub id: Option<String>,
}

/// The containers of a pod in the order they start.
pub(crate) fn containers(spec: &PodSpec) -> Vec<(Role, &Container)> {
    let init = spec.init_containers.iter().flatten().map(|c| {
        let sidecar = c.restart_policy.as_deref() == Some("Always");
        (if sidecar { Role::Sidecar } else { Role::Init }, c)
    });
    init.chain(spec.containers.iter().map(|c| (Role::Main, c)))
        .collect()
}

impl PodState {
    /// The state of a pod of which nothing runs yet.
    pub(crate) fn new(spec: &PodSpec, taken: Timestamp) -> Self {
        let all = containers(spec);
        let has_init = all.iter().any(|(role, _)| *role != Role::Main);
        let containers = all
            .into_iter()
            .map(|(role, container)| {
                let reason = if role == Role::Main && !has_init {
                    "ContainerCreating"
                } else {
                    "PodInitializing"
                };
                (container.name.clone(), One::waiting(role, reason))
            })
            .collect();
        Self {
            taken,
            address: None,
            containers,
            failed: None,
        }
    }

    /// Counts the runs that a node before this one began and lost: the next start is a restart.
    pub(crate) fn count_lost_runs(&mut self, status: &PodStatus) {
        let lists = [&status.container_statuses, &status.init_container_statuses];
        for old in lists.into_iter().flatten().flatten() {
            let one = self.containers.get_mut(&old.name);
            if let Some(one) = one.filter(|one| one.role != Role::Init)
                && old.container_id.is_some()
            {
                one.restarts = old.restart_count.saturating_add(1);
            }
        }
    }

    fn of(&self, role: Role) -> impl Iterator<Item = &One> {
        self.containers.values().filter(move |c| c.role == role)
    }

    /// All init containers have succeeded and all sidecars have started.
    pub(crate) fn initialized(&self) -> bool {
        self.of(Role::Init)
            .all(|c| matches!(&c.now, Now::Terminated(end) if end.code == 0))
            && self
                .of(Role::Sidecar)
                .all(|c| c.started || matches!(c.now, Now::Terminated(_)))
    }

    /// All main containers and sidecars are ready.
    pub(crate) fn ready(&self) -> bool {
        self.containers
            .values()
            .filter(|c| c.role != Role::Init)
            .all(|c| c.ready)
    }

    /// `Pending`, `Running`, `Succeeded` or `Failed`, as Kubernetes derives it.
    pub(crate) fn phase(&self, restart_policy: &str) -> &'static str {
        let running = |c: &One| matches!(c.now, Now::Running(_));
        if self.failed.is_some() {
            return if self.containers.values().any(running) {
                "Running"
            } else {
                "Failed"
            };
        }
        let init_failed = self
            .of(Role::Init)
            .any(|c| matches!(&c.now, Now::Terminated(end) if end.code != 0));
        if init_failed && restart_policy == "Never" {
            return if self.containers.values().any(running) {
                "Pending"
            } else {
                "Failed"
            };
        }
        let begun = |c: &One| running(c) || matches!(c.now, Now::Terminated(_)) || c.last.is_some();
        if !self.initialized() && !self.of(Role::Main).any(begun) || !self.of(Role::Main).all(begun)
        {
            return "Pending";
        }
        let ends: Vec<&Ended> = self
            .of(Role::Main)
            .filter_map(|c| match &c.now {
                Now::Terminated(end) => Some(end),
                _ => None,
            })
            .collect();
        let all_ended = ends.len() == self.of(Role::Main).count();
        let failed = ends.iter().any(|end| end.code != 0);
        if !all_ended || self.containers.values().any(running) {
            return "Running";
        }
        match (restart_policy, failed) {
            ("Never", true) => "Failed",
            ("Never" | "OnFailure", false) => "Succeeded",
            _ => "Running",
        }
    }
}

impl One {
    fn waiting(role: Role, reason: &str) -> Self {
        Self {
            role,
            now: Now::Waiting {
                reason: reason.into(),
                message: String::new(),
            },
            last: None,
            restarts: 0,
            started: false,
            ready: false,
            id: None,
        }
    }
}

/// The status to publish. Conditions keep their time of change from the `previous` status, and those of
/// other types (readiness gates) are kept as they are.
pub(crate) fn status(pod: &Pod, state: &PodState, previous: Option<&PodStatus>) -> PodStatus {
    let Some(spec) = &pod.spec else {
        return PodStatus::default();
    };
    let policy = spec.restart_policy.as_deref().unwrap_or("Always");
    let phase = state.phase(policy);
    let statuses = |wanted: fn(Role) -> bool| -> Vec<ContainerStatus> {
        containers(spec)
            .into_iter()
            .filter(|(role, _)| wanted(*role))
            .filter_map(|(_, c)| Some(container_status(c, state.containers.get(&c.name)?)))
            .collect()
    };
    let init = statuses(|role| role != Role::Main);
    let address = state.address.map(|a| a.to_string());
    PodStatus {
        phase: Some(phase.into()),
        conditions: Some(conditions(pod, state, phase, previous)),
        container_statuses: Some(statuses(|role| role == Role::Main)),
        init_container_statuses: (!init.is_empty()).then_some(init),
        host_ip: Some(NODE_ADDRESS.to_string()),
        host_ips: Some(vec![HostIP {
            ip: NODE_ADDRESS.to_string(),
        }]),
        pod_ips: address.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip: address,
        start_time: Some(Time(state.taken)),
        qos_class: pod.status.as_ref().and_then(|s| s.qos_class.clone()),
        reason: state.failed.as_ref().map(|(reason, _)| reason.clone()),
        message: state.failed.as_ref().map(|(_, message)| message.clone()),
        ..PodStatus::default()
    }
}

fn conditions(
    pod: &Pod,
    state: &PodState,
    phase: &str,
    previous: Option<&PodStatus>,
) -> Vec<PodCondition> {
    let old: Vec<&PodCondition> = previous
        .and_then(|p| p.conditions.as_ref())
        .into_iter()
        .flatten()
        .collect();
    let over = matches!(phase, "Succeeded" | "Failed");
    let containers_ready = !over && state.initialized() && state.ready();
    let gates = pod.spec.as_ref().and_then(|s| s.readiness_gates.as_ref());
    let gates_open = gates.into_iter().flatten().all(|gate| {
        old.iter()
            .any(|c| c.type_ == gate.condition_type && c.status == "True")
    });
    let unready = if over {
        "PodCompleted"
    } else {
        "ContainersNotReady"
    };
    let unready_names: Vec<&str> = state
        .containers
        .iter()
        .filter(|(_, c)| c.role != Role::Init && !c.ready)
        .map(|(name, _)| name.as_str())
        .collect();
    let message = if over {
        String::new()
    } else {
        format!(
            "containers with unready status: [{}]",
            unready_names.join(" ")
        )
    };
    let ours = [
        (
            "PodReadyToStartContainers",
            state.address.is_some() && !over,
            "",
            String::new(),
        ),
        (
            "Initialized",
            state.initialized() || phase == "Succeeded",
            "ContainersNotInitialized",
            String::new(),
        ),
        (
            "Ready",
            containers_ready && gates_open,
            unready,
            message.clone(),
        ),
        ("ContainersReady", containers_ready, unready, message),
        ("PodScheduled", true, "", String::new()),
    ];
    let mut all: Vec<PodCondition> = ours
        .into_iter()
        .map(|(kind, holds, reason, message)| {
            let status = if holds { "True" } else { "False" };
            let text = |text: &str| (!holds && !text.is_empty()).then(|| text.to_owned());
            let since = old
                .iter()
                .find(|c| c.type_ == kind && c.status == status)
                .and_then(|c| c.last_transition_time.clone());
            PodCondition {
                type_: kind.into(),
                status: status.into(),
                reason: text(reason),
                message: text(&message),
                last_transition_time: since.or_else(|| Some(Time(now_in_seconds()))),
                ..PodCondition::default()
            }
        })
        .collect();
    let known: Vec<String> = all.iter().map(|c| c.type_.clone()).collect();
    all.extend(
        old.into_iter()
            .filter(|c| !known.contains(&c.type_))
            .cloned(),
    );
    all
}

/// Kubernetes' times have no fractions.
pub(crate) fn now_in_seconds() -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn container_status(container: &Container, one: &One) -> ContainerStatus {
    let image = container.image.clone().unwrap_or_default();
    ContainerStatus {
        name: container.name.clone(),
        image_id: one
            .id
            .as_ref()
            .map(|_| format!("lateen://{image}"))
            .unwrap_or_default(),
        image,
        container_id: one.id.as_ref().map(|id| format!("lateen://{id}")),
        ready: match (&one.role, &one.now) {
            (Role::Init, Now::Terminated(end)) => end.code == 0,
            (Role::Init, _) => false,
            _ => one.ready,
        },
        started: Some(one.started && matches!(one.now, Now::Running(_))),
        restart_count: one.restarts,
        state: Some(shown(&one.now)),
        last_state: Some(
            one.last
                .as_ref()
                .map(|end| shown(&Now::Terminated(end.clone())))
                .unwrap_or_default(),
        ),
        ..ContainerStatus::default()
    }
}

fn shown(now: &Now) -> ContainerState {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    match now {
        Now::Waiting { reason, message } => ContainerState {
            waiting: Some(ContainerStateWaiting {
                reason: text(reason),
                message: text(message),
            }),
            ..ContainerState::default()
        },
        Now::Running(since) => ContainerState {
            running: Some(ContainerStateRunning {
                started_at: Some(Time(*since)),
            }),
            ..ContainerState::default()
        },
        Now::Terminated(end) => ContainerState {
            terminated: Some(ContainerStateTerminated {
                exit_code: end.code,
                signal: end.signal,
                reason: text(&end.reason),
                message: text(&end.message),
                started_at: Some(Time(end.started)),
                finished_at: Some(Time(end.finished)),
                container_id: end.id.as_ref().map(|id| format!("lateen://{id}")),
            }),
            ..ContainerState::default()
        },
    }
}

#[cfg(test)]
mod tests;
