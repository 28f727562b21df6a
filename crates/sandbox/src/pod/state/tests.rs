//! Which status follows from what containers do.

use super::*;

fn pod(policy: &str) -> Pod {
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": "p"},
        "spec": {
            "restartPolicy": policy,
            "initContainers": [
                {"name": "first"},
                {"name": "proxy", "restartPolicy": "Always"},
            ],
            "containers": [{"name": "app"}],
        }
    }))
    .expect("a pod")
}

fn ended(code: i32) -> Now {
    Now::Terminated(Ended {
        code,
        signal: None,
        reason: "x".into(),
        message: String::new(),
        started: Timestamp::UNIX_EPOCH,
        finished: Timestamp::UNIX_EPOCH,
        id: None,
    })
}

/// Words: `w` waiting, `r` running, `R` running and ready, `b` waiting to restart, else an exit code.
fn check(policy: &str, words: [&str; 3], phase: &str, conditions: [bool; 2]) {
    let pod = pod(policy);
    let spec = pod.spec.as_ref().expect("a spec");
    let mut state = PodState::new(spec, Timestamp::UNIX_EPOCH);
    for (one, word) in state.containers.values_mut().zip(words) {
        match word {
            "w" => {}
            "b" => {
                one.last = Some(Ended {
                    code: 1,
                    signal: None,
                    reason: String::new(),
                    message: String::new(),
                    started: Timestamp::UNIX_EPOCH,
                    finished: Timestamp::UNIX_EPOCH,
                    id: None,
                })
            }
            "r" | "R" => {
                one.now = Now::Running(Timestamp::UNIX_EPOCH);
                one.started = true;
                one.ready = word == "R";
            }
            code => one.now = ended(code.parse().expect("an exit code")),
        }
    }
    let status = status(&pod, &state, None);
    assert_eq!(status.phase.as_deref(), Some(phase), "{policy} {words:?}");
    let holds = |kind: &str| {
        status
            .conditions
            .iter()
            .flatten()
            .any(|c| c.type_ == kind && c.status == "True")
    };
    assert_eq!(
        [holds("Initialized"), holds("Ready")],
        conditions,
        "{policy} {words:?}"
    );
}

#[test]
fn phases_and_conditions() {
    check("Always", ["w", "w", "w"], "Pending", [false, false]);
    check("Always", ["0", "w", "w"], "Pending", [false, false]);
    check("Always", ["0", "r", "w"], "Pending", [true, false]);
    check("Always", ["0", "R", "r"], "Running", [true, false]);
    check("Always", ["0", "R", "R"], "Running", [true, true]);
    check("Always", ["0", "r", "R"], "Running", [true, false]);
    check("Always", ["0", "R", "b"], "Running", [true, false]);
    check("Always", ["0", "R", "1"], "Running", [true, false]);
    check("Never", ["0", "R", "0"], "Running", [true, false]);
    check("Never", ["0", "0", "0"], "Succeeded", [true, false]);
    check("OnFailure", ["0", "0", "0"], "Succeeded", [true, false]);
    check("OnFailure", ["0", "R", "1"], "Running", [true, false]);
    check("Never", ["0", "0", "3"], "Failed", [true, false]);
    check("Never", ["1", "w", "w"], "Failed", [false, false]);
    check("Always", ["1", "w", "w"], "Pending", [false, false]);
}

#[test]
fn a_condition_keeps_its_time_while_it_does_not_change() {
    let pod = pod("Always");
    let mut state = PodState::new(pod.spec.as_ref().expect("a spec"), Timestamp::UNIX_EPOCH);
    let mut before = status(&pod, &state, None);
    let old = Time(Timestamp::UNIX_EPOCH);
    for condition in before.conditions.iter_mut().flatten() {
        condition.last_transition_time = Some(old.clone());
    }
    state.address = Some(Ipv4Addr::LOCALHOST);
    let after = status(&pod, &state, Some(&before));
    for condition in after.conditions.iter().flatten() {
        let kept = condition.last_transition_time.as_ref() == Some(&old);
        assert_eq!(
            kept,
            condition.type_ != "PodReadyToStartContainers",
            "{}",
            condition.type_
        );
    }
}

#[test]
fn runs_that_a_killed_node_lost_count_as_restarts() {
    let pod = pod("Always");
    let spec = pod.spec.as_ref().expect("a spec");
    let mut first = PodState::new(spec, Timestamp::UNIX_EPOCH);
    let restarts = |state: &PodState| {
        state
            .containers
            .values()
            .map(|c| c.restarts)
            .collect::<Vec<_>>()
    };
    let mut never_ran = PodState::new(spec, Timestamp::UNIX_EPOCH);
    never_ran.count_lost_runs(&status(&pod, &first, None));
    assert_eq!(restarts(&never_ran), [0, 0, 0]);
    for one in first.containers.values_mut() {
        (one.id, one.restarts) = (Some("run".into()), 2);
    }
    let mut second = PodState::new(spec, Timestamp::UNIX_EPOCH);
    second.count_lost_runs(&status(&pod, &first, None));
    assert_eq!(restarts(&second), [0, 3, 3], "init containers begin anew");
}
