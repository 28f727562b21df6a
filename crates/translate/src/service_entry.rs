//! ServiceEntry → one service a host, and a workload for each endpoint that it lists.

use crate::mesh::Mesh;
use crate::names::{labels, origin, visibility};
use crate::workload::{Described, entry_takes_mtls};
use crate::{Translated, protocol, service};
use lateen_api::meta::{Config, Meta};
use lateen_api::notice::{Notice, Severity, Subject, any_error};
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
    /// Addresses that were allocated to its hosts, as [`allocatable`] names them; empty: none yet.
    pub allocated: &'a Allocated,
    /// The mesh.
    pub mesh: &'a Mesh,
}

/// Addresses by host, as written in the ServiceEntry.
pub type Allocated = BTreeMap<String, Vec<IpAddr>>;

/// Label that forbids allocating addresses (Istio: `networking.istio.io/enable-autoallocate-ip`).
const AUTOALLOCATE: &str = "networking.istio.io/enable-autoallocate-ip";

/// Hosts of a ServiceEntry that get an address of their own: without addresses in it, not with resolution NONE, unless a
/// label forbids it; wildcards never do (Istio: automatic allocation of addresses).
pub fn allocatable(config: &Config<ServiceEntry>) -> impl Iterator<Item = &str> {
    let spec = &config.spec;
    let label = config.meta.labels.get(AUTOALLOCATE);
    let is_forbidden = label.is_some_and(|value| value.eq_ignore_ascii_case("false"));
    let is_none = matches!(spec.resolution, None | Some(Written::None));
    let wanted = !is_forbidden && !is_none && spec.addresses.is_empty();
    let hosts = spec.hosts.iter().filter(move |_| wanted);
    hosts
        .map(String::as_str)
        .filter(|host| !host.starts_with('*'))
}

/// Translates a ServiceEntry: its services, and its listed endpoints as workloads. Workloads that it selects by
/// labels are translated with [`crate::workload::pod`] and [`mod@crate::workload_entry`].
pub fn service_entry(inputs: Inputs<'_>) -> Translated {
    let Inputs {
        config,
        allocated,
        mesh,
    } = inputs;
    let spec = &config.spec;
    let mut notices = validate::service_entry(config);
    if any_error(&notices) {
        return (Vec::new(), notices);
    }
    let subject = Subject::new("ServiceEntry", &config.meta);
    let ports = ports(spec, &subject, &mut notices);
    about_addresses(config, &ports, &mut notices);
    let services = spec.hosts.iter().map(|host| {
        let key = key(&config.meta.namespace, host);
        Resource::Service(Service {
            name: key.hostname.clone(),
            key,
            origin: origin("ServiceEntry", &config.meta),
            addresses: spec.addresses.iter().filter_map(|a| address(a)).collect(),
            allocated: allocated.get(host).cloned().unwrap_or_default(),
            sans: spec
                .subject_alt_names
                .iter()
                .map(|n| Str::from(&**n))
                .collect(),
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
    if spec.resolution == Some(Written::DynamicDns) && !spec.endpoints.is_empty() {
        let message =
            "are not used: with DYNAMIC_DNS the name that each request asks for is resolved";
        notices.push(Notice::warning(&subject, "spec.endpoints", message));
        return (resources, notices);
    }
    for (i, endpoint) in spec.endpoints.iter().enumerate() {
        about_network(
            &subject,
            &format!("spec.endpoints[{i}].network"),
            endpoint,
            &mut notices,
        );
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
                ServicePorts {
                    ports,
                    health,
                    hostname: None,
                },
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
        None | Some(Written::None) => Resolution::None,
        Some(Written::Static) => Resolution::Static,
        Some(Written::Dns) => Resolution::Dns,
        Some(Written::DnsRoundRobin) => Resolution::DnsFirst,
        Some(Written::DynamicDns) => Resolution::DynamicDns,
    }
}

/// Istio's code for TCP ports that no address leads to.
const ADDRESSES_NEEDED: &str = "IST0134";

/// Says which TCP ports no client can reach by an address of the service. A port alone never takes connections: others
/// may listen on it.
fn about_addresses(config: &Config<ServiceEntry>, ports: &[Port], notices: &mut Vec<Notice>) {
    let has_bytes = ports.iter().any(|p| p.protocol == Protocol::Tcp);
    let spec = &config.spec;
    if !has_bytes || !spec.addresses.is_empty() {
        return;
    }
    let subject = Subject::new("ServiceEntry", &config.meta);
    let gets_one: Vec<&str> = allocatable(config).collect();
    if gets_one.len() == spec.hosts.len() {
        let message = "is empty: TCP ports are reached by allocated addresses (status.addresses), which clients learn from the proxy's DNS (proxyMetadata ISTIO_META_DNS_CAPTURE)";
        let notice = Notice::new(Severity::Info, &subject, "spec.addresses", message);
        notices.push(notice.code(ADDRESSES_NEEDED));
        return;
    }
    let message = "is empty, and none is allocated to wildcards, to resolution NONE, or against the label networking.istio.io/enable-autoallocate-ip: connections to TCP ports are treated as to unknown destinations, so give addresses";
    let notice = Notice::warning(&subject, "spec.addresses", message);
    notices.push(notice.code(ADDRESSES_NEEDED));
}

/// Says that there is one network only.
pub(crate) fn about_network(
    subject: &Subject,
    field: &str,
    entry: &WorkloadEntry,
    notices: &mut Vec<Notice>,
) {
    let network = entry.network.as_deref().unwrap_or_default();
    if !network.is_empty() && place(entry).is_some() {
        let message =
            "has no effect yet: the mesh is one network, and the address is called directly";
        notices.push(Notice::warning(subject, field, message));
    }
}

fn ports(spec: &ServiceEntry, subject: &Subject, notices: &mut Vec<Notice>) -> Vec<Port> {
    let is_dynamic = spec.resolution == Some(Written::DynamicDns);
    let mut ports = Vec::new();
    for (i, port) in spec.ports.iter().enumerate() {
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
        if is_dynamic && matches!(protocol, Protocol::Tcp | Protocol::Udp) {
            let message = "DYNAMIC_DNS is for HTTP and TLS, which name whom they ask for: the port is left out";
            let field = format!("spec.ports[{i}].protocol");
            notices.push(Notice::warning(subject, field, message));
            continue;
        }
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
