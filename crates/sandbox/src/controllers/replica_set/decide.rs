//! Which pods go when there are too many. Pure.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::super::objects::{phase, ready_since};

/// Names of the `count` pods that are missed least: not yet started before running, not ready
/// before ready, often restarted before steady, young before old.
pub(super) fn surplus(active: &[&Pod], count: usize) -> Vec<String> {
    let mut ranked: Vec<&Pod> = active.to_vec();
    ranked.sort_by_cached_key(|pod| rank(pod));
    ranked
        .into_iter()
        .take(count)
        .map(|pod| pod.name_any())
        .collect()
}

/// Low ranks go first.
fn rank(pod: &Pod) -> impl Ord + use<> {
    let assigned = pod
        .spec
        .as_ref()
        .is_some_and(|spec| spec.node_name.is_some());
    let running = match phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let ready = ready_since(pod);
    let cost = pod
        .annotations()
        .get("controller.kubernetes.io/pod-deletion-cost");
    let cost: i32 = cost.and_then(|text| text.parse().ok()).unwrap_or(0);
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    let restarts = statuses
        .into_iter()
        .flatten()
        .map(|status| status.restart_count)
        .max();
    let created = pod.creation_timestamp().map(|time| time.0);
    (
        (assigned, running, ready.is_some(), cost),
        ready.map(std::cmp::Reverse),
        std::cmp::Reverse(restarts.unwrap_or(0)),
        std::cmp::Reverse(created),
        pod.name_any(),
    )
}
