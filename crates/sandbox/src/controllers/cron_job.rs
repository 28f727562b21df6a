//! Cron jobs: a job at each time that the schedule names.

mod schedule;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::ResourceExt;
use tokio_util::sync::CancellationToken;

use super::cluster::Cluster;
use super::events::{Recorder, Tone};
use super::failure::Failure;
use super::job::decide::ended;
use super::objects::controlled_by;
use super::queue::Queue;
use super::store::{Key, is};
use schedule::Schedule;

/// Runs until `shutdown`.
pub(super) async fn run(cluster: Arc<Cluster>, shutdown: CancellationToken) {
    let queue = Queue::default();
    let changed = queue.clone();
    cluster
        .cron_jobs
        .on_change(move |_, new| changed.retry(new.map(|object| Key::of(&**object))));
    let changed = queue.clone();
    cluster.jobs.on_change(move |old, new| {
        changed.retry(
            new.or(old)
                .and_then(|job| super::owner_key(&**job, "CronJob")),
        );
    });
    let recorder = Recorder::new(cluster.events.clone(), "cronjob-controller");
    let work = move |key: Key| {
        let (cluster, recorder) = (cluster.clone(), recorder.clone());
        async move { reconcile(&cluster, &recorder, &key).await }
    };
    queue.run("cronjob", shutdown, work).await;
}

async fn reconcile(
    cluster: &Cluster,
    recorder: &Recorder,
    key: &Key,
) -> Result<Option<Duration>, Failure> {
    let Some(cron) = cluster.cron_jobs.find(key) else {
        return Ok(None);
    };
    let Some(spec) = &cron.spec else {
        return Ok(None);
    };
    if cron.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let uid = cron.uid().unwrap_or_default();
    let jobs = cluster.jobs.owned_by(&key.namespace, &uid);
    trim(cluster, &cron, &jobs).await?;
    let running: Vec<_> = jobs
        .iter()
        .filter(|job| ended(job).is_none())
        .cloned()
        .collect();
    let before = cron.status.clone().unwrap_or_default();
    let mut status = before.clone();
    let zone = spec
        .time_zone
        .as_deref()
        .map_or(Ok(TimeZone::UTC), TimeZone::get);
    let (schedule, zone) = match (spec.schedule.parse::<Schedule>(), zone) {
        (Ok(schedule), Ok(zone)) => (schedule, zone),
        (Err(error), _) => return refuse(recorder, &cron, error),
        (_, Err(error)) => return refuse(recorder, &cron, error.to_string()),
    };
    let now = Timestamp::now();
    let since = before
        .last_schedule_time
        .as_ref()
        .or(cron.metadata.creation_timestamp.as_ref());
    let since = since.map_or(now, |time| time.0);
    let due = schedule.last_between(since, now, &zone);
    let mut active = running.clone();
    if let Some(due) = due.filter(|_| spec.suspend != Some(true)) {
        let late = now.duration_since(due).as_secs();
        let in_time = spec
            .starting_deadline_seconds
            .is_none_or(|limit| late <= limit);
        let forbidden = spec.concurrency_policy.as_deref() == Some("Forbid") && !running.is_empty();
        if in_time && !forbidden {
            if spec.concurrency_policy.as_deref() == Some("Replace") {
                for job in &running {
                    cluster.jobs.delete(job).await?;
                }
                active.clear();
            }
            active.extend(start(cluster, recorder, &cron, due).await?.map(Arc::new));
        }
        status.last_schedule_time = Some(Time(due));
    }
    let references = active.iter().map(|job| ObjectReference {
        api_version: Some("batch/v1".to_owned()),
        kind: Some("Job".to_owned()),
        name: Some(job.name_any()),
        namespace: job.namespace(),
        uid: job.uid(),
        ..ObjectReference::default()
    });
    let references: Vec<_> = references.collect();
    status.active = (!references.is_empty()).then_some(references);
    let finished = jobs
        .iter()
        .filter_map(|job| job.status.as_ref()?.completion_time.clone());
    status.last_successful_time = finished.max().or(status.last_successful_time);
    cluster.cron_jobs.set_status(key, &before, &status).await?;
    let next = schedule
        .next_after(now, &zone)
        .map(|next| next.duration_since(now));
    Ok(next.and_then(|wait| Duration::try_from(wait).ok()))
}

fn refuse(
    recorder: &Recorder,
    cron: &CronJob,
    reason: String,
) -> Result<Option<Duration>, Failure> {
    recorder.tell(cron, Tone::Warning, "InvalidSchedule", reason);
    Ok(None)
}

async fn start(
    cluster: &Cluster,
    recorder: &Recorder,
    cron: &CronJob,
    due: Timestamp,
) -> Result<Option<Job>, Failure> {
    let Some(spec) = &cron.spec else {
        return Ok(None);
    };
    let template = spec.job_template.clone();
    let meta = template.metadata.unwrap_or_default();
    let namespace = cron.namespace().unwrap_or_default();
    // One name for one time: a second attempt finds that it is taken.
    let name = format!("{}-{}", cron.name_any(), due.as_second() / 60);
    let job = Job {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace.clone()),
            labels: meta.labels,
            annotations: meta.annotations,
            owner_references: Some(vec![controlled_by(cron)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    };
    match cluster.jobs.create(&namespace, &job).await {
        Ok(job) => {
            let message = format!("Created job {name}");
            recorder.tell(cron, Tone::Normal, "SuccessfulCreate", message);
            Ok(Some(job))
        }
        Err(error) if is(&error, 409) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Deletes finished jobs beyond the history limits, oldest first.
async fn trim(cluster: &Cluster, cron: &CronJob, jobs: &[Arc<Job>]) -> Result<(), Failure> {
    let Some(spec) = &cron.spec else {
        return Ok(());
    };
    for (kind, limit) in [
        ("Complete", spec.successful_jobs_history_limit.unwrap_or(3)),
        ("Failed", spec.failed_jobs_history_limit.unwrap_or(1)),
    ] {
        let ended_so = |job: &&Arc<Job>| ended(job).is_some_and(|end| end.type_ == kind);
        let mut finished: Vec<_> = jobs.iter().filter(ended_so).collect();
        finished.sort_by_key(|job| job.creation_timestamp().map(|time| time.0));
        let surplus = finished
            .len()
            .saturating_sub(usize::try_from(limit).unwrap_or(0));
        for job in finished.into_iter().take(surplus) {
            cluster.jobs.delete(job).await?;
        }
    }
    Ok(())
}
