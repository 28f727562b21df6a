//! The index behind [`super::Reach`]: which resource has which names, addresses and references. It decides nothing.

use crate::decide::registry::{destinations, is_for_sidecars, sidecar_scope};
use crate::limit::Limiter;
use crate::matching::host_covers;
use crate::mesh::{MeshSettings, Scope, SidecarScope};
use crate::name::{ServiceKey, Visibility};
use crate::resource::Resource;
use crate::service::{Resolution, Service};
use lateen_base::Str;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// Who refers to whom among the resources put in, each under a number of the owner's choice.
#[derive(Debug, Default)]
pub struct Directory {
    noted: BTreeMap<u32, Noted>,
    /// Services and VirtualServices among them.
    importable: BTreeSet<u32>,
    /// Counts changes of who refers to whom.
    revision: u64,
    /// Services by host and by other names.
    names: HashMap<Str, Vec<u32>>,
    /// Services by address.
    addresses: HashMap<IpAddr, Vec<u32>>,
    /// Services that nobody finds by an address of their own.
    unaddressed: BTreeSet<u32>,
    by_address: HashMap<IpAddr, Vec<u32>>,
    by_service: HashMap<ServiceKey, BTreeSet<u32>>,
    /// VirtualServices and DestinationRules by exact host.
    rules: HashMap<Str, Vec<u32>>,
    /// Those with a wildcard.
    wild: BTreeSet<u32>,
    /// VirtualServices by host that they send to.
    senders: HashMap<Str, Vec<u32>>,
    sidecars: BTreeMap<u32, Arc<SidecarScope>>,
    mesh: Option<(u32, MeshSettings)>,
    /// Rate-limit services by the policy that names them.
    quotas: BTreeMap<u32, Vec<Str>>,
}

#[derive(Debug)]
struct Noted {
    links: Links,
    /// The revision that it came with.
    revision: u64,
}

/// What is known of one resource.
#[derive(Debug, PartialEq)]
pub(super) enum Links {
    Service(ServiceLinks),
    Workload(WorkloadLinks),
    Table(Rule),
    Policy(Rule),
}

#[derive(Debug, PartialEq)]
pub(super) struct ServiceLinks {
    pub key: ServiceKey,
    pub visibility: Visibility,
    names: Vec<Str>,
    addresses: Vec<IpAddr>,
    is_unaddressed: bool,
}

#[derive(Debug, PartialEq)]
pub(super) struct WorkloadLinks {
    pub addresses: Vec<IpAddr>,
    pub services: Vec<ServiceKey>,
}

/// A VirtualService or a DestinationRule.
#[derive(Debug, PartialEq)]
pub(super) struct Rule {
    pub namespace: Str,
    pub visibility: Visibility,
    pub hosts: Vec<Str>,
    /// Hosts that it sends to.
    pub destinations: Vec<Str>,
    /// Whether sidecars follow it; gateways alone do otherwise.
    pub is_for_sidecars: bool,
}

impl Directory {
    /// Notes a resource under `id`, in place of what was there.
    pub fn put(&mut self, id: u32, resource: &Resource) {
        let Some(links) = Links::of(resource) else {
            return self.put_other(id, resource);
        };
        // Most changes leave alone who refers to whom.
        if self.links(id) == Some(&links) {
            return;
        }
        self.take(id);
        self.enter(id, &links);
        self.revision += 1;
        let revision = self.revision;
        self.noted.insert(id, Noted { links, revision });
    }

    /// What is not referred to, and has a say all the same.
    fn put_other(&mut self, id: u32, resource: &Resource) {
        self.take(id);
        match resource {
            Resource::SidecarScope(sidecar) => {
                self.sidecars.insert(id, Arc::new(sidecar.clone()));
            }
            Resource::MeshSettings(mesh) => self.mesh = Some((id, mesh.clone())),
            Resource::RateLimitPolicy(policy) => {
                let hosts = policy.rules.iter().filter_map(|rule| match &rule.limiter {
                    Limiter::Global(service) => Some(service.host.clone()),
                    Limiter::Local { .. } => None,
                });
                self.quotas.insert(id, hosts.collect());
            }
            _ => {}
        }
    }

    fn enter(&mut self, id: u32, links: &Links) {
        match links {
            Links::Service(service) => {
                for name in &service.names {
                    self.names.entry(name.clone()).or_default().push(id);
                }
                for ip in &service.addresses {
                    self.addresses.entry(*ip).or_default().push(id);
                }
                if service.is_unaddressed {
                    self.unaddressed.insert(id);
                }
                self.importable.insert(id);
            }
            Links::Workload(workload) => {
                for key in &workload.services {
                    self.by_service.entry(key.clone()).or_default().insert(id);
                }
                for ip in &workload.addresses {
                    self.by_address.entry(*ip).or_default().push(id);
                }
            }
            Links::Table(rule) => {
                self.importable.insert(id);
                self.enter_rule(id, rule);
            }
            Links::Policy(rule) => self.enter_rule(id, rule),
        }
    }

    fn enter_rule(&mut self, id: u32, rule: &Rule) {
        for host in &rule.hosts {
            if host.starts_with('*') {
                self.wild.insert(id);
            } else {
                self.rules.entry(host.clone()).or_default().push(id);
            }
        }
        for host in &rule.destinations {
            self.senders.entry(host.clone()).or_default().push(id);
        }
    }

    /// Forgets what is under `id`.
    pub fn take(&mut self, id: u32) {
        self.sidecars.remove(&id);
        self.quotas.remove(&id);
        self.mesh.take_if(|(of, _)| *of == id);
        self.importable.remove(&id);
        match self.noted.remove(&id).map(|noted| noted.links) {
            None => {}
            Some(Links::Service(service)) => {
                self.unaddressed.remove(&id);
                for name in &service.names {
                    drop_from(&mut self.names, name, id);
                }
                for ip in &service.addresses {
                    drop_from(&mut self.addresses, ip, id);
                }
            }
            Some(Links::Workload(workload)) => {
                for key in &workload.services {
                    if let Some(list) = self.by_service.get_mut(key) {
                        list.remove(&id);
                        if list.is_empty() {
                            self.by_service.remove(key);
                        }
                    }
                }
                for ip in &workload.addresses {
                    drop_from(&mut self.by_address, ip, id);
                }
            }
            Some(Links::Table(rule) | Links::Policy(rule)) => {
                self.wild.remove(&id);
                for host in &rule.hosts {
                    drop_from(&mut self.rules, host, id);
                }
                for host in &rule.destinations {
                    drop_from(&mut self.senders, host, id);
                }
            }
        }
    }

    pub(super) fn links(&self, id: u32) -> Option<&Links> {
        self.noted.get(&id).map(|noted| &noted.links)
    }

    /// The links of a resource that are newer than revision `since`.
    pub(super) fn newer(&self, id: u32, since: u64) -> Option<&Links> {
        let noted = self.noted.get(&id)?;
        (noted.revision > since).then_some(&noted.links)
    }

    /// Counts changes of who refers to whom.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Services and VirtualServices.
    pub(super) fn importable(&self) -> impl Iterator<Item = (u32, &Links)> {
        let all = self.importable.iter();
        all.filter_map(|id| Some((*id, self.links(*id)?)))
    }

    /// Services that requests find by name, or by a range of addresses, whatever address they go to.
    pub(super) fn unaddressed(&self) -> impl Iterator<Item = u32> {
        self.unaddressed.iter().copied()
    }

    pub(super) fn services_named(&self, name: &str) -> impl Iterator<Item = u32> + use<'_> {
        self.names.get(name).into_iter().flatten().copied()
    }

    pub(super) fn services_at(&self, ip: IpAddr) -> impl Iterator<Item = u32> + use<'_> {
        self.addresses.get(&ip).into_iter().flatten().copied()
    }

    pub(super) fn workloads_at(&self, ip: IpAddr) -> impl Iterator<Item = u32> + use<'_> {
        self.by_address.get(&ip).into_iter().flatten().copied()
    }

    pub(super) fn workloads_of(&self, key: &ServiceKey) -> impl Iterator<Item = u32> + use<'_> {
        self.by_service.get(key).into_iter().flatten().copied()
    }

    /// VirtualServices and DestinationRules one of whose hosts covers `host`, or lies within it.
    pub(super) fn rules_for(&self, host: &str) -> Vec<u32> {
        let near = |own: &str| host_covers(own, host) || host_covers(host, own);
        if host.starts_with('*') {
            let all = self.rules.iter().filter(|(own, _)| near(own));
            let exact = all.flat_map(|(_, ids)| ids.iter().copied());
            return exact.chain(self.wild.iter().copied()).collect();
        }
        let wild = self
            .wild
            .iter()
            .copied()
            .filter(|id| match self.links(*id) {
                Some(Links::Table(rule) | Links::Policy(rule)) => {
                    rule.hosts.iter().any(|own| near(own))
                }
                _ => false,
            });
        let exact = self.rules.get(host).into_iter().flatten().copied();
        exact.chain(wild).collect()
    }

    /// VirtualServices that send to `host`.
    pub(super) fn senders(&self, host: &str) -> impl Iterator<Item = (u32, &Rule)> {
        let ids = self.senders.get(host).into_iter().flatten();
        ids.filter_map(|id| match self.links(*id) {
            Some(Links::Table(rule)) => Some((*id, rule)),
            _ => None,
        })
    }

    /// The Sidecar object in force for a proxy.
    pub(super) fn sidecar(&self, scope: &Scope) -> Option<&SidecarScope> {
        let root = self.mesh.as_ref().map(|(_, mesh)| &*mesh.root_namespace);
        let root = root.unwrap_or("istio-system");
        sidecar_scope(self.sidecars.values(), scope, root).map(|sidecar| &**sidecar)
    }

    /// Hosts of services that proxies ask about requests.
    pub(super) fn asked(&self) -> impl Iterator<Item = &str> {
        let mesh = self.mesh.iter();
        let providers = mesh.flat_map(|(_, mesh)| mesh.authz_providers.iter().map(|p| &*p.host));
        let quotas = self.quotas.values().flatten();
        providers.chain(quotas.map(|host| &**host))
    }
}

impl Links {
    /// Absent: nothing refers to such a resource.
    fn of(resource: &Resource) -> Option<Self> {
        Some(match resource {
            Resource::Service(service) => Self::Service(ServiceLinks::of(service)),
            Resource::Workload(workload) => Self::Workload(WorkloadLinks {
                addresses: workload.addresses.clone(),
                services: workload.services.keys().cloned().collect(),
            }),
            Resource::RouteTable(table) => {
                let to: BTreeSet<&str> = destinations(table).collect();
                Self::Table(Rule {
                    namespace: table.origin.namespace.clone(),
                    visibility: table.visibility.clone(),
                    hosts: table.hosts.clone(),
                    destinations: to.into_iter().map(Str::from).collect(),
                    is_for_sidecars: is_for_sidecars(table),
                })
            }
            Resource::TrafficPolicy(policy) => Self::Policy(Rule {
                namespace: policy.origin.namespace.clone(),
                visibility: policy.visibility.clone(),
                hosts: vec![policy.host.clone()],
                destinations: Vec::new(),
                is_for_sidecars: true,
            }),
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

fn drop_from<K: std::hash::Hash + Eq>(map: &mut HashMap<K, Vec<u32>>, key: &K, id: u32) {
    if let Some(list) = map.get_mut(key) {
        list.retain(|other| *other != id);
        if list.is_empty() {
            map.remove(key);
        }
    }
}
