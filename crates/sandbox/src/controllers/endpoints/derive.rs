//! A service and the pods that it selects, as endpoint slices and legacy endpoints. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort as LegacyPort, EndpointSubset, Endpoints, ObjectReference, Pod,
    Service, ServicePort, ServiceSpec,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use super::super::objects::{
    Labels, controlled_by, hash_name, is_finished, is_ready, is_terminating,
};

/// Label with the service that a slice belongs to.
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label with the writer of a slice.
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpointslice-controller.k8s.io";
const MIRROR: &str = "endpointslicemirroring-controller.k8s.io";
/// Writers whose slices this controller may change and delete.
pub(super) const OURS: [&str; 2] = [CONTROLLER, MIRROR];
/// The most endpoints that one slice may have. Kubernetes: validation of discovery/v1.
const PER_SLICE: usize = 1000;

/// The service's selector; absent when its endpoints are not ours to find.
pub(super) fn selector(service: &Service) -> Option<&Labels> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.selector
        .as_ref()
        .filter(|selector| !selector.is_empty())
}

/// Whether the service selects a pod with these labels.
pub(super) fn selects(service: &Service, labels: &Labels) -> bool {
    selector(service).is_some_and(|selector| {
        selector
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
    })
}

/// Whether two states of a pod make the same endpoint, so that nothing has to be written.
pub(super) fn same_endpoint(old: &Pod, new: &Pod) -> bool {
    let view = |pod: &Pod| {
        let status = pod.status.as_ref();
        (
            pod.metadata.labels.clone(),
            (is_ready(pod), is_terminating(pod), is_finished(pod)),
            status.and_then(|status| status.pod_ips.clone()),
            status.and_then(|status| status.pod_ip.clone()),
            pod.metadata.uid.clone(),
            pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        )
    };
    view(old) == view(new)
}

/// Whether a slice says all that is wanted of it; labels and annotations of others are left alone.
pub(super) fn same_slice(known: &EndpointSlice, wanted: &EndpointSlice) -> bool {
    known.endpoints == wanted.endpoints
        && known.ports.as_deref().unwrap_or_default() == wanted.ports.as_deref().unwrap_or_default()
        && known.address_type == wanted.address_type
        && wanted
            .labels()
            .iter()
            .all(|(key, value)| known.labels().get(key) == Some(value))
}

/// One pod as the service sees it.
struct Backend<'a> {
    pod: &'a Pod,
    ready: bool,
    serving: bool,
    terminating: bool,
}

impl<'a> Backend<'a> {
    /// Absent for pods that have ended.
    fn of(pod: &'a Pod, spec: &ServiceSpec) -> Option<Backend<'a>> {
        if is_finished(pod) {
            return None;
        }
        let anyway = spec.publish_not_ready_addresses == Some(true);
        let serving = is_ready(pod) || anyway;
        let terminating = is_terminating(pod);
        let ready = serving && (!terminating || anyway);
        Some(Backend {
            pod,
            ready,
            serving,
            terminating,
        })
    }

    fn reference(&self) -> ObjectReference {
        ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: self.pod.namespace(),
            name: Some(self.pod.name_any()),
            uid: self.pod.uid(),
            ..ObjectReference::default()
        }
    }

    /// The name that DNS gives it below a headless service.
    fn hostname(&self, service: &Service) -> Option<String> {
        let spec = self.pod.spec.as_ref()?;
        let below = spec.subdomain.as_deref() == service.metadata.name.as_deref();
        spec.hostname.clone().filter(|_| below)
    }

    fn node(&self) -> Option<String> {
        self.pod
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.clone())
    }

    fn endpoint(&self, service: &Service, address: IpAddr) -> Endpoint {
        Endpoint {
            addresses: vec![address.to_string()],
            conditions: Some(EndpointConditions {
                ready: Some(self.ready),
                serving: Some(self.serving),
                terminating: Some(self.terminating),
            }),
            hostname: self.hostname(service),
            node_name: self.node(),
            target_ref: Some(self.reference()),
            ..Endpoint::default()
        }
    }
}

/// The pod's addresses; none before it has been started.
fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else {
        return Vec::new();
    };
    let many = status.pod_ips.iter().flatten().map(|ip| &ip.ip);
    let mut found: Vec<IpAddr> = many
        .chain(&status.pod_ip)
        .filter_map(|ip| ip.parse().ok())
        .collect();
    found.sort();
    found.dedup();
    found
}

/// Name, protocol and appProtocol of a service's port, and the number on a pod.
type Port = (Option<String>, String, Option<String>, i32);

/// The ports on one pod. A port that the pod does not name is left out.
fn ports(spec: &ServiceSpec, pod: &Pod) -> Vec<Port> {
    let ports = spec.ports.iter().flatten();
    ports
        .filter_map(|port| {
            let number = target(port, pod)?;
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            Some((
                port.name.clone(),
                protocol,
                port.app_protocol.clone(),
                number,
            ))
        })
        .collect()
}

fn target(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec.init_containers.iter().flatten();
            let sidecars = sidecars.filter(|one| one.restart_policy.as_deref() == Some("Always"));
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            spec.containers
                .iter()
                .chain(sidecars)
                .flat_map(|container| container.ports.iter().flatten())
                .find(|one| {
                    one.name.as_ref() == Some(name)
                        && one.protocol.as_deref().unwrap_or("TCP") == protocol
                })
                .map(|one| one.container_port)
        }
    }
}

/// The slices of a service with these pods: one for each IP version and set of port numbers.
pub(super) fn slices(service: &Service, pods: &[&Pod]) -> Vec<EndpointSlice> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let mut groups: BTreeMap<(bool, Vec<Port>), Vec<Endpoint>> = BTreeMap::new();
    // A service always has a slice of its main IP version, even one without endpoints.
    let main_v6 = spec
        .ip_families
        .iter()
        .flatten()
        .next()
        .is_some_and(|family| family == "IPv6");
    for pod in pods {
        let Some(backend) = Backend::of(pod, spec) else {
            continue;
        };
        for address in addresses(pod) {
            let endpoint = backend.endpoint(service, address);
            let group = (address.is_ipv6(), ports(spec, pod));
            groups.entry(group).or_default().push(endpoint);
        }
    }
    if groups.is_empty() {
        groups.insert((main_v6, Vec::new()), Vec::new());
    }
    let families: Vec<&str> = spec
        .ip_families
        .iter()
        .flatten()
        .map(String::as_str)
        .collect();
    let served = |v6: bool| families.is_empty() || families.contains(&family(v6));
    let mut slices: Vec<EndpointSlice> = Vec::new();
    for ((v6, ports), mut endpoints) in groups {
        if !served(v6) {
            continue;
        }
        endpoints.sort_by(|a, b| a.addresses.cmp(&b.addresses));
        // A slice without endpoints still shows one chunk.
        let chunks: Vec<Vec<Endpoint>> = if endpoints.is_empty() {
            vec![endpoints]
        } else {
            endpoints
                .chunks(PER_SLICE)
                .map(<[Endpoint]>::to_vec)
                .collect()
        };
        for endpoints in chunks {
            let number = slices.len();
            slices.push(slice(service, v6, (&ports, number), endpoints));
        }
    }
    slices
}

fn family(v6: bool) -> &'static str {
    if v6 { "IPv6" } else { "IPv4" }
}

fn slice(
    service: &Service,
    v6: bool,
    (ports, number): (&[Port], usize),
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    // Not by the ports: a slice whose ports change is then changed in place, not swapped.
    let hash = hash_name(&(service.uid(), v6, number), 0);
    let ports = ports
        .iter()
        .map(|(name, protocol, app_protocol, port)| EndpointPort {
            // A port without a name has the empty name, as Kubernetes' own controller writes it.
            name: Some(name.clone().unwrap_or_default()),
            protocol: Some(protocol.clone()),
            app_protocol: app_protocol.clone(),
            port: Some(*port),
        });
    EndpointSlice {
        metadata: metadata(service, &hash, CONTROLLER),
        address_type: family(v6).to_owned(),
        endpoints,
        ports: Some(ports.collect()),
    }
}

fn metadata(service: &Service, hash: &str, by: &str) -> ObjectMeta {
    let mut labels = service.labels().clone();
    labels.insert(SERVICE_NAME.to_owned(), service.name_any());
    labels.insert(MANAGED_BY.to_owned(), by.to_owned());
    if is_headless(service) {
        labels.insert("service.kubernetes.io/headless".to_owned(), String::new());
    }
    let short = hash.get(..5).unwrap_or(hash);
    ObjectMeta {
        name: Some(format!("{}-{short}", service.name_any())),
        namespace: service.namespace(),
        labels: Some(labels),
        owner_references: Some(vec![controlled_by(service)]),
        ..ObjectMeta::default()
    }
}

/// Whether the service has no address of its own.
fn is_headless(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.is_some_and(|spec| spec.cluster_ip.as_deref() == Some("None"))
}

/// The legacy form: ready and other addresses, grouped by port numbers. Terminating pods are left
/// out, as they always were there.
pub(super) fn endpoints(service: &Service, pods: &[&Pod]) -> Endpoints {
    let mut subsets: BTreeMap<Vec<Port>, EndpointSubset> = BTreeMap::new();
    let spec = service.spec.clone().unwrap_or_default();
    for pod in pods {
        let Some(backend) = Backend::of(pod, &spec) else {
            continue;
        };
        if backend.terminating && !backend.ready {
            continue;
        }
        let Some(ip) = addresses(pod).into_iter().next() else {
            continue;
        };
        let address = EndpointAddress {
            ip: ip.to_string(),
            hostname: backend.hostname(service),
            node_name: backend.node(),
            target_ref: Some(backend.reference()),
        };
        let subset = subsets.entry(ports(&spec, pod)).or_default();
        let list = if backend.ready {
            &mut subset.addresses
        } else {
            &mut subset.not_ready_addresses
        };
        list.get_or_insert_default().push(address);
    }
    let subsets = subsets.into_iter().map(|(ports, mut subset)| {
        let ports = ports
            .into_iter()
            .map(|(name, protocol, app_protocol, port)| LegacyPort {
                name,
                protocol: Some(protocol),
                app_protocol,
                port,
            });
        let ports: Vec<_> = ports.collect();
        subset.ports = (!ports.is_empty()).then_some(ports);
        for list in [&mut subset.addresses, &mut subset.not_ready_addresses]
            .into_iter()
            .flatten()
        {
            list.sort_by(|a, b| a.ip.cmp(&b.ip));
        }
        subset
    });
    let subsets: Vec<_> = subsets.collect();
    let mut labels = service.labels().clone();
    // Tells the mirroring controller that slices exist already.
    labels.insert(
        "endpointslice.kubernetes.io/skip-mirror".to_owned(),
        "true".to_owned(),
    );
    if is_headless(service) {
        labels.insert("service.kubernetes.io/headless".to_owned(), String::new());
    }
    Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.namespace(),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        subsets: (!subsets.is_empty()).then_some(subsets),
    }
}

/// Slices for endpoints that were written by hand, for a service without a selector.
pub(super) fn mirror(service: &Service, endpoints: &Endpoints) -> Vec<EndpointSlice> {
    let skipped = endpoints
        .labels()
        .get("endpointslice.kubernetes.io/skip-mirror");
    if skipped.is_some_and(|value| value == "true") {
        return Vec::new();
    }
    let mut slices = Vec::new();
    for (number, subset) in endpoints.subsets.iter().flatten().enumerate() {
        let ports: Vec<EndpointPort> = subset
            .ports
            .iter()
            .flatten()
            .map(|port| EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                protocol: port.protocol.clone().or_else(|| Some("TCP".to_owned())),
                app_protocol: port.app_protocol.clone(),
                port: Some(port.port),
            })
            .collect();
        for v6 in [false, true] {
            let mut list = mirrored(subset.addresses.iter().flatten(), v6, true);
            list.extend(mirrored(
                subset.not_ready_addresses.iter().flatten(),
                v6,
                false,
            ));
            if list.is_empty() {
                continue;
            }
            let hash = hash_name(&(service.uid(), v6, number), 0);
            slices.push(EndpointSlice {
                metadata: metadata(service, &hash, MIRROR),
                address_type: family(v6).to_owned(),
                endpoints: list,
                ports: Some(ports.clone()),
            });
        }
    }
    slices
}

fn mirrored<'a>(
    addresses: impl Iterator<Item = &'a EndpointAddress>,
    v6: bool,
    ready: bool,
) -> Vec<Endpoint> {
    let of_version = |address: &&EndpointAddress| {
        address
            .ip
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_ipv6() == v6)
    };
    addresses
        .filter(of_version)
        .map(|address| Endpoint {
            addresses: vec![address.ip.clone()],
            conditions: Some(EndpointConditions {
                ready: Some(ready),
                ..Default::default()
            }),
            hostname: address.hostname.clone(),
            node_name: address.node_name.clone(),
            target_ref: address.target_ref.clone(),
            ..Endpoint::default()
        })
        .collect()
}
