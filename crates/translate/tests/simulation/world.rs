//! The cluster that every case lives in: Kubernetes Services, pods and secrets, from short lines.

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use lateen_api::yaml;
use lateen_model::mesh::{Role, Scope};
use lateen_model::name::Origin;
use lateen_model::resource::Resource;
use lateen_model::security::{Credential, Secret};
use lateen_translate::pod::Words;
use lateen_translate::slice::Slice;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

/// What every case finds.
pub struct World {
    pub services: Vec<Service>,
    pub pods: Vec<Pod>,
    pub credentials: Vec<Credential>,
    /// What Services and pods mean where a case adds nothing to them.
    pub base: OnceLock<Vec<Resource>>,
}

impl World {
    pub fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file).expect("world.yaml");
        let (value, _) = yaml::plain(&text).expect("YAML");
        let lines = |key: &str| -> Vec<String> {
            let list = value[key].as_array().into_iter().flatten();
            list.map(|line| line.as_str().expect("a line").to_owned())
                .collect()
        };
        Self {
            services: lines("services").iter().map(|line| service(line)).collect(),
            pods: lines("pods").iter().map(|line| pod(line)).collect(),
            credentials: lines("secrets")
                .iter()
                .map(|line| credential(line))
                .collect(),
            base: OnceLock::new(),
        }
    }
}

/// `namespace/name IP|None name:port[>target]… label=value…`.
fn service(line: &str) -> Service {
    let words: Vec<_> = line.split_whitespace().collect();
    let (namespace, name) = words[0].split_once('/').expect("namespace/name");
    let mut ports = Vec::new();
    let mut selector = serde_json::Map::new();
    for word in &words[2..] {
        if let Some((key, value)) = word.split_once('=') {
            selector.insert(key.to_owned(), value.into());
            continue;
        }
        let (name, port) = word.split_once(':').expect("name:port");
        let (port, target) = port.split_once('>').unwrap_or((port, port));
        let number = |text: &str| text.parse::<u16>().expect("port");
        ports.push(json!({"name": name, "port": number(port), "targetPort": number(target)}));
    }
    let value = json!({
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterIP": words[1], "ports": ports, "selector": selector},
    });
    serde_json::from_value(value).expect("a Service")
}

/// `namespace/name IP [label=value|region/zone|plain|unready]…`; `plain` has no sidecar.
pub fn pod(line: &str) -> Pod {
    let words: Vec<_> = line.split_whitespace().collect();
    let (namespace, name) = words[0].split_once('/').expect("namespace/name");
    let mut labels = serde_json::Map::new();
    let (mut sidecar, mut ready) = (true, "True");
    for word in &words[2..] {
        if let Some((key, value)) = word.split_once('=') {
            labels.insert(key.to_owned(), value.into());
        } else if word.contains('/') {
            let locality = word.replace('/', ".");
            labels.insert("topology.istio.io/locality".to_owned(), locality.into());
        } else {
            match *word {
                "plain" => sidecar = false,
                "unready" => ready = "False",
                other => panic!("{line}: {other}?"),
            }
        }
    }
    let mut annotations = json!({});
    if sidecar {
        labels.insert("security.istio.io/tlsMode".to_owned(), "istio".into());
        annotations["sidecar.istio.io/status"] = "{}".into();
    }
    let account = labels
        .get("app")
        .and_then(Value::as_str)
        .unwrap_or(name)
        .to_owned();
    let value = json!({
        "metadata": {"name": name, "namespace": namespace, "labels": labels, "annotations": annotations},
        "spec": {"containers": [], "serviceAccountName": account},
        "status": {"podIP": words[1], "conditions": [{"type": "Ready", "status": ready}]},
    });
    serde_json::from_value(value).expect("a Pod")
}

/// `namespace/name`: a secret that its namespace's gateways may read.
fn credential(line: &str) -> Credential {
    let (namespace, name) = line.split_once('/').expect("namespace/name");
    Credential {
        origin: Origin {
            kind: "Secret".into(),
            namespace: namespace.into(),
            name: name.into(),
            created: 0,
        },
        chain: "chain".into(),
        key: Secret::new("key"),
        ca: "ca".into(),
        crl: "".into(),
        readers: vec![
            "istio-ingressgateway".into(),
            "istio-egressgateway".into(),
            "sleep".into(),
        ],
    }
}

/// The slice that Kubernetes' controllers would write for a Service, as it is kept.
pub fn slice(service: &Service, pods: &[Pod]) -> Slice {
    let spec = service.spec.clone().unwrap_or_default();
    let selector = spec.selector.unwrap_or_default();
    let selects = |pod: &&Pod| {
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let all = selector
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value));
        pod.metadata.namespace == service.metadata.namespace && !selector.is_empty() && all
    };
    let endpoints = pods.iter().filter(selects).map(|pod| {
        let value = serde_json::to_value(pod).expect("JSON");
        let ready = value["status"]["conditions"][0]["status"] == "True";
        json!({
            "addresses": [value["status"]["podIP"]],
            "conditions": {"ready": ready},
            "targetRef": {"kind": "Pod", "name": value["metadata"]["name"], "namespace": value["metadata"]["namespace"]},
        })
    });
    let ports = spec.ports.unwrap_or_default().into_iter().map(|port| {
        let port = serde_json::to_value(port).expect("JSON");
        let target = if port["targetPort"].is_null() {
            &port["port"]
        } else {
            &port["targetPort"]
        };
        json!({"name": port["name"], "port": target})
    });
    let value = json!({
        "metadata": {"name": service.metadata.name, "namespace": service.metadata.namespace},
        "addressType": "IPv4",
        "endpoints": endpoints.collect::<Vec<_>>(),
        "ports": ports.collect::<Vec<_>>(),
    });
    let slice: EndpointSlice = serde_json::from_value(value).expect("an EndpointSlice");
    Slice::of(&slice, &mut Words::default())
}

/// What the proxy of a pod knows of itself; gateways are pods with the label `istio`.
pub fn scope(pod: &Pod) -> Scope {
    let value = serde_json::to_value(pod).expect("JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    let name = text(&value["metadata"]["name"]);
    Scope {
        on_demand: false,
        role: if labels.contains_key("istio") {
            Role::Gateway
        } else {
            Role::Sidecar
        },
        pod: name.as_str().into(),
        namespace: text(&value["metadata"]["namespace"]).into(),
        labels: labels
            .iter()
            .map(|(k, v)| (k.as_str().into(), v.as_str().into()))
            .collect(),
        addresses: vec![text(&value["status"]["podIP"]).parse().expect("an address")],
        service_account: text(&value["spec"]["serviceAccountName"]).into(),
        workload_name: name.as_str().into(),
        canonical_name: name.into(),
        canonical_revision: "latest".into(),
        cluster: "Kubernetes".into(),
        domain: "cluster.local".into(),
    }
}
