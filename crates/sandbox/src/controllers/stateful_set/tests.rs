//! Order of starting, stopping and updating.

use serde_json::json;

use super::super::testing::Lab;
use super::*;

/// Pods as `number state revision`, with the states `up`, `starting`, `leaving`, `failed`.
fn check(spec: &str, pods: &[&str], expected: &[&str]) {
    let mut spec: serde_json::Value = serde_saphyr::from_str(spec).unwrap();
    spec["selector"] = json!({});
    spec["template"] = json!({});
    let set: StatefulSet =
        serde_json::from_value(json!({ "metadata": { "name": "db" }, "spec": spec })).unwrap();
    let pods: Vec<Pod> = pods
        .iter()
        .map(|text| {
            let [number, state, revision] = text.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{text}")
            };
            serde_json::from_value(json!({
                "metadata": {
                    "name": format!("db-{number}"),
                    "labels": { REVISION: revision },
                    "deletionTimestamp": (state == "leaving").then_some("2026-01-01T00:00:00Z"),
                },
                "status": {
                    "phase": if state == "failed" { "Failed" } else { "Running" },
                    "conditions": [{
                        "type": "Ready",
                        "status": if state == "up" { "True" } else { "False" },
                    }],
                },
            }))
            .unwrap()
        })
        .collect();
    let found = actions(
        &set,
        &pods.iter().collect::<Vec<_>>(),
        "new",
        Timestamp::now(),
    );
    let found = found.iter().map(|action| match action {
        Action::Create(number) => format!("+{number}"),
        Action::Delete(name) => format!("-{name}"),
    });
    assert_eq!(found.collect::<Vec<_>>(), expected);
}

#[test]
fn in_order() {
    check("{ replicas: 3 }", &[], &["+0"]);
    check("{ replicas: 3 }", &["0 starting new"], &[]);
    check("{ replicas: 3 }", &["0 up new"], &["+1"]);
    check("{ replicas: 3 }", &["0 up new", "2 up new"], &["+1"]);
    check(
        "{ replicas: 1 }",
        &["0 up new", "1 up new", "2 up new"],
        &["-db-2"],
    );
    check(
        "{ replicas: 1 }",
        &["0 up new", "1 up new", "2 leaving new"],
        &[],
    );
    check("{ replicas: 1 }", &["0 failed new"], &["-db-0"]);
    check("{ replicas: 2, ordinals: { start: 5 } }", &[], &["+5"]);
}

#[test]
fn in_parallel() {
    let spec = "{ replicas: 3, podManagementPolicy: Parallel }";
    check(spec, &["0 starting new"], &["+1", "+2"]);
    check(
        "{ replicas: 0, podManagementPolicy: Parallel }",
        &["0 up new", "1 up new"],
        &["-db-1", "-db-0"],
    );
}

#[test]
fn updates() {
    check("{ replicas: 2 }", &["0 up old", "1 up old"], &["-db-1"]);
    check("{ replicas: 2 }", &["0 up old", "1 starting new"], &[]);
    check("{ replicas: 2 }", &["0 up old", "1 up new"], &["-db-0"]);
    check("{ replicas: 2 }", &["0 starting old"], &["-db-0"]);
    let partition = "{ replicas: 2, updateStrategy: { rollingUpdate: { partition: 1 } } }";
    check(partition, &["0 up old", "1 up new"], &[]);
    check(
        "{ replicas: 1, updateStrategy: { type: OnDelete } }",
        &["0 up old"],
        &[],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_in_a_cluster() {
    let lab = Lab::start().await;
    lab.apply(
        "
apiVersion: apps/v1
kind: StatefulSet
metadata: { name: db }
spec:
  replicas: 2
  serviceName: db
  selector: { matchLabels: { app: db } }
  template:
    metadata: { labels: { app: db } }
    spec: { containers: [ { name: c, image: v1 } ] }
",
    )
    .await;
    lab.until("two ready", |cluster| {
        let set = cluster.stateful_sets.find(&Key::new("default", "db"))?;
        (set.status.as_ref()?.ready_replicas == Some(2)).then_some(())
    })
    .await;
    let pod = lab.cluster.pods.find(&Key::new("default", "db-1")).unwrap();
    let spec = pod.spec.clone().unwrap();
    assert_eq!(
        (spec.hostname.as_deref(), spec.subdomain.as_deref()),
        (Some("db-1"), Some("db"))
    );
}
