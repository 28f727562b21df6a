//! Replica sets: as many pods of one template as wanted.

mod decide;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::cluster::Cluster;
use super::events::{Recorder, Tone};
use super::failure::Failure;
use super::objects::{
    Tally, controlled_by, controller_of, is_active, labels, matches, pod_from, time,
};
use super::queue::Queue;
use super::store::{Key, is, sentence};

/// Runs until `shutdown`.
pub(super) async fn run(cluster: Arc<Cluster>, shutdown: CancellationToken) {
    let queue = Queue::default();
    let changed = queue.clone();
    cluster.replica_sets.on_change(move |_, new| {
        changed.retry(new.map(|object| Key::of(&**object)));
    });
    let changed = queue.clone();
    let sets = cluster.replica_sets.clone();
    cluster.pods.on_change(move |old, new| {
        for pod in old.into_iter().chain(new) {
            match controller_of(&pod.metadata) {
                Some(_) => changed.retry(super::owner_key(&**pod, "ReplicaSet")),
                None => adopters(&sets.within(&pod.namespace().unwrap_or_default()), pod)
                    .for_each(|key| changed.add(key)),
            }
        }
    });
    // A webhook that begins to answer is the usual cure of pods that could not be created.
    let changed = queue.clone();
    cluster.slices.on_change(move |_, _| changed.retry_failed());
    let recorder = Recorder::new(cluster.events.clone(), "replicaset-controller");
    let work = move |key: Key| {
        let (cluster, recorder) = (cluster.clone(), recorder.clone());
        async move { reconcile(&cluster, &recorder, &key).await }
    };
    queue.run("replicaset", shutdown, work).await;
}

/// Replica sets whose selector matches a pod that nobody owns.
fn adopters<'a>(sets: &'a [Arc<ReplicaSet>], pod: &'a Pod) -> impl Iterator<Item = Key> + 'a {
    let fits = |set: &&Arc<ReplicaSet>| {
        let selector = set.spec.as_ref().map(|spec| &spec.selector);
        selector.is_some_and(|selector| matches(selector, labels(&pod.metadata)))
    };
    sets.iter().filter(fits).map(|set| Key::of(&**set))
}

async fn reconcile(
    cluster: &Cluster,
    recorder: &Recorder,
    key: &Key,
) -> Result<Option<Duration>, Failure> {
    let Some(set) = cluster.replica_sets.find(key) else {
        return Ok(None);
    };
    let uid = set.uid().unwrap_or_default();
    let mut outcome = Ok(());
    if set.metadata.deletion_timestamp.is_none() {
        claim(cluster, &set).await?;
        outcome = resize(cluster, recorder, &set).await;
    }
    let pods = cluster.pods.owned_by(&key.namespace, &uid);
    let active: Vec<&Pod> = pods
        .iter()
        .map(|pod| &**pod)
        .filter(|pod| is_active(pod))
        .collect();
    let (status, wake) = observe(&set, &active, outcome.as_ref().err(), Timestamp::now());
    let before = set.status.clone().unwrap_or_default();
    cluster
        .replica_sets
        .set_status(key, &before, &status)
        .await?;
    outcome.map(|()| wake)
}

/// Takes pods that fit and belong to nobody, and lets go of pods that no longer fit.
async fn claim(cluster: &Cluster, set: &ReplicaSet) -> Result<(), Failure> {
    let Some(spec) = &set.spec else { return Ok(()) };
    for pod in cluster.pods.within(&set.namespace().unwrap_or_default()) {
        if !is_active(&pod) {
            continue;
        }
        let fits = matches(&spec.selector, labels(&pod.metadata));
        let owner = controller_of(&pod.metadata);
        let owners = match owner {
            None if fits => json!([controlled_by(set)]),
            Some(owner) if !fits && Some(&owner.uid) == set.metadata.uid.as_ref() => json!(null),
            _ => continue,
        };
        let patch = json!({ "metadata": {
            "uid": pod.metadata.uid,
            "resourceVersion": pod.metadata.resource_version,
            "ownerReferences": owners,
        }});
        match cluster.pods.patch(&Key::of(&*pod), patch).await {
            Err(error) if !is(&error, 404) => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

async fn resize(cluster: &Cluster, recorder: &Recorder, set: &ReplicaSet) -> Result<(), Failure> {
    let namespace = set.namespace().unwrap_or_default();
    let uid = set.uid().unwrap_or_default();
    let wanted = set
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    let pods = cluster.pods.owned_by(&namespace, &uid);
    let active: Vec<&Pod> = pods
        .iter()
        .map(|pod| &**pod)
        .filter(|pod| is_active(pod))
        .collect();
    let missing = wanted - active.len() as i32;
    if missing < 0 {
        for name in decide::surplus(&active, missing.unsigned_abs() as usize) {
            let Some(pod) = cluster.pods.find(&Key::new(&namespace, &name)) else {
                continue;
            };
            cluster.pods.delete(&pod).await?;
            let message = format!("Deleted pod: {name}");
            recorder.tell(set, Tone::Normal, "SuccessfulDelete", message);
        }
        return Ok(());
    }
    let mut left = missing as usize;
    // One alone first, then ever more at a time: what fails does not fail a hundredfold.
    let mut batch = 1;
    while left > 0 {
        let size = batch.min(left);
        let jobs = (0..size).map(|_| create(cluster, recorder, set, &namespace));
        for result in futures::future::join_all(jobs).await {
            result?;
        }
        left -= size;
        batch = (batch * 2).min(32);
    }
    Ok(())
}

async fn create(
    cluster: &Cluster,
    recorder: &Recorder,
    set: &ReplicaSet,
    namespace: &str,
) -> Result<(), Failure> {
    let template = set
        .spec
        .as_ref()
        .and_then(|spec| spec.template.clone())
        .unwrap_or_default();
    let prefix = format!("{}-", set.name_any());
    let pod = pod_from(&template, controlled_by(set), namespace, prefix);
    match cluster.pods.create(namespace, &pod).await {
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

fn observe(
    set: &ReplicaSet,
    active: &[&Pod],
    failure: Option<&Failure>,
    now: Timestamp,
) -> (ReplicaSetStatus, Option<Duration>) {
    const FAILURE: &str = "ReplicaFailure";
    let min_ready = set
        .spec
        .as_ref()
        .and_then(|spec| spec.min_ready_seconds)
        .unwrap_or(0);
    let tally = Tally::of(active.iter().copied(), min_ready, now);
    let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
    let wanted = template.and_then(|template| template.metadata.as_ref()?.labels.as_ref());
    let labelled = active.iter().filter(|pod| {
        let own = labels(&pod.metadata);
        wanted.is_none_or(|wanted| {
            wanted
                .iter()
                .all(|(key, value)| own.get(key) == Some(value))
        })
    });
    let before = set
        .status
        .as_ref()
        .and_then(|status| status.conditions.clone());
    let mut conditions = before.unwrap_or_default();
    let known = conditions.iter().position(|one| one.type_ == FAILURE);
    match (failure, known) {
        (None, Some(at)) => {
            conditions.remove(at);
        }
        (Some(failure), at) => {
            let since = at.map(|at| conditions.remove(at).last_transition_time);
            conditions.push(ReplicaSetCondition {
                type_: FAILURE.to_owned(),
                status: "True".to_owned(),
                reason: Some("FailedCreate".to_owned()),
                message: Some(failure.to_string()),
                last_transition_time: since.flatten().or_else(|| Some(time(now))),
            });
        }
        (None, None) => {}
    }
    let count = |number: i32| (number != 0).then_some(number);
    let status = ReplicaSetStatus {
        replicas: active.len() as i32,
        fully_labeled_replicas: count(labelled.count() as i32),
        ready_replicas: count(tally.ready),
        available_replicas: count(tally.available),
        observed_generation: set.metadata.generation,
        conditions: (!conditions.is_empty()).then_some(conditions),
        terminating_replicas: None,
    };
    (status, tally.next)
}
