//! get, list, watch, tables and discovery.

use super::*;
use futures::StreamExt;
use http_body_util::BodyStream;
use std::collections::BTreeSet;

async fn fill(cluster: &Cluster, count: usize) {
    for index in 0..count {
        let mut body = configmap(&format!("c{index}"), json!({}));
        body["metadata"]["labels"] = json!({"parity": if index % 2 == 0 { "even" } else { "odd" }});
        cluster.ok("POST", CONFIGMAPS, body).await;
    }
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().into_iter().flatten();
    items
        .map(|item| {
            item["metadata"]["name"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        })
        .collect()
}

#[tokio::test]
async fn lists_select_and_page() {
    let cluster = Cluster::new().await;
    fill(&cluster, 5).await;
    let even = cluster
        .get(&format!("{CONFIGMAPS}?labelSelector=parity%3Deven"))
        .await;
    assert_eq!(names(&even), ["c0", "c2", "c4"]);
    let one = cluster
        .get(&format!("{CONFIGMAPS}?fieldSelector=metadata.name%3Dc3"))
        .await;
    assert_eq!(names(&one), ["c3"]);
    assert_eq!(
        cluster
            .code(
                "GET",
                &format!("{CONFIGMAPS}?fieldSelector=data.x%3D1"),
                Value::Null
            )
            .await,
        400
    );
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let page = cluster
            .get(&format!(
                "{CONFIGMAPS}?limit=2&labelSelector=parity&continue={token}"
            ))
            .await;
        seen.extend(names(&page));
        match page["metadata"]["continue"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, ["c0", "c1", "c2", "c3", "c4"]);
    assert_eq!(
        cluster
            .code(
                "GET",
                &format!("{CONFIGMAPS}?continue=nonsense"),
                Value::Null
            )
            .await,
        400
    );
    assert_eq!(
        cluster.get("/api/v1/configmaps?labelSelector=parity").await["kind"],
        "ConfigMapList"
    );
}

/// Events of a watch as (type, name), until there are `count`.
async fn watch(
    cluster: &Cluster,
    query: &str,
    count: usize,
) -> impl Future<Output = Vec<(String, Value)>> + use<> {
    let response = cluster
        .raw(
            "GET",
            &format!("{CONFIGMAPS}?watch=true&{query}"),
            (JSON, String::new()),
            JSON,
        )
        .await;
    assert_eq!(response.status(), 200);
    let mut body = BodyStream::new(response.into_body());
    async move {
        let (mut events, mut buffer) = (Vec::new(), String::new());
        while events.len() < count {
            let Some(Ok(frame)) = body.next().await else {
                break;
            };
            buffer.push_str(&String::from_utf8_lossy(
                &frame.into_data().unwrap_or_default(),
            ));
            while let Some((line, rest)) = buffer.split_once('\n') {
                let event: Value = serde_json::from_str(line).expect("an event a line");
                events.push((
                    event["type"].as_str().unwrap_or_default().to_owned(),
                    event["object"].clone(),
                ));
                buffer = rest.to_owned();
            }
        }
        events
    }
}

fn told(events: &[(String, Value)]) -> Vec<String> {
    events
        .iter()
        .map(|(kind, object)| {
            format!(
                "{kind} {}",
                object["metadata"]["name"].as_str().unwrap_or("-")
            )
        })
        .collect()
}

#[tokio::test]
async fn a_watch_goes_on_from_the_list() {
    let cluster = Cluster::new().await;
    fill(&cluster, 2).await;
    let list = cluster.get(CONFIGMAPS).await;
    let revision = list["metadata"]["resourceVersion"]
        .as_str()
        .expect("revision");
    let events = watch(&cluster, &format!("resourceVersion={revision}"), 3).await;
    cluster
        .ok("POST", CONFIGMAPS, configmap("new", json!({})))
        .await;
    cluster
        .ok(
            "PATCH",
            &format!("{CONFIGMAPS}/c0"),
            json!({"data": {"a": "1"}}),
        )
        .await;
    cluster
        .ok("DELETE", &format!("{CONFIGMAPS}/c1"), Value::Null)
        .await;
    assert_eq!(
        told(&events.await),
        ["ADDED new", "MODIFIED c0", "DELETED c1"]
    );
}

#[tokio::test]
async fn selectors_turn_changes_into_comings_and_goings() {
    let cluster = Cluster::new().await;
    fill(&cluster, 1).await;
    let events = watch(&cluster, "labelSelector=parity%3Deven&resourceVersion=0", 3).await;
    let path = format!("{CONFIGMAPS}/c0");
    cluster
        .ok(
            "PATCH",
            &path,
            json!({"metadata": {"labels": {"parity": "odd"}}}),
        )
        .await;
    cluster
        .ok("PATCH", &path, json!({"data": {"a": "1"}}))
        .await;
    cluster
        .ok(
            "PATCH",
            &path,
            json!({"metadata": {"labels": {"parity": "even"}}}),
        )
        .await;
    assert_eq!(told(&events.await), ["ADDED c0", "DELETED c0", "ADDED c0"]);
}

#[tokio::test]
async fn a_streaming_list_marks_its_end() {
    let cluster = Cluster::new().await;
    fill(&cluster, 2).await;
    let query = "sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&labelSelector=parity";
    let events = watch(&cluster, query, 3).await.await;
    assert_eq!(told(&events), ["ADDED c0", "ADDED c1", "BOOKMARK -"]);
    assert_eq!(
        events[2].1["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
}

#[tokio::test]
async fn an_unknown_past_is_an_expired_event() {
    let cluster = Cluster::new().await;
    for revision in ["1000000", "1"] {
        if revision == "1" {
            for index in 0..101 {
                cluster
                    .ok(
                        "PATCH",
                        &format!("{CONFIGMAPS}/kube-root-ca.crt"),
                        json!({"data": {"n": index.to_string()}}),
                    )
                    .await;
            }
        }
        let events = watch(&cluster, &format!("resourceVersion={revision}"), 1)
            .await
            .await;
        assert_eq!(
            (events[0].0.as_str(), &events[0].1["code"]),
            ("ERROR", &json!(410)),
            "{revision}"
        );
    }
}

#[tokio::test]
async fn watches_end_with_the_server() {
    let cluster = Cluster::new().await;
    let events = watch(&cluster, "labelSelector=none", 1).await;
    cluster.server.stop().await;
    assert!(events.await.is_empty());
}

#[tokio::test]
async fn tables_and_partial_objects() {
    let cluster = Cluster::new().await;
    fill(&cluster, 1).await;
    let read = async |path: &str, accept: &str| -> Value {
        let response = cluster
            .raw("GET", path, (JSON, String::new()), accept)
            .await;
        let bytes = response
            .into_body()
            .collect()
            .await
            .expect("body")
            .to_bytes();
        serde_json::from_slice(&bytes).expect("JSON")
    };
    let table = read(
        &format!("{CONFIGMAPS}?labelSelector=parity"),
        "application/json;as=Table;v=v1;g=meta.k8s.io",
    )
    .await;
    let columns: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|c| c["name"].as_str())
        .collect();
    assert_eq!(columns, ["Name", "Data", "Age"]);
    assert_eq!(table["rows"][0]["cells"][0], "c0");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let partial = read(
        &format!("{CONFIGMAPS}/c0"),
        "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    )
    .await;
    assert!(partial["kind"] == "PartialObjectMetadata" && partial["data"].is_null());
    let refused = cluster
        .raw(
            "GET",
            CONFIGMAPS,
            (JSON, String::new()),
            "application/vnd.kubernetes.protobuf",
        )
        .await;
    assert_eq!(refused.status(), 406);
}

#[tokio::test]
async fn discovery_names_every_kind_in_both_forms() {
    let cluster = Cluster::new().await;
    let read = async |path: &str, accept: &str| -> Value {
        let response = cluster
            .raw("GET", path, (JSON, String::new()), accept)
            .await;
        let bytes = response
            .into_body()
            .collect()
            .await
            .expect("body")
            .to_bytes();
        serde_json::from_slice(&bytes).expect("JSON")
    };
    let aggregated = read(
        "/apis",
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
    )
    .await;
    let plain = cluster.get("/apis").await;
    let groups = |list: &Value, field: &str, name: fn(&Value) -> Value| -> BTreeSet<String> {
        list[field]
            .as_array()
            .into_iter()
            .flatten()
            .map(|group| name(group).to_string())
            .collect()
    };
    assert_eq!(
        groups(&aggregated, "items", |g| g["metadata"]["name"].clone()),
        groups(&plain, "groups", |g| g["name"].clone())
    );
    let core = cluster.get("/api/v1").await;
    let names: Vec<&str> = core["resources"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|r| r["name"].as_str())
        .collect();
    assert!(
        names.contains(&"pods")
            && names.contains(&"pods/log")
            && names.contains(&"serviceaccounts/token")
    );
}

#[tokio::test]
async fn every_reference_in_the_openapi_documents_leads_somewhere() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let cluster = Cluster::new().await;
    let index = cluster.get("/openapi/v3").await;
    for entry in index["paths"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(_, entry)| entry)
    {
        let document = cluster
            .get(entry["serverRelativeURL"].as_str().expect("a path"))
            .await;
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        for reference in found {
            let pointer = reference.strip_prefix('#').expect("a reference inside");
            assert!(
                document.pointer(pointer).is_some(),
                "{reference} in {entry}"
            );
        }
    }
}

#[tokio::test]
async fn nobody_reads_without_being_allowed() {
    let cluster = Cluster::new().await;
    let ask = async |user: User, path: &str| {
        let request = Request::builder()
            .uri(path)
            .body(Full::new(Bytes::new()))
            .expect("request");
        router::serve(cluster.api(), user, request)
            .await
            .status()
            .as_u16()
    };
    assert_eq!(ask(User::anonymous(), "/healthz").await, 200);
    assert_eq!(ask(User::anonymous(), "/version").await, 200);
    assert_eq!(ask(User::anonymous(), PODS).await, 403);
    assert_eq!(
        ask(User::service_account("default", "default", "u"), PODS).await,
        403
    );
}
