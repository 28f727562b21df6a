//! Finalizers, grace, owner references, namespaces.

use super::*;

fn owned(name: &str, owner: &Value, blocks: bool) -> Value {
    let mut body = configmap(name, json!({}));
    body["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"],
        "blockOwnerDeletion": blocks,
    }]);
    body
}

#[tokio::test]
async fn finalizers_hold_objects_back() {
    let cluster = Cluster::new().await;
    let mut body = configmap("x", json!({}));
    body["metadata"]["finalizers"] = json!(["example.com/wait"]);
    cluster.ok("POST", CONFIGMAPS, body).await;
    let path = format!("{CONFIGMAPS}/x");
    let marked = cluster.ok("DELETE", &path, Value::Null).await;
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    cluster
        .ok("PATCH", &path, json!({"metadata": {"finalizers": null}}))
        .await;
    assert_eq!(cluster.code("GET", &path, Value::Null).await, 404);
}

#[tokio::test]
async fn pods_on_a_node_end_gracefully() {
    let cluster = Cluster::new().await;
    cluster.ok("POST", PODS, pod("unbound")).await;
    cluster
        .ok("DELETE", &format!("{PODS}/unbound"), Value::Null)
        .await;
    assert_eq!(
        cluster
            .code("GET", &format!("{PODS}/unbound"), Value::Null)
            .await,
        404
    );
    cluster.ok("POST", PODS, pod("x")).await;
    let path = format!("{PODS}/x");
    cluster
        .ok(
            "POST",
            &format!("{path}/binding"),
            json!({"target": {"kind": "Node", "name": "lateen"}}),
        )
        .await;
    let marked = cluster.ok("DELETE", &path, Value::Null).await;
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    let shorter = cluster
        .ok("DELETE", &path, json!({"gracePeriodSeconds": 5}))
        .await;
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    cluster
        .ok(
            "PATCH",
            &format!("{path}/status"),
            json!({"status": {"phase": "Running"}}),
        )
        .await;
    assert_eq!(
        cluster.code("GET", &path, Value::Null).await,
        200,
        "the kubelet has the last word"
    );
    cluster
        .ok("DELETE", &path, json!({"gracePeriodSeconds": 0}))
        .await;
    assert_eq!(cluster.code("GET", &path, Value::Null).await, 404);
}

#[tokio::test]
async fn dependents_follow_their_owner() {
    let cluster = Cluster::new().await;
    let owner = cluster
        .ok("POST", CONFIGMAPS, configmap("owner", json!({})))
        .await;
    let middle = cluster
        .ok("POST", CONFIGMAPS, owned("middle", &owner, false))
        .await;
    cluster
        .ok("POST", CONFIGMAPS, owned("leaf", &middle, false))
        .await;
    cluster
        .ok("DELETE", &format!("{CONFIGMAPS}/owner"), Value::Null)
        .await;
    cluster.gone(&format!("{CONFIGMAPS}/leaf")).await;
    cluster.gone(&format!("{CONFIGMAPS}/middle")).await;
}

#[tokio::test]
async fn foreground_deletion_waits_for_dependents() {
    let cluster = Cluster::new().await;
    let owner = cluster
        .ok("POST", CONFIGMAPS, configmap("owner", json!({})))
        .await;
    let mut held = owned("held", &owner, true);
    held["metadata"]["finalizers"] = json!(["example.com/wait"]);
    cluster.ok("POST", CONFIGMAPS, held).await;
    let path = format!("{CONFIGMAPS}/owner");
    let marked = cluster
        .ok("DELETE", &path, json!({"propagationPolicy": "Foreground"}))
        .await;
    assert_eq!(
        marked["metadata"]["finalizers"],
        json!(["foregroundDeletion"])
    );
    let held = format!("{CONFIGMAPS}/held");
    while cluster.get(&held).await["metadata"]["deletionTimestamp"].is_null() {
        tokio::task::yield_now().await;
    }
    assert_eq!(cluster.code("GET", &path, Value::Null).await, 200);
    cluster
        .ok("PATCH", &held, json!({"metadata": {"finalizers": null}}))
        .await;
    cluster.gone(&path).await;
}

#[tokio::test]
async fn orphans_forget_their_owner() {
    let cluster = Cluster::new().await;
    let owner = cluster
        .ok("POST", CONFIGMAPS, configmap("owner", json!({})))
        .await;
    cluster
        .ok("POST", CONFIGMAPS, owned("child", &owner, true))
        .await;
    cluster
        .ok(
            "DELETE",
            &format!("{CONFIGMAPS}/owner?propagationPolicy=Orphan"),
            Value::Null,
        )
        .await;
    cluster.gone(&format!("{CONFIGMAPS}/owner")).await;
    assert!(
        cluster.get(&format!("{CONFIGMAPS}/child")).await["metadata"]["ownerReferences"].is_null()
    );
}

#[tokio::test]
async fn a_namespace_takes_its_content_along() {
    let cluster = Cluster::new().await;
    cluster
        .ok(
            "POST",
            "/api/v1/namespaces",
            json!({"metadata": {"name": "n"}}),
        )
        .await;
    let path = "/api/v1/namespaces/n/configmaps";
    let mut held = configmap("held", json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/wait"]);
    cluster.ok("POST", path, held).await;
    cluster.ok("POST", path, configmap("free", json!({}))).await;
    let marked = cluster
        .ok("DELETE", "/api/v1/namespaces/n", Value::Null)
        .await;
    assert_eq!(marked["status"]["phase"], "Terminating");
    assert_eq!(
        cluster
            .code("POST", path, configmap("late", json!({})))
            .await,
        403
    );
    cluster.gone(&format!("{path}/free")).await;
    assert_eq!(
        cluster
            .code("GET", "/api/v1/namespaces/n", Value::Null)
            .await,
        200
    );
    cluster
        .ok(
            "PATCH",
            &format!("{path}/held"),
            json!({"metadata": {"finalizers": null}}),
        )
        .await;
    cluster.gone("/api/v1/namespaces/n").await;
    assert_eq!(
        cluster
            .code("DELETE", "/api/v1/namespaces/default", Value::Null)
            .await,
        403
    );
}

#[tokio::test]
async fn deletecollection_and_preconditions() {
    let cluster = Cluster::new().await;
    for (name, label) in [("a", "x"), ("b", "x"), ("c", "y")] {
        let mut body = configmap(name, json!({}));
        body["metadata"]["labels"] = json!({"l": label});
        cluster.ok("POST", CONFIGMAPS, body).await;
    }
    cluster
        .ok(
            "DELETE",
            &format!("{CONFIGMAPS}?labelSelector=l%3Dx"),
            Value::Null,
        )
        .await;
    assert_eq!(
        cluster
            .code("GET", &format!("{CONFIGMAPS}/a"), Value::Null)
            .await,
        404
    );
    let wrong = json!({"preconditions": {"uid": "other"}});
    assert_eq!(
        cluster
            .code("DELETE", &format!("{CONFIGMAPS}/c"), wrong)
            .await,
        409
    );
}

#[tokio::test]
async fn evictions_respect_disruption_budgets() {
    let cluster = Cluster::new().await;
    let mut body = pod("x");
    body["metadata"]["labels"] = json!({"app": "x"});
    cluster.ok("POST", PODS, body).await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}});
    cluster.ok("POST", budgets, budget).await;
    let status = json!({"status": {"disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}});
    cluster
        .ok("PATCH", &format!("{budgets}/b/status"), status)
        .await;
    let eviction = json!({"metadata": {"name": "x"}});
    assert_eq!(
        cluster
            .code("POST", &format!("{PODS}/x/eviction"), eviction.clone())
            .await,
        429
    );
    cluster
        .ok("DELETE", &format!("{budgets}/b"), Value::Null)
        .await;
    assert_eq!(
        cluster
            .code("POST", &format!("{PODS}/x/eviction"), eviction)
            .await,
        201
    );
}
