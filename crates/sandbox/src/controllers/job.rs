//! Jobs: pods that run until enough of them have succeeded.

pub(super) mod decide;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{EnvVar, Pod};
use kube::ResourceExt;
use tokio_util::sync::CancellationToken;

use super::cluster::Cluster;
use super::events::{Recorder, Tone};
use super::failure::Failure;
use super::objects::{controlled_by, pod_from};
use super::queue::Queue;
use super::store::{Key, sentence};
use decide::{INDEX, Verdict};

/// Runs until `shutdown`.
pub(super) async fn run(cluster: Arc<Cluster>, shutdown: CancellationToken) {
    let queue = Queue::default();
    let changed = queue.clone();
    cluster
        .jobs
        .on_change(move |_, new| changed.retry(new.map(|object| Key::of(&**object))));
    let changed = queue.clone();
    cluster.pods.on_change(move |old, new| {
        changed.retry(new.or(old).and_then(|pod| super::owner_key(&**pod, "Job")));
    });
    let changed = queue.clone();
    cluster.slices.on_change(move |_, _| changed.retry_failed());
    let recorder = Recorder::new(cluster.events.clone(), "job-controller");
    let work = move |key: Key| {
        let (cluster, recorder) = (cluster.clone(), recorder.clone());
        async move { reconcile(&cluster, &recorder, &key).await }
    };
    queue.run("job", shutdown, work).await;
}

async fn reconcile(
    cluster: &Cluster,
    recorder: &Recorder,
    key: &Key,
) -> Result<Option<Duration>, Failure> {
    let Some(job) = cluster.jobs.find(key) else {
        return Ok(None);
    };
    if job.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let now = Timestamp::now();
    let uid = job.uid().unwrap_or_default();
    let pods = cluster.pods.owned_by(&key.namespace, &uid);
    let pods: Vec<&Pod> = pods.iter().map(|pod| &**pod).collect();
    let plan = decide::plan(&job, &pods, now);
    if plan.expired {
        cluster.jobs.delete(&job).await?;
        return Ok(None);
    }
    for name in &plan.delete {
        if let Some(pod) = cluster.pods.find(&Key::new(&key.namespace, name)) {
            cluster.pods.delete(&pod).await?;
            let message = format!("Deleted pod: {name}");
            recorder.tell(&*job, Tone::Normal, "SuccessfulDelete", message);
        }
    }
    let mut outcome = Ok(());
    for index in &plan.create {
        outcome = create(cluster, recorder, &job, *index).await;
        if outcome.is_err() {
            break;
        }
    }
    let pods = cluster.pods.owned_by(&key.namespace, &uid);
    let active: Vec<&Pod> = pods
        .iter()
        .map(|pod| &**pod)
        .filter(|pod| decide::is_working(pod))
        .collect();
    let before = job.status.clone().unwrap_or_default();
    let status = decide::observe(&job, &plan, &active, now);
    cluster.jobs.set_status(key, &before, &status).await?;
    announce(recorder, &job, &plan.verdict);
    outcome.map(|()| plan.wake)
}

/// Tells the end of a job once, when it is reached.
fn announce(recorder: &Recorder, job: &Job, verdict: &Verdict) {
    if decide::ended(job).is_some() {
        return;
    }
    match verdict {
        Verdict::Complete => {
            recorder.tell(job, Tone::Normal, "Completed", "Job completed".to_owned());
        }
        Verdict::Failed(reason, message) => {
            recorder.tell(job, Tone::Warning, reason, message.clone());
        }
        Verdict::Running | Verdict::Suspended => {}
    }
}

async fn create(
    cluster: &Cluster,
    recorder: &Recorder,
    job: &Job,
    index: Option<i32>,
) -> Result<(), Failure> {
    let namespace = job.namespace().unwrap_or_default();
    let pod = pod(job, index, &namespace);
    match cluster.pods.create(&namespace, &pod).await {
        Ok(pod) => {
            let message = format!("Created pod: {}", pod.name_any());
            recorder.tell(job, Tone::Normal, "SuccessfulCreate", message);
            Ok(())
        }
        Err(error) => {
            let message = format!("Error creating: {}", sentence(&error));
            recorder.tell(job, Tone::Warning, "FailedCreate", message);
            Err(error.into())
        }
    }
}

fn pod(job: &Job, index: Option<i32>, namespace: &str) -> Pod {
    let template = job.spec.clone().unwrap_or_default().template;
    let name = job.name_any();
    let prefix = match index {
        Some(index) => format!("{name}-{index}-"),
        None => format!("{name}-"),
    };
    let mut pod = pod_from(&template, controlled_by(job), namespace, prefix);
    let labels = pod.metadata.labels.get_or_insert_default();
    let uid = job.uid().unwrap_or_default();
    for (key, value) in [
        ("batch.kubernetes.io/job-name", &name),
        ("job-name", &name),
        ("batch.kubernetes.io/controller-uid", &uid),
        ("controller-uid", &uid),
    ] {
        labels.insert(key.to_owned(), value.clone());
    }
    let Some(index) = index else { return pod };
    labels.insert(INDEX.to_owned(), index.to_string());
    pod.metadata
        .annotations
        .get_or_insert_default()
        .insert(INDEX.to_owned(), index.to_string());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(format!("{name}-{index}"));
    for container in spec
        .containers
        .iter_mut()
        .chain(spec.init_containers.iter_mut().flatten())
    {
        let name = "JOB_COMPLETION_INDEX".to_owned();
        let variable = EnvVar {
            name,
            value: Some(index.to_string()),
            value_from: None,
        };
        container.env.get_or_insert_default().push(variable);
    }
    pod
}
