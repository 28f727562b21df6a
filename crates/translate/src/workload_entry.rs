//! WorkloadEntry → workload, with the services that select it.

use crate::Translated;
use crate::mesh::Mesh;
use crate::names::labels;
use crate::workload::{Described, entry_takes_mtls, locality, selects};
use crate::{service, service_entry};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use lateen_api::meta::Config;
use lateen_api::notice::{Notice, Subject, any_error};
use lateen_api::service_entry::ServiceEntry;
use lateen_api::validate;
use lateen_api::workload_entry::WorkloadEntry;
use lateen_base::Str;
use lateen_model::resource::Resource;
use lateen_model::workload::{Health, ServicePorts, Workload};
use std::collections::BTreeMap;

/// What a WorkloadEntry is translated from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The WorkloadEntry.
    pub config: &'a Config<WorkloadEntry>,
    /// ServiceEntries of its namespace; those that do not select it are passed over.
    pub service_entries: &'a [&'a Config<ServiceEntry>],
    /// Kubernetes Services of its namespace; those that do not select it are passed over.
    pub services: &'a [&'a core::Service],
    /// Whether it is healthy, as its status says.
    pub health: Health,
    /// The mesh.
    pub mesh: &'a Mesh,
}

/// Translates a WorkloadEntry.
pub fn workload_entry(inputs: Inputs<'_>) -> Translated {
    let Inputs {
        config,
        mesh,
        health,
        ..
    } = inputs;
    let entry = &config.spec;
    let mut notices = validate::workload_entry(config);
    if any_error(&notices) {
        return (Vec::new(), notices);
    }
    let Some((addresses, hostname)) = service_entry::place(entry) else {
        let subject = Subject::new("WorkloadEntry", &config.meta);
        let message = "sockets and networks cannot be reached yet, so the workload is left out: give an IP address or a name";
        notices.push(Notice::warning(&subject, "spec.address", message));
        return (Vec::new(), notices);
    };
    let subject = Subject::new("WorkloadEntry", &config.meta);
    service_entry::about_network(&subject, "spec.network", entry, &mut notices);
    // Istio: a workload's labels are those of the entry's spec and of the object.
    let mut all = labels(&config.meta.labels);
    all.extend(labels(&entry.labels));
    let mut services = BTreeMap::new();
    for selecting in inputs.service_entries.iter().filter(|s| selects(s, &all)) {
        services.extend(service_entry::served(selecting, &entry.ports, health));
    }
    for selecting in inputs.services.iter().filter(|s| service_selects(s, &all)) {
        let ports = ServicePorts {
            ports: service_ports(selecting, &entry.ports),
            health,
            hostname: None,
        };
        services.insert(service::key(&selecting.metadata, mesh), ports);
    }
    let described = Described::by(&all, &config.meta.name);
    let workload = Workload {
        uid: format!(
            "WorkloadEntry/{}/{}",
            config.meta.namespace, config.meta.name
        )
        .into(),
        name: config.meta.name.as_str().into(),
        namespace: config.meta.namespace.as_str().into(),
        addresses,
        hostname,
        service_account: entry.service_account.as_deref().unwrap_or_default().into(),
        workload_name: described.workload_name,
        canonical_name: described.canonical_name,
        canonical_revision: described.canonical_revision,
        node: "".into(),
        locality: match entry.locality.as_deref() {
            Some(text) => text.into(),
            None => locality(&all),
        },
        weight: entry.weight.unwrap_or(1).max(1),
        has_sidecar: false,
        takes_mtls: entry_takes_mtls(&all, entry.service_account.as_deref()),
        trust_domain: "".into(),
        services,
        labels: all,
    };
    crate::done(Resource::Workload(workload), notices)
}

fn service_selects(service: &core::Service, labels: &BTreeMap<Str, Str>) -> bool {
    let selector = service.spec.as_ref().and_then(|s| s.selector.as_ref());
    selector.is_some_and(|selector| {
        !selector.is_empty()
            && selector
                .iter()
                .all(|(key, value)| labels.get(key.as_str()).is_some_and(|v| **v == **value))
    })
}

/// Ports by the entry's names, else by the Service's target.
fn service_ports(service: &core::Service, listed: &BTreeMap<String, u32>) -> BTreeMap<u16, u16> {
    let narrow = |number: u32| u16::try_from(number).ok().filter(|n| *n > 0);
    let mut ports = BTreeMap::new();
    let spec = service.spec.as_ref();
    for port in spec.and_then(|s| s.ports.as_ref()).into_iter().flatten() {
        let by_name = |name: &str| listed.get(name).copied().and_then(narrow);
        let own = port.name.as_deref().and_then(by_name);
        let target = own.or(match &port.target_port {
            Some(IntOrString::Int(target)) => u16::try_from(*target).ok(),
            Some(IntOrString::String(name)) => by_name(name),
            None => u16::try_from(port.port).ok(),
        });
        if let (Ok(number), Some(target)) = (u16::try_from(port.port), target) {
            ports.insert(number, target);
        }
    }
    ports
}

#[cfg(test)]
mod tests;
