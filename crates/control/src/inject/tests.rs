//! Injection by example: pods in, what they become out.

use super::{Decision, InjectError, Input, Settings, Skip, inject};
use expect_test::{ExpectFile, expect_file};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn decide(
    pod: &Value,
    namespace: &str,
    namespace_labels: &[(&str, &str)],
) -> Result<Decision, InjectError> {
    inject(Input {
        pod,
        namespace,
        namespace_labels: &labels(namespace_labels),
        settings: &Settings::default(),
    })
}

/// The pod after injection into an enabled namespace. Injecting once more must change nothing.
fn injected(pod: &Value) -> Value {
    let apply = |pod: &Value| match decide(pod, "shop", &[("istio-injection", "enabled")]) {
        Ok(Decision::Patch(patch)) => {
            let mut out = pod.clone();
            json_patch::patch(&mut out, &patch).expect("the patch fits the pod");
            out
        }
        other => panic!("not injected: {other:?}"),
    };
    let once = apply(pod);
    assert_eq!(apply(&once), once, "injection is idempotent");
    once
}

fn pod(metadata: Value, spec: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec })
}

fn app() -> Value {
    json!({ "containers": [{ "name": "app", "image": "app" }] })
}

fn check(value: &Value, expect: &ExpectFile) {
    expect.assert_eq(&serde_json::to_string_pretty(value).expect("JSON"));
}

/// `init | containers` by name.
fn shape(pod: &Value) -> String {
    let names = |list: &Value| -> String {
        let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
        let names: Vec<&str> = items.iter().filter_map(|c| c["name"].as_str()).collect();
        names.join(" ")
    };
    let spec = &pod["spec"];
    format!(
        "{} | {}",
        names(&spec["initContainers"]),
        names(&spec["containers"])
    )
}

fn container<'v>(pod: &'v Value, name: &str) -> &'v Value {
    let spec = &pod["spec"];
    let lists = [&spec["initContainers"], &spec["containers"]];
    let mut all = lists.into_iter().filter_map(Value::as_array).flatten();
    all.find(|c| c["name"] == name)
        .expect("the container is there")
}

fn env<'v>(container: &'v Value, name: &str) -> &'v Value {
    let list = container["env"].as_array().expect("it has an environment");
    list.iter()
        .find(|e| e["name"] == name)
        .map_or(&Value::Null, |e| &e["value"])
}

#[test]
fn who_is_injected() {
    let plain = json!({});
    let label = |key: &str, value: &str| json!({ "labels": { key: value } });
    let says = |value: &str| label("sidecar.istio.io/inject", value);
    let note = json!({ "annotations": { "sidecar.istio.io/inject": "false" } });
    let on: &[(&str, &str)] = &[("istio-injection", "enabled")];
    let off: &[(&str, &str)] = &[("istio-injection", "disabled")];
    let other: &[(&str, &str)] = &[("istio.io/rev", "canary")];
    let both: &[(&str, &str)] = &[("istio-injection", "enabled"), ("istio.io/rev", "canary")];
    for (what, meta, namespace, want) in [
        (
            "silent namespace",
            plain.clone(),
            &[][..],
            Some(Skip::NotAsked),
        ),
        ("enabled namespace", plain.clone(), on, None),
        (
            "disabled namespace",
            plain.clone(),
            off,
            Some(Skip::NamespaceSaysNo),
        ),
        (
            "a pod cannot overrule a disabled namespace",
            says("true"),
            off,
            Some(Skip::NamespaceSaysNo),
        ),
        ("a pod opts out", says("false"), on, Some(Skip::PodSaysNo)),
        (
            "a Job opts out by annotation",
            note,
            on,
            Some(Skip::PodSaysNo),
        ),
        ("a pod opts in", says("true"), &[], None),
        (
            "our revision",
            plain.clone(),
            &[("istio.io/rev", "default")],
            None,
        ),
        (
            "another revision",
            plain.clone(),
            other,
            Some(Skip::OtherRevision),
        ),
        ("the injection label beats the revision", plain, both, None),
        (
            "a pod chooses our revision",
            label("istio.io/rev", "default"),
            &[],
            None,
        ),
        (
            "a pod chooses another",
            label("istio.io/rev", "canary"),
            &[],
            Some(Skip::OtherRevision),
        ),
    ] {
        let got = match decide(&pod(meta, app()), "shop", namespace).expect("valid") {
            Decision::Skip(skip) => Some(skip),
            Decision::Patch(_) => None,
        };
        assert_eq!(got, want, "{what}");
    }
    let mut host = app();
    host["hostNetwork"] = json!(true);
    let host = decide(&pod(json!({}), host), "shop", on);
    assert_eq!(host, Ok(Decision::Skip(Skip::HostNetwork)));
    let system = decide(&pod(json!({}), app()), "kube-system", on);
    assert_eq!(system, Ok(Decision::Skip(Skip::SystemNamespace)));
}

#[test]
fn the_whole_sidecar() {
    let pod = pod(
        json!({
            "generateName": "reviews-v1-5b5d6494f4-",
            "labels": { "app": "reviews", "version": "v1", "pod-template-hash": "5b5d6494f4" },
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "reviews-v1-5b5d6494f4",
                "uid": "1", "controller": true,
            }],
            "creationTimestamp": null,
        }),
        json!({
            "initContainers": [{ "name": "migrate", "image": "migrate", "fieldOfTheFuture": 1 }],
            "containers": [{
                "name": "reviews", "image": "bookinfo/reviews",
                "ports": [{ "containerPort": 9080, "protocol": "TCP" }],
            }],
        }),
    );
    check(&injected(&pod), &expect_file!["../../golden/sidecar.json"]);
}

#[test]
fn the_whole_gateway() {
    let pod = pod(
        json!({
            "name": "gw",
            "labels": { "istio": "ingressgateway", "app": "istio-ingressgateway" },
            "annotations": { "inject.istio.io/templates": "gateway" },
        }),
        json!({ "containers": [{
            "name": "istio-proxy", "image": "auto",
            "ports": [{ "containerPort": 8080 }],
            "env": [{ "name": "ISTIO_META_UNPRIVILEGED_POD", "value": "true" }],
            "resources": { "limits": { "memory": "256Mi" } },
        }] }),
    );
    let out = injected(&pod);
    assert_eq!(shape(&out), " | istio-proxy");
    let proxy = container(&out, "istio-proxy");
    check(
        &json!({
            "image": proxy["image"], "args": proxy["args"], "ports": proxy["ports"],
            "limits": proxy["resources"]["limits"], "own": env(proxy, "ISTIO_META_UNPRIVILEGED_POD"),
            "metadata": out["metadata"],
        }),
        &expect_file!["../../golden/gateway.json"],
    );
}

#[test]
fn order_of_containers() {
    let with = |annotation: Option<(&str, &str)>, spec: Value| {
        let annotations: serde_json::Map<_, _> = annotation
            .iter()
            .map(|(key, value)| ((*key).to_owned(), json!(value)))
            .collect();
        shape(&injected(&pod(json!({ "annotations": annotations }), spec)))
    };
    let job = json!({
        "restartPolicy": "Never",
        "initContainers": [{ "name": "fetch", "image": "curl" }],
        "containers": [{ "name": "app", "image": "app" }],
    });
    assert_eq!(
        with(None, job.clone()),
        "istio-init istio-proxy fetch | app"
    );
    let plain = Some(("sidecar.istio.io/nativeSidecar", "false"));
    assert_eq!(
        with(plain, job.clone()),
        "istio-init fetch | app istio-proxy"
    );
    let cni = Some(("sidecar.istio.io/interceptionMode", "NONE"));
    assert_eq!(with(cni, job), "istio-proxy fetch | app");
    let own = json!({ "containers": [
        { "name": "istio-proxy", "image": "auto" }, { "name": "app", "image": "app" },
    ] });
    assert_eq!(with(None, own.clone()), "istio-init istio-proxy | app");
    assert_eq!(with(plain, own), "istio-init | istio-proxy app");
}

#[test]
fn the_users_own_proxy_container_wins() {
    let out = injected(&pod(
        json!({}),
        json!({ "containers": [
            { "name": "app", "image": "app" },
            {
                "name": "istio-proxy", "image": "my/proxy:1",
                "env": [{ "name": "TRUST_DOMAIN", "value": "corp" }, { "name": "MINE", "value": "1" }],
                "lifecycle": { "preStop": { "exec": { "command": ["sleep", "5"] } } },
                "securityContext": { "runAsUser": 2000 },
            },
        ] }),
    ));
    let proxy = container(&out, "istio-proxy");
    assert_eq!(proxy["image"], "my/proxy:1");
    assert_eq!(
        (env(proxy, "TRUST_DOMAIN"), env(proxy, "MINE")),
        (&json!("corp"), &json!("1"))
    );
    assert_eq!(env(proxy, "ISTIO_META_CLUSTER_ID"), "Kubernetes");
    assert_eq!(proxy["securityContext"]["runAsUser"], 2000);
    assert_eq!(proxy["securityContext"]["runAsGroup"], 1337);
    assert_eq!(proxy["lifecycle"]["preStop"]["exec"]["command"][0], "sleep");
}

#[test]
fn annotations_shape_the_containers() {
    let out = injected(&pod(
        json!({ "annotations": {
            "traffic.sidecar.istio.io/excludeOutboundPorts": "3306, 5432",
            "traffic.sidecar.istio.io/includeOutboundIPRanges": "10.0.0.0/8",
            "traffic.sidecar.istio.io/includeInboundPorts": "*",
            "traffic.sidecar.istio.io/excludeInboundPorts": "",
            "readiness.status.sidecar.istio.io/periodSeconds": "2",
            "sidecar.istio.io/proxyMemory": "64Mi",
            "sidecar.istio.io/proxyImage": "corp.example:5000/proxy:2@sha256:ab",
        } }),
        app(),
    ));
    let (init, proxy) = (
        container(&out, "istio-init"),
        container(&out, "istio-proxy"),
    );
    assert_eq!(
        init["args"],
        json!([
            "capture",
            "--include-outbound-cidrs=10.0.0.0/8",
            "--include-inbound-ports=*",
            "--exclude-inbound-ports=",
            "--exclude-outbound-ports=3306,5432",
        ])
    );
    assert_eq!(proxy["readinessProbe"]["periodSeconds"], 2);
    assert_eq!(proxy["readinessProbe"]["failureThreshold"], 4);
    assert_eq!(
        proxy["resources"],
        json!({ "requests": { "memory": "64Mi" } })
    );
    assert_eq!(init["image"], "corp.example:5000/proxy:2@sha256:ab");
}

#[test]
fn proxy_config_reaches_the_proxy() {
    let out = injected(&pod(
        json!({ "annotations": { "proxy.istio.io/config":
            "concurrency: 3\nproxyMetadata:\n  MINE: \"1\"\n  POD_NAME: other\ndiscoveryAddress: canary:15012\n" } }),
        app(),
    ));
    let proxy = container(&out, "istio-proxy");
    assert_eq!(proxy["args"][4], "--concurrency");
    assert_eq!(proxy["args"][5], "3");
    assert_eq!(env(proxy, "MINE"), "1");
    assert_eq!(
        env(proxy, "POD_NAME"),
        &Value::Null,
        "the pod's own name stays"
    );
    assert_eq!(
        env(proxy, "PROXY_CONFIG"),
        r#"{"concurrency":3,"discoveryAddress":"canary:15012","proxyMetadata":{"MINE":"1","POD_NAME":"other"}}"#
    );
}

#[test]
fn dns_is_captured_where_it_is_asked_for() {
    let config = "proxyMetadata:\n  ISTIO_META_DNS_CAPTURE: \"true\"\n";
    let annotations = json!({ "proxy.istio.io/config": config });
    let out = injected(&pod(json!({ "annotations": annotations }), app()));
    let init = container(&out, "istio-init");
    assert_eq!(init["args"], json!(["capture", "--redirect-dns"]));
    let proxy = container(&out, "istio-proxy");
    assert_eq!(env(proxy, "ISTIO_META_DNS_CAPTURE"), "true");
    let out = injected(&pod(json!({}), app()));
    assert_eq!(container(&out, "istio-init")["args"], json!(["capture"]));
}

#[test]
fn bad_annotations_are_refused_by_name() {
    let refusal = |key: &str, value: &str| {
        let pod = pod(json!({ "annotations": { key: value } }), app());
        let error = decide(&pod, "shop", &[("istio-injection", "enabled")]);
        error.expect_err("refused").to_string()
    };
    for (key, value, want) in [
        (
            "traffic.sidecar.istio.io/excludeOutboundPorts",
            "80,70000",
            "annotation traffic.sidecar.istio.io/excludeOutboundPorts: \"80,70000\" is not a comma-separated \
             list of ports from 0 to 65535, or *; correct or remove it",
        ),
        (
            "inject.istio.io/templates",
            "mine",
            "annotation inject.istio.io/templates names \"mine\"; templates are built in: use sidecar or gateway, \
             with or without spire, as in sidecar,spire",
        ),
    ] {
        assert_eq!(refusal(key, value), want);
    }
    for (key, value) in [
        (
            "traffic.sidecar.istio.io/includeOutboundIPRanges",
            "10.0.0.0/33",
        ),
        ("traffic.sidecar.istio.io/excludeInterfaces", "eth0"),
        ("proxy.istio.io/config", "concurrency: many"),
        ("proxy.istio.io/config", "just text"),
        ("proxy.istio.io/config", "proxyMetadata: {a-b: x}"),
        ("sidecar.istio.io/proxyCPU", "lots"),
        ("sidecar.istio.io/proxyImage", "a b\nc"),
        ("sidecar.istio.io/nativeSidecar", "maybe"),
        ("readiness.status.sidecar.istio.io/periodSeconds", "-1"),
    ] {
        assert!(refusal(key, value).contains(key), "{key}={value}");
    }
}

#[test]
fn prometheus_goes_through_the_proxy() {
    let with = |annotations: Value| {
        let out = injected(&pod(json!({ "annotations": annotations }), app()));
        let own = env(
            container(&out, "istio-proxy"),
            "ISTIO_PROMETHEUS_ANNOTATIONS",
        )
        .clone();
        let port = out["metadata"]["annotations"]["prometheus.io/port"].clone();
        (own, port)
    };
    let own = json!({ "prometheus.io/scrape": "true", "prometheus.io/port": "9080" });
    assert_eq!(
        with(own),
        (json!(r#"{"port":"9080","scrape":"true"}"#), json!("15020"))
    );
    assert_eq!(with(json!({})), (Value::Null, json!("15020")));
    assert_eq!(
        with(json!({ "prometheus.io/scrape": "false" })),
        (Value::Null, Value::Null)
    );
    let off = json!({ "prometheus.istio.io/merge-metrics": "false", "prometheus.io/port": "1" });
    assert_eq!(with(off), (Value::Null, json!("1")));
}

#[test]
fn names_of_workloads() {
    let of = |kind: &str, name: &str, labels: Value| {
        let meta = json!({ "name": "p", "labels": labels, "ownerReferences": [{
            "apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "1", "controller": true,
        }] });
        let out = injected(&pod(meta, app()));
        let proxy = container(&out, "istio-proxy");
        let labels = &out["metadata"]["labels"];
        format!(
            "{} {} {}",
            env(proxy, "ISTIO_META_OWNER").as_str().expect("text"),
            labels["service.istio.io/canonical-name"]
                .as_str()
                .expect("text"),
            labels["service.istio.io/canonical-revision"]
                .as_str()
                .expect("text"),
        )
    };
    let hash = json!({ "pod-template-hash": "abc" });
    for (kind, name, labels, want) in [
        (
            "ReplicaSet",
            "web-abc",
            hash,
            "kubernetes://apis/apps/v1/namespaces/shop/deployments/web web latest",
        ),
        (
            "Job",
            "report-28234567",
            json!({}),
            "kubernetes://apis/batch/v1/namespaces/shop/cronjobs/report report latest",
        ),
        (
            "StatefulSet",
            "db",
            json!({ "app.kubernetes.io/name": "store", "app.kubernetes.io/version": "2" }),
            "kubernetes://apis/apps/v1/namespaces/shop/statefulsets/db store 2",
        ),
    ] {
        assert_eq!(of(kind, name, labels), want);
    }
    let long = format!("{}--tail", "x".repeat(62));
    let out = of("StatefulSet", "db", json!({ "app": long }));
    assert!(
        out.contains(&format!(" {} ", "x".repeat(62))),
        "cut names end well: {out}"
    );
}

#[test]
fn probes_over_the_network_go_through_the_proxy() {
    let spec = json!({ "containers": [{
        "name": "app", "image": "app",
        "ports": [{ "name": "web", "containerPort": 8080 }],
        "readinessProbe": { "httpGet": { "path": "/ok", "port": "web", "scheme": "HTTPS",
            "httpHeaders": [{ "name": "x", "value": "1" }] }, "timeoutSeconds": 3, "periodSeconds": 2 },
        "livenessProbe": { "tcpSocket": { "port": 3306 } },
        "startupProbe": { "exec": { "command": ["true"] } },
        "lifecycle": { "preStop": { "httpGet": { "path": "/bye", "port": 8080 } } },
    }, {
        "name": "side", "image": "side",
        "readinessProbe": { "grpc": { "port": 9000, "service": "s" } },
    }] });
    let out = injected(&pod(json!({}), spec.clone()));
    let app = container(&out, "app");
    assert_eq!(
        app["readinessProbe"],
        json!({ "httpGet": { "path": "/app-health/app/readyz", "port": 15020, "scheme": "HTTP" },
            "timeoutSeconds": 3, "periodSeconds": 2 })
    );
    assert_eq!(
        app["livenessProbe"]["httpGet"]["path"],
        "/app-health/app/livez"
    );
    assert_eq!(app["startupProbe"], spec["containers"][0]["startupProbe"]);
    let hook = &app["lifecycle"]["preStop"]["httpGet"]["path"];
    assert_eq!(hook, "/app-lifecycle/app/prestopz");
    let record = env(container(&out, "istio-proxy"), "ISTIO_KUBE_APP_PROBERS");
    let record: Value = serde_json::from_str(record.as_str().expect("text")).expect("JSON");
    assert_eq!(
        record,
        json!({
            "/app-health/app/readyz": { "httpGet": { "path": "/ok", "port": 8080, "scheme": "HTTPS",
                "httpHeaders": [{ "name": "x", "value": "1" }] }, "timeoutSeconds": 3 },
            "/app-health/app/livez": { "tcpSocket": { "port": 3306 } },
            "/app-lifecycle/app/prestopz": { "httpGet": { "path": "/bye", "port": 8080 } },
            "/app-health/side/readyz": { "grpc": { "port": 9000, "service": "s" } },
        })
    );
    let off = json!({ "annotations": { "sidecar.istio.io/rewriteAppHTTPProbers": "false" } });
    let out = injected(&pod(off, spec.clone()));
    assert_eq!(container(&out, "app"), &spec["containers"][0]);
}

#[test]
fn spires_socket_is_mounted_where_it_is_asked_for() {
    let mounted = |metadata: Value, spec: Value| {
        let out = injected(&pod(metadata, spec));
        let mounts = &container(&out, "istio-proxy")["volumeMounts"];
        let mount = mounts.as_array().expect("mounts").iter();
        let mount = mount.filter(|m| m["name"] == "workload-socket").count();
        let volumes = out["spec"]["volumes"].as_array().expect("volumes").iter();
        let of = volumes.filter(|v| v["name"] == "workload-socket");
        (mount, of.map(|v| v["csi"]["driver"].clone()).collect())
    };
    let none: (usize, Vec<Value>) = (0, vec![]);
    assert_eq!(mounted(json!({}), app()), none);
    let template = json!({ "annotations": { "inject.istio.io/templates": "sidecar,spire" } });
    assert_eq!(mounted(template, app()), (1, vec![json!("csi.spiffe.io")]));
    let mut own = app();
    own["volumes"] = json!([{ "name": "workload-socket", "hostPath": { "path": "/run/spire" } }]);
    assert_eq!(mounted(json!({}), own), (1, vec![Value::Null]));
}
