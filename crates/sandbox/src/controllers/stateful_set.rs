//! Stateful sets: pods with numbers for names, started and stopped in order.
//!
//! Simplified against Kubernetes: a volume claim template becomes an empty directory that lives
//! as long as its pod, and a pod below the update's partition that has to be made anew gets the
//! new template, as no history of templates is kept.

mod decide;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, Volume};
use kube::ResourceExt;
use tokio_util::sync::CancellationToken;

use super::cluster::Cluster;
use super::events::{Recorder, Tone};
use super::failure::Failure;
use super::objects::{Tally, controlled_by, hash_name, is_active, pod_from};
use super::queue::Queue;
use super::store::{Key, is, sentence};
use decide::{Action, REVISION, actions};

/// Runs until `shutdown`.
pub(super) async fn run(cluster: Arc<Cluster>, shutdown: CancellationToken) {
    let queue = Queue::default();
    let changed = queue.clone();
    cluster.stateful_sets.on_change(move |_, new| {
        changed.retry(new.map(|object| Key::of(&**object)));
    });
    let changed = queue.clone();
    cluster.pods.on_change(move |old, new| {
        changed.retry(
            new.or(old)
                .and_then(|pod| super::owner_key(&**pod, "StatefulSet")),
        );
    });
    let changed = queue.clone();
    cluster.slices.on_change(move |_, _| changed.retry_failed());
    let recorder = Recorder::new(cluster.events.clone(), "statefulset-controller");
    let work = move |key: Key| {
        let (cluster, recorder) = (cluster.clone(), recorder.clone());
        async move { reconcile(&cluster, &recorder, &key).await }
    };
    queue.run("statefulset", shutdown, work).await;
}

async fn reconcile(
    cluster: &Cluster,
    recorder: &Recorder,
    key: &Key,
) -> Result<Option<Duration>, Failure> {
    let Some(set) = cluster.stateful_sets.find(key) else {
        return Ok(None);
    };
    if set.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let uid = set.uid().unwrap_or_default();
    let revision = revision(&set);
    let now = Timestamp::now();
    let pods = cluster.pods.owned_by(&key.namespace, &uid);
    let pods: Vec<&Pod> = pods.iter().map(|pod| &**pod).collect();
    let mut outcome = Ok(());
    for action in actions(&set, &pods, &revision, now) {
        outcome = perform(cluster, recorder, &set, &action).await;
        if outcome.is_err() {
            break;
        }
    }
    let pods = cluster.pods.owned_by(&key.namespace, &uid);
    let pods: Vec<&Pod> = pods.iter().map(|pod| &**pod).collect();
    let (status, wake) = observe(&set, &pods, &revision, now);
    let before = set.status.clone().unwrap_or_default();
    cluster
        .stateful_sets
        .set_status(key, &before, &status)
        .await?;
    outcome.map(|()| wake)
}

/// Name of the current template's revision.
fn revision(set: &StatefulSet) -> String {
    let template = set.spec.as_ref().map(|spec| &spec.template);
    format!("{}-{}", set.name_any(), hash_name(&template, 0))
}

async fn perform(
    cluster: &Cluster,
    recorder: &Recorder,
    set: &StatefulSet,
    action: &Action,
) -> Result<(), Failure> {
    let namespace = set.namespace().unwrap_or_default();
    let (kind, name) = ("StatefulSet", set.name_any());
    match action {
        Action::Create(ordinal) => {
            let pod = pod(set, *ordinal, &namespace);
            let pod_name = pod.name_any();
            match cluster.pods.create(&namespace, &pod).await {
                Ok(_) => {
                    let message = format!("create Pod {pod_name} in {kind} {name} successful");
                    recorder.tell(set, Tone::Normal, "SuccessfulCreate", message);
                    Ok(())
                }
                Err(error) => {
                    let reason = sentence(&error);
                    let message =
                        format!("create Pod {pod_name} in {kind} {name} failed error: {reason}");
                    // The name may still belong to a pod that is about to be gone.
                    if !is(&error, 409) {
                        recorder.tell(set, Tone::Warning, "FailedCreate", message);
                    }
                    Err(error.into())
                }
            }
        }
        Action::Delete(pod_name) => {
            let Some(pod) = cluster.pods.find(&Key::new(&namespace, pod_name)) else {
                return Ok(());
            };
            cluster.pods.delete(&pod).await?;
            let message = format!("delete Pod {pod_name} in {kind} {name} successful");
            recorder.tell(set, Tone::Normal, "SuccessfulDelete", message);
            Ok(())
        }
    }
}

fn pod(set: &StatefulSet, ordinal: i32, namespace: &str) -> Pod {
    let spec = set.spec.clone().unwrap_or_default();
    let name = format!("{}-{ordinal}", set.name_any());
    let mut pod = pod_from(&spec.template, controlled_by(set), namespace, String::new());
    pod.metadata.generate_name = None;
    pod.metadata.name = Some(name.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(
        "statefulset.kubernetes.io/pod-name".to_owned(),
        name.clone(),
    );
    labels.insert(
        "apps.kubernetes.io/pod-index".to_owned(),
        ordinal.to_string(),
    );
    labels.insert(REVISION.to_owned(), revision(set));
    let pod_spec = pod.spec.get_or_insert_default();
    pod_spec.hostname = Some(name);
    pod_spec.subdomain = spec.service_name.filter(|name| !name.is_empty());
    let volumes = pod_spec.volumes.get_or_insert_default();
    for claim in spec.volume_claim_templates.iter().flatten() {
        let name = claim.name_any();
        volumes.retain(|volume| volume.name != name);
        let empty = EmptyDirVolumeSource::default();
        volumes.push(Volume {
            name,
            empty_dir: Some(empty),
            ..Volume::default()
        });
    }
    pod
}

fn observe(
    set: &StatefulSet,
    pods: &[&Pod],
    revision: &str,
    now: Timestamp,
) -> (StatefulSetStatus, Option<Duration>) {
    let spec = set.spec.clone().unwrap_or_default();
    let active: Vec<&Pod> = pods.iter().copied().filter(|pod| is_active(pod)).collect();
    let tally = Tally::of(
        active.iter().copied(),
        spec.min_ready_seconds.unwrap_or(0),
        now,
    );
    let with = |wanted: &str| {
        active
            .iter()
            .filter(|pod| pod.labels().get(REVISION).is_some_and(|r| r == wanted))
            .count()
    };
    let updated = with(revision) as i32;
    let wanted = spec.replicas.unwrap_or(1);
    let before = set.status.as_ref();
    let current = before.and_then(|status| status.current_revision.clone());
    let done = updated == wanted && tally.ready == wanted && active.len() as i32 == wanted;
    let current = match current {
        Some(current) if !done => current,
        _ => revision.to_owned(),
    };
    let count = |number: i32| (number != 0).then_some(number);
    let status = StatefulSetStatus {
        observed_generation: set.metadata.generation,
        replicas: active.len() as i32,
        ready_replicas: count(tally.ready),
        available_replicas: Some(tally.available),
        current_replicas: count(with(&current) as i32),
        updated_replicas: count(updated),
        current_revision: Some(current),
        update_revision: Some(revision.to_owned()),
        collision_count: Some(0),
        conditions: None,
    };
    (status, tally.next)
}
