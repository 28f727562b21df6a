//! Writing a pod's status whenever it changes, and removing its object at the end.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};

use super::super::handle::PodHandle;
use super::super::machine::Machine;
use super::super::state;

/// Publishes the status whenever it changes, until aborted.
pub(super) async fn publish(machine: Arc<Machine>, pod: Arc<PodHandle>) {
    let mut last = None;
    let mut changes = pod.changes();
    loop {
        changes.mark_unchanged();
        let retry = if publish_once(&machine, &pod, &mut last).await {
            Duration::MAX
        } else {
            Duration::from_millis(500)
        };
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep(retry) => {}
        }
    }
}

/// Writes the status if it differs from the last one written; false when that failed and is to be retried.
pub(super) async fn publish_once(
    machine: &Machine,
    handle: &PodHandle,
    last: &mut Option<PodStatus>,
) -> bool {
    let pod = handle.pod();
    let known = last.as_ref().or(pod.status.as_ref());
    let status = handle.read(|state| state::status(&pod, state, known));
    if last.as_ref() == Some(&status) {
        return true;
    }
    let api: Api<Pod> = Api::namespaced(machine.client.clone(), &handle.namespace);
    let patch = serde_json::json!({"metadata": {"uid": handle.uid}, "status": status});
    match api
        .patch_status(&handle.name, &PatchParams::default(), &Patch::Merge(patch))
        .await
    {
        Ok(_) => {
            *last = Some(status);
            true
        }
        Err(kube::Error::Api(answer)) if answer.code == 404 || answer.code == 409 => true,
        Err(error) => {
            tracing::debug!(pod = handle.name, %error, "a status was not written");
            false
        }
    }
}

/// Removes the object of a pod whose programs are gone.
pub(super) async fn forget(machine: &Machine, pod: &PodHandle) {
    let api: Api<Pod> = Api::namespaced(machine.client.clone(), &pod.namespace);
    let parameters = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions {
            uid: Some(pod.uid.clone()),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    let mut pause = Duration::from_millis(50);
    loop {
        match api.delete(&pod.name, &parameters).await {
            Ok(_) => return,
            Err(kube::Error::Api(answer)) if (400..500).contains(&answer.code) => return,
            Err(error) => tracing::debug!(pod = pod.name, %error, "a pod was not removed"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}
