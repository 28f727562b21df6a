//! Everything one proxy decides from, compiled from the resources it holds: immutable, swapped as one.

use super::cluster::Cluster;
use super::clusters::{Clusters, Target, passthrough};
use super::gateway::{GatewayListener, GatewayPort};
use super::host::HostTable;
use super::inbound::{self, InboundPort};
use super::l4::{L4Rule, SniTable, add_sni};
use super::policy::Policies;
use super::registry::{Registry, Visible, sidecar_scope};
use super::resources::ResourceSet;
use super::routes::{Compiler, MESH, Rule, default_retries};
use crate::matching::host_covers;
use crate::mesh::{MeshSettings, OutboundMode, Role, Scope, SidecarScope};
use crate::name::Origin;
use crate::route::{RetryPolicy, RouteTable};
use crate::service::Protocol;
use crate::workload::Workload;
use lateen_base::Str;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// Compiled configuration of one proxy.
#[derive(Debug)]
pub struct Snapshot {
    pub(super) scope: Scope,
    pub(super) mesh: Arc<MeshSettings>,
    pub(super) outbound: OutboundMode,
    pub(super) registry: Registry,
    pub(super) clusters: Clusters,
    /// Virtual hosts by port: outbound HTTP.
    pub(super) hosts: HashMap<u16, HostTable<Arc<VirtualHost>>>,
    /// TCP routes for sidecars, by host of the VirtualService.
    pub(super) tcp_rules: HostTable<Vec<Arc<L4Rule>>>,
    /// TLS routes for sidecars, by server name.
    pub(super) tls_rules: SniTable,
    pub(super) inbound: HashMap<u16, InboundPort>,
    pub(super) gateway: BTreeMap<u16, GatewayPort>,
    pub(super) passthrough: Arc<Cluster>,
    pub(super) inbound_passthrough: Arc<Cluster>,
    black_hole: Arc<Cluster>,
    pub(super) default_retries: Arc<RetryPolicy>,
    pub(super) no_retries: Arc<RetryPolicy>,
    pub(super) names: RouteNames,
}

/// Names of routes that no user wrote.
#[derive(Debug)]
pub(super) struct RouteNames {
    pub default: Str,
    pub allow_any: Str,
}

/// The routes of one host on one port.
#[derive(Debug)]
pub(super) struct VirtualHost {
    /// The service's host, or the VirtualService's when no service has it.
    pub domain: Str,
    pub service: Option<Arc<Visible>>,
    /// Rules of the VirtualService in force; absent: everything goes to `target`.
    pub rules: Option<Arc<[Arc<Rule>]>>,
    pub target: Target,
}

/// One line of a route table, for people.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteSummary {
    /// Port that clients address; at a gateway the server's port.
    pub port: u16,
    /// Host, as most people write it: the service's full name or the VirtualService's host.
    pub host: String,
    /// The VirtualService in force; absent: the default route to the service.
    pub origin: Option<Origin>,
    /// Number of rules that can apply here; 0 with a default route.
    pub rules: usize,
}

/// One outbound destination that a sidecar listens for, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerSummary {
    /// Virtual address; absent: any address.
    pub address: Option<crate::service::Address>,
    /// Port.
    pub port: u16,
    /// What it speaks.
    pub protocol: Protocol,
    /// Service host; HTTP on any address is routed by Host.
    pub host: Str,
}

impl Snapshot {
    /// Compiles what `set` means for a proxy in `scope`.
    pub fn build(set: &ResourceSet, scope: &Scope) -> Self {
        Self::build_from(set, scope, None)
    }

    /// As [`Self::build`], taking over every cluster of `previous` that came out the same, so that
    /// what is kept per cluster by reference stays valid.
    pub fn build_from(set: &ResourceSet, scope: &Scope, previous: Option<&Self>) -> Self {
        let mesh = set.mesh().cloned().unwrap_or_default();
        let root = &mesh.root_namespace;
        let sidecar = match scope.role {
            Role::Sidecar => sidecar_scope(set, scope, root).map(|s| &**s),
            Role::Gateway => None,
        };
        let tables = visible_tables(set, scope, sidecar);
        let registry = Registry::build(set, scope, sidecar, &tables);
        let policies = Policies::build(set, scope, root);
        let clusters = Clusters::build(set, &registry, &policies, previous.map(|p| &p.clusters));
        let retries = Arc::new(default_retries());
        let compiler = Compiler {
            scope,
            registry: &registry,
            clusters: &clusters,
            default_retries: &retries,
        };
        let mut snapshot = Outbound::default();
        let mut gateway = BTreeMap::new();
        match scope.role {
            Role::Sidecar => snapshot = Outbound::build(&compiler, &tables),
            Role::Gateway => gateway = super::gateway::ports(set, &compiler, &tables),
        }
        let inbound = match scope.role {
            Role::Sidecar => inbound::ports(set, scope),
            Role::Gateway => HashMap::new(),
        };
        let fixed = |pick: fn(&Self) -> &Arc<Cluster>, name: &str| match previous {
            Some(previous) => pick(previous).clone(),
            None => passthrough(name),
        };
        Self {
            scope: scope.clone(),
            outbound: sidecar.and_then(|s| s.outbound).unwrap_or(mesh.outbound),
            mesh,
            hosts: snapshot.hosts,
            tcp_rules: snapshot.tcp_rules,
            tls_rules: snapshot.tls_rules,
            inbound,
            gateway,
            passthrough: fixed(|p| &p.passthrough, "PassthroughCluster"),
            inbound_passthrough: fixed(|p| &p.inbound_passthrough, "InboundPassthroughCluster"),
            black_hole: fixed(|p| &p.black_hole, "BlackHoleCluster"),
            no_retries: Arc::new(RetryPolicy {
                attempts: 0,
                per_try_timeout: None,
                retry_on: Vec::new(),
            }),
            names: RouteNames {
                default: "default".into(),
                allow_any: "allow_any".into(),
            },
            default_retries: retries,
            registry,
            clusters,
        }
    }

    /// The proxy that it was built for.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The mesh's settings; defaults until they arrived.
    pub fn mesh(&self) -> &MeshSettings {
        &self.mesh
    }

    /// What happens to unknown destinations, the Sidecar object counted in.
    pub fn outbound_mode(&self) -> OutboundMode {
        self.outbound
    }

    /// Every outbound cluster in order of name, then the inbound ones, then those for pass-through.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        let fixed = [
            &self.passthrough,
            &self.inbound_passthrough,
            &self.black_hole,
        ];
        self.clusters
            .by_name
            .values()
            .chain(self.inbound.values().flat_map(InboundPort::clusters))
            .chain(fixed)
    }

    /// The cluster with this name.
    pub fn cluster(&self, name: &str) -> Option<&Arc<Cluster>> {
        self.clusters.by_name.get(name)
    }

    /// The cluster that refuses everything, for connections closed by REGISTRY_ONLY (metric labels).
    pub fn black_hole(&self) -> &Arc<Cluster> {
        &self.black_hole
    }

    /// The workload that has this address, for metric labels of peers.
    pub fn workload_at(&self, ip: IpAddr) -> Option<&Arc<Workload>> {
        self.registry.by_workload.get(&ip)
    }

    /// Ports that a gateway opens, in order of port; empty for a sidecar.
    pub fn gateway_listeners(&self) -> Vec<GatewayListener> {
        self.gateway.values().map(|p| p.listener.clone()).collect()
    }

    /// The service that a client of this proxy's namespace means by a host name (canonical form).
    pub(super) fn service_by_alias(&self, host: &str, port: u16) -> Option<&Arc<Visible>> {
        let routed = self.hosts.get(&port).and_then(|table| table.find(host));
        routed.and_then(|found| found.service.as_ref()).or_else(|| {
            let services = || self.registry.services.iter();
            let named = |v: &&Arc<Visible>| domains(v, &self.scope).iter().any(|d| d == host);
            let with_port = services().filter(|v| v.port(port).is_some()).find(named);
            with_port.or_else(|| services().find(named))
        })
    }

    /// Every host with the routes in force, in order of port and host.
    pub fn routes(&self) -> Vec<RouteSummary> {
        let summary = |port: u16, host: String, rules: &[Arc<Rule>]| RouteSummary {
            port,
            host,
            origin: rules.first().map(|r| r.table.origin.clone()),
            rules: rules.len(),
        };
        let sidecar = self.hosts.iter().flat_map(|(port, table)| {
            table.iter().map(|(_, host)| {
                let rules = host.rules.as_deref().unwrap_or_default();
                summary(*port, host.domain.to_string(), rules)
            })
        });
        let gateway = self.gateway.iter().flat_map(|(port, opened)| {
            opened
                .hosts
                .iter()
                .map(|(host, served)| summary(*port, host, &served.rules))
        });
        let mut all: Vec<_> = sidecar.chain(gateway).collect();
        all.sort();
        all.dedup();
        all
    }

    /// Every outbound destination that is known by address or port, in order of port and host.
    pub fn listeners(&self) -> Vec<ListenerSummary> {
        let mut all = Vec::new();
        for visible in &self.registry.services {
            let service = &visible.service;
            for port in visible.ports() {
                let line = |address| ListenerSummary {
                    address,
                    port: port.number,
                    protocol: port.protocol,
                    host: service.key.hostname.clone(),
                };
                match service.addresses.as_slice() {
                    [] => all.push(line(None)),
                    some => all.extend(some.iter().map(|a| line(Some(*a)))),
                }
            }
        }
        all.sort_by(|a, b| (a.port, &a.host).cmp(&(b.port, &b.host)));
        all
    }
}

/// VirtualServices that the proxy may see, oldest first (Istio: creation time, then name).
fn visible_tables(
    set: &ResourceSet,
    scope: &Scope,
    sidecar: Option<&SidecarScope>,
) -> Vec<Arc<RouteTable>> {
    let egress = sidecar.and_then(|s| s.egress.as_deref());
    let imported = |table: &RouteTable| {
        egress.is_none_or(|hosts| {
            hosts.iter().any(|egress| {
                let same = |ns: &Str| *ns == table.origin.namespace;
                egress.namespace.as_ref().is_none_or(same)
                    && table
                        .hosts
                        .iter()
                        .any(|h| host_covers(&egress.host, h) || host_covers(h, &egress.host))
            })
        })
    };
    let mut tables: Vec<_> = set
        .routes
        .values()
        .filter(|t| t.visibility.includes(&scope.namespace) && imported(t))
        .cloned()
        .collect();
    tables.sort_by(|a, b| {
        let key = |t: &RouteTable| (t.origin.created, t.origin.name.clone());
        key(a).cmp(&key(b))
    });
    tables
}

/// Routes of a sidecar.
#[derive(Default)]
struct Outbound {
    hosts: HashMap<u16, HostTable<Arc<VirtualHost>>>,
    tcp_rules: HostTable<Vec<Arc<L4Rule>>>,
    tls_rules: SniTable,
}

/// Port on which VirtualServices without any service are reachable by Host (Istio: port 80 only).
const PORT_WITHOUT_SERVICE: u16 = 80;

impl Outbound {
    fn build(compiler: &Compiler<'_>, tables: &[Arc<RouteTable>]) -> Self {
        let mut outbound = Self::default();
        let mut http: HostTable<Arc<RouteTable>> = HostTable::default();
        let in_mesh = |t: &&Arc<RouteTable>| t.gateways.iter().any(|g| &**g == MESH);
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
        let services = &compiler.registry.services;
        for (pattern, table) in http.iter() {
            let served = services
                .iter()
                .any(|v| host_covers(&pattern, &v.service.key.hostname));
            if served {
                continue;
            }
            let host = Arc::new(VirtualHost {
                domain: pattern.as_str().into(),
                service: None,
                rules: Some(rules.of(compiler, table, PORT_WITHOUT_SERVICE)),
                target: Target::Missing {
                    reason: super::plan::FaultReason::NoCluster,
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
struct RuleCache(HashMap<(*const RouteTable, u16), Arc<[Arc<Rule>]>>);

impl RuleCache {
    fn of(
        &mut self,
        compiler: &Compiler<'_>,
        table: &Arc<RouteTable>,
        port: u16,
    ) -> Arc<[Arc<Rule>]> {
        self.0
            .entry((Arc::as_ptr(table), port))
            .or_insert_with(|| compiler.rules(table, port, MESH).into())
            .clone()
    }
}

/// Hosts under which clients address a service (Istio: virtual host domains), ports stripped.
fn domains(visible: &Visible, scope: &Scope) -> Vec<String> {
    let service = &visible.service;
    let mut names = vec![service.key.hostname.to_string()];
    names.extend(service.aliases.iter().map(ToString::to_string));
    if service.key.namespace == scope.namespace && !service.aliases.is_empty() {
        names.push(service.name.to_string());
    }
    if visible.is_headless() {
        // Pods of a StatefulSet are addressed by names below the service's.
        let below: Vec<_> = names.iter().map(|name| format!("*.{name}")).collect();
        names.extend(below);
    }
    names.extend(service.addresses.iter().map(|a| a.ip.to_string()));
    names
}
