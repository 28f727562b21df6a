//! The services that one proxy may see, found by host, by virtual address and by endpoint address.

use super::host::HostTable;
use super::resources::ResourceSet;
use super::routes::MESH;
use crate::matching::{host_covers, labels_match};
use crate::mesh::{EgressHost, Scope, SidecarScope};
use crate::name::ServiceKey;
use crate::route::{HttpAction, RouteTable};
use crate::service::{Port, Protocol, Service};
use crate::workload::Workload;
use lateen_base::Str;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

/// A service as one proxy sees it.
#[derive(Debug, Clone)]
pub(super) struct Visible {
    pub service: Arc<Service>,
    /// Ports that the proxy's Sidecar object imports; absent: all.
    pub only_ports: Option<Vec<u16>>,
}

impl Visible {
    /// The port with this number, when the proxy may use it. UDP is never captured, so never found.
    pub fn port(&self, number: u16) -> Option<&Port> {
        self.ports().find(|port| port.number == number)
    }

    /// Every port that the proxy may use.
    pub fn ports(&self) -> impl Iterator<Item = &Port> {
        self.service.ports.iter().filter(|port| {
            port.protocol != Protocol::Udp
                && self
                    .only_ports
                    .as_ref()
                    .is_none_or(|only| only.contains(&port.number))
        })
    }

    /// Kubernetes service without virtual address: clients resolve its name to pod addresses.
    pub fn is_headless(&self) -> bool {
        &*self.service.origin.kind == "Service" && self.service.addresses.is_empty()
    }
}

/// What listens on a port beyond single addresses.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PortUse {
    /// Some service declares HTTP on it, or is undeclared and has no address.
    pub http: bool,
    /// Some service without address speaks TLS on it: found by server name.
    pub tls: bool,
}

/// Index of visible services.
#[derive(Debug, Default)]
pub(super) struct Registry {
    pub services: Vec<Arc<Visible>>,
    /// By host; several when namespaces declare the same one, the preferred first.
    by_host: HostTable<Vec<Arc<Visible>>>,
    by_address: HashMap<IpAddr, Vec<Arc<Visible>>>,
    /// Ranges (network, prefix), longest prefix first.
    ranges: Vec<(IpAddr, u8, Arc<Visible>)>,
    pub port_use: HashMap<u16, PortUse>,
    pub by_workload: HashMap<IpAddr, Arc<Workload>>,
}

impl Registry {
    pub fn build(
        set: &ResourceSet,
        scope: &Scope,
        sidecar: Option<&SidecarScope>,
        tables: &[Arc<RouteTable>],
    ) -> Self {
        let mut registry = Self::default();
        let egress = sidecar.and_then(|s| s.egress.as_deref());
        let excluded = sidecar.map_or(&[][..], |s| &s.excluded);
        let referred: HashSet<&str> = match egress {
            Some(_) => {
                let ours = tables.iter().filter(|t| is_for_sidecars(t));
                ours.flat_map(|t| destinations(t)).collect()
            }
            None => HashSet::new(),
        };
        let mut services: Vec<_> = set.services.values().collect();
        services.sort_by(|a, b| preference(a, scope).cmp(&preference(b, scope)));
        for service in services {
            if !service.visibility.includes(&scope.namespace) {
                continue;
            }
            let only_ports = match egress {
                None => None,
                // Istio: destinations of visible VirtualServices are imported with them.
                Some(_) if referred.contains(&*service.key.hostname) => None,
                Some(_) if imported(excluded, &service.key).is_some() => continue,
                Some(hosts) => match imported(hosts, &service.key) {
                    Some(ports) => ports,
                    None => continue,
                },
            };
            registry.add(Arc::new(Visible {
                service: service.clone(),
                only_ports,
            }));
        }
        registry
            .ranges
            .sort_by_key(|range| std::cmp::Reverse(range.1));
        for workload in set.workloads.values() {
            for ip in &workload.addresses {
                registry.by_workload.insert(*ip, workload.clone());
            }
        }
        registry
    }

    fn add(&mut self, visible: Arc<Visible>) {
        let service = &visible.service;
        self.by_host
            .slot(&service.key.hostname, Vec::new)
            .push(visible.clone());
        for address in &service.addresses {
            let full = if address.ip.is_ipv4() { 32 } else { 128 };
            if address.prefix >= full {
                self.by_address
                    .entry(address.ip)
                    .or_default()
                    .push(visible.clone());
            } else {
                self.ranges
                    .push((address.ip, address.prefix, visible.clone()));
            }
        }
        for ip in &service.allocated {
            let here = self.by_address.entry(*ip).or_default();
            here.push(visible.clone());
        }
        for port in visible.ports() {
            let used = self.port_use.entry(port.number).or_default();
            let no_address = service.addresses.is_empty();
            match port.protocol {
                protocol if protocol.is_http() => used.http = true,
                Protocol::Detect if no_address => used.http = true,
                Protocol::Tls if no_address => used.tls = true,
                _ => {}
            }
        }
        self.services.push(visible);
    }

    /// The service with exactly this host name: one that has `port`, else the preferred one.
    pub fn by_name(&self, host: &str, port: Option<u16>) -> Option<&Arc<Visible>> {
        let found = self.by_host.find(host)?;
        let exact = |visible: &&Arc<Visible>| *visible.service.key.hostname == *host;
        port.and_then(|number| found.iter().find(|v| v.port(number).is_some()))
            .or_else(|| found.first())
            .filter(exact)
    }

    /// The service whose host or wildcard covers `host` and which has `port`.
    pub fn by_server_name(&self, host: &str, port: u16) -> Option<(&Arc<Visible>, &Port)> {
        self.by_host.find_all(host).find_map(|list| {
            list.iter().find_map(|visible| {
                let port = visible.port(port)?;
                let tls = matches!(port.protocol, Protocol::Tls | Protocol::Detect);
                tls.then_some((visible, port))
            })
        })
    }

    /// The service at a virtual address and port: a single address before ranges, long prefixes first.
    pub fn by_address(&self, ip: IpAddr, port: u16) -> Option<(&Arc<Visible>, &Port)> {
        let exact = self.by_address.get(&ip).into_iter().flatten();
        let ranges = self
            .ranges
            .iter()
            .filter(move |(network, prefix, _)| in_range(*network, *prefix, ip))
            .map(|(_, _, visible)| visible);
        exact
            .chain(ranges)
            .find_map(|visible| Some((visible, visible.port(port)?)))
    }

    /// Whether some service has this very address.
    pub fn has_address(&self, ip: IpAddr) -> bool {
        self.by_address.contains_key(&ip)
    }

    /// Whether some service has this very host.
    pub fn has_host(&self, host: &str) -> bool {
        self.by_host.has(host)
    }

    /// The service port behind an endpoint's own address: headless services first, as clients of
    /// those connect to pods by design.
    pub fn by_endpoint(&self, ip: IpAddr, port: u16) -> Option<(&Arc<Visible>, &Port)> {
        let workload = self.by_workload.get(&ip)?;
        let mut found = None;
        for (key, ports) in &workload.services {
            let Some(visible) = self
                .by_host
                .find(&key.hostname)
                .and_then(|list| list.iter().find(|v| v.service.key == *key))
            else {
                continue;
            };
            let served = ports
                .ports
                .iter()
                .find(|(_, target)| **target == port)
                .and_then(|(number, _)| visible.port(*number));
            match served {
                Some(port) if visible.is_headless() => return Some((visible, port)),
                Some(port) => found = found.or(Some((visible, port))),
                None => {}
            }
        }
        found
    }
}

/// Own namespace first, then Kubernetes services, then the oldest (Istio: service lookup order).
fn preference<'a>(service: &'a Service, scope: &Scope) -> (bool, bool, u64, &'a Str) {
    (
        service.key.namespace != scope.namespace,
        &*service.origin.kind != "Service",
        service.origin.created,
        &service.key.namespace,
    )
}

/// The ports of a service that an egress list imports: `None` none at all, `Some(None)` all.
pub(super) fn imported(hosts: &[EgressHost], service: &ServiceKey) -> Option<Option<Vec<u16>>> {
    let mut ports = Vec::new();
    for egress in hosts {
        let namespace_fits = egress
            .namespace
            .as_ref()
            .is_none_or(|ns| *ns == service.namespace);
        if !namespace_fits || !host_covers(&egress.host, &service.hostname) {
            continue;
        }
        match egress.port {
            None => return Some(None),
            Some(port) => ports.push(port),
        }
    }
    (!ports.is_empty()).then_some(Some(ports))
}

/// Whether sidecars follow a route table; gateways alone do otherwise.
pub(super) fn is_for_sidecars(table: &RouteTable) -> bool {
    table.gateways.iter().any(|name| &**name == MESH)
}

/// Every host that a route table sends to.
pub(super) fn destinations(table: &RouteTable) -> impl Iterator<Item = &str> {
    let http = table.http.iter().flat_map(|rule| match &rule.action {
        HttpAction::Forward(list) => list.as_slice(),
        _ => &[],
    });
    let mirrors = table.http.iter().flat_map(|rule| &rule.mirrors);
    let tls = table.tls.iter().flat_map(|rule| &rule.destinations);
    let tcp = table.tcp.iter().flat_map(|rule| &rule.destinations);
    http.map(|d| &*d.destination.host)
        .chain(mirrors.map(|mirror| &*mirror.destination.host))
        .chain(tls.chain(tcp).map(|d| &*d.destination.host))
}

/// Whether `ip` is within `network/prefix`.
pub(super) fn in_range(network: IpAddr, prefix: u8, ip: IpAddr) -> bool {
    match (network, ip) {
        (IpAddr::V4(network), IpAddr::V4(ip)) => {
            let shift = 32u32.saturating_sub(u32::from(prefix));
            let cut = |v: u32| v.checked_shr(shift).unwrap_or(0);
            cut(network.to_bits()) == cut(ip.to_bits())
        }
        (IpAddr::V6(network), IpAddr::V6(ip)) => {
            let shift = 128u32.saturating_sub(u32::from(prefix));
            let cut = |v: u128| v.checked_shr(shift).unwrap_or(0);
            cut(network.to_bits()) == cut(ip.to_bits())
        }
        _ => false,
    }
}

/// The Sidecar object in force for a proxy: one that selects it, else its namespace's, else the
/// root namespace's; the oldest of several.
pub(super) fn sidecar_scope<'a>(
    all: impl Iterator<Item = &'a Arc<SidecarScope>>,
    scope: &Scope,
    root: &str,
) -> Option<&'a Arc<SidecarScope>> {
    let rank = |s: &SidecarScope| {
        let own = s.origin.namespace == scope.namespace;
        if s.workload_selector.is_empty() {
            match (own, &*s.origin.namespace == root) {
                (true, _) => Some(1),
                (false, true) => Some(2),
                _ => None,
            }
        } else {
            (own && labels_match(&s.workload_selector, &scope.labels)).then_some(0)
        }
    };
    all.filter_map(|s| Some(((rank(s)?, s.origin.created, &s.origin.name), s)))
        .min_by(|a, b| a.0.cmp(&b.0))
        .map(|(_, s)| s)
}
