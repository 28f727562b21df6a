//! What a stateful set does next. Pure.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::super::objects::{Availability, availability, is_finished, is_terminating};

/// Label with the revision of a pod's template.
pub(super) const REVISION: &str = "controller-revision-hash";

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Make the pod of this number.
    Create(i32),
    /// Delete the pod of this name.
    Delete(String),
}

/// What to do now, in order. With ordered management that is one thing at most.
pub(super) fn actions(
    set: &StatefulSet,
    pods: &[&Pod],
    revision: &str,
    now: Timestamp,
) -> Vec<Action> {
    let spec = set.spec.clone().unwrap_or_default();
    let ordered = spec.pod_management_policy.as_deref() != Some("Parallel");
    let start = spec
        .ordinals
        .as_ref()
        .and_then(|ordinals| ordinals.start)
        .unwrap_or(0);
    let end = start + spec.replicas.unwrap_or(1);
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let available = |pod: &Pod| availability(pod, min_ready, now) == Availability::Available;
    let name = set.name_any();
    let mut numbered: Vec<(i32, &Pod)> = pods
        .iter()
        .filter_map(|pod| Some((ordinal(&name, pod)?, *pod)))
        .collect();
    numbered.sort_by_key(|(number, _)| *number);
    let mut actions = Vec::new();

    for number in start..end {
        let pod = numbered
            .iter()
            .find(|(at, _)| *at == number)
            .map(|(_, pod)| *pod);
        match pod {
            None => actions.push(Action::Create(number)),
            Some(pod) if is_terminating(pod) => {}
            Some(pod) if is_finished(pod) => actions.push(Action::Delete(pod.name_any())),
            Some(pod) if available(pod) => continue,
            Some(_) => {}
        }
        if ordered {
            return with_broken_update(actions, &numbered, revision);
        }
    }
    for (number, pod) in numbered.iter().rev() {
        if (start..end).contains(number) {
            continue;
        }
        if !is_terminating(pod) {
            actions.push(Action::Delete(pod.name_any()));
        }
        if ordered {
            return actions;
        }
    }
    if actions.is_empty() {
        actions.extend(update(set, &numbered, revision, available));
    }
    actions
}

/// A pod of an old template that does not become ready would block its own cure: it goes.
fn with_broken_update(
    mut actions: Vec<Action>,
    numbered: &[(i32, &Pod)],
    revision: &str,
) -> Vec<Action> {
    if actions.is_empty() {
        let broken = numbered.iter().find(|(_, pod)| {
            is_old(pod, revision) && !is_terminating(pod) && !super::super::objects::is_ready(pod)
        });
        actions.extend(broken.map(|(_, pod)| Action::Delete(pod.name_any())));
    }
    actions
}

/// The next pod that makes room for the new template: the highest number first, one at a time.
fn update(
    set: &StatefulSet,
    numbered: &[(i32, &Pod)],
    revision: &str,
    available: impl Fn(&Pod) -> bool,
) -> Option<Action> {
    let strategy = set
        .spec
        .as_ref()
        .and_then(|spec| spec.update_strategy.as_ref());
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
        return None;
    }
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let partition = rolling.and_then(|rolling| rolling.partition).unwrap_or(0);
    for (number, pod) in numbered.iter().rev() {
        if *number < partition {
            break;
        }
        if is_terminating(pod) {
            return None;
        }
        if is_old(pod, revision) {
            return Some(Action::Delete(pod.name_any()));
        }
        if !available(pod) {
            return None;
        }
    }
    None
}

fn is_old(pod: &Pod, revision: &str) -> bool {
    pod.labels().get(REVISION).is_none_or(|own| own != revision)
}

/// The number in a pod's name; absent: the name is not one of this set's.
fn ordinal(set: &str, pod: &Pod) -> Option<i32> {
    let name = pod.metadata.name.as_deref()?;
    name.strip_prefix(set)?.strip_prefix('-')?.parse().ok()
}
