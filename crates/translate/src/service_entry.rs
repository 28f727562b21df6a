//! ServiceEntry → one service a host, and a workload for each endpoint that it lists.

use crate::mesh::Mesh;
use crate::names::{labels, origin, visibility};
use crate::workload::{Described, entry_takes_mtls};
use crate::{Translated, protocol, service};
use lateen_api::fields::Port as WrittenPort;
use lateen_api::meta::{Config, Meta};
use lateen_api::notice::{Notice, Subject, any_error};
use lateen_api::service_entry::{Location as WrittenLocation, Resolution as Written, ServiceEntry};
use lateen_api::validate;
use lateen_api::workload_entry::WorkloadEntry;
use lateen_base::Str;
use lateen_model::name::ServiceKey;
use lateen_model::resource::Resource;
use lateen_model::service::{Address, Location, Port, Protocol, Resolution, Service};
use lateen_model::workload::{Health, ServicePorts, Workload};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What a ServiceEntry is translated from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The ServiceEntry.
    pub config: &'a Config<ServiceEntry>,
    /// The mesh.
    pub mesh: &'a Mesh,
}

/// Translates a ServiceEntry: its services, and its listed endpoints as workloads. Workloads that it selects by
/// labels are translated with [`crate::workload::pod`] and [`mod@crate::workload_entry`].
pub fn service_entry(inputs: Inputs<'_>) -> Translated {
    let Inputs { config, mesh } = inputs;
    let spec = &config.spec;
    let mut notices = validate::service_entry(config);
    if any_error(&notices) {
        return (Vec::new(), notices);
    }
    let subject = Subject::new("ServiceEntry", &config.meta);
    let ports = ports(&spec.ports, &subject, &mut notices);
    if spec.resolution == Some(Written::DynamicDns) {
        let message =
            "DYNAMIC_DNS works as NONE for now: connections go to their original destination";
        notices.push(Notice::warning(&subject, "spec.resolution", message));
    }
    if !spec.subject_alt_names.is_empty() {
        notices.push(Notice::warning(
            &subject,
            "spec.subjectAltNames",
            crate::NOT_YET,
        ));
    }
    let services = spec.hosts.iter().map(|host| {
        let key = key(&config.meta.namespace, host);
        Resource::Service(Service {
            name: key.hostname.clone(),
            key,
            origin: origin("ServiceEntry", &config.meta),
            addresses: spec.addresses.iter().filter_map(|a| address(a)).collect(),
            ports: ports.clone(),
            resolution: resolution(spec.resolution),
            location: match spec.location {
                Some(WrittenLocation::MeshInternal) => Location::Internal,
                _ => Location::External,
            },
            visibility: visibility(
                &spec.export_to,
                &mesh.config.default_service_export_to,
                &config.meta.namespace,
            ),
            aliases: Vec::new(),
            traffic_distribution: None,
        })
    });
    let mut resources = services.collect::<Vec<_>>();
    for (i, endpoint) in spec.endpoints.iter().enumerate() {
        let Some(place) = place(endpoint) else {
            let message = "sockets and networks cannot be reached yet, so this endpoint is left out: give an IP address or a name";
            let field = format!("spec.endpoints[{i}].address");
            notices.push(Notice::warning(&subject, field, message));
            continue;
        };
        let workload = endpoint_workload(config, i, endpoint, place);
        resources.push(Resource::Workload(workload));
    }
    (resources, notices)
}

/// The key of a service that a ServiceEntry in `namespace` declares for `host`.
pub(crate) fn key(namespace: &str, host: &str) -> ServiceKey {
    ServiceKey {
        namespace: namespace.into(),
        hostname: host.trim_end_matches('.').to_ascii_lowercase().into(),
    }
}

/// The services of `config` as a workload serves them on `listed` ports (by name), else on each port's target.
pub(crate) fn served(
    config: &Config<ServiceEntry>,
    listed: &BTreeMap<String, u32>,
    health: Health,
) -> BTreeMap<ServiceKey, ServicePorts> {
    let ports = config.spec.ports.iter().filter_map(|port| {
        let number = narrow(port.number)?;
        let name = port.name.as_deref().unwrap_or_default();
        let target = narrow(listed.get(name).copied())
            .or(narrow(port.target_port))
            .unwrap_or(number);
        Some((number, target))
    });
    let ports = ports.collect::<BTreeMap<_, _>>();
    config
        .spec
        .hosts
        .iter()
        .map(|host| {
            let ports = ports.clone();
            (
                key(&config.meta.namespace, host),
                ServicePorts { ports, health },
            )
        })
        .collect()
}

/// Where a WorkloadEntry is: addresses, or a name. Absent: a socket or a bare network.
pub(crate) fn place(entry: &WorkloadEntry) -> Option<(Vec<IpAddr>, Option<Str>)> {
    let text = entry.address.as_deref().unwrap_or_default();
    if text.is_empty() || text.starts_with("unix://") {
        return None;
    }
    Some(match text.parse::<IpAddr>() {
        Ok(ip) => (vec![ip], None),
        Err(_) => {
            let name = text.trim_end_matches('.').to_ascii_lowercase();
            (Vec::new(), Some(name.into()))
        }
    })
}

fn endpoint_workload(
    config: &Config<ServiceEntry>,
    index: usize,
    endpoint: &WorkloadEntry,
    (addresses, hostname): (Vec<IpAddr>, Option<Str>),
) -> Workload {
    let Meta {
        namespace, name, ..
    } = &config.meta;
    let described = Described::by(&labels(&endpoint.labels), name);
    Workload {
        uid: format!("ServiceEntry/{namespace}/{name}/{index}").into(),
        name: format!("{name}-{index}").into(),
        namespace: namespace.as_str().into(),
        addresses,
        hostname,
        labels: labels(&endpoint.labels),
        service_account: endpoint
            .service_account
            .as_deref()
            .unwrap_or_default()
            .into(),
        workload_name: described.workload_name,
        canonical_name: described.canonical_name,
        canonical_revision: described.canonical_revision,
        node: "".into(),
        locality: endpoint.locality.as_deref().unwrap_or_default().into(),
        weight: endpoint.weight.unwrap_or(1).max(1),
        has_sidecar: false,
        takes_mtls: entry_takes_mtls(
            &labels(&endpoint.labels),
            endpoint.service_account.as_deref(),
        ),
        trust_domain: "".into(),
        services: served(config, &endpoint.ports, Health::Ready),
    }
}

fn resolution(written: Option<Written>) -> Resolution {
    match written {
        None | Some(Written::None | Written::DynamicDns) => Resolution::None,
        Some(Written::Static) => Resolution::Static,
        Some(Written::Dns | Written::DnsRoundRobin) => Resolution::Dns,
    }
}

fn ports(written: &[WrittenPort], subject: &Subject, notices: &mut Vec<Notice>) -> Vec<Port> {
    let mut ports = Vec::new();
    for (i, port) in written.iter().enumerate() {
        let Some(number) = narrow(port.number) else {
            continue;
        };
        let declared = port.protocol.as_deref().unwrap_or_default();
        let protocol = protocol::named(declared).unwrap_or_else(|| {
            if !declared.is_empty() {
                let message = format!("{declared:?} is not a known protocol, so it is detected: use HTTP, HTTP2, GRPC, HTTPS, TLS or TCP");
                let field = format!("spec.ports[{i}].protocol");
                notices.push(Notice::warning(subject, field, message));
            }
            Protocol::Detect
        });
        ports.push(Port {
            number,
            name: port.name.as_deref().unwrap_or_default().into(),
            protocol,
            target: Some(narrow(port.target_port).unwrap_or(number)),
        });
    }
    ports
}

fn narrow(number: Option<u32>) -> Option<u16> {
    number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|number| *number > 0)
}

/// An address or a range; validation has refused what is neither.
fn address(text: &str) -> Option<Address> {
    let Some((ip, prefix)) = text.split_once('/') else {
        return text.parse().ok().map(service::single);
    };
    Some(Address {
        ip: ip.parse().ok()?,
        prefix: prefix.parse().ok()?,
    })
}

#[cfg(test)]
mod tests;
