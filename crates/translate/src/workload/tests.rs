//! Cases of `workload`: text in, observable result out.

use super::*;
use crate::pod::Words;
use expect_test::{Expect, expect};
use serde_json::{Value, json};
use std::fmt::Write;

const SERVICE: &str = "{metadata: {name: web, namespace: ns}, spec: {ports: [{name: http, port: 80, targetPort: http}, {name: x, port: 81}]}}";

fn read<T: serde::de::DeserializeOwned>(text: &str) -> T {
    let (value, _) = lateen_api::yaml::plain(text).expect("YAML");
    serde_json::from_value(value).expect("the type")
}

fn pod_of(text: &str) -> Pod {
    Pod::of(&read(text), &mut Words::default())
}

/// A slice of the Service with one endpoint `ns/p` in this state.
fn slice(conditions: Value) -> Slice {
    let slice = serde_json::from_value(json!({
        "addressType": "IPv4",
        "metadata": { "name": "web-1", "namespace": "ns" },
        "ports": [{ "name": "http", "port": 8080 }, { "name": "x", "port": 81 }, { "name": "gone" }],
        "endpoints": [
            { "addresses": ["10.244.0.8"], "conditions": { "ready": true },
              "targetRef": { "kind": "Pod", "name": "other", "namespace": "ns" } },
            { "addresses": ["10.244.0.9"], "conditions": conditions,
              "targetRef": { "kind": "Pod", "name": "p", "namespace": "ns" } },
        ],
    }));
    Slice::of(&slice.expect("a slice"), &mut Words::default())
}

/// Translates a pod `ns/p` (YAML), backed by the Service in these conditions.
fn check(pod: &str, conditions: Value, want: Expect) {
    let service = read(SERVICE);
    let slice = slice(conditions);
    let pod = pod_of(pod);
    let (resources, notices) = super::pod(Inputs {
        pod: &pod,
        backings: &[Backing {
            service: &service,
            slice: &slice,
        }],
        service_entries: &[],
        node_locality: None,
        mesh: &Mesh::default(),
    });
    assert_eq!(notices, []);
    let mut said = String::new();
    for resource in resources {
        let Resource::Workload(w) = resource else {
            panic!("not a workload");
        };
        writeln!(
            said,
            "{} {:?} sa {:?} workload {} canonical {}/{} node {:?} locality {:?} sidecar {}",
            w.uid,
            w.addresses,
            w.service_account,
            w.workload_name,
            w.canonical_name,
            w.canonical_revision,
            w.node,
            w.locality,
            w.has_sidecar
        )
        .expect("text");
        for (key, ports) in w.services {
            writeln!(said, "  {key} {:?} {:?}", ports.ports, ports.health).expect("text");
        }
    }
    want.assert_eq(&said);
}

const POD: &str = "
metadata:
  name: p
  namespace: ns
  labels: {app: web, version: v2, pod-template-hash: abc12, topology.istio.io/locality: r.z.s}
  annotations: {sidecar.istio.io/status: '{}'}
  ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-v2-abc12, uid: u, controller: true}]
spec: {serviceAccountName: sa, nodeName: lateen, containers: []}
status: {phase: Running, podIP: 10.244.0.9, podIPs: [{ip: 10.244.0.9}, {ip: 'fd00::9'}]}
";

#[test]
fn a_pod_of_a_deployment() {
    check(
        POD,
        json!({ "ready": true }),
        expect![[r#"
        Pod/ns/p [10.244.0.9, fd00::9] sa "sa" workload web-v2 canonical web/v2 node "lateen" locality "r/z/s" sidecar true
          ns/web.ns.svc.cluster.local {80: 8080, 81: 81} Ready
    "#]],
    );
}

#[test]
fn states_of_an_endpoint() {
    for (conditions, want) in [
        (
            json!({ "ready": true, "serving": true, "terminating": false }),
            Health::Ready,
        ),
        (json!({}), Health::Ready),
        (
            json!({ "ready": false, "serving": true, "terminating": true }),
            Health::Draining,
        ),
        (
            json!({ "ready": false, "serving": false, "terminating": true }),
            Health::Unready,
        ),
        (json!({ "ready": false, "serving": true }), Health::Unready),
        (json!({ "ready": false }), Health::Unready),
    ] {
        let text = conditions.to_string();
        let conditions = serde_json::from_value(conditions).expect("conditions");
        assert_eq!(health(Some(&conditions)), want, "{text}");
    }
    assert_eq!(health(None), Health::Ready);
}

#[test]
fn pods_that_are_no_workload() {
    let none = || expect![[r#""#]];
    check(
        "{metadata: {name: p, namespace: ns}, status: {phase: Pending}}",
        json!({}),
        none(),
    );
    check(
        "{metadata: {name: p, namespace: ns}, status: {phase: Succeeded, podIP: 10.244.0.9}}",
        json!({}),
        none(),
    );
}

#[test]
fn a_bare_pod() {
    check(
        "{metadata: {name: p, namespace: ns}, spec: {containers: [{name: istio-proxy}]}, status: {podIP: 10.244.0.9}}",
        json!({ "ready": false }),
        expect![[r#"
            Pod/ns/p [10.244.0.9] sa "" workload p canonical p/latest node "" locality "" sidecar true
              ns/web.ns.svc.cluster.local {80: 8080, 81: 81} Unready
        "#]],
    );
    check(
        "{metadata: {name: q, namespace: ns}, status: {podIP: 10.244.0.10}}",
        json!({ "ready": true }),
        expect![[r#"
            Pod/ns/q [10.244.0.10] sa "" workload q canonical q/latest node "" locality "" sidecar false
        "#]],
    );
}

#[test]
fn owners() {
    for (kind, name, want) in [
        ("ReplicaSet", "web-abc12", "web"),
        ("ReplicaSet", "web-other", "web-other"),
        ("Job", "pi", "pi"),
        ("Job", "cron-28000000", "cron"),
        ("Job", "step-2", "step-2"),
        ("StatefulSet", "db", "db"),
        ("Node", "lateen", "p"),
    ] {
        let meta: ObjectMeta = serde_json::from_value(json!({
            "name": "p", "labels": { "pod-template-hash": "abc12" },
            "ownerReferences": [{ "apiVersion": "v1", "kind": kind, "name": name, "uid": "u", "controller": true }],
        }))
        .expect("metadata");
        assert_eq!(owner_name(&meta), want, "{kind} {name}");
    }
}

#[test]
fn canonical_names_fall_back() {
    let check = |labels: &[(&str, &str)], want: (&str, &str, &str)| {
        let labels = labels
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect();
        let said = Described::by(&labels, "owner");
        let said = (
            &*said.workload_name,
            &*said.canonical_name,
            &*said.canonical_revision,
        );
        assert_eq!(said, want);
    };
    check(&[], ("owner", "owner", "latest"));
    check(&[("app", "a"), ("version", "v1")], ("owner", "a", "v1"));
    check(
        &[
            ("app", "a"),
            ("app.kubernetes.io/name", "b"),
            ("app.kubernetes.io/version", "v3"),
        ],
        ("owner", "b", "v3"),
    );
    check(
        &[
            ("app", "a"),
            ("service.istio.io/canonical-name", "c"),
            ("service.istio.io/canonical-revision", "r"),
            ("service.istio.io/workload-name", "w"),
        ],
        ("w", "c", "r"),
    );
}

#[test]
fn service_entries_select_pods() {
    let text = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: se, namespace: ns}\nspec: {hosts: [x.local], ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}], resolution: STATIC, workloadSelector: {labels: {app: web}}}\n";
    let document = lateen_api::yaml::parse("f", text).remove(0);
    let Some(lateen_api::object::Object::ServiceEntry(entry)) = document.object else {
        panic!("not a ServiceEntry");
    };
    let pod = pod_of(
        "{metadata: {name: p, namespace: ns, labels: {app: web}}, status: {podIP: 10.0.0.1, conditions: [{type: Ready, status: 'True'}]}}",
    );
    let (resources, _) = super::pod(Inputs {
        pod: &pod,
        backings: &[],
        service_entries: &[&entry],
        node_locality: None,
        mesh: &Mesh::default(),
    });
    let [Resource::Workload(w)] = &resources[..] else {
        panic!("{resources:?}");
    };
    let said = w
        .services
        .iter()
        .map(|(k, p)| format!("{k} {:?} {:?}", p.ports, p.health));
    assert_eq!(said.collect::<Vec<_>>(), ["ns/x.local {80: 8080} Ready"]);
}

#[test]
fn endpoints_without_a_pod() {
    let service =
        read("{metadata: {name: ext, namespace: ns}, spec: {ports: [{name: a, port: 80}]}}");
    let slice = read(
        "{addressType: IPv4, metadata: {name: ext-1, namespace: ns}, ports: [{name: a, port: 8080}], endpoints: [{addresses: [192.0.2.1], zone: z1}, {addresses: [10.244.0.9], targetRef: {kind: Pod, name: p}}]}",
    );
    let slice = Slice::of(&slice, &mut Words::default());
    let (resources, _) = crate::endpoint_slice::endpoint_slice(crate::endpoint_slice::Inputs {
        backing: Backing {
            service: &service,
            slice: &slice,
        },
        mesh: &Mesh::default(),
    });
    let [Resource::Workload(w)] = &resources[..] else {
        panic!("{resources:?}");
    };
    let said = format!(
        "{} {:?} {} {:?}",
        w.uid,
        w.addresses,
        w.locality,
        w.services.values().next()
    );
    expect!["EndpointSlice/ns/ext-1/0 [192.0.2.1] /z1 Some(ServicePorts { ports: {80: 8080}, health: Ready, hostname: None })"].assert_eq(&said);
}

#[test]
fn a_pod_is_where_its_node_is_unless_it_says_otherwise() {
    for (labels, node, want) in [
        ("{}", Some("r/z"), "r/z"),
        ("{}", None, ""),
        ("{topology.istio.io/locality: a.b.c}", Some("r/z"), "a/b/c"),
    ] {
        let pod = pod_of(&format!(
            "{{metadata: {{name: p, namespace: ns, labels: {labels}}}, status: {{podIP: 10.0.0.1}}}}"
        ));
        let (resources, _) = super::pod(Inputs {
            pod: &pod,
            backings: &[],
            service_entries: &[],
            node_locality: node.map(Into::into),
            mesh: &Mesh::default(),
        });
        let [Resource::Workload(w)] = &resources[..] else {
            panic!("{resources:?}");
        };
        assert_eq!(&*w.locality, want, "{labels} {node:?}");
    }
}
