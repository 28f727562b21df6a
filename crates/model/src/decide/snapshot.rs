//! Everything one proxy decides from, compiled from the resources it holds: immutable, swapped as one.

use super::cluster::Cluster;
use super::clusters::{Clusters, Target, View, dynamic, passthrough};
use super::gateway::{GatewayListener, GatewayPort};
use super::host::HostTable;
use super::inbound::{self, InboundPort};
use super::l4::{L4Rule, SniTable};
use super::limits::Limits;
use super::locality::Client;
use super::names::NameTable;
use super::policy::Policies;
use super::registry::{Registry, Visible, sidecar_scope};
use super::resources::ResourceSet;
use super::routes::{Compiler, default_retries};
use super::security::Security;
use super::virtual_hosts::{Outbound, VirtualHost, domains, visible_tables};
use crate::mesh::{MeshSettings, OutboundMode, Role, Scope};
use crate::route::RetryPolicy;
use crate::workload::Workload;
use lateen_base::Str;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

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
    /// Where unknown destinations go instead of themselves; absent: nobody asked for that.
    pub(super) egress_proxy: Option<Target>,
    pub(super) inbound_passthrough: Arc<Cluster>,
    black_hole: Arc<Cluster>,
    /// Plain HTTP to unknown hosts under ALLOW_ANY_DYNAMIC_DNS.
    pub(super) dynamic: Arc<Cluster>,
    pub(super) default_retries: Arc<RetryPolicy>,
    pub(super) no_retries: Arc<RetryPolicy>,
    pub(super) names: RouteNames,
    pub(super) security: Security,
    /// Made when somebody asks: most proxies answer no DNS.
    by_name: OnceLock<NameTable>,
    pub(super) limits: Limits,
    /// Whether the control plane sends less than everything: what is not here may be all the same.
    pub(super) partial: bool,
}

/// Names of routes that no user wrote.
#[derive(Debug)]
pub(super) struct RouteNames {
    pub default: Str,
    pub allow_any: Str,
    pub allow_any_dynamic_dns: Str,
}

impl Default for RouteNames {
    fn default() -> Self {
        Self {
            default: "default".into(),
            allow_any: "allow_any".into(),
            allow_any_dynamic_dns: "allow_any_dynamic_dns".into(),
        }
    }
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
            Role::Sidecar => sidecar_scope(set.scopes.values(), scope, root).map(|s| &**s),
            Role::Gateway => None,
        };
        let tables = visible_tables(set, scope, sidecar);
        let registry = Registry::build(set, scope, sidecar, &tables);
        let policies = Policies::build(set, scope, root);
        let security = Security::build(set, scope, &mesh, previous.map(|p| &p.security));
        let limits = Limits::build(set, scope, root);
        let client = Client::of(set, scope);
        let seen = View {
            registry: &registry,
            policies: &policies,
            modes: &security.modes,
            mesh: &mesh,
            client: &client,
        };
        let clusters = Clusters::build(set, &seen, previous.map(|p| &p.clusters));
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
        let egress_proxy = sidecar.and_then(|s| s.egress_proxy.as_ref());
        let egress_proxy = egress_proxy.map(|to| clusters.of_destination(&registry, to, 0));
        let inbound = match scope.role {
            Role::Sidecar => inbound::ports(set, scope, sidecar, &policies),
            Role::Gateway => HashMap::new(),
        };
        let keep = |pick: fn(&Self) -> &Arc<Cluster>, new: Arc<Cluster>| match previous
            .map(pick)
            .filter(|old| **old == new)
        {
            Some(old) => old.clone(),
            None => new,
        };
        let fixed = |pick: fn(&Self) -> &Arc<Cluster>, name: &str, mutual: bool| {
            keep(pick, passthrough(name, mutual))
        };
        let egress = sidecar.is_some_and(|s| s.egress.is_some());
        let partial = scope.role == Role::Sidecar && (scope.on_demand || egress);
        let auto_mtls = mesh.auto_mtls;
        Self {
            scope: scope.clone(),
            outbound: sidecar.and_then(|s| s.outbound).unwrap_or(mesh.outbound),
            mesh,
            hosts: snapshot.hosts,
            tcp_rules: snapshot.tcp_rules,
            tls_rules: snapshot.tls_rules,
            inbound,
            egress_proxy,
            gateway,
            passthrough: fixed(|p| &p.passthrough, "PassthroughCluster", auto_mtls),
            inbound_passthrough: fixed(
                |p| &p.inbound_passthrough,
                "InboundPassthroughCluster",
                false,
            ),
            dynamic: keep(|p| &p.dynamic, dynamic("AllowAnyDynamicDNSCluster")),
            black_hole: fixed(|p| &p.black_hole, "BlackHoleCluster", false),
            no_retries: Arc::new(RetryPolicy::none()),
            names: RouteNames::default(),
            default_retries: retries,
            registry,
            clusters,
            security,
            by_name: OnceLock::new(),
            limits,
            partial,
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
        let fixed = fixed
            .into_iter()
            .chain((self.outbound == OutboundMode::AllowAnyDynamicDns).then_some(&self.dynamic));
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

    /// Addresses by name, for DNS.
    pub(super) fn names(&self) -> &NameTable {
        self.by_name
            .get_or_init(|| NameTable::build(&self.registry, &self.scope))
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
}
