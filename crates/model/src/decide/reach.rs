//! What one proxy needs to be told of, when that is not everything: what its Sidecar object imports, or what it asked
//! for, with all that decisions on these depend on. It keeps no resources, only an index of who refers to whom.
//!
//! ```text
//! own workload, Sidecar imports | lookups --> services <--> VirtualServices --> DestinationRules
//!                                                 '--> workloads
//! ```
//! The rule that makes it safe: whatever the proxy is told of comes with everything that changes what is decided about
//! it. So a proxy never acts on half of a service's configuration.

mod directory;

pub use directory::Directory;

use super::registry::imported;
use super::virtual_hosts::imports_table;
use crate::lookup::Lookup;
use crate::mesh::{EgressHost, Role, Scope, SidecarScope};
use crate::name::ServiceKey;
use crate::resource::Kind;
use directory::{Links, Rule, ServiceLinks};
use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

/// What one proxy needs to be told of. Numbers are those under which resources were put into the [`Directory`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// Services, VirtualServices and DestinationRules.
    ids: BTreeSet<u32>,
    /// Services whose workloads are needed.
    services: HashSet<ServiceKey>,
    /// Addresses whose workloads are needed.
    addresses: BTreeSet<IpAddr>,
}

impl Directory {
    /// What a proxy needs that is in `scope` and has asked for `lookups`; absent: everything that it may have.
    pub fn reach<'l>(
        &self,
        scope: &Scope,
        lookups: impl IntoIterator<Item = &'l Lookup>,
    ) -> Option<Reach> {
        let sidecar = self.sidecar(scope);
        let egress = sidecar.and_then(|sidecar| sidecar.egress.as_deref());
        if scope.role == Role::Gateway || (!scope.on_demand && egress.is_none()) {
            return None;
        }
        let mut gathering = Gathering {
            directory: self,
            scope,
            egress,
            excluded: sidecar.map_or(&[], |sidecar| &sidecar.excluded),
            reach: Reach::default(),
            open: Vec::new(),
        };
        gathering.own();
        gathering.infrastructure(sidecar);
        match scope.on_demand {
            true => self.unaddressed().for_each(|id| gathering.import(id)),
            false => gathering.imports(),
        }
        for lookup in lookups {
            gathering.look(lookup);
        }
        gathering.close();
        Some(gathering.reach)
    }

    /// Whether a resource belongs to `reach`, if it is of a kind that is sent by need; those of others always do.
    pub fn is_within(&self, reach: &Reach, id: u32) -> bool {
        match self.links(id) {
            None => true,
            Some(Links::Workload(links)) => {
                links
                    .services
                    .iter()
                    .any(|key| reach.services.contains(&**key))
                    || links
                        .addresses
                        .iter()
                        .any(|ip| reach.addresses.contains(ip))
            }
            Some(_) => reach.ids.contains(&id),
        }
    }

    /// Whether a change of a resource of this kind can change what `reach` holds beside the resource itself, when it was
    /// found out at revision `since`. What is gone leaves more than is needed, until the next look.
    pub fn matters(&self, reach: &Reach, kind: Kind, id: u32, since: u64) -> bool {
        match kind {
            Kind::SidecarScope | Kind::MeshSettings | Kind::RateLimitPolicy => true,
            _ => match self.newer(id, since) {
                None => false,
                Some(Links::Workload(links)) => {
                    let wanted = |ip| reach.addresses.contains(ip);
                    links.addresses.iter().any(wanted)
                }
                Some(Links::Service(_) | Links::Table(_) | Links::Policy(_)) => true,
            },
        }
    }

    /// Resources that are in one of two and not in the other.
    pub fn between(&self, a: &Reach, b: &Reach) -> BTreeSet<u32> {
        let mut changed: BTreeSet<u32> = a.ids.symmetric_difference(&b.ids).copied().collect();
        for key in a.services.symmetric_difference(&b.services) {
            changed.extend(self.workloads_of(key));
        }
        for ip in a.addresses.symmetric_difference(&b.addresses) {
            changed.extend(self.workloads_at(*ip));
        }
        changed
    }

    /// Every resource within `reach` that is sent by need.
    pub fn all_within(&self, reach: &Reach) -> BTreeSet<u32> {
        self.between(reach, &Reach::default())
    }
}

/// A reach in the making.
struct Gathering<'d> {
    directory: &'d Directory,
    scope: &'d Scope,
    egress: Option<&'d [EgressHost]>,
    excluded: &'d [EgressHost],
    reach: Reach,
    /// Hosts whose rules have not been looked for yet.
    open: Vec<&'d str>,
}

impl<'d> Gathering<'d> {
    /// The proxy's own workload with its services, whoever else may see them.
    fn own(&mut self) {
        for ip in &self.scope.addresses {
            self.reach.addresses.insert(*ip);
            for id in self.directory.workloads_at(*ip) {
                self.served(id, Self::add);
            }
        }
    }

    /// What is called on the mesh's behalf: whoever is asked about requests, and the way out.
    fn infrastructure(&mut self, sidecar: Option<&'d SidecarScope>) {
        let proxy = sidecar.and_then(|sidecar| sidecar.egress_proxy.as_ref());
        for host in self.directory.asked().chain(proxy.map(|to| &*to.host)) {
            self.refer(host);
        }
    }

    /// Everything that the Sidecar object imports.
    fn imports(&mut self) {
        for (id, links) in self.directory.importable() {
            match links {
                Links::Service(_) => self.import(id),
                Links::Table(rule) => self.table(id, rule),
                Links::Policy(_) | Links::Workload(_) => {}
            }
        }
    }

    fn look(&mut self, lookup: &Lookup) {
        match lookup {
            Lookup::Host(host) => {
                self.named(host);
                // A pod of a headless service: its own name stands before the service's.
                if let Some((_, service)) = host.split_once('.') {
                    self.named(service);
                }
                self.rules(host);
            }
            Lookup::Peer(ip) => {
                self.reach.addresses.insert(*ip);
            }
            Lookup::Address(ip) => {
                self.reach.addresses.insert(*ip);
                for id in self.directory.services_at(*ip) {
                    self.import(id);
                }
                for id in self.directory.workloads_at(*ip) {
                    self.served(id, Self::import);
                }
            }
        }
    }

    fn named(&mut self, host: &str) {
        for id in self.directory.services_named(host) {
            self.import(id);
        }
        if !host.contains('.') {
            let near = format!("{host}.{}", self.scope.namespace);
            for id in self.directory.services_named(&near) {
                self.import(id);
            }
        }
    }

    /// The services of a workload.
    fn served(&mut self, workload: u32, take: fn(&mut Self, u32)) {
        let Some(Links::Workload(links)) = self.directory.links(workload) else {
            return;
        };
        for key in &links.services {
            let same = |id: &u32| {
                self.service(*id)
                    .is_some_and(|service| service.key == **key)
            };
            let found = self.directory.services_named(&key.hostname).find(same);
            if let Some(id) = found {
                take(self, id);
            }
        }
    }

    /// A service, if the Sidecar object imports it or a VirtualService does.
    fn import(&mut self, id: u32) {
        let Some(service) = self.service(id) else {
            return;
        };
        if !service.visibility.includes(&self.scope.namespace) {
            return;
        }
        let is_imported = self.egress.is_none_or(|hosts| {
            imported(self.excluded, &service.key).is_none()
                && imported(hosts, &service.key).is_some()
        });
        if is_imported {
            return self.add(id);
        }
        // A VirtualService that the proxy may have imports what it sends to.
        for (id, rule) in self.directory.senders(&service.key.hostname) {
            self.table(id, rule);
        }
    }

    /// Whether a VirtualService is for this proxy.
    fn may_have(&self, rule: &Rule) -> bool {
        let imports = |hosts| imports_table(hosts, &rule.namespace, &rule.hosts);
        rule.is_for_sidecars
            && rule.visibility.includes(&self.scope.namespace)
            && self.egress.is_none_or(imports)
    }

    /// Services that a rule sends to: they come with the rule.
    fn refer(&mut self, host: &str) {
        for id in self.directory.services_named(host) {
            let fits = self.service(id).is_some_and(|service| {
                *service.key.hostname == *host && service.visibility.includes(&self.scope.namespace)
            });
            if fits {
                self.add(id);
            }
        }
    }

    fn add(&mut self, id: u32) {
        if let Some(service) = self.service(id)
            && self.reach.ids.insert(id)
        {
            self.reach.services.insert(service.key.clone());
            self.open.push(&service.key.hostname);
        }
    }

    fn service(&self, id: u32) -> Option<&'d ServiceLinks> {
        match self.directory.links(id) {
            Some(Links::Service(service)) => Some(service),
            _ => None,
        }
    }

    /// VirtualServices and DestinationRules for a host, with what they send to.
    fn rules(&mut self, host: &str) {
        for id in self.directory.rules_for(host) {
            match self.directory.links(id) {
                Some(Links::Table(rule)) => self.table(id, rule),
                Some(Links::Policy(rule)) if rule.visibility.includes(&self.scope.namespace) => {
                    self.reach.ids.insert(id);
                }
                _ => {}
            }
        }
    }

    fn table(&mut self, id: u32, rule: &'d Rule) {
        if self.may_have(rule) && self.reach.ids.insert(id) {
            for host in &rule.destinations {
                self.refer(host);
            }
        }
    }

    fn close(&mut self) {
        while let Some(host) = self.open.pop() {
            self.rules(host);
        }
    }
}
