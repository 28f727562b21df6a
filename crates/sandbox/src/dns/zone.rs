//! What the cluster's domain answers: pure, from a view of the cluster.
//!
//! Kubernetes' "DNS-Based Service Discovery" 1.1.0 says which names there are:
//! `<service>.<ns>.svc`, `<endpoint>.<service>.<ns>.svc`, `_<port>._<proto>.<service>.<ns>.svc`,
//! `<a-b-c-d>.<ns>.pod`, `dns-version`, and the reverse names of service and endpoint addresses.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use hickory_proto::rr::rdata::{A, AAAA, CNAME, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::ResourceExt;

/// Seconds that answers may be kept. Short, as endpoints come and go.
const TTL: u32 = 5;

/// The cluster, as far as names go.
pub(super) trait View {
    fn has_namespace(&self, namespace: &str) -> bool;
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>>;
    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>>;
    fn has_pod(&self, namespace: &str, address: IpAddr) -> bool;
    /// The service with this address of its own.
    fn service_at(&self, address: IpAddr) -> Option<Arc<Service>>;
    /// Slices that have an endpoint with this address.
    fn slices_at(&self, address: IpAddr) -> Vec<Arc<EndpointSlice>>;
}

/// What is known about a question.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    /// Records; none: the name exists, but has none of this type.
    Found(Vec<Record>),
    /// There is no such name.
    NoName,
    /// A name outside the cluster, to be asked elsewhere. Records that lead there come first.
    Elsewhere(Vec<Record>, Name),
}

/// The cluster's domain.
pub(super) struct Zone {
    domain: Name,
}

impl Zone {
    /// Absent when the text is no domain name.
    pub(super) fn new(domain: &str) -> Option<Zone> {
        let mut domain = Name::from_ascii(domain.to_ascii_lowercase()).ok()?;
        domain.set_fqdn(true);
        Some(Zone { domain })
    }

    /// The record that goes with answers that say no.
    pub(super) fn authority(&self) -> Record {
        let below = |label: &str| self.domain.prepend_label(label).unwrap_or_default();
        let (server, person) = (below("ns"), below("hostmaster"));
        let data = SOA::new(server, person, 1, 7200, 1800, 86_400, TTL);
        Record::from_rdata(self.domain.clone(), TTL, RData::SOA(data))
    }

    /// Answers a question of class IN.
    pub(super) fn answer(&self, view: &dyn View, name: &Name, kind: RecordType) -> Answer {
        let mut name = name.to_lowercase();
        name.set_fqdn(true);
        if let Some(address) = reverse(&name) {
            return self.reversed(view, &name, address, kind);
        }
        let Some(labels) = self.labels(&name) else {
            return Answer::Elsewhere(Vec::new(), name);
        };
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let [path @ .., namespace, "svc"] = labels.as_slice() else {
            return self.other(view, &name, &labels, kind);
        };
        match path {
            [] if view.has_namespace(namespace) => Answer::Found(Vec::new()),
            [] => Answer::NoName,
            [rest @ .., service] => match view.service(namespace, service) {
                Some(service) => self.of_service(view, &service, (&name, rest), kind),
                None => Answer::NoName,
            },
        }
    }

    /// The labels before the cluster's domain; absent: the name is outside it.
    fn labels(&self, name: &Name) -> Option<Vec<String>> {
        if !self.domain.zone_of(name) {
            return None;
        }
        let count = usize::from(name.num_labels()) - usize::from(self.domain.num_labels());
        let labels = name.iter().take(count);
        Some(
            labels
                .map(|label| String::from_utf8_lossy(label).into_owned())
                .collect(),
        )
    }

    /// Names of the domain that are no services.
    fn other(&self, view: &dyn View, name: &Name, labels: &[&str], kind: RecordType) -> Answer {
        match labels {
            [] if kind == RecordType::SOA => Answer::Found(vec![self.authority()]),
            [] | ["svc"] | ["pod"] => Answer::Found(Vec::new()),
            ["dns-version"] => Answer::Found(match kind {
                RecordType::TXT => {
                    let data = TXT::new(vec!["1.1.0".to_owned()]);
                    vec![record(name, RData::TXT(data))]
                }
                _ => Vec::new(),
            }),
            [namespace, "pod"] if view.has_namespace(namespace) => Answer::Found(Vec::new()),
            [dashed, namespace, "pod"] => match undashed(dashed) {
                Some(address) if view.has_pod(namespace, address) => {
                    Answer::Found(addresses(name, [address], kind))
                }
                _ => Answer::NoName,
            },
            _ => Answer::NoName,
        }
    }

    fn of_service(
        &self,
        view: &dyn View,
        service: &Service,
        (name, rest): (&Name, &[&str]),
        kind: RecordType,
    ) -> Answer {
        let spec = service.spec.clone().unwrap_or_default();
        if spec.type_.as_deref() == Some("ExternalName") {
            let target = spec.external_name.unwrap_or_default();
            return if rest.is_empty() {
                self.alias(view, name, &target, kind)
            } else {
                Answer::NoName
            };
        }
        let own: Vec<IpAddr> = own_addresses(service);
        let namespace = service.namespace().unwrap_or_default();
        let slices = || view.slices(&namespace, &service.name_any());
        match rest {
            [] if kind == RecordType::SRV => {
                Answer::Found(self.ports(service, &slices(), name, |_| true))
            }
            [] if !own.is_empty() => Answer::Found(addresses(name, own, kind)),
            [] => {
                let slices = slices();
                let ready = endpoints(&slices).flat_map(|(_, endpoint)| ips(endpoint));
                Answer::Found(addresses(name, ready, kind))
            }
            [port, protocol] if port.starts_with('_') && protocol.starts_with('_') => {
                let (port, protocol) = (&port[1..], &protocol[1..]);
                let fits = |one: &ServicePort| {
                    let own = one.protocol.as_deref().unwrap_or("TCP");
                    one.name.as_deref() == Some(port) && own.eq_ignore_ascii_case(protocol)
                };
                if !spec.ports.iter().flatten().any(fits) {
                    return Answer::NoName;
                }
                let name_of_service = name.trim_to(usize::from(name.num_labels()) - 2);
                let mut records = self.ports(service, &slices(), &name_of_service, fits);
                records
                    .iter_mut()
                    .for_each(|record| record.name = name.clone());
                records.retain(|_| kind == RecordType::SRV);
                Answer::Found(records)
            }
            [label] => {
                let slices = slices();
                let named = endpoints(&slices).filter(|(_, one)| has_label(one, label));
                let ips: Vec<IpAddr> = named.flat_map(|(_, endpoint)| ips(endpoint)).collect();
                if ips.is_empty() {
                    return Answer::NoName;
                }
                Answer::Found(addresses(name, ips, kind))
            }
            _ => Answer::NoName,
        }
    }

    /// A service that is only another name for something.
    fn alias(&self, view: &dyn View, name: &Name, target: &str, kind: RecordType) -> Answer {
        let Ok(mut target) = Name::from_ascii(target.to_ascii_lowercase()) else {
            return Answer::NoName;
        };
        target.set_fqdn(true);
        let mut records = vec![record(name, RData::CNAME(CNAME(target.clone())))];
        if kind == RecordType::CNAME {
            return Answer::Found(records);
        }
        let Some(labels) = self.labels(&target) else {
            return Answer::Elsewhere(records, target);
        };
        // One step inside the cluster is followed; a chain of aliases might be a circle.
        if let [service, namespace, svc] = labels.as_slice()
            && svc == "svc"
            && let Some(service) = view.service(namespace, service)
            && service
                .spec
                .as_ref()
                .is_some_and(|spec| spec.external_name.is_none())
            && let Answer::Found(more) = self.of_service(view, &service, (&target, &[]), kind)
        {
            records.extend(more);
        }
        Answer::Found(records)
    }

    /// SRV records for a service's ports; `name` is the service's own.
    fn ports(
        &self,
        service: &Service,
        slices: &[Arc<EndpointSlice>],
        name: &Name,
        fits: impl Fn(&ServicePort) -> bool,
    ) -> Vec<Record> {
        let spec = service.spec.clone().unwrap_or_default();
        let headless = own_addresses(service).is_empty();
        let mut records = Vec::new();
        for port in spec.ports.iter().flatten().filter(|port| fits(port)) {
            if !headless {
                records.extend(srv(name, port.port, name.clone()));
                continue;
            }
            for (slice, endpoint) in endpoints(slices) {
                let wanted = port.name.as_deref().unwrap_or_default();
                let mut known = slice.ports.iter().flatten();
                let number = known.find(|one| one.name.as_deref().unwrap_or_default() == wanted);
                let label = label(endpoint);
                let target = label.and_then(|label| name.prepend_label(label.as_str()).ok());
                if let (Some(number), Some(target)) = (number.and_then(|one| one.port), target) {
                    records.extend(srv(name, number, target));
                }
            }
        }
        records
    }

    fn reversed(&self, view: &dyn View, name: &Name, address: IpAddr, kind: RecordType) -> Answer {
        let target = |service: &str, namespace: &str| {
            let text = format!("{service}.{namespace}.svc");
            Name::from_ascii(text)
                .ok()
                .and_then(|name| name.append_domain(&self.domain).ok())
        };
        let mut names = Vec::new();
        if let Some(service) = view.service_at(address) {
            names.extend(target(
                &service.name_any(),
                &service.namespace().unwrap_or_default(),
            ));
        } else {
            for slice in view.slices_at(address) {
                let Some(service) = slice.labels().get("kubernetes.io/service-name") else {
                    continue;
                };
                let service = target(service, &slice.namespace().unwrap_or_default());
                let here = slice
                    .endpoints
                    .iter()
                    .filter(|one| ips(one).any(|ip| ip == address));
                let labels = here.filter_map(label);
                names.extend(labels.filter_map(|label| {
                    service
                        .as_ref()
                        .and_then(|name| name.prepend_label(label.as_str()).ok())
                }));
            }
        }
        if names.is_empty() {
            return Answer::Elsewhere(Vec::new(), name.clone());
        }
        let wanted = kind == RecordType::PTR || kind == RecordType::ANY;
        let names = names.into_iter().filter(|_| wanted);
        Answer::Found(
            names
                .map(|target| record(name, RData::PTR(PTR(target))))
                .collect(),
        )
    }
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL, data)
}

fn srv(name: &Name, port: i32, target: Name) -> Option<Record> {
    let port = u16::try_from(port).ok()?;
    Some(record(name, RData::SRV(SRV::new(0, 100, port, target))))
}

fn addresses(name: &Name, ips: impl IntoIterator<Item = IpAddr>, kind: RecordType) -> Vec<Record> {
    let data = ips.into_iter().filter_map(|ip| match (ip, kind) {
        (IpAddr::V4(ip), RecordType::A | RecordType::ANY) => Some(RData::A(A(ip))),
        (IpAddr::V6(ip), RecordType::AAAA | RecordType::ANY) => Some(RData::AAAA(AAAA(ip))),
        _ => None,
    });
    data.map(|data| record(name, data)).collect()
}

/// Addresses of the service itself; none: it is headless.
fn own_addresses(service: &Service) -> Vec<IpAddr> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let all = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    let mut ips: Vec<IpAddr> = all.filter_map(|text| text.parse().ok()).collect();
    ips.dedup();
    ips.truncate(2);
    ips
}

/// Ready endpoints with their slices. `publishNotReadyAddresses` shows as ready.
fn endpoints(slices: &[Arc<EndpointSlice>]) -> impl Iterator<Item = (&EndpointSlice, &Endpoint)> {
    slices.iter().flat_map(|slice| {
        let ready = slice.endpoints.iter().filter(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            conditions
                .and_then(|conditions| conditions.ready)
                .unwrap_or(true)
        });
        ready.map(move |endpoint| (&**slice, endpoint))
    })
}

fn ips(endpoint: &Endpoint) -> impl Iterator<Item = IpAddr> {
    endpoint
        .addresses
        .iter()
        .filter_map(|text| text.parse().ok())
}

/// The endpoint's own label below its service: its host name, else its address with dashes.
fn label(endpoint: &Endpoint) -> Option<String> {
    let ip = ips(endpoint).next()?;
    Some(endpoint.hostname.clone().unwrap_or_else(|| dashed(ip)))
}

fn has_label(endpoint: &Endpoint, label: &str) -> bool {
    endpoint.hostname.as_deref() == Some(label) || ips(endpoint).any(|ip| dashed(ip) == label)
}

fn dashed(ip: IpAddr) -> String {
    ip.to_string().replace(['.', ':'], "-")
}

fn undashed(text: &str) -> Option<IpAddr> {
    let v4 = text.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
    v4.or_else(|_| text.replace('-', ":").parse()).ok()
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` stands for, when it is a whole one.
fn reverse(name: &Name) -> Option<IpAddr> {
    let arpa = Name::from_ascii("arpa.").ok()?;
    if !arpa.zone_of(name) {
        return None;
    }
    let network = name.parse_arpa_name().ok()?;
    (network.prefix_len() == network.max_prefix_len()).then(|| network.addr())
}
