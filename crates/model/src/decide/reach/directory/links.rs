//! What the directory keeps of one resource: its names, addresses and references, small, because most are workloads.

use crate::decide::registry::{destinations, is_for_sidecars};
use crate::name::{ServiceKey, Visibility};
use crate::resource::Resource;
use crate::service::{Resolution, Service};
use lateen_base::Str;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// What is known of one resource.
#[derive(Debug, PartialEq)]
pub(in crate::decide::reach) enum Links {
    Service(Box<ServiceLinks>),
    Workload(WorkloadLinks),
    Table(Box<Rule>),
    Policy(Box<Rule>),
}

#[derive(Debug, PartialEq)]
pub(in crate::decide::reach) struct ServiceLinks {
    pub key: ServiceKey,
    pub visibility: Visibility,
    pub names: Vec<Str>,
    pub addresses: Vec<IpAddr>,
    pub is_unaddressed: bool,
}

#[derive(Debug, PartialEq)]
pub(in crate::decide::reach) struct WorkloadLinks {
    pub addresses: Box<[IpAddr]>,
    /// Its services; those of one are shared with the directory's index.
    pub services: Box<[Arc<ServiceKey>]>,
}

/// A VirtualService or a DestinationRule.
#[derive(Debug, PartialEq)]
pub(in crate::decide::reach) struct Rule {
    pub namespace: Str,
    pub visibility: Visibility,
    pub hosts: Vec<Str>,
    /// Hosts that it sends to.
    pub destinations: Vec<Str>,
    /// Whether sidecars follow it; gateways alone do otherwise.
    pub is_for_sidecars: bool,
}

impl Links {
    /// Absent: nothing refers to such a resource.
    pub fn of(resource: &Resource) -> Option<Self> {
        Some(match resource {
            Resource::Service(service) => Self::Service(Box::new(ServiceLinks::of(service))),
            Resource::Workload(workload) => Self::Workload(WorkloadLinks {
                addresses: workload.addresses.as_slice().into(),
                services: workload.services.keys().cloned().map(Arc::new).collect(),
            }),
            Resource::RouteTable(table) => {
                let to: BTreeSet<&str> = destinations(table).collect();
                Self::Table(Box::new(Rule {
                    namespace: table.origin.namespace.clone(),
                    visibility: table.visibility.clone(),
                    hosts: table.hosts.clone(),
                    destinations: to.into_iter().map(Str::from).collect(),
                    is_for_sidecars: is_for_sidecars(table),
                }))
            }
            Resource::TrafficPolicy(policy) => Self::Policy(Box::new(Rule {
                namespace: policy.origin.namespace.clone(),
                visibility: policy.visibility.clone(),
                hosts: vec![policy.host.clone()],
                destinations: Vec::new(),
                is_for_sidecars: true,
            })),
            _ => return None,
        })
    }
}

impl ServiceLinks {
    fn of(service: &Service) -> Self {
        let own = std::iter::once(&service.key.hostname);
        let addresses = service.callable().chain(service.allocated.iter().copied());
        let addresses: BTreeSet<IpAddr> = addresses.collect();
        Self {
            key: service.key.clone(),
            visibility: service.visibility.clone(),
            names: own.chain(&service.aliases).cloned().collect(),
            addresses: addresses.into_iter().collect(),
            is_unaddressed: is_unaddressed(service),
        }
    }
}

/// Whether connections to a service cannot be recognised by an address of its own: those of a headless Service go to its
/// workloads' addresses, those of others go anywhere.
fn is_unaddressed(service: &Service) -> bool {
    let full = |prefix: u8, ip: IpAddr| prefix >= if ip.is_ipv4() { 32 } else { 128 };
    let ranges = service.addresses.iter().any(|a| !full(a.prefix, a.ip));
    let by_workload =
        &*service.origin.kind == "Service" && service.resolution == Resolution::Static;
    ranges || (service.addresses.is_empty() && !by_workload)
}

/// Numbers of resources that have something in common, mostly one.
#[derive(Debug)]
pub(super) enum Ids {
    One(u32),
    More(Vec<u32>),
}

impl Ids {
    pub fn add(&mut self, id: u32) {
        match self {
            Self::One(first) => *self = Self::More(vec![*first, id]),
            Self::More(all) => all.push(id),
        }
    }

    /// Takes a number out; true: none is left.
    pub fn remove(&mut self, id: u32) -> bool {
        match self {
            Self::One(only) => *only == id,
            Self::More(all) => {
                all.retain(|other| *other != id);
                all.is_empty()
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = u32> + use<'_> {
        let all = match self {
            Self::One(only) => std::slice::from_ref(only),
            Self::More(all) => all,
        };
        all.iter().copied()
    }
}
