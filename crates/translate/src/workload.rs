//! Pod → workload, with the services it serves as EndpointSlices tell it.

use crate::mesh::Mesh;
use crate::pod::Pod;
use crate::slice::{Member, Slice};
use crate::{Translated, service, service_entry};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointConditions;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use lateen_api::meta::Config;
use lateen_api::service_entry::ServiceEntry;
use lateen_base::Str;
use lateen_model::matching::labels_match;
use lateen_model::name::ServiceKey;
use lateen_model::resource::Resource;
use lateen_model::workload::{Health, ServicePorts, Workload};
use std::collections::BTreeMap;

/// A Service and one of its EndpointSlices.
#[derive(Debug, Clone, Copy)]
pub struct Backing<'a> {
    /// The Service, whose port numbers clients use.
    pub service: &'a core::Service,
    /// A slice labelled with the Service's name, of the same namespace.
    pub slice: &'a Slice,
}

/// What a pod is translated from.
#[derive(Debug, Clone)]
pub struct Inputs<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Slices of the pod's namespace; those that do not name the pod are passed over.
    pub backings: &'a [Backing<'a>],
    /// ServiceEntries of the pod's namespace; those that do not select the pod are passed over.
    pub service_entries: &'a [&'a Config<ServiceEntry>],
    /// Where the pod's node is, as `region/zone/subzone`; absent: nobody knows. The pod's own labels go before it.
    pub node_locality: Option<Str>,
    /// The mesh.
    pub mesh: &'a Mesh,
}

/// Translates a pod. Pods without address and pods that have ended give nothing.
pub fn pod(inputs: Inputs<'_>) -> Translated {
    let pod = inputs.pod;
    if !pod.is_alive() {
        return (Vec::new(), Vec::new());
    }
    let described = Described::by(&pod.labels, &pod.owner);
    let workload = Workload {
        uid: format!("Pod/{}/{}", pod.namespace, pod.name).into(),
        name: pod.name.clone(),
        namespace: pod.namespace.clone(),
        addresses: pod.addresses.to_vec(),
        hostname: None,
        service_account: pod.service_account.clone(),
        workload_name: described.workload_name,
        canonical_name: described.canonical_name,
        canonical_revision: described.canonical_revision,
        node: pod.node.clone(),
        locality: Some(locality(&pod.labels))
            .filter(|own| !own.is_empty())
            .or_else(|| inputs.node_locality.clone())
            .unwrap_or_else(|| "".into()),
        weight: 1,
        has_sidecar: pod.has_sidecar,
        // A label without a proxy would send clients into a handshake that nobody answers.
        takes_mtls: pod.has_sidecar && says_mtls(&pod.labels) == Some(true),
        trust_domain: "".into(),
        services: services(&inputs),
        labels: BTreeMap::clone(&pod.labels),
    };
    (vec![Resource::Workload(workload)], Vec::new())
}

/// Names of a workload as metrics show them, from labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) workload_name: Str,
    pub(crate) canonical_name: Str,
    pub(crate) canonical_revision: Str,
}

impl Described {
    /// `owner` stands in where labels say nothing (Istio: canonical-service fallbacks).
    pub(crate) fn by(labels: &BTreeMap<Str, Str>, owner: &str) -> Self {
        let first = |keys: &[&str]| {
            keys.iter()
                .filter_map(|key| labels.get(*key))
                .find(|value| !value.is_empty())
                .cloned()
        };
        let workload_name =
            first(&["service.istio.io/workload-name"]).unwrap_or_else(|| owner.into());
        Self {
            canonical_name: first(&[
                "service.istio.io/canonical-name",
                "app.kubernetes.io/name",
                "app",
            ])
            .unwrap_or_else(|| workload_name.clone()),
            canonical_revision: first(&[
                "service.istio.io/canonical-revision",
                "app.kubernetes.io/version",
                "version",
            ])
            .unwrap_or_else(|| "latest".into()),
            workload_name,
        }
    }
}

/// The owning workload's name: a ReplicaSet's without the template hash (its Deployment), a CronJob's Job without
/// the time, else the owner's; the pod's own when nobody owns it.
pub fn owner_name(meta: &ObjectMeta) -> String {
    let own = meta.name.clone().unwrap_or_default();
    let owners = meta.owner_references.iter().flatten();
    let Some(owner) = owners
        .clone()
        .find(|owner| owner.controller == Some(true))
        .or_else(|| owners.clone().next())
    else {
        return own;
    };
    match owner.kind.as_str() {
        "ReplicaSet" => {
            let hash = meta
                .labels
                .as_ref()
                .and_then(|l| l.get("pod-template-hash"));
            let deployment = hash.and_then(|hash| owner.name.strip_suffix(&format!("-{hash}")));
            deployment.unwrap_or(&owner.name).to_owned()
        }
        "Job" => match owner.name.rsplit_once('-') {
            // A CronJob names its Jobs after the scheduled minute: 8 digits or more.
            Some((cron, time)) if time.len() >= 8 && time.bytes().all(|b| b.is_ascii_digit()) => {
                cron.to_owned()
            }
            _ => owner.name.clone(),
        },
        "Node" => own,
        _ => owner.name.clone(),
    }
}

/// What an EndpointSlice says of an endpoint (Kubernetes: `EndpointConditions`; absent `ready` counts as true,
/// absent `serving` as `ready`).
pub fn health(conditions: Option<&EndpointConditions>) -> Health {
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
    let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
    match (ready, serving, terminating) {
        (true, _, _) => Health::Ready,
        (false, true, true) => Health::Draining,
        _ => Health::Unready,
    }
}

/// Port numbers of the Service that a slice's ports stand for, with the endpoints' own ports.
pub(crate) fn slice_ports(backing: Backing<'_>) -> BTreeMap<u16, u16> {
    let spec = backing.service.spec.as_ref();
    let declared = spec.and_then(|s| s.ports.as_ref()).into_iter().flatten();
    let mut ports = BTreeMap::new();
    for port in declared {
        let name = port.name.as_deref().unwrap_or_default();
        let mut named = backing.slice.ports.iter();
        let target = named.find(|port| *port.name == *name);
        let target = target.and_then(|port| port.number);
        if let (Ok(number), Some(target)) = (u16::try_from(port.port), target) {
            ports.insert(number, target);
        }
    }
    ports
}

fn services(inputs: &Inputs<'_>) -> BTreeMap<ServiceKey, ServicePorts> {
    let pod = inputs.pod;
    let mut services = BTreeMap::<ServiceKey, ServicePorts>::new();
    for backing in inputs.backings {
        let is_ours =
            |member: &&Member| member.name == pod.name && member.namespace == pod.namespace;
        let Some(member) = backing.slice.pods.iter().find(is_ours) else {
            continue;
        };
        let served = ServicePorts {
            ports: slice_ports(*backing),
            health: member.state.health,
            hostname: member.state.hostname.clone(),
        };
        services
            .entry(service::key(&backing.service.metadata, inputs.mesh))
            .and_modify(|known| known.ports.extend(&served.ports))
            .or_insert(served);
    }
    for entry in inputs.service_entries {
        if selects(entry, &pod.labels) {
            services.extend(service_entry::served(entry, &BTreeMap::new(), pod.health));
        }
    }
    services
}

/// Whether a ServiceEntry selects workloads with these labels.
pub(crate) fn selects(entry: &Config<ServiceEntry>, labels: &BTreeMap<Str, Str>) -> bool {
    let selector = entry.spec.workload_selector.as_ref();
    selector.is_some_and(|selector| {
        !selector.labels.is_empty() && labels_match(&crate::names::labels(&selector.labels), labels)
    })
}

/// `region/zone/subzone` from the pod's own labels (Istio: `topology.istio.io/locality`, with dots for slashes).
pub(crate) fn locality(labels: &BTreeMap<Str, Str>) -> Str {
    ["topology.istio.io/locality", "istio-locality"]
        .iter()
        .find_map(|key| labels.get(*key))
        .map(|text| text.replace('.', "/").into())
        .unwrap_or_else(|| "".into())
}

/// Label that says whether a workload's proxy takes the mesh's mutual TLS (Istio: `security.istio.io/tlsMode`).
const TLS_MODE: &str = "security.istio.io/tlsMode";

/// What a workload's labels say about mutual TLS; absent: nothing.
pub(crate) fn says_mtls(labels: &BTreeMap<Str, Str>) -> Option<bool> {
    labels.get(TLS_MODE).map(|mode| &**mode == "istio")
}

/// Whether something that is described by a WorkloadEntry takes mutual TLS: by its label, else when it has an account
/// and so an identity (Istio: `getTLSModeFromWorkloadEntry`).
pub(crate) fn entry_takes_mtls(labels: &BTreeMap<Str, Str>, account: Option<&str>) -> bool {
    says_mtls(labels).unwrap_or(account.is_some_and(|name| !name.is_empty()))
}

#[cfg(test)]
mod tests;
