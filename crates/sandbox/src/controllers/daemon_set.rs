//! Daemon sets: one pod on every node that the template's node selector admits.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use tokio_util::sync::CancellationToken;

use super::cluster::Cluster;
use super::events::{Recorder, Tone};
use super::failure::Failure;
use super::objects::{
    Tally, controlled_by, hash_name, is_active, is_finished, is_terminating, pod_from, scaled,
};
use super::queue::Queue;
use super::store::{Key, sentence};

/// Label with the revision of a pod's template.
const REVISION: &str = "controller-revision-hash";

/// Runs until `shutdown`.
pub(super) async fn run(cluster: Arc<Cluster>, shutdown: CancellationToken) {
    let queue = Queue::default();
    let changed = queue.clone();
    cluster.daemon_sets.on_change(move |_, new| {
        changed.retry(new.map(|object| Key::of(&**object)));
    });
    let changed = queue.clone();
    cluster.pods.on_change(move |old, new| {
        changed.retry(
            new.or(old)
                .and_then(|pod| super::owner_key(&**pod, "DaemonSet")),
        );
    });
    let changed = queue.clone();
    let sets = cluster.daemon_sets.clone();
    cluster.nodes.on_change(move |old, new| {
        // A node's heartbeat changes nothing here; its coming, going and labels do.
        if old.map(|node| node.labels()) != new.map(|node| node.labels()) {
            sets.all()
                .iter()
                .for_each(|set| changed.add(Key::of(&**set)));
        }
    });
    let changed = queue.clone();
    cluster.slices.on_change(move |_, _| changed.retry_failed());
    let recorder = Recorder::new(cluster.events.clone(), "daemonset-controller");
    let work = move |key: Key| {
        let (cluster, recorder) = (cluster.clone(), recorder.clone());
        async move { reconcile(&cluster, &recorder, &key).await }
    };
    queue.run("daemonset", shutdown, work).await;
}

async fn reconcile(
    cluster: &Cluster,
    recorder: &Recorder,
    key: &Key,
) -> Result<Option<Duration>, Failure> {
    let Some(set) = cluster.daemon_sets.find(key) else {
        return Ok(None);
    };
    if set.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let uid = set.uid().unwrap_or_default();
    let nodes = cluster.nodes.all();
    let now = Timestamp::now();
    let pods = cluster.pods.owned_by(&key.namespace, &uid);
    let plan = plan(
        &set,
        &nodes,
        &pods.iter().map(|pod| &**pod).collect::<Vec<_>>(),
        now,
    );
    let mut outcome = Ok(());
    for name in &plan.delete {
        if let Some(pod) = cluster.pods.find(&Key::new(&key.namespace, name)) {
            cluster.pods.delete(&pod).await?;
            let message = format!("Deleted pod: {name}");
            recorder.tell(&*set, Tone::Normal, "SuccessfulDelete", message);
        }
    }
    for node in &plan.create {
        outcome = create(cluster, recorder, &set, node).await;
        if outcome.is_err() {
            break;
        }
    }
    let pods = cluster.pods.owned_by(&key.namespace, &uid);
    let pods: Vec<&Pod> = pods.iter().map(|pod| &**pod).collect();
    let (status, wake) = observe(&set, &nodes, &pods, now);
    let before = set.status.clone().unwrap_or_default();
    cluster
        .daemon_sets
        .set_status(key, &before, &status)
        .await?;
    outcome.map(|()| wake)
}

async fn create(
    cluster: &Cluster,
    recorder: &Recorder,
    set: &DaemonSet,
    node: &str,
) -> Result<(), Failure> {
    let namespace = set.namespace().unwrap_or_default();
    let template = set.spec.clone().unwrap_or_default().template;
    let prefix = format!("{}-", set.name_any());
    let mut pod = pod_from(&template, controlled_by(set), &namespace, prefix);
    pod.metadata
        .labels
        .get_or_insert_default()
        .insert(REVISION.to_owned(), revision(set));
    pod.spec.get_or_insert_default().node_name = Some(node.to_owned());
    match cluster.pods.create(&namespace, &pod).await {
        Ok(pod) => {
            let message = format!("Created pod: {}", pod.name_any());
            recorder.tell(set, Tone::Normal, "SuccessfulCreate", message);
            Ok(())
        }
        Err(error) => {
            let message = format!("Error creating: {}", sentence(&error));
            recorder.tell(set, Tone::Warning, "FailedCreate", message);
            Err(error.into())
        }
    }
}

/// What to do next.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// Nodes that need a pod.
    create: Vec<String>,
    /// Pods that have to go.
    delete: Vec<String>,
}

fn revision(set: &DaemonSet) -> String {
    hash_name(&set.spec.as_ref().map(|spec| &spec.template), 0)
}

fn wants(set: &DaemonSet, node: &Node) -> bool {
    let spec = set
        .spec
        .as_ref()
        .and_then(|spec| spec.template.spec.as_ref());
    let selector = spec.and_then(|spec| spec.node_selector.as_ref());
    selector.is_none_or(|selector| {
        selector
            .iter()
            .all(|(key, value)| node.labels().get(key) == Some(value))
    })
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref())
}

fn plan(set: &DaemonSet, nodes: &[Arc<Node>], pods: &[&Pod], now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let spec = set.spec.clone().unwrap_or_default();
    let on = |name: &str| {
        pods.iter()
            .filter(|pod| node_of(pod) == Some(name))
            .collect::<Vec<_>>()
    };
    let wanted: Vec<String> = nodes
        .iter()
        .filter(|node| wants(set, node))
        .map(|node| node.name_any())
        .collect();
    for name in &wanted {
        let here = on(name);
        if here.is_empty() {
            plan.create.push(name.clone());
        }
        let ended = here
            .iter()
            .filter(|pod| is_finished(pod) && !is_terminating(pod));
        plan.delete.extend(ended.map(|pod| pod.name_any()));
        let surplus = here.iter().filter(|pod| is_active(pod)).skip(1);
        plan.delete.extend(surplus.map(|pod| pod.name_any()));
    }
    let homeless = |pod: &&&Pod| {
        is_active(pod) && !node_of(pod).is_some_and(|node| wanted.iter().any(|one| one == node))
    };
    plan.delete
        .extend(pods.iter().filter(homeless).map(|pod| pod.name_any()));

    let strategy = spec.update_strategy.as_ref();
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
        return plan;
    }
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let limit = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
    let limit = scaled(limit, "1", wanted.len() as i32, true).max(1);
    let active: Vec<&Pod> = pods.iter().copied().filter(|pod| is_active(pod)).collect();
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let available = |pod: &Pod| Tally::of([pod], min_ready, now).available == 1;
    let missing = wanted.len() as i32 - active.iter().filter(|pod| available(pod)).count() as i32;
    let mut room = (limit - missing).max(0);
    let current = revision(set);
    for pod in active
        .iter()
        .filter(|pod| pod.labels().get(REVISION) != Some(&current))
    {
        // An old pod that serves nobody costs nothing.
        let costs = i32::from(available(pod));
        if room < costs || plan.delete.contains(&pod.name_any()) {
            continue;
        }
        room -= costs;
        plan.delete.push(pod.name_any());
    }
    plan
}

fn observe(
    set: &DaemonSet,
    nodes: &[Arc<Node>],
    pods: &[&Pod],
    now: Timestamp,
) -> (DaemonSetStatus, Option<Duration>) {
    let min_ready = set
        .spec
        .as_ref()
        .and_then(|spec| spec.min_ready_seconds)
        .unwrap_or(0);
    let wanted = nodes.iter().filter(|node| wants(set, node)).count() as i32;
    let active: Vec<&Pod> = pods.iter().copied().filter(|pod| is_active(pod)).collect();
    let tally = Tally::of(active.iter().copied(), min_ready, now);
    let current = revision(set);
    let updated = active
        .iter()
        .filter(|pod| pod.labels().get(REVISION) == Some(&current));
    let count = |number: i32| (number != 0).then_some(number);
    let status = DaemonSetStatus {
        observed_generation: set.metadata.generation,
        desired_number_scheduled: wanted,
        current_number_scheduled: (active.len() as i32).min(wanted),
        number_misscheduled: 0,
        number_ready: tally.ready,
        number_available: count(tally.available),
        number_unavailable: count((wanted - tally.available).max(0)),
        updated_number_scheduled: count(updated.count() as i32),
        ..DaemonSetStatus::default()
    };
    (status, tally.next)
}
