//! Names of services as DNS tells them to one proxy's application: which addresses a name has, or that it is not known.

use super::host::HostTable;
use super::registry::{Registry, Visible};
use super::snapshot::Snapshot;
use super::virtual_hosts::own_names;
use crate::mesh::{Role, Scope};
use crate::workload::Health;
use std::collections::HashMap;
use std::net::IpAddr;

/// What the mesh knows of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The name that the addresses belong to, when it is another: the asked name without a domain that was searched.
    pub alias: Option<String>,
    /// Addresses, of both IP versions; never empty.
    pub addresses: Vec<IpAddr>,
}

/// Addresses by name.
#[derive(Debug, Default)]
pub(super) struct NameTable(HostTable<Vec<IpAddr>>);

/// What the mesh knows of `name` (in lower case, without dot at the end); absent: others are to be asked. `search` are
/// the domains that the application's resolver appends to short names.
pub fn known(snapshot: &Snapshot, name: &str, search: &[String]) -> Option<Known> {
    let table = snapshot.names();
    if let Some(addresses) = table.0.find(name) {
        return Some(Known {
            alias: None,
            addresses: addresses.clone(),
        });
    }
    search.iter().find_map(|domain| {
        let bare = name.strip_suffix(domain.as_str())?.strip_suffix('.')?;
        let addresses = table.0.find(bare)?.clone();
        Some(Known {
            alias: Some(bare.to_owned()),
            addresses,
        })
    })
}

impl NameTable {
    /// The names of every service in `registry` that has addresses to tell.
    pub(super) fn build(registry: &Registry, scope: &Scope) -> Self {
        let mut table = Self::default();
        if scope.role != Role::Sidecar {
            return table;
        }
        let mut pods = pods(registry);
        // In order of preference: the first of one name stays.
        for visible in &registry.services {
            let names = own_names(visible, scope);
            let of_pods = pods.remove(&visible.service.key).unwrap_or_default();
            for (pod, address) in of_pods.iter().filter(|(pod, _)| !pod.is_empty()) {
                for name in &names {
                    let slot = table.0.slot(&format!("{pod}.{name}"), Vec::new);
                    slot.push(*address);
                }
            }
            let addresses = match visible.is_headless() {
                true => of_pods.iter().map(|(_, address)| *address).collect(),
                false => of_service(visible, scope),
            };
            if addresses.is_empty() {
                continue;
            }
            for name in &names {
                table.0.insert_first(name, addresses.clone());
            }
        }
        table
    }
}

/// The service's own addresses, and of allocated ones those that the application can use.
fn of_service(visible: &Visible, scope: &Scope) -> Vec<IpAddr> {
    let service = &visible.service;
    let usable = |ip: &IpAddr| {
        let is_allocated = service.allocated.contains(ip);
        let same = |own: &IpAddr| own.is_ipv4() == ip.is_ipv4();
        !is_allocated || scope.addresses.is_empty() || scope.addresses.iter().any(same)
    };
    service.callable().filter(usable).collect()
}

type Pods<'r> = HashMap<&'r crate::name::ServiceKey, Vec<(&'r str, IpAddr)>>;

/// Ready pods of headless services, by service: their own names (empty: none) and addresses.
fn pods(registry: &Registry) -> Pods<'_> {
    let headless = registry.services.iter().filter(|v| v.is_headless());
    let mut pods: Pods<'_> = headless.map(|v| (&v.service.key, Vec::new())).collect();
    let mut all: Vec<_> = registry.by_workload.iter().collect();
    all.sort_unstable_by_key(|(address, _)| **address);
    for (address, workload) in all {
        for (key, served) in &workload.services {
            let Some(list) = pods.get_mut(key) else {
                continue;
            };
            if served.health == Health::Ready {
                list.push((served.hostname.as_deref().unwrap_or_default(), *address));
            }
        }
    }
    pods
}
