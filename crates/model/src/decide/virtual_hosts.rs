//! The routes of a sidecar: which VirtualService serves which host on which port.

use super::clusters::Target;
use super::host::HostTable;
use super::l4::{L4Rule, SniTable, add_sni};
use super::plan::FaultReason;
use super::registry::{Visible, is_for_sidecars};
use super::resources::ResourceSet;
use super::routes::{Compiler, MESH, Rules};
use crate::matching::host_covers;
use crate::mesh::{EgressHost, Scope, SidecarScope};
use crate::route::RouteTable;
use crate::service::Protocol;
use lateen_base::Str;
use std::collections::HashMap;
use std::sync::Arc;

/// The routes of one host on one port.
#[derive(Debug)]
pub(super) struct VirtualHost {
    /// The service's host, or the VirtualService's when no service has it.
    pub domain: Str,
    pub service: Option<Arc<Visible>>,
    /// Rules of the VirtualService in force; absent: everything goes to `target`.
    pub rules: Option<Arc<Rules>>,
    pub target: Target,
}

/// VirtualServices that the proxy may see, oldest first (Istio: creation time, then name).
pub(super) fn visible_tables(
    set: &ResourceSet,
    scope: &Scope,
    sidecar: Option<&SidecarScope>,
) -> Vec<Arc<RouteTable>> {
    let egress = sidecar.and_then(|s| s.egress.as_deref());
    let mut tables: Vec<_> = set
        .routes
        .values()
        .filter(|t| t.visibility.includes(&scope.namespace))
        .filter(|t| egress.is_none_or(|hosts| imports_table(hosts, &t.origin.namespace, &t.hosts)))
        .cloned()
        .collect();
    tables.sort_by(|a, b| {
        let key = |t: &RouteTable| (t.origin.created, t.origin.name.clone());
        key(a).cmp(&key(b))
    });
    tables
}

/// Whether an egress list imports a VirtualService of this namespace with these hosts.
pub(super) fn imports_table(egress: &[EgressHost], namespace: &str, hosts: &[Str]) -> bool {
    egress.iter().any(|egress| {
        egress.namespace.as_deref().is_none_or(|ns| ns == namespace)
            && hosts
                .iter()
                .any(|h| host_covers(&egress.host, h) || host_covers(h, &egress.host))
    })
}

/// Routes of a sidecar.
#[derive(Default)]
pub(super) struct Outbound {
    pub hosts: HashMap<u16, HostTable<Arc<VirtualHost>>>,
    pub tcp_rules: HostTable<Vec<Arc<L4Rule>>>,
    pub tls_rules: SniTable,
}

/// Port on which VirtualServices without any service are reachable by Host (Istio: port 80 only).
const PORT_WITHOUT_SERVICE: u16 = 80;

impl Outbound {
    pub fn build(compiler: &Compiler<'_>, tables: &[Arc<RouteTable>]) -> Self {
        let mut outbound = Self::default();
        let mut http: HostTable<Arc<RouteTable>> = HostTable::default();
        let in_mesh = |t: &&Arc<RouteTable>| is_for_sidecars(t);
        for table in tables.iter().filter(in_mesh) {
            let tcp = L4Rule::tcp(compiler, table, MESH);
            for host in &table.hosts {
                if !table.http.is_empty() {
                    http.insert_first(host, table.clone());
                }
                if !tcp.is_empty() {
                    outbound.tcp_rules.insert_first(host, tcp.clone());
                }
            }
            let tls = L4Rule::tls(compiler, table, MESH);
            add_sni(&mut outbound.tls_rules, &tls, |_| true);
        }
        let mut rules = RuleCache::default();
        for visible in &compiler.registry.services {
            let table = http.find(&visible.service.key.hostname);
            outbound.add_service(compiler, visible, table, &mut rules);
        }
        outbound.add_hosts_without_service(compiler, &http, &mut rules);
        outbound
    }

    fn add_service(
        &mut self,
        compiler: &Compiler<'_>,
        visible: &Arc<Visible>,
        table: Option<&Arc<RouteTable>>,
        rules: &mut RuleCache,
    ) {
        let domains = domains(visible, compiler.scope);
        for port in visible.ports() {
            if !port.protocol.is_http() && port.protocol != Protocol::Detect {
                continue;
            }
            let host = Arc::new(VirtualHost {
                domain: visible.service.key.hostname.clone(),
                service: Some(visible.clone()),
                rules: table.map(|t| rules.of(compiler, t, port.number)),
                target: compiler.clusters.of_port(visible, port.number),
            });
            let served = self.hosts.entry(port.number).or_default();
            for domain in &domains {
                served.insert_first(domain, host.clone());
            }
        }
    }

    fn add_hosts_without_service(
        &mut self,
        compiler: &Compiler<'_>,
        http: &HostTable<Arc<RouteTable>>,
        rules: &mut RuleCache,
    ) {
        let registry = compiler.registry;
        for (pattern, table) in http.iter() {
            let served = match pattern.starts_with('*') {
                false => registry.by_name(&pattern, None).is_some(),
                true => registry
                    .services
                    .iter()
                    .any(|v| host_covers(&pattern, &v.service.key.hostname)),
            };
            if served {
                continue;
            }
            let host = Arc::new(VirtualHost {
                domain: pattern.as_str().into(),
                service: None,
                rules: Some(rules.of(compiler, table, PORT_WITHOUT_SERVICE)),
                target: Target::Missing {
                    reason: FaultReason::NoCluster,
                    subject: pattern.clone(),
                },
            });
            self.hosts
                .entry(PORT_WITHOUT_SERVICE)
                .or_default()
                .insert_first(&pattern, host);
        }
    }
}

/// Rules by table and port: several services share them.
#[derive(Default)]
struct RuleCache(HashMap<(*const RouteTable, u16), Arc<Rules>>);

impl RuleCache {
    fn of(&mut self, compiler: &Compiler<'_>, table: &Arc<RouteTable>, port: u16) -> Arc<Rules> {
        self.0
            .entry((Arc::as_ptr(table), port))
            .or_insert_with(|| Arc::new(Rules::new(compiler.rules(table, port, MESH))))
            .clone()
    }
}

/// Hosts under which clients address a service (Istio: virtual host domains), ports stripped.
pub(super) fn domains(visible: &Visible, scope: &Scope) -> Vec<String> {
    let service = &visible.service;
    let mut names = own_names(visible, scope);
    if visible.is_headless() {
        // Pods of a StatefulSet are addressed by names below the service's.
        let below: Vec<_> = names.iter().map(|name| format!("*.{name}")).collect();
        names.extend(below);
    }
    names.extend(service.addresses.iter().map(|a| a.ip.to_string()));
    names.extend(service.allocated.iter().map(ToString::to_string));
    names
}

/// Names of a service itself, as clients in this scope may write them.
pub(super) fn own_names(visible: &Visible, scope: &Scope) -> Vec<String> {
    let service = &visible.service;
    let mut names = vec![service.key.hostname.to_string()];
    names.extend(service.aliases.iter().map(ToString::to_string));
    if service.key.namespace == scope.namespace && !service.aliases.is_empty() {
        names.push(service.name.to_string());
    }
    names
}
