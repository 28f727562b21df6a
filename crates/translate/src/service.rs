//! Kubernetes Service → model service.

use crate::mesh::Mesh;
use crate::names::{service_host, visibility};
use crate::{Translated, protocol};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use lateen_api::notice::{Notice, Subject};
use lateen_model::name::{Origin, ServiceKey};
use lateen_model::resource::Resource;
use lateen_model::service::{Address, Location, Port, Resolution, Service, TrafficDistribution};
use lateen_model::workload::{Health, ServicePorts, Workload};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Annotation that limits who sees a Service (Istio: `networking.istio.io/exportTo`).
pub const EXPORT_TO: &str = "networking.istio.io/exportTo";

/// Annotation that prefers near endpoints (Istio: `networking.istio.io/traffic-distribution`).
pub const DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";

/// What a Service is translated from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The Service.
    pub service: &'a core::Service,
    /// The mesh.
    pub mesh: &'a Mesh,
}

/// Translates a Service. An `ExternalName` Service also gives a workload that is reached by that name.
pub fn service(inputs: Inputs<'_>) -> Translated {
    let Inputs { service, mesh } = inputs;
    let subject = subject("Service", &service.metadata);
    let mut notices = Vec::new();
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let key = key(&service.metadata, mesh);
    let spec = service.spec.clone().unwrap_or_default();
    let external = (spec.type_.as_deref() == Some("ExternalName"))
        .then(|| spec.external_name.clone().unwrap_or_default())
        .filter(|target| !target.is_empty());
    let ports = ports(&spec, &subject, &mut notices);
    let mut resources = Vec::new();
    if let Some(target) = &external {
        resources.push(Resource::Workload(external_workload(
            &key, name, target, &ports,
        )));
    }
    resources.push(Resource::Service(Service {
        name: name.into(),
        origin: origin("Service", &service.metadata),
        addresses: addresses(&spec),
        allocated: Vec::new(),
        sans: Vec::new(),
        ports,
        resolution: if external.is_some() {
            Resolution::Dns
        } else {
            Resolution::Static
        },
        location: if external.is_some() {
            Location::External
        } else {
            Location::Internal
        },
        visibility: export_to(service, mesh, namespace),
        aliases: vec![
            format!("{name}.{namespace}").into(),
            format!("{name}.{namespace}.svc").into(),
        ],
        traffic_distribution: distribution(service),
        key,
    }));
    (resources, notices)
}

/// The key of a Service.
pub fn key(meta: &ObjectMeta, mesh: &Mesh) -> ServiceKey {
    let name = meta.name.as_deref().unwrap_or_default();
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    ServiceKey {
        namespace: namespace.into(),
        hostname: service_host(name, namespace, &mesh.domain),
    }
}

/// The origin of a Kubernetes object.
pub fn origin(kind: &str, meta: &ObjectMeta) -> Origin {
    let created = meta.creation_timestamp.as_ref();
    Origin {
        kind: kind.into(),
        namespace: meta.namespace.as_deref().unwrap_or_default().into(),
        name: meta.name.as_deref().unwrap_or_default().into(),
        created: created
            .and_then(|time| u64::try_from(time.0.as_millisecond()).ok())
            .unwrap_or_default(),
    }
}

/// What notices call a Kubernetes object.
pub(crate) fn subject(kind: &str, meta: &ObjectMeta) -> Subject {
    Subject {
        kind: kind.into(),
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
    }
}

/// Preference for near endpoints: the annotation, which is older, goes before the field (Istio).
fn distribution(service: &core::Service) -> Option<TrafficDistribution> {
    let annotations = service.metadata.annotations.as_ref();
    let annotated = annotations.and_then(|all| all.get(DISTRIBUTION));
    let field = || service.spec.as_ref()?.traffic_distribution.as_ref();
    match annotated.or_else(field)?.as_str() {
        "PreferClose" | "PreferSameZone" => Some(TrafficDistribution::SameZone),
        "PreferSameNode" => Some(TrafficDistribution::SameNode),
        _ => None,
    }
}

fn export_to(
    service: &core::Service,
    mesh: &Mesh,
    namespace: &str,
) -> lateen_model::name::Visibility {
    let written = service
        .metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(EXPORT_TO))
        .map(|text| {
            text.split(',')
                .map(|entry| entry.trim().to_owned())
                .filter(|entry| !entry.is_empty())
                .collect::<Vec<_>>()
        })
        .unwrap_or_default();
    visibility(&written, &mesh.config.default_service_export_to, namespace)
}

/// ClusterIPs. Headless services (`None`) have none.
fn addresses(spec: &core::ServiceSpec) -> Vec<Address> {
    let listed = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    let mut addresses = Vec::<Address>::new();
    for ip in listed.filter_map(|text| text.parse::<IpAddr>().ok()) {
        let address = single(ip);
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

/// One address as a range of itself.
pub(crate) fn single(ip: IpAddr) -> Address {
    Address {
        ip,
        prefix: if ip.is_ipv4() { 32 } else { 128 },
    }
}

fn ports(spec: &core::ServiceSpec, subject: &Subject, notices: &mut Vec<Notice>) -> Vec<Port> {
    let mut ports = Vec::new();
    for (i, port) in spec.ports.iter().flatten().enumerate() {
        let transport = port.protocol.as_deref().unwrap_or("TCP");
        let number = u16::try_from(port.port).unwrap_or(0);
        if number == 0 || !matches!(transport, "TCP" | "UDP") {
            let message = format!(
                "port {} with protocol {transport} is left out of the mesh: only TCP and UDP ports from 1 to 65535 are known to it",
                port.port
            );
            notices.push(Notice::warning(
                subject,
                format!("spec.ports[{i}]"),
                message,
            ));
            continue;
        }
        let name = port.name.as_deref().unwrap_or_default();
        ports.push(Port {
            number,
            name: name.into(),
            protocol: protocol::of_service_port(
                number,
                name,
                port.app_protocol.as_deref(),
                transport,
            ),
            target: match &port.target_port {
                Some(IntOrString::Int(target)) => u16::try_from(*target)
                    .ok()
                    .filter(|t| *t > 0)
                    .or(Some(number)),
                Some(IntOrString::String(_)) => None,
                None => Some(number),
            },
        });
    }
    ports
}

/// What an `ExternalName` Service stands for: one endpoint known by name.
fn external_workload(key: &ServiceKey, name: &str, target: &str, ports: &[Port]) -> Workload {
    let ports = ports
        .iter()
        .map(|p| (p.number, p.target.unwrap_or(p.number)));
    Workload {
        uid: format!("Service/{}/{name}", key.namespace).into(),
        name: name.into(),
        namespace: key.namespace.clone(),
        addresses: Vec::new(),
        hostname: Some(target.trim_end_matches('.').to_ascii_lowercase().into()),
        labels: BTreeMap::new(),
        service_account: "".into(),
        workload_name: name.into(),
        canonical_name: name.into(),
        canonical_revision: "latest".into(),
        node: "".into(),
        locality: "".into(),
        weight: 1,
        has_sidecar: false,
        takes_mtls: false,
        trust_domain: "".into(),
        services: BTreeMap::from([(
            key.clone(),
            ServicePorts {
                ports: ports.collect(),
                health: Health::Ready,
                hostname: None,
            },
        )]),
    }
}

#[cfg(test)]
mod tests;
