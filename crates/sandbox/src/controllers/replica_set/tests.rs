//! Which pods go first, and what happens when pods cannot be created.

use serde_json::json;

use super::super::testing::Lab;
use super::*;

fn pod(name: &str, node: Option<&str>, phase: &str, ready: bool, created: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": name, "creationTimestamp": created },
        "spec": { "nodeName": node, "containers": [] },
        "status": {
            "phase": phase,
            "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }],
        },
    }))
    .unwrap()
}

#[test]
fn the_least_missed_go_first() {
    let pods = [
        pod("steady", Some("n"), "Running", true, "2026-01-01T00:00:00Z"),
        pod("young", Some("n"), "Running", true, "2026-01-02T00:00:00Z"),
        pod(
            "unready",
            Some("n"),
            "Running",
            false,
            "2026-01-01T00:00:00Z",
        ),
        pod(
            "starting",
            Some("n"),
            "Pending",
            false,
            "2026-01-01T00:00:00Z",
        ),
        pod("homeless", None, "Pending", false, "2026-01-01T00:00:00Z"),
    ];
    let pods: Vec<&Pod> = pods.iter().collect();
    let order = ["homeless", "starting", "unready", "young", "steady"];
    assert_eq!(decide::surplus(&pods, 9), order);
    assert_eq!(decide::surplus(&pods, 2), order[..2]);
}

const SET: &str = "
apiVersion: apps/v1
kind: ReplicaSet
metadata: { name: web }
spec:
  replicas: 2
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec: { containers: [ { name: web, image: v1 } ] }
";

/// A webhook for all pods behind a service that nobody serves.
const SILENT_WEBHOOK: &str = "
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: { name: silent }
webhooks:
- name: silent.example.com
  clientConfig: { url: 'https://127.0.0.1:1/' }
  admissionReviewVersions: [ v1 ]
  sideEffects: None
  rules: [ { apiGroups: [ '' ], apiVersions: [ v1 ], operations: [ CREATE ], resources: [ pods ] } ]
";

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_cannot_be_created_are_told_of() {
    let lab = Lab::start().await;
    lab.apply(SILENT_WEBHOOK).await;
    lab.apply(SET).await;
    let message = lab
        .until("the failure is shown", |cluster| {
            let set = cluster.replica_sets.find(&Key::new("default", "web"))?;
            let conditions = set.status.clone()?.conditions?;
            let failed = conditions
                .into_iter()
                .find(|one| one.type_ == "ReplicaFailure")?;
            assert_eq!(failed.reason.as_deref(), Some("FailedCreate"));
            failed.message
        })
        .await;
    assert!(message.contains("silent.example.com"), "{message}");

    let webhooks: kube::Api<
        k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration,
    > = kube::Api::all(lab.client.clone());
    webhooks
        .delete("silent", &Default::default())
        .await
        .unwrap();
    lab.until("the pods come after all", |cluster| {
        let set = cluster.replica_sets.find(&Key::new("default", "web"))?;
        let status = set.status.clone()?;
        let good = status.ready_replicas == Some(2) && status.conditions.is_none();
        (good && Lab::pods(cluster).len() == 2).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_orphans_and_strays() {
    let lab = Lab::start().await;
    lab.apply(
        "
apiVersion: v1
kind: Pod
metadata: { name: orphan, labels: { app: web } }
spec: { containers: [ { name: web, image: v1 } ] }
",
    )
    .await;
    // The two kinds are watched apart: the set must not be seen before the pod is.
    lab.until("the orphan is known", |cluster| {
        (Lab::pods(cluster).len() == 1).then_some(())
    })
    .await;
    lab.apply(SET).await;
    let owned = |pod: &Arc<Pod>| controller_of(&pod.metadata).is_some();
    let pods = lab
        .until("two pods", |cluster| {
            let pods = Lab::pods(cluster);
            (pods.len() == 2 && pods.iter().all(owned)).then_some(pods)
        })
        .await;
    assert!(
        pods.iter().any(|pod| pod.name_any() == "orphan"),
        "it was adopted"
    );

    let stray = json!({ "metadata": { "labels": { "app": "debug" } } });
    lab.cluster
        .pods
        .patch(&Key::new("default", "orphan"), stray)
        .await
        .unwrap();
    lab.until("one more in its place", |cluster| {
        let orphan = cluster.pods.find(&Key::new("default", "orphan"))?;
        let free = controller_of(&orphan.metadata).is_none();
        (free && Lab::pods(cluster).len() == 3).then_some(())
    })
    .await;
    lab.apply(&SET.replace("replicas: 2", "replicas: 0")).await;
    lab.until("the stray alone", |cluster| {
        (Lab::pods(cluster).len() == 1).then_some(())
    })
    .await;
}
