//! CustomResourceDefinitions.

use super::*;

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

fn definition() -> Value {
    let schema = json!({"type": "object", "properties": {
        "spec": {
            "type": "object", "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 1, "default": 3},
                "color": {"type": "string", "enum": ["red", "blue"]},
            },
            "x-kubernetes-validations": [{"rule": "self.size < 10 || self.color == 'red'", "message": "big ones are red"}],
        },
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }});
    json!({"metadata": {"name": "widgets.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [
            {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
             "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}},
             "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}]},
            {"name": "v1beta1", "served": true, "storage": false, "schema": {"openAPIV3Schema": schema}},
        ],
    }})
}

fn widget(spec: Value) -> Value {
    json!({"metadata": {"name": "w"}, "spec": spec})
}

#[tokio::test]
async fn a_definition_is_served_at_once_in_all_versions() {
    let cluster = Cluster::new().await;
    assert_eq!(cluster.code("GET", WIDGETS, Value::Null).await, 404);
    let stored = cluster.ok("POST", CRDS, definition()).await;
    let conditions = stored["status"]["conditions"]
        .as_array()
        .expect("conditions");
    assert!(
        conditions
            .iter()
            .all(|condition| condition["status"] == "True")
            && conditions.len() == 2
    );
    assert_eq!(stored["status"]["acceptedNames"]["listKind"], "WidgetList");
    let created = cluster
        .ok("POST", WIDGETS, widget(json!({"color": "red", "other": 1})))
        .await;
    assert_eq!(
        created["spec"],
        json!({"color": "red", "size": 3}),
        "defaulted and pruned"
    );
    let older = cluster
        .get("/apis/example.com/v1beta1/namespaces/default/widgets/w")
        .await;
    assert_eq!(older["apiVersion"], "example.com/v1beta1");
    let document = cluster.get("/openapi/v3/apis/example.com/v1").await;
    assert!(
        document["components"]["schemas"]["com.example.v1.Widget"]["properties"]["spec"]
            .is_object()
    );
    let scale = cluster.get(&format!("{WIDGETS}/w/scale")).await;
    assert_eq!(scale["spec"]["replicas"], 3);
    let refused = cluster
        .call("PATCH", &format!("{WIDGETS}/w"), STRATEGIC, json!({}))
        .await;
    assert_eq!(refused.0, 415);
}

#[tokio::test]
async fn objects_are_validated_by_schema_and_rules() {
    let cluster = Cluster::new().await;
    cluster.ok("POST", CRDS, definition()).await;
    let check = async |spec: Value, words: &str| {
        let (code, status) = cluster.call("POST", WIDGETS, JSON, widget(spec)).await;
        let message = status["message"].as_str().unwrap_or_default().to_owned();
        assert!(code == 422 && message.contains(words), "{code} {message}");
    };
    check(json!({"size": 0}), "spec.size").await;
    check(json!({"size": "x"}), "must be of type integer").await;
    check(
        json!({"color": "green"}),
        "spec.color: Unsupported value: \"green\"",
    )
    .await;
    check(json!({"size": 20, "color": "blue"}), "big ones are red").await;
}

#[tokio::test]
async fn status_and_generation_of_custom_objects() {
    let cluster = Cluster::new().await;
    cluster.ok("POST", CRDS, definition()).await;
    cluster.ok("POST", WIDGETS, widget(json!({}))).await;
    let path = format!("{WIDGETS}/w");
    let change = json!({"spec": {"size": 5}, "status": {"phase": "Ready"}});
    let after = cluster
        .ok("PATCH", &format!("{path}/status"), change.clone())
        .await;
    assert_eq!(
        (
            &after["spec"]["size"],
            &after["status"]["phase"],
            &after["metadata"]["generation"]
        ),
        (&json!(3), &json!("Ready"), &json!(1))
    );
    let after = cluster.ok("PATCH", &path, change).await;
    assert_eq!(
        (&after["spec"]["size"], &after["metadata"]["generation"]),
        (&json!(5), &json!(2))
    );
}

#[tokio::test]
async fn a_removed_definition_takes_its_objects_along() {
    let cluster = Cluster::new().await;
    cluster.ok("POST", CRDS, definition()).await;
    cluster.ok("POST", WIDGETS, widget(json!({}))).await;
    cluster
        .ok(
            "DELETE",
            &format!("{CRDS}/widgets.example.com"),
            Value::Null,
        )
        .await;
    cluster.gone(&format!("{CRDS}/widgets.example.com")).await;
    assert_eq!(cluster.code("GET", WIDGETS, Value::Null).await, 404);
    cluster.ok("POST", CRDS, definition()).await;
    assert_eq!(cluster.get(WIDGETS).await["items"], json!([]));
}

#[tokio::test]
async fn bad_definitions_say_what_is_wrong() {
    let cluster = Cluster::new().await;
    let check = async |edit: fn(&mut Value), words: &str| {
        let mut body = definition();
        edit(&mut body);
        let (code, status) = cluster.call("POST", CRDS, JSON, body).await;
        let message = status["message"].as_str().unwrap_or_default().to_owned();
        assert!(code == 422 && message.contains(words), "{code} {message}");
    };
    check(
        |d| d["metadata"]["name"] = json!("other.example.com"),
        "must be spec.names.plural+\".\"+spec.group",
    )
    .await;
    check(
        |d| d["spec"]["versions"][0]["storage"] = json!(false),
        "exactly one version",
    )
    .await;
    check(
        |d| d["spec"]["scope"] = json!("World"),
        "spec.scope: Unsupported value",
    )
    .await;
    check(
        |d| d["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["x-kubernetes-validations"][0]["rule"] = json!("self.("),
        "spec.versions[0].schema.openAPIV3Schema",
    )
    .await;
}

#[tokio::test]
async fn the_meshs_own_definitions_are_served() {
    let cluster = Cluster::new().await;
    for definition in lateen_api::crd::crds() {
        let stored = cluster.ok("POST", CRDS, definition).await;
        let spec = &stored["spec"];
        let (group, plural) = (spec["group"].as_str(), spec["names"]["plural"].as_str());
        let (group, plural) = (group.expect("a group"), plural.expect("a plural"));
        for version in spec["versions"].as_array().into_iter().flatten() {
            let version = version["name"].as_str().expect("a version");
            let list = cluster
                .get(&format!("/apis/{group}/{version}/{plural}"))
                .await;
            assert_eq!(list["items"], json!([]), "{plural}");
        }
    }
    let route = json!({"metadata": {"name": "reviews"}, "spec": {
        "hosts": ["reviews"],
        "http": [{"route": [{"destination": {"host": "reviews", "subset": "v1"}, "weight": 90}]}],
    }});
    let path =
        "/apis/networking.istio.io/v1/namespaces/default/virtualservices?fieldValidation=Strict";
    let stored = cluster.ok("POST", path, route).await;
    assert_eq!(stored["apiVersion"], "networking.istio.io/v1");
}
