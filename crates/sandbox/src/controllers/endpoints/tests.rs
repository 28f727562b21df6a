//! Services and pods in, endpoints out.

use serde_json::json;

use super::super::testing::Lab;
use super::derive::{endpoints, mirror, slices};
use super::*;

fn service(spec: &str) -> Service {
    let spec: serde_json::Value = serde_saphyr::from_str(spec).unwrap();
    let metadata = json!({ "name": "web", "namespace": "default", "uid": "s" });
    serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
}

/// `address state…`, with the states `ready`, `leaving`, `done`, and `port NAME NUMBER`.
fn pod(text: &str) -> Pod {
    let mut words = text.split(' ');
    let ip = words.next().unwrap();
    let has = |state: &str| text.split(' ').any(|word| word == state);
    let rest: Vec<&str> = text.split(' ').collect();
    let port = rest.iter().position(|word| *word == "port");
    let ports = port.map(|at| json!([{ "name": rest[at + 1], "containerPort": rest[at + 2].parse::<i32>().unwrap() }]));
    serde_json::from_value(json!({
        "metadata": {
            "name": format!("pod-{ip}"),
            "namespace": "default",
            "deletionTimestamp": has("leaving").then_some("2026-01-01T00:00:00Z"),
        },
        "spec": {
            "hostname": has("named").then_some("db-0"),
            "subdomain": has("named").then_some("web"),
            "containers": [{ "name": "c", "ports": ports }],
        },
        "status": {
            "phase": if has("done") { "Succeeded" } else { "Running" },
            "podIP": (ip != "-").then_some(ip),
            "conditions": [{ "type": "Ready", "status": if has("ready") { "True" } else { "False" } }],
        },
    }))
    .unwrap()
}

fn describe(slices: &[EndpointSlice]) -> String {
    let mut lines = Vec::new();
    for slice in slices {
        let ports = slice.ports.iter().flatten().map(|port| {
            format!(
                "{}:{}",
                port.name.as_deref().unwrap_or("?"),
                port.port.unwrap_or(0)
            )
        });
        lines.push(format!(
            "{} [{}]",
            slice.address_type,
            ports.collect::<Vec<_>>().join(" ")
        ));
        for endpoint in &slice.endpoints {
            let conditions = endpoint.conditions.clone().unwrap();
            let on = |value: Option<bool>, name: &str| match value {
                Some(true) => format!(" {name}"),
                _ => String::new(),
            };
            let host = endpoint
                .hostname
                .as_ref()
                .map_or(String::new(), |host| format!(" {host}"));
            lines.push(format!(
                "  {}{host}{}{}{}",
                endpoint.addresses[0],
                on(conditions.ready, "ready"),
                on(conditions.serving, "serving"),
                on(conditions.terminating, "terminating")
            ));
        }
    }
    lines.join("\n")
}

fn check(spec: &str, pods: &[&str], expected: &str) {
    let pods: Vec<Pod> = pods.iter().map(|text| pod(text)).collect();
    let found = slices(&service(spec), &pods.iter().collect::<Vec<_>>());
    assert_eq!(describe(&found), expected.trim());
}

const HTTP: &str =
    "{ selector: { app: web }, ports: [ { name: http, port: 80, targetPort: 8080 } ] }";

#[test]
fn states_of_pods() {
    check(
        HTTP,
        &[
            "10.0.0.3 ready leaving",
            "10.0.0.1 ready",
            "10.0.0.2 starting",
            "10.0.0.4 done",
            "-",
        ],
        "
IPv4 [http:8080]
  10.0.0.1 ready serving
  10.0.0.2
  10.0.0.3 serving terminating
",
    );
    check(HTTP, &[], "IPv4 []");
}

#[test]
fn named_ports_may_differ_by_pod() {
    check(
        "{ selector: { app: web }, ports: [ { port: 80, targetPort: web } ] }",
        &[
            "10.0.0.1 ready port web 8080",
            "10.0.0.2 ready port web 9090",
            "10.0.0.3 ready",
        ],
        "
IPv4 []
  10.0.0.3 ready serving
IPv4 [:8080]
  10.0.0.1 ready serving
IPv4 [:9090]
  10.0.0.2 ready serving
",
    );
}

#[test]
fn headless_names_and_unready_publication() {
    check(
        "{ clusterIP: None, publishNotReadyAddresses: true, selector: { app: web } }",
        &["10.0.0.1 named", "fd00::1 ready"],
        "
IPv4 []
  10.0.0.1 db-0 ready serving
IPv6 []
  fd00::1 ready serving
",
    );
}

#[test]
fn legacy_endpoints() {
    let pods = [
        pod("10.0.0.1 ready"),
        pod("10.0.0.2 starting"),
        pod("10.0.0.3 ready leaving"),
    ];
    let found = endpoints(&service(HTTP), &pods.iter().collect::<Vec<_>>());
    let subset = &found.subsets.unwrap()[0];
    let ips = |list: &Option<Vec<k8s_openapi::api::core::v1::EndpointAddress>>| {
        list.iter()
            .flatten()
            .map(|one| one.ip.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(ips(&subset.addresses), ["10.0.0.1"]);
    assert_eq!(ips(&subset.not_ready_addresses), ["10.0.0.2"]);
    assert_eq!(subset.ports.as_ref().unwrap()[0].port, 8080);
}

#[test]
fn endpoints_written_by_hand_are_mirrored() {
    let by_hand: Endpoints = serde_json::from_value(json!({
        "metadata": { "name": "web" },
        "subsets": [{
            "addresses": [{ "ip": "192.0.2.1" }],
            "notReadyAddresses": [{ "ip": "192.0.2.2" }],
            "ports": [{ "name": "db", "port": 3306 }],
        }],
    }))
    .unwrap();
    let found = mirror(
        &service("{ ports: [ { name: db, port: 3306 } ] }"),
        &by_hand,
    );
    assert_eq!(
        describe(&found),
        "IPv4 [db:3306]\n  192.0.2.1 ready\n  192.0.2.2"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_and_deletion_reach_the_slice() {
    let lab = Lab::start().await;
    lab.apply(
        "
apiVersion: v1
kind: Service
metadata: { name: web }
spec: { selector: { app: web }, ports: [ { name: http, port: 80, targetPort: 8080 } ] }
---
apiVersion: v1
kind: Pod
metadata: { name: web, labels: { app: web }, finalizers: [ test/hold ] }
spec: { containers: [ { name: web, image: v1 } ] }
",
    )
    .await;
    let state = |cluster: &Cluster| {
        let slices = cluster.slices.within("default");
        let slice = slices
            .iter()
            .find(|slice| slice.labels().get(SERVICE_NAME).is_some_and(|s| s == "web"))?;
        slice.endpoints.first()?.conditions.clone()
    };
    lab.until("ready", |cluster| state(cluster)?.ready?.then_some(()))
        .await;
    let pod = lab.cluster.pods.find(&Key::new("default", "web")).unwrap();
    lab.cluster.pods.delete(&pod).await.unwrap();
    let gone = lab.until("terminating", |cluster| {
        Some(state(cluster)?).filter(|one| one.terminating == Some(true))
    });
    let gone = gone.await;
    assert_eq!((gone.ready, gone.serving), (Some(false), Some(true)));
    let release = json!({ "metadata": { "finalizers": null } });
    lab.cluster
        .pods
        .patch(&Key::new("default", "web"), release)
        .await
        .unwrap();
    lab.until("empty", |cluster| {
        let slices = cluster.slices.within("default");
        let of_web = slices
            .iter()
            .filter(|slice| slice.labels().get(SERVICE_NAME).is_some_and(|s| s == "web"));
        of_web
            .map(|slice| slice.endpoints.len())
            .eq([0])
            .then_some(())
    })
    .await;
}
