//! Jobs on paper, turn by turn, and one in a cluster.

use serde_json::json;

use super::super::testing::Lab;
use super::*;

const START: &str = "2026-01-01T00:00:00Z";

fn check(spec: &str, pods: &str, seconds: i64, expected: &str) {
    let spec: serde_json::Value = serde_saphyr::from_str(spec).unwrap();
    let start: Timestamp = START.parse().unwrap();
    let job: Job = serde_json::from_value(json!({
        "metadata": { "name": "j", "namespace": "default" },
        "spec": spec,
        "status": { "startTime": START },
    }))
    .unwrap();
    let pods: Vec<Pod> = pods
        .split_whitespace()
        .enumerate()
        .map(|(number, phase)| {
            serde_json::from_value(json!({
                "metadata": {
                    "name": format!("p{number}"),
                    "creationTimestamp": START,
                    "annotations": { INDEX: number.to_string() },
                },
                "status": { "phase": phase },
            }))
            .unwrap()
        })
        .collect();
    let now = Timestamp::from_second(start.as_second() + seconds).unwrap();
    let pods: Vec<&Pod> = pods.iter().collect();
    let plan = decide::plan(&job, &pods, now);
    let status = decide::observe(&job, &plan, &[], now);
    let ends = status
        .conditions
        .iter()
        .flatten()
        .map(|one| one.type_.as_str());
    let seen = format!(
        "create {:?} delete {:?} wake {:?} {}",
        plan.create,
        plan.delete,
        plan.wake.map(|wake| wake.as_secs()),
        ends.collect::<Vec<_>>().join(" ")
    );
    assert_eq!(seen.trim(), expected);
}

const ONE: &str = "{ completions: 1, parallelism: 1, template: {} }";

#[test]
fn plain_jobs() {
    check(ONE, "", 0, "create [None] delete [] wake None");
    check(ONE, "Running", 0, "create [] delete [] wake None");
    check(
        ONE,
        "Succeeded",
        0,
        "create [] delete [] wake None SuccessCriteriaMet Complete",
    );
    let three = "{ completions: 3, parallelism: 2, template: {} }";
    check(
        three,
        "Succeeded",
        0,
        "create [None, None] delete [] wake None",
    );
    check(
        three,
        "Succeeded Succeeded",
        0,
        "create [None] delete [] wake None",
    );
    let queue = "{ parallelism: 2, template: {} }";
    check(
        queue,
        "Succeeded Running",
        0,
        "create [] delete [] wake None",
    );
    check(
        queue,
        "Succeeded Succeeded",
        0,
        "create [] delete [] wake None SuccessCriteriaMet Complete",
    );
}

#[test]
fn failures_wait_and_end() {
    check(ONE, "Failed", 3, "create [] delete [] wake Some(7)");
    check(ONE, "Failed", 11, "create [None] delete [] wake None");
    check(ONE, "Failed Failed", 11, "create [] delete [] wake Some(9)");
    let strict = "{ completions: 1, backoffLimit: 0, template: {} }";
    check(
        strict,
        "Failed",
        0,
        "create [] delete [] wake None FailureTarget Failed",
    );
    let short = "{ completions: 1, activeDeadlineSeconds: 5, template: {} }";
    check(short, "Running", 2, "create [] delete [] wake Some(3)");
    check(
        short,
        "Running",
        5,
        "create [] delete [\"p0\"] wake None FailureTarget Failed",
    );
    let paused = "{ completions: 1, suspend: true, template: {} }";
    check(
        paused,
        "Running",
        0,
        "create [] delete [\"p0\"] wake None Suspended",
    );
}

#[test]
fn indexed_jobs() {
    let four = "{ completions: 4, parallelism: 2, completionMode: Indexed, template: {} }";
    check(
        four,
        "Succeeded Running",
        0,
        "create [Some(2)] delete [] wake None",
    );
    check(
        four,
        "Failed Running",
        60,
        "create [Some(0)] delete [] wake None",
    );
}

#[test]
fn sidecars_are_not_waited_for() {
    let check = |policy: &str, code: i32, expected: bool| {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p" },
            "spec": { "restartPolicy": policy, "containers": [{ "name": "main" }] },
            "status": {
                "phase": "Running",
                "containerStatuses": [{
                    "name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": { "terminated": { "exitCode": code } },
                }],
            },
        }))
        .unwrap();
        assert_eq!(decide::is_working(&pod), expected, "{policy} {code}");
    };
    check("Never", 0, false);
    check("Never", 1, false);
    check("OnFailure", 0, false);
    check("OnFailure", 1, true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_completes_and_is_cleaned_away() {
    let lab = Lab::start().await;
    lab.apply(
        "
apiVersion: batch/v1
kind: Job
metadata: { name: hello }
spec:
  completions: 2
  ttlSecondsAfterFinished: 1
  template:
    metadata: { annotations: { test/ends: Succeeded } }
    spec: { restartPolicy: Never, containers: [ { name: c, image: v1 } ] }
",
    )
    .await;
    lab.until("complete", |cluster| {
        let job = cluster.jobs.find(&Key::new("default", "hello"))?;
        let status = job.status.clone()?;
        status.completion_time?;
        assert_eq!(status.succeeded, Some(2));
        Some(())
    })
    .await;
    lab.until("gone", |cluster| {
        let none = cluster.jobs.all().is_empty() && cluster.pods.within("default").is_empty();
        none.then_some(())
    })
    .await;
}
