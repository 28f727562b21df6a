//! The Node object of this one-machine cluster, and whether a pod may be placed on it.

use k8s_openapi::api::core::v1::{Node, PodSpec};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use super::super::fields::{self, NODE_NAME};
use crate::cluster_network::NODE_ADDRESS;

/// Kubernetes' names of processor architectures.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn labels() -> [(&'static str, &'static str); 3] {
    [
        ("kubernetes.io/hostname", NODE_NAME),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture()),
    ]
}

/// Creates the Node object, or takes over the one of an earlier run, and reports it ready.
pub(super) async fn register(client: &Client) -> Result<(), kube::Error> {
    let api: Api<Node> = Api::all(client.clone());
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": NODE_NAME, "labels": serde_json::Map::from_iter(
            labels().map(|(key, value)| (key.to_owned(), json!(value)))
        )},
        "spec": {"podCIDR": "10.244.0.0/16", "podCIDRs": ["10.244.0.0/16"], "providerID": "lateen://lateen"},
    }))
    .map_err(kube::Error::SerdeError)?;
    match api.create(&PostParams::default(), &node).await {
        Ok(_) => {}
        Err(kube::Error::Api(answer)) if answer.code == 409 => {}
        Err(error) => return Err(error),
    }
    let patch = Patch::Merge(json!({"status": status()}));
    api.patch_status(NODE_NAME, &PatchParams::default(), &patch)
        .await
        .map(drop)
}

fn status() -> serde_json::Value {
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let amount = |name: &str| format!("{:.0}", fields::capacity(name).unwrap_or_default());
    let memory = fields::capacity("memory").unwrap_or_default() / 1024.0;
    let capacity =
        json!({"cpu": amount("cpu"), "memory": format!("{memory:.0}Ki"), "pods": "1000"});
    let now = super::super::state::now_in_seconds().to_string();
    let condition = |kind: &str, holds: bool, reason: &str, message: &str| {
        json!({
            "type": kind, "status": if holds { "True" } else { "False" }, "reason": reason,
            "message": message, "lastHeartbeatTime": now, "lastTransitionTime": now,
        })
    };
    let name = |text: &str| {
        text.lines()
            .find_map(|l| l.strip_prefix("PRETTY_NAME="))
            .unwrap_or("Linux")
            .trim_matches('"')
            .to_owned()
    };
    json!({
        "capacity": capacity,
        "allocatable": capacity,
        "addresses": [
            {"type": "InternalIP", "address": NODE_ADDRESS.to_string()},
            {"type": "Hostname", "address": NODE_NAME},
        ],
        "conditions": [
            condition("MemoryPressure", false, "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            condition("DiskPressure", false, "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            condition("PIDPressure", false, "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            condition("Ready", true, "KubeletReady", "the sandbox's node is ready"),
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
        "nodeInfo": {
            "architecture": architecture(),
            "operatingSystem": "linux",
            "kernelVersion": read("/proc/sys/kernel/osrelease"),
            "osImage": name(&read("/etc/os-release")),
            "containerRuntimeVersion": concat!("lateen://", env!("CARGO_PKG_VERSION")),
            "kubeletVersion": concat!("v1.33.0-lateen-", env!("CARGO_PKG_VERSION")),
            "kubeProxyVersion": "",
            "machineID": "", "systemUUID": "", "bootID": read("/proc/sys/kernel/random/boot_id"),
        },
    })
}

/// Whether a pod's node selector allows this node.
///
/// # Errors
/// The sentence for the pod's condition.
pub(super) fn fits(spec: Option<&PodSpec>) -> Result<(), String> {
    let wanted = spec.and_then(|s| s.node_selector.as_ref());
    for (key, value) in wanted.into_iter().flatten() {
        if !labels().iter().any(|(k, v)| k == key && v == value) {
            return Err(format!(
                "1 node(s) didn't match Pod's node affinity/selector ({key}={value}); the sandbox has one node, named {NODE_NAME}"
            ));
        }
    }
    Ok(())
}
