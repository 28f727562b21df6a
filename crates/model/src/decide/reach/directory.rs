//! The index behind [`super::Reach`]: which resource has which names, addresses and references. It decides nothing.

mod links;

pub(super) use links::{Links, Rule, ServiceLinks};

use crate::decide::registry::sidecar_scope;
use crate::limit::Limiter;
use crate::matching::host_covers;
use crate::mesh::{MeshSettings, Scope, SidecarScope};
use crate::name::ServiceKey;
use crate::resource::Resource;
use lateen_base::Str;
use links::Ids;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

/// Who refers to whom among the resources put in, each under a number of the owner's choice.
#[derive(Debug, Default)]
pub struct Directory {
    /// By number; absent: nothing that is referred to.
    noted: Vec<Option<Noted>>,
    /// Services and VirtualServices among them.
    importable: BTreeSet<u32>,
    /// Counts changes of who refers to whom.
    revision: u64,
    /// Services by host and by other names.
    names: HashMap<Str, Ids>,
    /// Services by address.
    addresses: HashMap<IpAddr, Ids>,
    /// Services that nobody finds by an address of their own.
    unaddressed: BTreeSet<u32>,
    by_address: HashMap<IpAddr, Ids>,
    by_service: HashMap<Arc<ServiceKey>, BTreeSet<u32>>,
    /// VirtualServices and DestinationRules by exact host.
    rules: HashMap<Str, Ids>,
    /// Those with a wildcard.
    wild: BTreeSet<u32>,
    /// VirtualServices by host that they send to.
    senders: HashMap<Str, Ids>,
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

impl Directory {
    /// Notes a resource under `id`, in place of what was there.
    pub fn put(&mut self, id: u32, resource: &Resource) {
        let Some(mut links) = Links::of(resource) else {
            return self.put_other(id, resource);
        };
        // Most changes leave alone who refers to whom.
        if self.links(id) == Some(&links) {
            return;
        }
        self.take(id);
        self.share(&mut links);
        self.enter(id, &links);
        self.revision += 1;
        let revision = self.revision;
        let at = id as usize;
        if at >= self.noted.len() {
            self.noted.resize_with(at + 1, || None);
        }
        self.noted[at] = Some(Noted { links, revision });
    }

    /// Has a workload name its services by the keys that are there already.
    fn share(&self, links: &mut Links) {
        let Links::Workload(workload) = links else {
            return;
        };
        for key in &mut workload.services {
            if let Some((known, _)) = self.by_service.get_key_value(key) {
                *key = Arc::clone(known);
            }
        }
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
                    add_to(&mut self.names, name, id);
                }
                for ip in &service.addresses {
                    add_to(&mut self.addresses, ip, id);
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
                    add_to(&mut self.by_address, ip, id);
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
                add_to(&mut self.rules, host, id);
            }
        }
        for host in &rule.destinations {
            add_to(&mut self.senders, host, id);
        }
    }

    /// Forgets what is under `id`.
    pub fn take(&mut self, id: u32) {
        self.sidecars.remove(&id);
        self.quotas.remove(&id);
        self.mesh.take_if(|(of, _)| *of == id);
        self.importable.remove(&id);
        let noted = self.noted.get_mut(id as usize).and_then(Option::take);
        match noted.map(|noted| noted.links) {
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
        let noted = self.noted.get(id as usize)?.as_ref();
        noted.map(|noted| &noted.links)
    }

    /// The links of a resource that are newer than revision `since`.
    pub(super) fn newer(&self, id: u32, since: u64) -> Option<&Links> {
        let noted = self.noted.get(id as usize)?.as_ref()?;
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
        ids(self.names.get(name))
    }

    pub(super) fn services_at(&self, ip: IpAddr) -> impl Iterator<Item = u32> + use<'_> {
        ids(self.addresses.get(&ip))
    }

    pub(super) fn workloads_at(&self, ip: IpAddr) -> impl Iterator<Item = u32> + use<'_> {
        ids(self.by_address.get(&ip))
    }

    pub(super) fn workloads_of(&self, key: &ServiceKey) -> impl Iterator<Item = u32> + use<'_> {
        self.by_service.get(key).into_iter().flatten().copied()
    }

    /// VirtualServices and DestinationRules one of whose hosts covers `host`, or lies within it.
    pub(super) fn rules_for(&self, host: &str) -> Vec<u32> {
        let near = |own: &str| host_covers(own, host) || host_covers(host, own);
        if host.starts_with('*') {
            let all = self.rules.iter().filter(|(own, _)| near(own));
            let exact = all.flat_map(|(_, ids)| ids.iter());
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
        let exact = ids(self.rules.get(host));
        exact.chain(wild).collect()
    }

    /// VirtualServices that send to `host`.
    pub(super) fn senders(&self, host: &str) -> impl Iterator<Item = (u32, &Rule)> {
        ids(self.senders.get(host)).filter_map(|id| match self.links(id) {
            Some(Links::Table(rule)) => Some((id, &**rule)),
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

fn ids(found: Option<&Ids>) -> impl Iterator<Item = u32> + use<'_> {
    found.into_iter().flat_map(Ids::iter)
}

fn add_to<K: Hash + Eq + Clone>(map: &mut HashMap<K, Ids>, key: &K, id: u32) {
    match map.get_mut(key) {
        Some(ids) => ids.add(id),
        None => {
            map.insert(key.clone(), Ids::One(id));
        }
    }
}

fn drop_from<K: Hash + Eq>(map: &mut HashMap<K, Ids>, key: &K, id: u32) {
    if let Some(ids) = map.get_mut(key)
        && ids.remove(id)
    {
        map.remove(key);
    }
}
