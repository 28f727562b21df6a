//! Server-side apply and field ownership.

use super::*;

async fn apply(cluster: &Cluster, path: &str, manager: &str, body: Value) -> (u16, Value) {
    let separator = if path.contains('?') { '&' } else { '?' };
    cluster
        .call(
            "PATCH",
            &format!("{path}{separator}fieldManager={manager}"),
            APPLY,
            body,
        )
        .await
}

fn config(data: Value) -> Value {
    configmap("x", data)
}

fn owned(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten();
    entries
        .filter(|entry| entry["manager"] == manager)
        .map(|entry| entry["fieldsV1"].clone())
        .next()
        .unwrap_or_default()
}

#[tokio::test]
async fn apply_creates_changes_and_removes_what_it_owns() {
    let cluster = Cluster::new().await;
    let path = format!("{CONFIGMAPS}/x");
    let (code, created) = apply(&cluster, &path, "one", config(json!({"a": "1", "b": "2"}))).await;
    assert_eq!(code, 201, "{created}");
    assert_eq!(
        owned(&created, "one"),
        json!({"f:data": {"f:a": {}, "f:b": {}}})
    );
    let (_, same) = apply(&cluster, &path, "one", config(json!({"a": "1", "b": "2"}))).await;
    assert_eq!(
        same["metadata"]["resourceVersion"],
        created["metadata"]["resourceVersion"]
    );
    let (code, after) = apply(&cluster, &path, "one", config(json!({"b": "3"}))).await;
    assert_eq!(
        (code, &after["data"]),
        (200, &json!({"b": "3"})),
        "a is given up and gone"
    );
}

#[tokio::test]
async fn conflicts_name_the_other_manager_and_force_takes_over() {
    let cluster = Cluster::new().await;
    let path = format!("{CONFIGMAPS}/x");
    apply(&cluster, &path, "one", config(json!({"a": "1"}))).await;
    let (code, status) = apply(&cluster, &path, "two", config(json!({"a": "2"}))).await;
    assert_eq!(code, 409);
    assert_eq!(
        status["message"],
        "Apply failed with 1 conflict: conflict with \"one\": .data.a"
    );
    assert_eq!(
        status["details"]["causes"][0]["reason"],
        "FieldManagerConflict"
    );
    let (code, after) = apply(&cluster, &path, "two", config(json!({"a": "1"}))).await;
    assert_eq!(code, 200, "the same value is shared");
    assert_eq!(owned(&after, "one"), owned(&after, "two"));
    let (code, after) = apply(
        &cluster,
        &format!("{path}?force=true"),
        "two",
        config(json!({"a": "2"})),
    )
    .await;
    assert_eq!((code, owned(&after, "one")), (200, Value::Null));
    assert_eq!(
        apply(&cluster, &path, "", config(json!({}))).await.0,
        400,
        "a manager is needed"
    );
}

#[tokio::test]
async fn other_writes_own_what_they_change() {
    let cluster = Cluster::new().await;
    let path = format!("{CONFIGMAPS}/x");
    apply(&cluster, &path, "one", config(json!({"a": "1", "b": "2"}))).await;
    let after = cluster
        .ok("PATCH", &path, json!({"data": {"a": "9", "b": null}}))
        .await;
    assert_eq!(
        owned(&after, "test"),
        json!({"f:data": {"f:a": {}}}),
        "the manager is the user agent"
    );
    assert_eq!(owned(&after, "one"), Value::Null, "b is gone for everybody");
}

#[tokio::test]
async fn lists_merge_by_their_keys() {
    let cluster = Cluster::new().await;
    let path = format!("{DEPLOYMENTS}/x");
    let with = |containers: Value| {
        let mut body = deployment("x");
        body["spec"]["template"]["spec"]["containers"] = containers;
        (body["apiVersion"], body["kind"]) = (json!("apps/v1"), json!("Deployment"));
        body
    };
    let (code, created) = apply(
        &cluster,
        &path,
        "one",
        with(json!([{"name": "a", "image": "one"}])),
    )
    .await;
    assert_eq!(code, 201, "{created}");
    let sidecar = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"},
        "spec": {"template": {"spec": {"containers": [{"name": "b", "image": "two", "ports": [{"containerPort": 80}]}]}}}});
    let (code, after) = apply(&cluster, &path, "two", sidecar).await;
    assert_eq!(code, 200, "{after}");
    let names = |object: &Value| -> Vec<String> {
        let list = object["spec"]["template"]["spec"]["containers"]
            .as_array()
            .into_iter()
            .flatten();
        list.map(|one| one["name"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    assert_eq!(names(&after).len(), 2);
    assert!(
        owned(&after, "two")
            .to_string()
            .contains(r#"k:{\"containerPort\":80,\"protocol\":\"TCP\"}"#)
    );
    let (_, after) = apply(
        &cluster,
        &path,
        "one",
        with(json!([{"name": "a", "image": "three"}])),
    )
    .await;
    assert_eq!(names(&after).len(), 2, "the other's container stays");
    let empty = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}});
    let (_, after) = apply(&cluster, &path, "two", empty).await;
    assert_eq!(names(&after), ["a"], "given up, and nobody else has it");
}

#[tokio::test]
async fn status_is_applied_through_its_subresource() {
    let cluster = Cluster::new().await;
    cluster.ok("POST", DEPLOYMENTS, deployment("x")).await;
    let body = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"},
        "spec": {"replicas": 7}, "status": {"replicas": 2}});
    let (code, after) = apply(
        &cluster,
        &format!("{DEPLOYMENTS}/x/status"),
        "controller",
        body,
    )
    .await;
    assert_eq!(code, 200, "{after}");
    assert_eq!(
        (&after["spec"]["replicas"], &after["status"]["replicas"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(
        owned(&after, "controller"),
        json!({"f:status": {"f:replicas": {}}})
    );
}
