//! What a deployment shows: counts and conditions, as `kubectl rollout status` reads them. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DeploymentCondition, DeploymentStatus};
use kube::ResourceExt;

use super::super::objects::{elapsed, time};
use super::step::{Rollout, replicas, status};

const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const FAILURE: &str = "ReplicaFailure";

/// A deployment's new status, and when it changes by the mere passing of time.
pub(crate) fn observe(
    rollout: &Rollout<'_>,
    now: Timestamp,
) -> (DeploymentStatus, Option<Duration>) {
    let deployment = rollout.deployment;
    let before = deployment.status.clone().unwrap_or_default();
    let total: i32 = rollout.all().map(|set| status(set).replicas).sum();
    let ready: i32 = rollout.all().map(|set| status(set).ready).sum();
    let available: i32 = rollout.all().map(|set| status(set).available).sum();
    let updated = rollout.new.map_or(0, |set| status(set).replicas);
    let asked: i32 = rollout.all().map(replicas).sum();
    let count = |number: i32| (number != 0).then_some(number);
    let mut next = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: count(total),
        updated_replicas: count(updated),
        ready_replicas: count(ready),
        available_replicas: count(available),
        unavailable_replicas: count((asked - available).max(0)),
        collision_count: before.collision_count,
        conditions: before.conditions.clone(),
        terminating_replicas: None,
    };
    let mut conditions = Conditions {
        list: before.conditions.clone().unwrap_or_default(),
        now,
    };
    conditions.availability(rollout, available);
    let wake = conditions.progress(rollout, &before, &next);
    conditions.failure(rollout);
    next.conditions = Some(conditions.list);
    (next, wake)
}

struct Conditions {
    list: Vec<DeploymentCondition>,
    now: Timestamp,
}

impl Conditions {
    fn find(&self, kind: &str) -> Option<&DeploymentCondition> {
        self.list.iter().find(|condition| condition.type_ == kind)
    }

    /// Sets a condition. Unchanged status and reason keep their times, unless `renew`.
    fn set(&mut self, kind: &str, (on, reason): (bool, &str), message: String, renew: bool) {
        let state = if on { "True" } else { "False" };
        let now = time(self.now);
        let old = self.find(kind).cloned();
        let same_state = old.as_ref().filter(|old| old.status == state);
        let same = same_state.filter(|old| {
            old.reason.as_deref() == Some(reason) && old.message.as_deref() == Some(&*message)
        });
        if same.is_some() && !renew {
            return;
        }
        let since = same_state.and_then(|old| old.last_transition_time.clone());
        let condition = DeploymentCondition {
            type_: kind.to_owned(),
            status: state.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(since.unwrap_or_else(|| now.clone())),
            last_update_time: Some(now),
        };
        self.list.retain(|condition| condition.type_ != kind);
        self.list.push(condition);
    }

    fn availability(&mut self, rollout: &Rollout<'_>, available: i32) {
        if available >= rollout.wanted() - rollout.max_unavailable() {
            let message = "Deployment has minimum availability.".to_owned();
            self.set(
                AVAILABLE,
                (true, "MinimumReplicasAvailable"),
                message,
                false,
            );
        } else {
            let message = "Deployment does not have minimum availability.".to_owned();
            self.set(
                AVAILABLE,
                (false, "MinimumReplicasUnavailable"),
                message,
                false,
            );
        }
    }

    /// Sets the condition that rollout watchers follow; returns when the deadline would pass.
    fn progress(
        &mut self,
        rollout: &Rollout<'_>,
        before: &DeploymentStatus,
        next: &DeploymentStatus,
    ) -> Option<Duration> {
        let spec = rollout.deployment.spec.as_ref()?;
        let name = rollout.deployment.name_any();
        if spec.paused == Some(true) {
            let message = "Deployment is paused".to_owned();
            self.set_unknown("DeploymentPaused", message);
            return None;
        }
        let set = match rollout.new {
            Some(set) => format!("ReplicaSet {:?}", set.name_any()),
            None => format!("Deployment {name:?}"),
        };
        if rollout.is_complete() {
            let message = format!("{set} has successfully progressed.");
            self.set(
                PROGRESSING,
                (true, "NewReplicaSetAvailable"),
                message,
                false,
            );
            return None;
        }
        let old = |status: &DeploymentStatus| {
            status.replicas.unwrap_or(0) - status.updated_replicas.unwrap_or(0)
        };
        let moved = next.updated_replicas > before.updated_replicas
            || old(next) < old(before)
            || next.ready_replicas > before.ready_replicas
            || next.available_replicas > before.available_replicas;
        let done = |condition: &DeploymentCondition| {
            condition.reason.as_deref() == Some("NewReplicaSetAvailable")
                && before.observed_generation == rollout.deployment.metadata.generation
        };
        // A finished rollout that loses a pod has not begun again.
        if self.find(PROGRESSING).is_some_and(done) {
            return None;
        }
        let resumed = self.find(PROGRESSING).is_none_or(|condition| {
            matches!(
                condition.reason.as_deref(),
                Some("DeploymentPaused" | "NewReplicaSetAvailable")
            )
        });
        let deadline = Duration::from_secs(
            u64::try_from(spec.progress_deadline_seconds.unwrap_or(600)).unwrap_or(600),
        );
        let idle = self.find(PROGRESSING).map_or(Duration::ZERO, |condition| {
            elapsed(condition.last_update_time.as_ref(), self.now)
        });
        let late = self.find(PROGRESSING).is_some_and(|condition| {
            condition.reason.as_deref() == Some("ProgressDeadlineExceeded")
        });
        if moved || resumed {
            let message = format!("{set} is progressing.");
            self.set(PROGRESSING, (true, "ReplicaSetUpdated"), message, true);
            return Some(deadline);
        }
        if late || idle >= deadline {
            let message = format!("{set} has timed out progressing.");
            self.set(
                PROGRESSING,
                (false, "ProgressDeadlineExceeded"),
                message,
                false,
            );
            return None;
        }
        Some(deadline - idle + Duration::from_secs(1))
    }

    fn set_unknown(&mut self, reason: &str, message: String) {
        let paused = |condition: &DeploymentCondition| condition.reason.as_deref() == Some(reason);
        if self.find(PROGRESSING).is_some_and(paused) {
            return;
        }
        self.set(PROGRESSING, (true, reason), message, true);
        if let Some(condition) = self.list.iter_mut().find(|one| one.type_ == PROGRESSING) {
            condition.status = "Unknown".to_owned();
        }
    }

    /// A replica set that cannot create pods is the deployment's trouble as well.
    fn failure(&mut self, rollout: &Rollout<'_>) {
        let failed = rollout.all().find_map(|set| {
            let conditions = set.status.as_ref()?.conditions.as_ref()?;
            conditions
                .iter()
                .find(|one| one.type_ == FAILURE && one.status == "True")
        });
        match failed {
            Some(condition) => {
                let reason = condition.reason.as_deref().unwrap_or("FailedCreate");
                let message = condition.message.clone().unwrap_or_default();
                self.set(FAILURE, (true, reason), message, false);
            }
            None => self.list.retain(|condition| condition.type_ != FAILURE),
        }
    }
}
