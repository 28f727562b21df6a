//! The made-up cluster: which objects there are and what they say. Objects look as those of real clusters do, with the
//! parts that mean nothing to a mesh, so that reading them costs what it costs there.

use crate::api::{Api, Object};
use serde_json::{Value, json};

/// Services of one namespace.
const OF_NAMESPACE: usize = 50;
/// Pods of one node.
const OF_NODE: usize = 30;

/// Sizes of the cluster.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Services.
    pub services: usize,
    /// Pods of each service.
    pub endpoints: usize,
    /// VirtualServices, and as many DestinationRules.
    pub routes: usize,
}

/// The namespace of a service.
pub fn namespace(service: usize) -> String {
    format!("team-{}", service / OF_NAMESPACE)
}

/// The name of a service.
pub fn service_name(service: usize) -> String {
    format!("service-{service}")
}

/// Fills `api` with the whole cluster.
pub fn fill(api: &Api, sizes: Sizes) {
    let namespaces = sizes.services.div_ceil(OF_NAMESPACE);
    let names = (0..namespaces).map(|n| format!("team-{n}"));
    for name in names.chain(["istio-system".to_owned()]) {
        let labels = json!({ "istio-injection": "enabled", "kubernetes.io/metadata.name": &name });
        api.put(Object::new(
            "namespaces",
            "",
            &name,
            json!({ "metadata": { "labels": labels } }),
        ));
    }
    for node in 0..(sizes.services * sizes.endpoints).div_ceil(OF_NODE) {
        let labels = json!({
            "topology.kubernetes.io/region": "r1", "topology.kubernetes.io/zone": format!("z{}", node % 3),
        });
        let name = format!("node-{node}");
        api.put(Object::new(
            "nodes",
            "",
            &name,
            json!({ "metadata": { "labels": labels } }),
        ));
    }
    for at in 0..sizes.services {
        api.put(service(at, ""));
        api.put(slice(at, sizes.endpoints, &|_| true));
        for pod in 0..sizes.endpoints {
            api.put(self::pod(at, pod, sizes.endpoints, true));
        }
    }
    for at in 0..sizes.routes.min(sizes.services) {
        api.put(route(at, 1, ""));
        api.put(rule(at));
    }
}

/// A Service; `note` is an annotation that means nothing.
pub fn service(at: usize, note: &str) -> Object {
    let name = service_name(at);
    let spec = json!({
        "clusterIP": address(0x0b00_0000, at), "clusterIPs": [address(0x0b00_0000, at)], "type": "ClusterIP",
        "internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
        "ports": [
            { "name": "http", "port": 8080, "protocol": "TCP", "targetPort": 8080 },
            { "name": "grpc", "port": 9090, "protocol": "TCP", "targetPort": 9090 },
        ],
        "selector": { "app": &name }, "sessionAffinity": "None",
    });
    let metadata = json!({
        "labels": { "app": &name, "team": namespace(at) }, "annotations": annotations(note),
        "managedFields": managed(),
    });
    let object = json!({ "metadata": metadata, "spec": spec, "status": { "loadBalancer": {} } });
    Object::new("services", &namespace(at), &name, object)
}

/// The EndpointSlice of a service; `ready` says which of its pods are.
pub fn slice(at: usize, endpoints: usize, ready: &dyn Fn(usize) -> bool) -> Object {
    let name = service_name(at);
    let endpoint = |pod: usize| {
        json!({
            "addresses": [address(0x0a00_0000, at * endpoints + pod)],
            "conditions": { "ready": ready(pod), "serving": ready(pod), "terminating": false },
            "nodeName": format!("node-{}", (at * endpoints + pod) / OF_NODE),
            "zone": format!("z{}", ((at * endpoints + pod) / OF_NODE) % 3),
            "targetRef": { "kind": "Pod", "namespace": namespace(at), "name": pod_name(at, pod),
                "uid": format!("4b1c8c2e-0000-4000-8000-{:012x}", at * endpoints + pod) },
        })
    };
    let object = json!({
        "addressType": "IPv4",
        "metadata": {
            "labels": { "kubernetes.io/service-name": &name, "app": &name,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io" },
            "ownerReferences": [{ "apiVersion": "v1", "kind": "Service", "name": &name, "uid": "1", "controller": true }],
            "managedFields": managed(),
        },
        "endpoints": (0..endpoints).map(endpoint).collect::<Vec<_>>(),
        "ports": [
            { "name": "http", "port": 8080, "protocol": "TCP" },
            { "name": "grpc", "port": 9090, "protocol": "TCP" },
        ],
    });
    Object::new(
        "endpointslices",
        &namespace(at),
        &format!("{name}-x7k2p"),
        object,
    )
}

fn pod_name(service: usize, pod: usize) -> String {
    format!("service-{service}-6d4cf56db6-{pod:05}")
}

/// A pod of a service.
pub fn pod(at: usize, pod: usize, endpoints: usize, ready: bool) -> Object {
    let name = service_name(at);
    let ip = address(0x0a00_0000, at * endpoints + pod);
    let container = |name: &str, port: u16| {
        json!({
            "name": name, "image": format!("registry.example/{name}:1.27.4"), "imagePullPolicy": "IfNotPresent",
            "ports": [{ "name": "http", "containerPort": port, "protocol": "TCP" }],
            "env": [{ "name": "POD_NAME", "valueFrom": { "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.name" } } },
                { "name": "LEVEL", "value": "info" }],
            "resources": { "limits": { "cpu": "1", "memory": "512Mi" }, "requests": { "cpu": "100m", "memory": "128Mi" } },
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            "volumeMounts": [{ "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "name": "kube-api-access", "readOnly": true }],
        })
    };
    let condition = |kind: &str, status: bool| {
        let status = if status { "True" } else { "False" };
        json!({ "type": kind, "status": status, "lastProbeTime": null, "lastTransitionTime": "2026-01-01T00:00:00Z" })
    };
    let state = |name: &str| {
        json!({ "name": name, "ready": ready, "restartCount": 0, "started": true,
            "image": format!("registry.example/{name}:1.27.4"),
            "imageID": "registry.example/x@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "containerID": "containerd://0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "state": { "running": { "startedAt": "2026-01-01T00:00:00Z" } } })
    };
    let object = json!({
        "metadata": {
            "labels": { "app": &name, "version": format!("v{}", pod % 2 + 1), "pod-template-hash": "6d4cf56db6",
                "security.istio.io/tlsMode": "istio", "service.istio.io/canonical-name": &name,
                "service.istio.io/canonical-revision": "v1" },
            "annotations": { "sidecar.istio.io/status": "{\"initContainers\":[\"istio-init\"],\"containers\":[\"istio-proxy\"]}",
                "kubectl.kubernetes.io/default-container": &name },
            "generateName": format!("{name}-6d4cf56db6-"),
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{name}-6d4cf56db6"),
                "uid": "2", "controller": true, "blockOwnerDeletion": true }],
            "managedFields": managed(),
        },
        "spec": {
            "containers": [container(&name, 8080), container("istio-proxy", 15090)],
            "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
            "nodeName": format!("node-{}", (at * endpoints + pod) / OF_NODE), "serviceAccountName": &name,
            "tolerations": [{ "effect": "NoExecute", "key": "node.kubernetes.io/not-ready", "operator": "Exists", "tolerationSeconds": 300 }],
            "volumes": [{ "name": "kube-api-access", "projected": { "defaultMode": 420, "sources": [] } }],
        },
        "status": {
            "phase": "Running", "podIP": &ip, "podIPs": [{ "ip": &ip }], "hostIP": "172.16.0.1", "qosClass": "Burstable",
            "conditions": [condition("Initialized", true), condition("Ready", ready), condition("ContainersReady", ready), condition("PodScheduled", true)],
            "containerStatuses": [state(&name), state("istio-proxy")],
        },
    });
    Object::new("pods", &namespace(at), &pod_name(at, pod), object)
}

/// A VirtualService with a timeout of `seconds`; `note` is an annotation that means nothing.
pub fn route(at: usize, seconds: usize, note: &str) -> Object {
    let host = service_name(at);
    let to = |subset: &str, weight: u32| json!({ "destination": { "host": &host, "subset": subset, "port": { "number": 8080 } }, "weight": weight });
    let spec = json!({
        "hosts": [&host],
        "http": [
            { "name": "canary", "match": [{ "headers": { "x-canary": { "exact": "yes" } } }], "route": [to("v2", 100)] },
            { "name": "main", "timeout": format!("{seconds}s"), "retries": { "attempts": 2, "perTryTimeout": "2s" },
                "route": [to("v1", 90), to("v2", 10)] },
        ],
    });
    let metadata = json!({ "annotations": annotations(note), "managedFields": managed() });
    let object = json!({ "metadata": metadata, "spec": spec });
    Object::new("virtualservices", &namespace(at), &host, object)
}

fn rule(at: usize) -> Object {
    let host = service_name(at);
    let subset = |name: &str| json!({ "name": name, "labels": { "version": name } });
    let spec = json!({
        "host": &host, "subsets": [subset("v1"), subset("v2")],
        "trafficPolicy": {
            "connectionPool": { "tcp": { "maxConnections": 100 }, "http": { "http2MaxRequests": 1000 } },
            "outlierDetection": { "consecutive5xxErrors": 5, "interval": "10s", "baseEjectionTime": "30s" },
        },
    });
    let object = json!({ "metadata": { "managedFields": managed() }, "spec": spec });
    Object::new("destinationrules", &namespace(at), &host, object)
}

fn annotations(note: &str) -> Value {
    match note {
        "" => json!({}),
        note => json!({ "example.com/note": note }),
    }
}

/// What the API server says of who wrote what; nobody in the mesh reads it.
fn managed() -> Value {
    json!([{ "apiVersion": "v1", "fieldsType": "FieldsV1", "manager": "kube-controller-manager", "operation": "Update",
        "time": "2026-01-01T00:00:00Z",
        "fieldsV1": { "f:metadata": { "f:labels": { ".": {}, "f:app": {} } }, "f:spec": { "f:ports": {}, "f:selector": {} } } }])
}

fn address(base: u32, at: usize) -> String {
    let at = u32::try_from(at).unwrap_or_default();
    std::net::Ipv4Addr::from_bits(base + at + 1).to_string()
}
