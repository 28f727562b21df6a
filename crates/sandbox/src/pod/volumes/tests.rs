//! What a program sees in its volumes.

use super::*;

fn files(pairs: &[(&str, &str)]) -> Files {
    pairs
        .iter()
        .map(|(path, text)| ((*path).to_owned(), (text.as_bytes().to_vec(), 0o600)))
        .collect()
}

fn check(directory: &Path, expected: &[(&str, Option<&str>)]) {
    for (path, text) in expected {
        let read = std::fs::read_to_string(directory.join(path)).ok();
        assert_eq!(read.as_deref(), *text, "{path}");
    }
}

#[test]
fn files_change_all_at_once_and_old_ones_go() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path();
    atomic::write(path, &files(&[("a", "1"), ("dir/b", "2")]), None).expect("written");
    check(path, &[("a", Some("1")), ("dir/b", Some("2"))]);
    let mode = std::fs::metadata(path.join("a"))
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    atomic::write(path, &files(&[("a", "3"), ("c", "4")]), None).expect("written");
    check(path, &[("a", Some("3")), ("c", Some("4")), ("dir/b", None)]);
    let versions = std::fs::read_dir(path).expect("there").count();
    assert_eq!(versions, 4, "a, c, ..data and one version");
}

#[test]
fn mounts_may_not_leave_their_volume() {
    let pod: Pod = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {"containers": [], "volumes": [{"name": "v", "emptyDir": {}}]}
    }))
    .expect("a pod");
    let directory = tempfile::tempdir().expect("temporary directory");
    let volumes = Volumes::new(directory.path(), directory.path());
    let mount_of = |mount: serde_json::Value| {
        let container = serde_json::from_value(serde_json::json!({
            "name": "c", "volumeMounts": [mount]
        }))
        .expect("a container");
        volumes.mounts(&pod, &container, &Environment::new())
    };
    let inside = mount_of(serde_json::json!({"name": "v", "mountPath": "/x", "subPath": "a/b"}));
    assert!(inside.expect("fine")[0].source.ends_with("volumes/v/a/b"));
    let outside = mount_of(serde_json::json!({"name": "v", "mountPath": "/x", "subPath": "../b"}));
    assert!(outside.expect_err("refused").contains("inside the volume"));
    let unknown = mount_of(serde_json::json!({"name": "w", "mountPath": "/x"}));
    assert!(unknown.expect_err("refused").contains("\"w\""));
}
