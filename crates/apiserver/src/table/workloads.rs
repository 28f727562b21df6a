//! Columns of pods and of what makes pods.

use super::columns::{AGE, NAME, joined, labels, list, number, or_none, text};
use super::{Column, age, duration, shown, wide};
use jiff::Timestamp;
use serde_json::{Value, json};

pub(super) static PODS: &[Column] = &[
    NAME,
    shown("Ready", pod_ready),
    shown("Status", |o| json!(pod_status(o))),
    shown("Restarts", pod_restarts),
    AGE,
    wide("IP", |o| or_none(o, "/status/podIP")),
    wide("Node", |o| or_none(o, "/spec/nodeName")),
    wide("Nominated Node", |o| {
        or_none(o, "/status/nominatedNodeName")
    }),
    wide("Readiness Gates", |_| json!("<none>")),
];
pub(super) static DEPLOYMENTS: &[Column] = &[
    NAME,
    shown("Ready", |o| {
        json!(format!(
            "{}/{}",
            number(o, "/status/readyReplicas"),
            number(o, "/spec/replicas")
        ))
    }),
    shown("Up-to-date", |o| {
        json!(number(o, "/status/updatedReplicas"))
    }),
    shown("Available", |o| {
        json!(number(o, "/status/availableReplicas"))
    }),
    AGE,
    wide("Containers", containers),
    wide("Images", images),
    wide("Selector", selector),
];
pub(super) static REPLICA_SETS: &[Column] = &[
    NAME,
    shown("Desired", |o| json!(number(o, "/spec/replicas"))),
    shown("Current", |o| json!(number(o, "/status/replicas"))),
    shown("Ready", |o| json!(number(o, "/status/readyReplicas"))),
    AGE,
    wide("Containers", containers),
    wide("Images", images),
    wide("Selector", selector),
];
pub(super) static STATEFUL_SETS: &[Column] = &[
    NAME,
    shown("Ready", |o| {
        json!(format!(
            "{}/{}",
            number(o, "/status/readyReplicas"),
            number(o, "/spec/replicas")
        ))
    }),
    AGE,
    wide("Containers", containers),
    wide("Images", images),
];
pub(super) static DAEMON_SETS: &[Column] = &[
    NAME,
    shown("Desired", |o| {
        json!(number(o, "/status/desiredNumberScheduled"))
    }),
    shown("Current", |o| {
        json!(number(o, "/status/currentNumberScheduled"))
    }),
    shown("Ready", |o| json!(number(o, "/status/numberReady"))),
    shown("Up-to-date", |o| {
        json!(number(o, "/status/updatedNumberScheduled"))
    }),
    shown("Available", |o| json!(number(o, "/status/numberAvailable"))),
    shown("Node Selector", |o| {
        labels(o, "/spec/template/spec/nodeSelector")
    }),
    AGE,
    wide("Containers", containers),
    wide("Images", images),
    wide("Selector", selector),
];
pub(super) static JOBS: &[Column] = &[
    NAME,
    shown("Status", |o| json!(job_status(o))),
    shown("Completions", |o| {
        let wanted = o.pointer("/spec/completions").and_then(Value::as_i64);
        let parallel = number(o, "/spec/parallelism");
        let wanted = wanted.map_or(format!("1 of {parallel}"), |count| count.to_string());
        json!(format!("{}/{wanted}", number(o, "/status/succeeded")))
    }),
    shown("Duration", job_duration),
    AGE,
    wide("Containers", containers),
    wide("Images", images),
    wide("Selector", selector),
];
pub(super) static CRON_JOBS: &[Column] = &[
    NAME,
    shown("Schedule", |o| json!(text(o, "/spec/schedule"))),
    shown("Timezone", |o| or_none(o, "/spec/timeZone")),
    shown("Suspend", |o| {
        json!(if o["spec"]["suspend"] == true {
            "True"
        } else {
            "False"
        })
    }),
    shown("Active", |o| json!(list(o, "/status/active").len())),
    shown("Last Schedule", |o| {
        match text(o, "/status/lastScheduleTime") {
            "" => json!("<none>"),
            time => json!(age(time)),
        }
    }),
    AGE,
];

fn template_containers(object: &Value) -> &[Value] {
    list(object, "/spec/template/spec/containers")
}

fn containers(object: &Value) -> Value {
    joined(
        template_containers(object)
            .iter()
            .map(|one| text(one, "/name").to_owned())
            .collect(),
    )
}

fn images(object: &Value) -> Value {
    joined(
        template_containers(object)
            .iter()
            .map(|one| text(one, "/image").to_owned())
            .collect(),
    )
}

fn selector(object: &Value) -> Value {
    json!(crate::select::write(&object["spec"]["selector"]))
}

fn job_status(job: &Value) -> &'static str {
    let holds = |kind: &str| {
        list(job, "/status/conditions")
            .iter()
            .any(|condition| condition["type"] == kind && condition["status"] == "True")
    };
    if holds("Complete") {
        "Complete"
    } else if holds("Failed") {
        "Failed"
    } else if crate::meta::is_deleting(job) {
        "Terminating"
    } else if holds("Suspended") {
        "Suspended"
    } else if holds("FailureTarget") {
        "FailureTarget"
    } else if holds("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn job_duration(job: &Value) -> Value {
    let time = |pointer: &str| text(job, pointer).parse::<Timestamp>().ok();
    match (time("/status/startTime"), time("/status/completionTime")) {
        (None, _) => json!(""),
        (Some(start), end) => json!(duration(
            end.unwrap_or_else(Timestamp::now)
                .duration_since(start)
                .as_secs()
        )),
    }
}

/// Sidecars (init containers that restart always) count as containers.
fn sidecars(pod: &Value) -> Vec<&str> {
    let inits = list(pod, "/spec/initContainers")
        .iter()
        .filter(|one| one["restartPolicy"] == "Always");
    inits.map(|one| text(one, "/name")).collect()
}

fn pod_ready(pod: &Value) -> Value {
    let sidecars = sidecars(pod);
    let total = list(pod, "/spec/containers").len() + sidecars.len();
    let ready = |status: &&Value| status["ready"] == true;
    let main = list(pod, "/status/containerStatuses")
        .iter()
        .filter(ready)
        .count();
    let side = list(pod, "/status/initContainerStatuses")
        .iter()
        .filter(|status| sidecars.contains(&text(status, "/name")))
        .filter(ready)
        .count();
    json!(format!("{}/{total}", main + side))
}

fn pod_restarts(pod: &Value) -> Value {
    let sidecars = sidecars(pod);
    let (mut restarts, mut last) = (0, None::<Timestamp>);
    let inits = list(pod, "/status/initContainerStatuses")
        .iter()
        .filter(|status| sidecars.contains(&text(status, "/name")));
    for status in list(pod, "/status/containerStatuses").iter().chain(inits) {
        restarts += number(status, "/restartCount");
        last = last.max(
            text(status, "/lastState/terminated/finishedAt")
                .parse()
                .ok(),
        );
    }
    match last {
        Some(time) if restarts > 0 => {
            json!(format!(
                "{restarts} ({} ago)",
                duration(Timestamp::now().duration_since(time).as_secs())
            ))
        }
        _ => json!(restarts.to_string()),
    }
}

/// The one word that `kubectl get pods` shows: the most telling of reasons, states and phase.
fn pod_status(pod: &Value) -> String {
    let mut word = match text(pod, "/status/reason") {
        "" => text(pod, "/status/phase").to_owned(),
        reason => reason.to_owned(),
    };
    let sidecars = sidecars(pod);
    match initialising(pod, &sidecars) {
        Some(found) => word = found,
        None => {
            let mut running = false;
            for status in list(pod, "/status/containerStatuses").iter().rev() {
                if let Some(found) = container_state(status) {
                    word = found;
                } else if status["ready"] == true && status["state"]["running"].is_object() {
                    running = true;
                }
            }
            // A pod with one container done and another running is running.
            if word == "Completed" && running {
                word = if is_ready(pod) { "Running" } else { "NotReady" }.to_owned();
            }
        }
    }
    if crate::meta::is_deleting(pod) {
        return match text(pod, "/status/reason") {
            "NodeLost" => "Unknown".to_owned(),
            _ if matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") => word,
            _ => "Terminating".to_owned(),
        };
    }
    word
}

fn is_ready(pod: &Value) -> bool {
    list(pod, "/status/conditions")
        .iter()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn container_state(status: &Value) -> Option<String> {
    let waiting = text(status, "/state/waiting/reason");
    if !waiting.is_empty() {
        return Some(waiting.to_owned());
    }
    terminated(&status["state"]["terminated"])
}

fn terminated(state: &Value) -> Option<String> {
    if !state.is_object() {
        return None;
    }
    Some(match (text(state, "/reason"), number(state, "/signal")) {
        ("", 0) => format!("ExitCode:{}", number(state, "/exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    })
}

/// `Init:…` while an init container is not through.
fn initialising(pod: &Value, sidecars: &[&str]) -> Option<String> {
    let total = list(pod, "/spec/initContainers").len();
    for (index, status) in list(pod, "/status/initContainerStatuses")
        .iter()
        .enumerate()
    {
        let state = &status["state"];
        let is_sidecar = sidecars.contains(&text(status, "/name"));
        if state["terminated"].is_object() && number(state, "/terminated/exitCode") == 0
            || is_sidecar && status["started"] == true
        {
            continue;
        }
        if let Some(found) = terminated(&state["terminated"]) {
            return Some(format!("Init:{found}"));
        }
        let waiting = text(state, "/waiting/reason");
        if !waiting.is_empty() && waiting != "PodInitializing" {
            return Some(format!("Init:{waiting}"));
        }
        return Some(format!("Init:{index}/{total}"));
    }
    None
}
