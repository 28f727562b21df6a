//! What a job does next, and what it shows. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::super::objects::{elapsed, is_active, is_ready, is_terminating, phase, time};

/// Annotation and label with a pod's number in an indexed job.
pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// How the job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Running,
    Suspended,
    Complete,
    /// With reason and message.
    Failed(&'static str, String),
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) verdict: Verdict,
    /// Pods to make; with a number each when the job is indexed.
    pub(super) create: Vec<Option<i32>>,
    /// Names of pods that have to go.
    pub(super) delete: Vec<String>,
    /// The job's time after its end is over: it is to be deleted itself.
    pub(super) expired: bool,
    /// When to look again although nothing has changed.
    pub(super) wake: Option<Duration>,
    pub(super) succeeded: i32,
    pub(super) failed: i32,
    /// Numbers that are done; empty unless indexed.
    indexes: BTreeSet<i32>,
}

/// The condition that ended the job; absent while it runs.
pub(crate) fn ended(job: &Job) -> Option<&JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let ends = |one: &&JobCondition| {
        matches!(one.type_.as_str(), "Complete" | "Failed") && one.status == "True"
    };
    conditions.iter().find(ends)
}

/// How a pod's own work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Succeeded,
    Failed,
}

/// How the pod's main containers ended; absent while they work, or will be started again. Sidecars
/// may take their time to stop: the job does not wait for them.
fn outcome(pod: &Pod) -> Option<Outcome> {
    match phase(pod) {
        "Succeeded" => return Some(Outcome::Succeeded),
        "Failed" => return Some(Outcome::Failed),
        _ => {}
    }
    let spec = pod.spec.as_ref()?;
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let code = |name: &str| {
        let status = statuses.iter().find(|status| status.name == name)?;
        Some(status.state.as_ref()?.terminated.as_ref()?.exit_code)
    };
    let codes: Option<Vec<i32>> = spec
        .containers
        .iter()
        .map(|container| code(&container.name))
        .collect();
    let failed = codes
        .filter(|codes| !codes.is_empty())?
        .iter()
        .any(|code| *code != 0);
    match (failed, spec.restart_policy.as_deref()) {
        (_, None | Some("Always")) => None,
        (false, _) => Some(Outcome::Succeeded),
        (true, Some("Never")) => Some(Outcome::Failed),
        (true, _) => None,
    }
}

/// Whether the pod still does something for its job.
pub(super) fn is_working(pod: &Pod) -> bool {
    is_active(pod) && outcome(pod).is_none()
}

/// Decides from the job and its pods.
pub(super) fn plan(job: &Job, pods: &[&Pod], now: Timestamp) -> Plan {
    let spec = job.spec.clone().unwrap_or_default();
    let before = job.status.clone().unwrap_or_default();
    let indexed = spec.completion_mode.as_deref() == Some("Indexed");
    let with = |wanted: Outcome| {
        pods.iter()
            .filter(move |pod| outcome(pod) == Some(wanted))
            .copied()
    };
    let indexes: BTreeSet<i32> = if indexed {
        with(Outcome::Succeeded).filter_map(index).collect()
    } else {
        BTreeSet::new()
    };
    let succeeded = if indexed {
        indexes.len()
    } else {
        with(Outcome::Succeeded).count()
    } as i32;
    let mut plan = Plan {
        verdict: Verdict::Running,
        create: Vec::new(),
        delete: Vec::new(),
        expired: false,
        wake: None,
        // A pod that was cleaned away has still run.
        succeeded: succeeded.max(before.succeeded.unwrap_or(0)),
        failed: (with(Outcome::Failed).count() as i32).max(before.failed.unwrap_or(0)),
        indexes,
    };
    if let Some(end) = ended(job) {
        plan.after(end, &spec.ttl_seconds_after_finished, now);
        return plan;
    }
    let active: Vec<&Pod> = pods.iter().copied().filter(|pod| is_working(pod)).collect();
    plan.verdict = verdict(job, &plan, active.len(), now);
    if plan.verdict != Verdict::Running {
        plan.delete = active.iter().map(|pod| pod.name_any()).collect();
        return plan;
    }
    let parallel = spec.parallelism.unwrap_or(1);
    let left = match spec.completions {
        Some(completions) => completions - plan.succeeded,
        // A work queue: once one has succeeded, no more are started.
        None if plan.succeeded > 0 => active.len() as i32,
        None => parallel,
    };
    let wanted = parallel.min(left).max(0) as usize;
    if active.len() > wanted {
        let surplus = active.len() - wanted;
        let mut names: Vec<_> = active
            .iter()
            .map(|pod| (is_ready(pod), pod.name_any()))
            .collect();
        names.sort();
        plan.delete = names
            .into_iter()
            .take(surplus)
            .map(|(_, name)| name)
            .collect();
    }
    let pause = pause(pods, plan.failed, now);
    if active.len() < wanted && pause.is_zero() {
        plan.create = numbers(&plan, &active, indexed, wanted - active.len());
    }
    let deadline = spec.active_deadline_seconds.map(|seconds| {
        let limit = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        limit.saturating_sub(elapsed(before.start_time.as_ref(), now))
    });
    plan.wake = [deadline, Some(pause).filter(|pause| !pause.is_zero())]
        .into_iter()
        .flatten()
        .min()
        .map(|wait| wait + Duration::from_millis(10));
    plan
}

impl Plan {
    /// Only the clean-up is left.
    fn after(&mut self, end: &JobCondition, keep: &Option<i32>, now: Timestamp) {
        self.verdict = if end.type_ == "Complete" {
            Verdict::Complete
        } else {
            Verdict::Failed("Failed", end.message.clone().unwrap_or_default())
        };
        let Some(keep) = keep else { return };
        let keep = Duration::from_secs(u64::try_from(*keep).unwrap_or(0));
        let left = keep.saturating_sub(elapsed(end.last_transition_time.as_ref(), now));
        self.expired = left.is_zero();
        self.wake = Some(left + Duration::from_millis(10));
    }
}

fn verdict(job: &Job, plan: &Plan, active: usize, now: Timestamp) -> Verdict {
    let spec = job.spec.clone().unwrap_or_default();
    let start = job
        .status
        .as_ref()
        .and_then(|status| status.start_time.clone());
    let limit = spec.backoff_limit.unwrap_or(6);
    if spec.suspend == Some(true) {
        return Verdict::Suspended;
    }
    if plan.failed > limit {
        let message = "Job has reached the specified backoff limit".to_owned();
        return Verdict::Failed("BackoffLimitExceeded", message);
    }
    if let Some(seconds) = spec.active_deadline_seconds
        && start.is_some()
        && elapsed(start.as_ref(), now) >= Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    {
        let message = "Job was active longer than specified deadline".to_owned();
        return Verdict::Failed("DeadlineExceeded", message);
    }
    let complete = match spec.completions {
        Some(completions) => plan.succeeded >= completions,
        None => plan.succeeded > 0 && active == 0,
    };
    if complete {
        Verdict::Complete
    } else {
        Verdict::Running
    }
}

/// How long to wait before the next pod: 10 s after the first failure, twice as long after each
/// further one, ten minutes at most. Kubernetes: the Job controller's pod back-off.
fn pause(pods: &[&Pod], failed: i32, now: Timestamp) -> Duration {
    let last = pods
        .iter()
        .filter(|pod| outcome(pod) == Some(Outcome::Failed))
        .filter_map(|pod| ended_at(pod))
        .max();
    let Some(last) = last else {
        return Duration::ZERO;
    };
    let exponent = u32::try_from(failed - 1).unwrap_or(0).min(6);
    let wait = Duration::from_secs(10 << exponent).min(Duration::from_secs(600));
    wait.saturating_sub(elapsed(Some(&Time(last)), now))
}

/// When the last container ended; by default, when the pod was made.
fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    let ends = statuses.into_iter().flatten().filter_map(|status| {
        let ended = status.state.as_ref()?.terminated.as_ref()?;
        ended.finished_at.as_ref().map(|time| time.0)
    });
    ends.max()
        .or_else(|| pod.creation_timestamp().map(|time| time.0))
}

fn index(pod: &Pod) -> Option<i32> {
    pod.annotations().get(INDEX)?.parse().ok()
}

/// The lowest numbers that nobody works on or has done; no numbers in a plain job.
fn numbers(plan: &Plan, active: &[&Pod], indexed: bool, count: usize) -> Vec<Option<i32>> {
    if !indexed {
        return vec![None; count];
    }
    let busy: BTreeSet<i32> = active.iter().copied().filter_map(index).collect();
    let free = (0..).filter(|number| !busy.contains(number) && !plan.indexes.contains(number));
    free.take(count).map(Some).collect()
}

/// The status after the plan has been carried out; `active` are the pods that run now.
pub(super) fn observe(job: &Job, plan: &Plan, active: &[&Pod], now: Timestamp) -> JobStatus {
    let before = job.status.clone().unwrap_or_default();
    if ended(job).is_some() {
        return before;
    }
    let count = |number: i32| (number != 0).then_some(number);
    let ready = active
        .iter()
        .filter(|pod| is_ready(pod) && !is_terminating(pod))
        .count() as i32;
    let mut status = JobStatus {
        active: count(active.len() as i32),
        ready: Some(ready),
        succeeded: count(plan.succeeded),
        failed: count(plan.failed),
        terminating: Some(0),
        start_time: before.start_time.clone().or_else(|| Some(time(now))),
        completed_indexes: (!plan.indexes.is_empty()).then(|| ranges(&plan.indexes)),
        conditions: before.conditions.clone(),
        ..before
    };
    let mut set = |kind: &str, reason: &str, message: &str| {
        let conditions = status.conditions.get_or_insert_default();
        conditions.retain(|one| one.type_ != kind);
        conditions.push(JobCondition {
            type_: kind.to_owned(),
            status: "True".to_owned(),
            reason: Some(reason.to_owned()).filter(|reason| !reason.is_empty()),
            message: Some(message.to_owned()).filter(|message| !message.is_empty()),
            last_probe_time: Some(time(now)),
            last_transition_time: Some(time(now)),
        });
    };
    match &plan.verdict {
        Verdict::Running => {
            let suspended = status.conditions.as_mut();
            suspended
                .into_iter()
                .for_each(|list| list.retain(|one| one.type_ != "Suspended"));
        }
        Verdict::Suspended => {
            let known = before_suspended(job);
            if !known {
                set("Suspended", "JobSuspended", "Job suspended");
            }
            status.start_time = None;
        }
        Verdict::Complete => {
            let message = "Reached expected number of succeeded pods";
            set("SuccessCriteriaMet", "CompletionsReached", message);
            set("Complete", "CompletionsReached", message);
            status.completion_time = Some(time(now));
        }
        Verdict::Failed(reason, message) => {
            set("FailureTarget", reason, message);
            set("Failed", reason, message);
        }
    }
    status
}

fn before_suspended(job: &Job) -> bool {
    let conditions = job
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|one| one.type_ == "Suspended" && one.status == "True")
}

/// Numbers as Kubernetes writes them: `1,3-5,7`.
fn ranges(numbers: &BTreeSet<i32>) -> String {
    let mut runs: Vec<(i32, i32)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, end)) if *end + 1 == *number => *end = *number,
            _ => runs.push((*number, *number)),
        }
    }
    let texts = runs.iter().map(|(start, end)| match end - start {
        0 => start.to_string(),
        _ => format!("{start}-{end}"),
    });
    texts.collect::<Vec<_>>().join(",")
}
