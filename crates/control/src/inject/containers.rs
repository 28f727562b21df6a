//! The pieces that both templates build their containers from.

use super::{Facts, InjectError};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction,
    ObjectFieldSelector, Probe, ResourceRequirements, SecurityContext, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;
use std::collections::BTreeMap;

/// User and group of the proxy; their own traffic is not captured (Istio: 1337).
const PROXY_ID: i64 = 1337;

/// An environment variable with a fixed value.
pub(super) fn env(name: &str, value: impl Into<String>) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value.into()),
        ..EnvVar::default()
    }
}

/// An environment variable taken from a field of the pod.
fn field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: path.to_owned(),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

/// What a proxy learns about its pod and mesh through its environment.
pub(super) fn proxy_env(facts: &Facts<'_>) -> Vec<EnvVar> {
    let settings = facts.settings;
    let mut list = vec![
        env("PILOT_CERT_PROVIDER", "istiod"),
        env("CA_ADDR", settings.discovery()),
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("INSTANCE_IP", "status.podIP"),
        field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        field("HOST_IP", "status.hostIP"),
        env(
            "PROXY_CONFIG",
            super::proxy_config::text(&facts.proxy_config),
        ),
        env("ISTIO_META_POD_PORTS", pod_ports(facts)),
        env("ISTIO_META_APP_CONTAINERS", app_containers(facts)),
        env("ISTIO_META_CLUSTER_ID", &settings.cluster),
        field("ISTIO_META_NODE_NAME", "spec.nodeName"),
        env("ISTIO_META_WORKLOAD_NAME", &facts.owner.workload),
        env("ISTIO_META_OWNER", &facts.owner.uri),
        env("ISTIO_META_MESH_ID", &settings.mesh),
        env("TRUST_DOMAIN", &settings.trust_domain),
    ];
    if let Some(probes) = &facts.probes {
        list.push(env(super::probes::RECORD, probes));
    }
    // Istio: proxyMetadata are plain environment variables; they do not replace the ones above.
    for (name, value) in &facts.proxy_config.proxy_metadata {
        if !list.iter().any(|known| known.name == *name) {
            list.push(env(name, value));
        }
    }
    if let Some(original) = &facts.prometheus.original {
        list.push(env("ISTIO_PROMETHEUS_ANNOTATIONS", original));
    }
    list
}

/// The application's ports as JSON (Istio: `ISTIO_META_POD_PORTS`).
fn pod_ports(facts: &Facts<'_>) -> String {
    let ports: Vec<_> = applications(facts)
        .flat_map(|container| container.ports.iter().flatten())
        .map(|port| {
            let mut entry = serde_json::Map::new();
            if let Some(name) = &port.name {
                entry.insert("name".to_owned(), json!(name));
            }
            entry.insert("containerPort".to_owned(), json!(port.container_port));
            if let Some(protocol) = &port.protocol {
                entry.insert("protocol".to_owned(), json!(protocol));
            }
            serde_json::Value::Object(entry)
        })
        .collect();
    json!(ports).to_string()
}

/// Names of the application's containers, comma-separated.
fn app_containers(facts: &Facts<'_>) -> String {
    let names: Vec<&str> = applications(facts).map(|c| c.name.as_str()).collect();
    names.join(",")
}

fn applications<'a>(facts: &'a Facts<'_>) -> impl Iterator<Item = &'a Container> {
    let spec = facts.pod.spec.as_ref();
    let containers = spec.map(|spec| spec.containers.as_slice());
    let containers = containers.unwrap_or_default().iter();
    containers.filter(|container| container.name != super::PROXY)
}

/// The image to run: annotation `sidecar.istio.io/proxyImage` or the mesh's.
pub(super) fn image(facts: &Facts<'_>) -> Result<String, InjectError> {
    let key = "sidecar.istio.io/proxyImage";
    let Some(image) = facts.annotations.text(key) else {
        return Ok(facts.settings.image.clone());
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    if image.is_empty() || !image.chars().all(plain) {
        return Err(super::annotations::bad(
            key,
            image,
            "an image reference such as registry/name:tag",
        ));
    }
    Ok(image.to_owned())
}

/// The port that Prometheus scrapes on the proxy alone.
pub(super) fn ports() -> Vec<ContainerPort> {
    vec![ContainerPort {
        name: Some("http-envoy-prom".to_owned()),
        container_port: 15090,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }]
}

/// `GET /healthz/ready` on 15021.
fn ready() -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some("/healthz/ready".to_owned()),
            port: IntOrString::Int(15021),
            ..HTTPGetAction::default()
        }),
        timeout_seconds: Some(3),
        ..Probe::default()
    }
}

/// The startup probe: once a second, so that the application starts as soon as the proxy serves.
pub(super) fn startup_probe() -> Probe {
    Probe {
        period_seconds: Some(1),
        failure_threshold: Some(600),
        ..ready()
    }
}

/// The readiness probe, shaped by `readiness.status.sidecar.istio.io/…`; absent when the status port is 0.
pub(super) fn readiness_probe(facts: &Facts<'_>) -> Result<Option<Probe>, InjectError> {
    let annotations = &facts.annotations;
    if annotations.number("status.sidecar.istio.io/port", 15020)? == 0 {
        return Ok(None);
    }
    let of = |name: &str, default| {
        annotations.number(
            &format!("readiness.status.sidecar.istio.io/{name}"),
            default,
        )
    };
    Ok(Some(Probe {
        initial_delay_seconds: Some(of("initialDelaySeconds", 0)?),
        period_seconds: Some(of("periodSeconds", 15)?.max(1)),
        failure_threshold: Some(of("failureThreshold", 4)?.max(1)),
        ..ready()
    }))
}

/// The proxy's resources. As in Istio, one annotation replaces the defaults altogether.
pub(super) fn resources(facts: &Facts<'_>) -> Result<ResourceRequirements, InjectError> {
    let of = |name: &str| {
        facts
            .annotations
            .quantity(&format!("sidecar.istio.io/{name}"))
    };
    let asked = [
        of("proxyCPU")?,
        of("proxyMemory")?,
        of("proxyCPULimit")?,
        of("proxyMemoryLimit")?,
    ];
    let [cpu, memory, cpu_limit, memory_limit] = if asked.iter().any(Option::is_some) {
        asked
    } else {
        ["100m", "128Mi", "2000m", "1Gi"].map(|quantity| Some(quantity.to_owned()))
    };
    Ok(ResourceRequirements {
        requests: quantities(cpu, memory),
        limits: quantities(cpu_limit, memory_limit),
        ..ResourceRequirements::default()
    })
}

fn quantities(cpu: Option<String>, memory: Option<String>) -> Option<BTreeMap<String, Quantity>> {
    let map: BTreeMap<_, _> = [("cpu", cpu), ("memory", memory)]
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| (name.to_owned(), Quantity(value))))
        .collect();
    (!map.is_empty()).then_some(map)
}

/// The resources of the container that writes the capture rules: small and short-lived.
pub(super) fn init_resources() -> ResourceRequirements {
    let of = |cpu: &str, memory: &str| quantities(Some(cpu.to_owned()), Some(memory.to_owned()));
    ResourceRequirements {
        requests: of("10m", "40Mi"),
        limits: of("2000m", "1Gi"),
        ..ResourceRequirements::default()
    }
}

/// The proxy runs as its own user, without privileges, on a read-only root.
pub(super) fn proxy_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(capabilities(&[])),
        privileged: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_group: Some(PROXY_ID),
        run_as_non_root: Some(true),
        run_as_user: Some(PROXY_ID),
        ..SecurityContext::default()
    }
}

/// Writing capture rules needs root in the pod's network namespace and nothing else.
pub(super) fn init_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(capabilities(&["NET_ADMIN", "NET_RAW"])),
        privileged: Some(false),
        read_only_root_filesystem: Some(false),
        run_as_group: Some(0),
        run_as_non_root: Some(false),
        run_as_user: Some(0),
        ..SecurityContext::default()
    }
}

fn capabilities(add: &[&str]) -> Capabilities {
    Capabilities {
        add: (!add.is_empty()).then(|| add.iter().map(|&name| name.to_owned()).collect()),
        drop: Some(vec!["ALL".to_owned()]),
    }
}

/// A mount of a volume.
pub(super) fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        ..VolumeMount::default()
    }
}

/// Arguments of the proxy in the role `role`.
pub(super) fn proxy_args(facts: &Facts<'_>, role: &str) -> Vec<String> {
    let mut args = ["proxy", role, "--domain", &domain(facts)]
        .map(str::to_owned)
        .to_vec();
    if let Some(workers) = facts
        .proxy_config
        .concurrency
        .filter(|workers| *workers > 0)
    {
        args.extend(["--concurrency".to_owned(), workers.to_string()]);
    }
    args
}

/// The domain that a proxy's short names end in.
fn domain(facts: &Facts<'_>) -> String {
    format!("$(POD_NAMESPACE).svc.{}", facts.settings.domain)
}
