//! Which addresses lead where. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::ResourceExt;
use lateen_net::nft::{Pick, Protocol};

/// One port of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) protocol: Protocol,
    /// The addresses that clients call.
    pub(super) addresses: Vec<SocketAddr>,
    /// The port on every address of the node that means the same.
    pub(super) node_port: Option<u16>,
    pub(super) pick: Pick,
    /// Where calls go; empty: they are refused.
    pub(super) backends: Vec<SocketAddr>,
}

type Name = (String, String);

/// Every port of every service that has an address, in a stable order.
pub(super) fn entries(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>]) -> Vec<Entry> {
    let mut by_service: BTreeMap<Name, Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in slices {
        if let Some(service) = slice.labels().get("kubernetes.io/service-name") {
            let name = (slice.namespace().unwrap_or_default(), service.clone());
            by_service.entry(name).or_default().push(slice);
        }
    }
    let mut entries = Vec::new();
    for service in services {
        let Some(spec) = &service.spec else { continue };
        let name = (service.namespace().unwrap_or_default(), service.name_any());
        let slices = by_service.get(&name).map(Vec::as_slice).unwrap_or_default();
        for port in spec.ports.iter().flatten() {
            entries.extend(entry(spec, port, slices));
        }
    }
    entries
}

fn entry(spec: &ServiceSpec, port: &ServicePort, slices: &[&EndpointSlice]) -> Option<Entry> {
    let protocol = match port.protocol.as_deref() {
        None | Some("TCP") => Protocol::Tcp,
        Some("UDP") => Protocol::Udp,
        Some(_) => return None,
    };
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let number = u16::try_from(port.port).ok()?;
    let own = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    let all = own.chain(spec.external_ips.iter().flatten());
    let addresses: BTreeSet<SocketAddr> = all
        .filter_map(|text| text.parse::<IpAddr>().ok())
        .map(|ip| SocketAddr::new(ip, number))
        .collect();
    if addresses.is_empty() {
        return None;
    }
    let sticky = spec.session_affinity.as_deref() == Some("ClientIP");
    Some(Entry {
        protocol,
        addresses: addresses.into_iter().collect(),
        node_port: port
            .node_port
            .and_then(|port| u16::try_from(port).ok())
            .filter(|&p| p != 0),
        pick: if sticky {
            Pick::SourceHash
        } else {
            Pick::Random
        },
        backends: backends(port, slices),
    })
}

/// The ready endpoints; if there are none, those that are leaving but still serve.
fn backends(port: &ServicePort, slices: &[&EndpointSlice]) -> Vec<SocketAddr> {
    let mut ready = BTreeSet::new();
    let mut leaving = BTreeSet::new();
    for slice in slices {
        let Some(number) = number(port, slice) else {
            continue;
        };
        for endpoint in &slice.endpoints {
            let addresses = endpoint
                .addresses
                .iter()
                .filter_map(|text| text.parse().ok());
            let addresses = addresses.map(|ip: IpAddr| SocketAddr::new(ip, number));
            if is_ready(endpoint) {
                ready.extend(addresses);
            } else if is_leaving(endpoint) {
                leaving.extend(addresses);
            }
        }
    }
    let chosen = if ready.is_empty() { leaving } else { ready };
    chosen.into_iter().collect()
}

/// The port's number on the slice's endpoints; absent when they do not have it.
fn number(port: &ServicePort, slice: &EndpointSlice) -> Option<u16> {
    let name = port.name.as_deref().unwrap_or_default();
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let found = slice.ports.iter().flatten().find(|one| {
        one.name.as_deref().unwrap_or_default() == name
            && one.protocol.as_deref().unwrap_or("TCP") == protocol
    })?;
    u16::try_from(found.port?).ok()
}

/// An endpoint that says nothing is ready. Kubernetes: discovery/v1 `EndpointConditions`.
fn is_ready(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    conditions
        .and_then(|conditions| conditions.ready)
        .unwrap_or(true)
}

fn is_leaving(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().is_some_and(|conditions| {
        conditions.serving == Some(true) && conditions.terminating == Some(true)
    })
}
