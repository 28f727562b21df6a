//! Deployments: rollouts from one replica set to the next.
//!
//! ```text
//! deployment + replica sets ─ Rollout::step ─▶ create / resize / delete ─▶ API server
//!                           └ status::observe ─▶ status
//! ```

mod status;
pub(crate) mod step;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::cluster::Cluster;
use super::events::{Recorder, Tone};
use super::failure::Failure;
use super::objects::{controlled_by, controller_of, is_finished};
use super::queue::Queue;
use super::store::{Key, is};
use step::{HASH, REVISION, Resize, Rollout, replicas, template_hash};

/// Runs until `shutdown`.
pub(super) async fn run(cluster: Arc<Cluster>, shutdown: CancellationToken) {
    let queue = Queue::default();
    let changed = queue.clone();
    cluster.deployments.on_change(move |_, new| {
        changed.retry(new.map(|object| Key::of(&**object)));
    });
    let changed = queue.clone();
    cluster.replica_sets.on_change(move |old, new| {
        for set in old.into_iter().chain(new) {
            changed.retry(super::owner_key(&**set, "Deployment"));
        }
    });
    // Only `Recreate` waits for pods to be gone.
    let changed = queue.clone();
    let sets = cluster.replica_sets.clone();
    cluster.pods.on_change(move |old, new| {
        let ended = new.is_none_or(|pod| is_finished(pod));
        if ended && let Some(set) = old.and_then(|pod| super::owner_key(&**pod, "ReplicaSet")) {
            let set = sets.find(&set);
            changed.retry(set.and_then(|set| super::owner_key(&*set, "Deployment")));
        }
    });
    let recorder = Recorder::new(cluster.events.clone(), "deployment-controller");
    let work = move |key: Key| {
        let (cluster, recorder) = (cluster.clone(), recorder.clone());
        async move { reconcile(&cluster, &recorder, &key).await }
    };
    queue.run("deployment", shutdown, work).await;
}

async fn reconcile(
    cluster: &Cluster,
    recorder: &Recorder,
    key: &Key,
) -> Result<Option<Duration>, Failure> {
    let Some(deployment) = cluster.deployments.find(key) else {
        return Ok(None);
    };
    if deployment.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let uid = deployment.uid().unwrap_or_default();
    let sets = cluster.replica_sets.owned_by(&key.namespace, &uid);
    let old_pods = old_pods(cluster, &deployment, &sets);
    let rollout = Rollout::of(
        &deployment,
        sets.iter().map(|set| &**set).collect(),
        old_pods,
    );
    let step = rollout.step();
    if let Some(size) = step.create {
        create(cluster, recorder, &rollout, size).await?;
    }
    if rollout.new.is_some() {
        annotate(cluster, &rollout).await?;
    }
    for resize in &step.resize {
        scale(cluster, recorder, &deployment, resize).await?;
    }
    for name in &step.delete {
        if let Some(set) = cluster.replica_sets.find(&Key::new(&key.namespace, name)) {
            cluster.replica_sets.delete(&set).await?;
        }
    }
    // The writes above are in memory already: the status speaks of the state after them.
    let Some(deployment) = cluster.deployments.find(key) else {
        return Ok(None);
    };
    let sets = cluster.replica_sets.owned_by(&key.namespace, &uid);
    let rollout = Rollout::of(
        &deployment,
        sets.iter().map(|set| &**set).collect(),
        old_pods,
    );
    let (status, wake) = status::observe(&rollout, Timestamp::now());
    let before = deployment.status.clone().unwrap_or_default();
    cluster
        .deployments
        .set_status(key, &before, &status)
        .await?;
    Ok(wake)
}

/// Pods of other templates that have not ended yet, including those that are being deleted.
fn old_pods(cluster: &Cluster, deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> usize {
    let rollout = Rollout::of(deployment, sets.iter().map(|set| &**set).collect(), 0);
    let old: Vec<_> = rollout.old.iter().filter_map(|set| set.uid()).collect();
    let namespace = deployment.namespace().unwrap_or_default();
    let pods = cluster.pods.within(&namespace);
    let is_old = |owner: &str| old.iter().any(|uid| uid == owner);
    pods.iter()
        .filter(|pod| !is_finished(pod))
        .filter(|pod| controller_of(&pod.metadata).is_some_and(|owner| is_old(&owner.uid)))
        .count()
}

async fn create(
    cluster: &Cluster,
    recorder: &Recorder,
    rollout: &Rollout<'_>,
    size: i32,
) -> Result<(), Failure> {
    let deployment = rollout.deployment;
    let Some(spec) = &deployment.spec else {
        return Ok(());
    };
    let namespace = deployment.namespace().unwrap_or_default();
    let hash = template_hash(deployment);
    let name = format!("{}-{hash}", deployment.name_any());
    let mut template = spec.template.clone();
    let labels = &mut template.metadata.get_or_insert_default().labels;
    labels
        .get_or_insert_default()
        .insert(HASH.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector.clone();
    selector
        .match_labels
        .get_or_insert_default()
        .insert(HASH.to_owned(), hash);
    let set = ReplicaSet {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace.clone()),
            labels,
            annotations: Some(annotations(rollout)),
            owner_references: Some(vec![controlled_by(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(size),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    };
    match cluster.replica_sets.create(&namespace, &set).await {
        Ok(_) => {
            let message = format!("Scaled up replica set {name} from 0 to {size}");
            recorder.tell(deployment, Tone::Normal, "ScalingReplicaSet", message);
            Ok(())
        }
        Err(error) if is(&error, 409) => collide(cluster, deployment, &name).await,
        Err(error) => Err(error.into()),
    }
}

/// The name is taken. If by our own replica set, it only has not been seen yet; if by another, the
/// next attempt uses another hash.
async fn collide(cluster: &Cluster, deployment: &Deployment, name: &str) -> Result<(), Failure> {
    let key = Key::of(deployment);
    let taken = cluster.replica_sets.find(&Key::new(&key.namespace, name));
    let uid = deployment.uid();
    let foreign =
        |set: &ReplicaSet| controller_of(&set.metadata).map(|owner| &owner.uid) != uid.as_ref();
    if taken.is_some_and(|set| foreign(&set)) {
        let before = deployment.status.clone().unwrap_or_default();
        let mut status = before.clone();
        status.collision_count = Some(before.collision_count.unwrap_or(0) + 1);
        cluster
            .deployments
            .set_status(&key, &before, &status)
            .await?;
    }
    Err(Failure::Again(format!("replica set {name} exists already")))
}

/// Annotations of the new replica set: the deployment's own, but for those that belong to tools,
/// and the rollout's numbers.
fn annotations(rollout: &Rollout<'_>) -> BTreeMap<String, String> {
    const KEPT_BACK: [&str; 6] = [
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        "deployment.kubernetes.io/revision-history",
        "deployment.kubernetes.io/desired-replicas",
        "deployment.kubernetes.io/max-replicas",
        "deprecated.deployment.rollback.to",
    ];
    let mut annotations: BTreeMap<String, String> = rollout
        .deployment
        .annotations()
        .iter()
        .filter(|(name, _)| !KEPT_BACK.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let mut add = |name: &str, value: String| annotations.insert(name.to_owned(), value);
    add(REVISION, rollout.revision().to_string());
    add(
        "deployment.kubernetes.io/desired-replicas",
        rollout.wanted().to_string(),
    );
    add(
        "deployment.kubernetes.io/max-replicas",
        rollout.max_pods().to_string(),
    );
    if let Some(new) = rollout.new
        && let Some(history) = history(new, rollout.revision())
    {
        add("deployment.kubernetes.io/revision-history", history);
    }
    annotations
}

/// The numbers that a replica set had in earlier rollouts, when it comes back by a rollback.
fn history(set: &ReplicaSet, revision: i64) -> Option<String> {
    const HISTORY: &str = "deployment.kubernetes.io/revision-history";
    let earlier = set
        .annotations()
        .get(HISTORY)
        .filter(|text| !text.is_empty());
    let last = step::revision(set);
    if last == revision || last == 0 {
        return earlier.cloned();
    }
    Some(match earlier {
        Some(earlier) => format!("{earlier},{last}"),
        None => last.to_string(),
    })
}

/// Keeps the new replica set's annotations, and the deployment's revision, as they should be.
async fn annotate(cluster: &Cluster, rollout: &Rollout<'_>) -> Result<(), Failure> {
    let Some(new) = rollout.new else {
        return Ok(());
    };
    let wanted = annotations(rollout);
    let min_ready = rollout
        .deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.min_ready_seconds);
    let has = |name: &String, value: &String| new.annotations().get(name) == Some(value);
    let stale_ready = new
        .spec
        .as_ref()
        .and_then(|spec| spec.min_ready_seconds)
        .unwrap_or(0)
        != min_ready.unwrap_or(0);
    if stale_ready || !wanted.iter().all(|(name, value)| has(name, value)) {
        let patch = json!({
            "metadata": { "annotations": wanted },
            "spec": { "minReadySeconds": min_ready },
        });
        cluster.replica_sets.patch(&Key::of(new), patch).await?;
    }
    let revision = rollout.revision().to_string();
    if rollout.deployment.annotations().get(REVISION) != Some(&revision) {
        let patch = json!({ "metadata": { "annotations": { REVISION: revision } } });
        cluster
            .deployments
            .patch(&Key::of(rollout.deployment), patch)
            .await?;
    }
    Ok(())
}

async fn scale(
    cluster: &Cluster,
    recorder: &Recorder,
    deployment: &Deployment,
    resize: &Resize,
) -> Result<(), Failure> {
    let namespace = deployment.namespace().unwrap_or_default();
    let key = Key::new(&namespace, &resize.name);
    let Some(set) = cluster.replica_sets.find(&key) else {
        return Ok(());
    };
    if replicas(&set) == resize.to {
        return Ok(());
    }
    cluster
        .replica_sets
        .patch(&key, json!({ "spec": { "replicas": resize.to } }))
        .await?;
    let Resize { name, from, to } = resize;
    let way = if to > from { "up" } else { "down" };
    let message = format!("Scaled {way} replica set {name} from {from} to {to}");
    recorder.tell(deployment, Tone::Normal, "ScalingReplicaSet", message);
    Ok(())
}
