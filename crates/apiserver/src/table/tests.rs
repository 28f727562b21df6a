//! Cases of `table`: text in, observable result out.

use super::*;

#[test]
fn durations_are_printed_as_kubernetes_does() {
    for (seconds, expected) in [
        (-5, "<invalid>"),
        (5, "5s"),
        (119, "119s"),
        (185, "3m5s"),
        (600, "10m"),
        (3 * 3600 + 60, "3h1m"),
        (30 * 3600, "30h"),
        (3 * 86_400, "3d"),
        (30 * 86_400, "30d"),
    ] {
        assert_eq!(duration(seconds), expected, "{seconds}");
    }
}

#[test]
fn json_paths_of_printer_columns() {
    let object = json!({
        "spec": {"hosts": ["a", "b"], "a.b/c": 1},
        "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]},
    });
    let check = |path: &str, expected: Value| {
        assert_eq!(
            jsonpath::Path::parse(path)
                .find(&object)
                .cloned()
                .unwrap_or_default(),
            expected,
            "{path}"
        );
    };
    check(".spec.hosts", json!(["a", "b"]));
    check(".spec.hosts[0]", json!("a"));
    check(".spec.hosts[-1]", json!("b"));
    check(".spec['a.b/c']", json!(1));
    check(r".spec.a\.b/c", json!(1));
    check(
        ".status.conditions[?(@.type==\"Ready\")].status",
        json!("True"),
    );
    check(
        ".status.conditions[?(@.type=='Other')].status",
        json!("False"),
    );
    check(".nothing.here", Value::Null);
}

#[test]
fn pods_show_ready_containers_and_one_telling_word() {
    let registry = crate::kinds::Registry::new();
    let kind = registry.find("", "v1", "pods").expect("pods");
    let check = |pod: Value, ready: &str, status: &str| {
        let table = render(&kind, &[Arc::new(pod)], None, json!({}));
        let cells = &table["rows"][0]["cells"];
        assert_eq!(
            (cells[1].as_str(), cells[2].as_str()),
            (Some(ready), Some(status)),
            "{cells}"
        );
    };
    let sidecar = json!({"initContainers": [{"name": "proxy", "restartPolicy": "Always"}], "containers": [{"name": "app"}]});
    check(
        json!({"spec": sidecar, "status": {"phase": "Running",
            "initContainerStatuses": [{"name": "proxy", "ready": true, "started": true, "state": {"running": {}}}],
            "containerStatuses": [{"name": "app", "ready": true, "state": {"running": {}}}]}}),
        "2/2",
        "Running",
    );
    check(
        json!({"spec": sidecar, "status": {"phase": "Pending",
            "initContainerStatuses": [{"name": "proxy", "ready": false, "started": false, "state": {"running": {}}}]}}),
        "0/2",
        "Init:0/1",
    );
    check(
        json!({"spec": {"containers": [{"name": "app"}]}, "status": {"phase": "Running",
            "containerStatuses": [{"name": "app", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}}),
        "0/1",
        "CrashLoopBackOff",
    );
    check(
        json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"containers": [{"name": "app"}]},
            "status": {"phase": "Running"}}),
        "0/1",
        "Terminating",
    );
}
