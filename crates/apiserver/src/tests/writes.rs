//! create, update and patch.

use super::*;

#[tokio::test]
async fn the_life_of_a_config_map() {
    let cluster = Cluster::new().await;
    let created = cluster
        .ok("POST", CONFIGMAPS, configmap("x", json!({"a": "1"})))
        .await;
    let meta = &created["metadata"];
    assert!(
        meta["uid"].is_string()
            && meta["creationTimestamp"].is_string()
            && meta["resourceVersion"].is_string()
    );
    assert_eq!(
        cluster
            .code("POST", CONFIGMAPS, configmap("x", json!({})))
            .await,
        409
    );
    let path = format!("{CONFIGMAPS}/x");
    let mut changed = created.clone();
    changed["data"] = json!({"a": "2"});
    let updated = cluster.ok("PUT", &path, changed.clone()).await;
    assert_ne!(
        updated["metadata"]["resourceVersion"],
        meta["resourceVersion"]
    );
    let (code, status) = cluster.call("PUT", &path, JSON, changed).await;
    assert_eq!(
        (code, &status["reason"]),
        (409, &json!("Conflict")),
        "an outdated revision"
    );
    let same = cluster.ok("PUT", &path, updated.clone()).await;
    assert_eq!(
        same["metadata"]["resourceVersion"], updated["metadata"]["resourceVersion"],
        "nothing changed"
    );
    cluster.ok("DELETE", &path, Value::Null).await;
    let (code, status) = cluster.call("GET", &path, JSON, Value::Null).await;
    assert_eq!(
        (code, &status["message"]),
        (404, &json!("configmaps \"x\" not found"))
    );
}

/// A create that is refused: (path, body, code, words of the message).
type Refusal = (&'static str, Value, u16, &'static str);

fn named(more: Value) -> Value {
    let mut body = json!({"metadata": {"name": "x"}});
    json_patch::merge(&mut body, &more);
    body
}

fn refused_by_form() -> Vec<Refusal> {
    let other_namespace = named(json!({"metadata": {"namespace": "y"}}));
    vec![
        (CONFIGMAPS, json!([1]), 400, "not a JSON object"),
        (
            CONFIGMAPS,
            named(json!({"kind": "Pod"})),
            400,
            "does not match the expected kind",
        ),
        (
            CONFIGMAPS,
            other_namespace,
            400,
            "does not match the namespace",
        ),
        (
            CONFIGMAPS,
            named(json!({"data": {"a": 1}})),
            400,
            "data.a: cannot use number as a string",
        ),
        (
            "/api/v1/namespaces/default/configmaps?fieldValidation=Strict",
            named(json!({"foo": 1})),
            400,
            "strict decoding error: unknown field \"foo\"",
        ),
        (
            "/api/v1/namespaces/nope/configmaps",
            named(json!({})),
            404,
            "namespaces \"nope\" not found",
        ),
        (
            "/apis/apps/v1/namespaces/default/no",
            json!({}),
            404,
            "could not find the requested",
        ),
    ]
}

fn refused_by_rules() -> Vec<Refusal> {
    let mut nobody = pod("x");
    nobody["spec"]["serviceAccountName"] = json!("nobody");
    let mut mismatch = deployment("x");
    mismatch["spec"]["selector"] = json!({"matchLabels": {"app": "y"}});
    let labels = named(json!({"metadata": {"labels": {"a b": "c"}}}));
    let empty = named(json!({"spec": {"containers": []}}));
    vec![
        (
            CONFIGMAPS,
            json!({"metadata": {}}),
            422,
            "metadata.name: Required value: name or",
        ),
        (
            CONFIGMAPS,
            configmap("A", json!({})),
            422,
            "a lowercase RFC 1123 subdomain",
        ),
        (CONFIGMAPS, labels, 422, "metadata.labels"),
        (PODS, empty, 422, "spec.containers: Required value"),
        (
            "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers",
            named(
                json!({"spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "x"}}}),
            ),
            403,
            "nothing in this cluster measures load",
        ),
        (PODS, nobody, 403, "serviceaccount \"nobody\" not found"),
        (
            DEPLOYMENTS,
            mismatch,
            422,
            "`selector` does not match template `labels`",
        ),
    ]
}

#[tokio::test]
async fn what_is_refused_and_how() {
    let cluster = Cluster::new().await;
    for (path, body, code, words) in refused_by_form().into_iter().chain(refused_by_rules()) {
        let (found, status) = cluster.call("POST", path, JSON, body).await;
        let message = status["message"].as_str().unwrap_or_default().to_owned();
        assert!(
            found == code && message.contains(words),
            "{found} {message}; not {code} {words}"
        );
    }
}

#[tokio::test]
async fn unknown_fields_are_dropped_with_a_warning() {
    let cluster = Cluster::new().await;
    let mut body = pod("x");
    body["spec"]["containers"][0]["imag"] = json!("y");
    let response = cluster
        .raw("POST", PODS, (JSON, body.to_string()), JSON)
        .await;
    let warning = response.headers()["warning"]
        .to_str()
        .expect("text")
        .to_owned();
    assert_eq!(
        warning,
        r#"299 - "unknown field \"spec.containers[0].imag\"""#
    );
    assert!(cluster.get(&format!("{PODS}/x")).await["spec"]["containers"][0]["imag"].is_null());
}

#[tokio::test]
async fn pods_get_their_defaults_and_their_token() {
    let cluster = Cluster::new().await;
    let pod = cluster.ok("POST", PODS, pod("x")).await;
    let (spec, container) = (&pod["spec"], &pod["spec"]["containers"][0]);
    assert_eq!(spec["restartPolicy"], "Always");
    assert_eq!(spec["serviceAccountName"], "default");
    assert_eq!(container["imagePullPolicy"], "Always");
    assert_eq!(
        container["volumeMounts"][0]["mountPath"],
        "/var/run/secrets/kubernetes.io/serviceaccount"
    );
    assert_eq!(
        container["volumeMounts"][0]["name"],
        spec["volumes"][0]["name"]
    );
    assert_eq!(pod["status"]["phase"], "Pending");
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let cluster = Cluster::new().await;
    let mut body = deployment("x");
    body["status"] = json!({"replicas": 9});
    let created = cluster.ok("POST", DEPLOYMENTS, body).await;
    assert!(created["status"].is_null() && created["metadata"]["generation"] == 1);
    let path = format!("{DEPLOYMENTS}/x");
    let change = json!({"spec": {"replicas": 3}, "status": {"replicas": 2}});
    let after = cluster
        .ok("PATCH", &format!("{path}/status"), change.clone())
        .await;
    assert_eq!(
        (&after["spec"]["replicas"], &after["status"]["replicas"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(after["metadata"]["generation"], 1);
    let after = cluster.ok("PATCH", &path, change).await;
    assert_eq!(
        (&after["spec"]["replicas"], &after["metadata"]["generation"]),
        (&json!(3), &json!(2))
    );
    let after = cluster
        .ok("PATCH", &path, json!({"metadata": {"labels": {"a": "b"}}}))
        .await;
    assert_eq!(
        after["metadata"]["generation"], 2,
        "metadata does not count"
    );
    let scale = cluster
        .ok(
            "PATCH",
            &format!("{path}/scale"),
            json!({"spec": {"replicas": 5}}),
        )
        .await;
    assert_eq!(
        (&scale["spec"]["replicas"], &scale["status"]["selector"]),
        (&json!(5), &json!("app=x"))
    );
    let selector = json!({"spec": {"selector": {"matchLabels": {"app": "z"}}}});
    assert_eq!(
        cluster.code("PATCH", &path, selector).await,
        422,
        "immutable"
    );
}

#[tokio::test]
async fn services_get_addresses_and_node_ports() {
    let cluster = Cluster::new().await;
    let path = "/api/v1/namespaces/default/services";
    let service = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
    let ports = json!([{"port": 80}]);
    let first = cluster
        .ok("POST", path, service("a", json!({"ports": ports})))
        .await;
    let address = first["spec"]["clusterIP"].clone();
    assert!(
        address
            .as_str()
            .is_some_and(|text| text.starts_with("10.96."))
    );
    assert_eq!(
        first["spec"]["ports"][0],
        json!({"port": 80, "protocol": "TCP", "targetPort": 80})
    );
    let taken = service("b", json!({"ports": ports, "clusterIP": address}));
    assert_eq!(cluster.code("POST", path, taken).await, 422);
    let headless = cluster
        .ok(
            "POST",
            path,
            service("c", json!({"ports": ports, "clusterIP": "None"})),
        )
        .await;
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    let node = cluster
        .ok(
            "POST",
            path,
            service("d", json!({"ports": ports, "type": "NodePort"})),
        )
        .await;
    let port = node["spec"]["ports"][0]["nodePort"]
        .as_u64()
        .expect("a port");
    assert!((30_000..=32_767).contains(&port));
    let same = service(
        "e",
        json!({"type": "NodePort", "ports": [{"port": 81, "nodePort": port}]}),
    );
    assert_eq!(cluster.code("POST", path, same).await, 422, "taken");
    let replaced = cluster
        .ok(
            "PUT",
            &format!("{path}/a"),
            service("a", json!({"ports": [{"port": 81}]})),
        )
        .await;
    assert_eq!(
        replaced["spec"]["clusterIP"], address,
        "a replacement keeps the address"
    );
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let cluster = Cluster::new().await;
    let before = cluster.api().store.revision();
    cluster
        .ok(
            "POST",
            &format!("{CONFIGMAPS}?dryRun=All"),
            configmap("x", json!({})),
        )
        .await;
    cluster
        .ok(
            "DELETE",
            &format!("{CONFIGMAPS}/kube-root-ca.crt?dryRun=All"),
            Value::Null,
        )
        .await;
    assert_eq!(cluster.api().store.revision(), before);
}

#[tokio::test]
async fn strategic_patches_merge_lists_by_key() {
    let cluster = Cluster::new().await;
    let mut body = deployment("x");
    body["spec"]["template"]["spec"]["containers"] = json!([
        {"name": "a", "image": "one", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
        {"name": "b", "image": "two"},
    ]);
    cluster.ok("POST", DEPLOYMENTS, body).await;
    let path = format!("{DEPLOYMENTS}/x");
    let patch = json!({"spec": {"template": {"spec": {
        "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}],
        "containers": [
            {"name": "a", "env": [{"name": "A", "$patch": "delete"}, {"name": "B", "value": "3"}]},
            {"name": "b", "$patch": "delete"},
            {"name": "c", "image": "three"},
        ],
    }}}});
    let (code, after) = cluster.call("PATCH", &path, STRATEGIC, patch).await;
    assert_eq!(code, 200, "{after}");
    let containers = after["spec"]["template"]["spec"]["containers"]
        .as_array()
        .expect("list");
    let names: Vec<&str> = containers
        .iter()
        .filter_map(|one| one["name"].as_str())
        .collect();
    assert_eq!(names, ["c", "a"]);
    assert_eq!(containers[1]["env"], json!([{"name": "B", "value": "3"}]));
    assert_eq!(containers[1]["image"], "one");
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    let (_, after) = cluster.call("PATCH", &path, STRATEGIC, patch).await;
    assert_eq!(after["spec"]["strategy"], json!({"type": "Recreate"}));
    let (code, _) = cluster
        .call(
            "PATCH",
            &path,
            STRATEGIC,
            json!({"spec": {"template": {"spec": {"containers": [{}]}}}}),
        )
        .await;
    assert_eq!(code, 400, "an item without its key");
}

#[tokio::test]
async fn json_patches_apply_or_fail_as_a_whole() {
    let cluster = Cluster::new().await;
    cluster
        .ok("POST", CONFIGMAPS, configmap("x", json!({"a": "1"})))
        .await;
    let path = format!("{CONFIGMAPS}/x");
    let media = "application/json-patch+json";
    let patch = json!([{"op": "test", "path": "/data/a", "value": "1"}, {"op": "add", "path": "/data/b", "value": "2"}]);
    assert_eq!(
        cluster.call("PATCH", &path, media, patch).await.1["data"],
        json!({"a": "1", "b": "2"})
    );
    let patch = json!([{"op": "remove", "path": "/data/a"}, {"op": "test", "path": "/data/b", "value": "9"}]);
    assert_eq!(cluster.call("PATCH", &path, media, patch).await.0, 422);
    assert_eq!(cluster.get(&path).await["data"]["a"], "1");
    assert_eq!(
        cluster
            .call("PATCH", &path, "application/nonsense", json!({}))
            .await
            .0,
        415
    );
    assert_eq!(
        cluster
            .call(
                "PATCH",
                &path,
                MERGE,
                json!({"metadata": {"resourceVersion": "1"}})
            )
            .await
            .0,
        409
    );
}
