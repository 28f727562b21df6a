//! Compiles the ports that a gateway opens.

use super::tls::{Section, TlsServer};
use super::{GatewayHost, GatewayListener, GatewayPort, family};
use crate::decide::host::HostTable;
use crate::decide::inbound::own_workload;
use crate::decide::l4::{L4Rule, SniTable, add_sni};
use crate::decide::plan::{Inside, ServerFacts};
use crate::decide::resources::ResourceSet;
use crate::decide::routes::{Compiler, Rule, Rules};
use crate::gateway::{Gateway, Server, ServerHost, ServerProtocol};
use crate::matching::{host_covers, labels_match};
use crate::name::Origin;
use crate::route::RouteTable;
use lateen_base::Str;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Compiles the ports of every Gateway that selects this proxy, by the port bound in the pod: servers
/// for 80 and for 8080 meet where a Service sends 80 to 8080. Of two servers that disagree on a port's
/// protocol the older Gateway's wins; HTTP servers share a port, and so do all that begin with TLS.
pub(in crate::decide) fn ports(
    set: &ResourceSet,
    compiler: &Compiler<'_>,
    tables: &[Arc<RouteTable>],
) -> BTreeMap<u16, GatewayPort> {
    let mut gateways: Vec<_> = set
        .gateways
        .values()
        .filter(|g| labels_match(&g.selector, &compiler.scope.labels))
        .collect();
    gateways.sort_by(|a, b| {
        let key = |g: &Gateway| (g.origin.created, g.origin.name.clone());
        key(a).cmp(&key(b))
    });
    let targets = targets(set, compiler);
    let mut ports: BTreeMap<u16, GatewayPort> = BTreeMap::new();
    for gateway in gateways {
        let name = format!("{}/{}", gateway.origin.namespace, gateway.origin.name);
        for server in &gateway.servers {
            let bind_port = targets.get(&server.port).copied().unwrap_or(server.port);
            let opened = ports
                .entry(bind_port)
                .or_insert_with(|| GatewayPort::new(bind_port, server, &targets));
            if family(opened.listener.protocol) != family(server.protocol) {
                continue;
            }
            opened.numbers.insert(server.port);
            if !opened.listener.origins.contains(&gateway.origin) {
                opened.listener.origins.push(gateway.origin.clone());
            }
            let bound = tables
                .iter()
                .filter(|t| t.gateways.iter().any(|g| **g == *name));
            opened.add_server(compiler, (gateway, server, &name), bound);
        }
    }
    for port in ports.values_mut() {
        let secured = port.servers.iter_mut().map(|server| &mut server.hosts);
        for hosts in secured.chain([&mut port.hosts]) {
            for host in hosts.values_mut() {
                let mut rules = host.rules.to_vec();
                rules.sort_by_key(|rule| rule.is_catch_all());
                host.rules = Rules::new(rules);
            }
        }
    }
    ports
}

/// Where the Services that select this pod send their ports.
fn targets(set: &ResourceSet, compiler: &Compiler<'_>) -> BTreeMap<u16, u16> {
    let mut targets = BTreeMap::new();
    for served in own_workload(set, compiler.scope)
        .into_iter()
        .flat_map(|workload| workload.services.values())
    {
        for (port, target) in &served.ports {
            targets.entry(*port).or_insert(*target);
        }
    }
    targets
}

impl GatewayPort {
    fn new(bind_port: u16, server: &Server, targets: &BTreeMap<u16, u16>) -> Self {
        let in_front = targets.iter().filter(|(_, target)| **target == bind_port);
        Self {
            listener: GatewayListener {
                bind_port,
                port: server.port,
                protocol: server.protocol,
                address: server.bind,
                privileged: bind_port < 1024,
                origins: Vec::new(),
            },
            numbers: in_front.map(|(port, _)| *port).collect(),
            hosts: HostTable::default(),
            tcp: Vec::new(),
            tls: SniTable::default(),
            servers: Vec::new(),
            names: HostTable::default(),
        }
    }

    fn add_server<'t>(
        &mut self,
        compiler: &Compiler<'_>,
        (gateway, server, name): (&Gateway, &Server, &str),
        tables: impl Iterator<Item = &'t Arc<RouteTable>>,
    ) {
        if server.https_redirect && server.protocol == ServerProtocol::Http {
            for host in &server.hosts {
                let slot = self.hosts.slot(&host.host, GatewayHost::default);
                slot.https_redirect = Some(gateway.origin.clone());
            }
        }
        if server.protocol == ServerProtocol::TlsAutoPassthrough {
            for host in &server.hosts {
                self.names.insert_first(&host.host, Section::Automatic);
            }
            return;
        }
        let ends = self.add_tls(gateway, server);
        for table in tables {
            let shared: Vec<_> = table
                .hosts
                .iter()
                .flat_map(|host| served(&server.hosts, &table.origin.namespace, host))
                .collect();
            if shared.is_empty() {
                continue;
            }
            let ends = ends.and_then(|at| self.servers.get_mut(at));
            match (server.protocol, ends) {
                (ServerProtocol::Http, _) => {
                    let rules = compiler.rules(table, server.port, name);
                    let redirect = server.https_redirect.then_some(&gateway.origin);
                    add_http(&mut self.hosts, &rules, redirect, &shared);
                }
                (ServerProtocol::Https, Some(ends)) => {
                    let rules = compiler.rules(table, server.port, name);
                    add_http(&mut ends.hosts, &rules, None, &shared);
                }
                (ServerProtocol::TlsTerminate, Some(ends)) => {
                    ends.tcp.extend(L4Rule::tcp(compiler, table, name));
                }
                (ServerProtocol::Tcp, _) => self.tcp.extend(L4Rule::tcp(compiler, table, name)),
                (ServerProtocol::TlsPassthrough, _) => {
                    self.add_passthrough(&L4Rule::tls(compiler, table, name), &shared);
                }
                (ServerProtocol::Https | ServerProtocol::TlsTerminate, None)
                | (ServerProtocol::TlsAutoPassthrough, _) => {}
            }
        }
    }

    /// Adds a server that ends TLS; its position among `servers`. The oldest server of a name has it.
    fn add_tls(&mut self, gateway: &Gateway, server: &Server) -> Option<usize> {
        let then = match server.protocol {
            ServerProtocol::Https => Inside::Http,
            ServerProtocol::TlsTerminate => Inside::Tcp,
            _ => return None,
        };
        let key = server.tls.as_ref()?;
        let at = self.servers.len();
        for host in &server.hosts {
            self.names.insert_first(&host.host, Section::Server(at));
        }
        self.servers.push(TlsServer {
            facts: ServerFacts {
                origin: gateway.origin.clone(),
                name: server.name.clone(),
                port: server.port,
            },
            key: Arc::new(key.clone()),
            then,
            hosts: HostTable::default(),
            tcp: Vec::new(),
        });
        Some(at)
    }

    fn add_passthrough(&mut self, rules: &[Arc<L4Rule>], shared: &[Str]) {
        let narrower = |sni: &str| {
            let of = move |host: &Str| match host_covers(host, sni) {
                true => Some(Str::from(sni)),
                false => host_covers(sni, host).then(|| host.clone()),
            };
            shared.iter().filter_map(of).collect::<Vec<_>>()
        };
        for sni in rules.iter().flat_map(|rule| rule.server_names()) {
            for name in narrower(sni) {
                self.names.insert_first(&name, Section::Passthrough);
            }
        }
        add_sni(&mut self.tls, rules, |sni| !narrower(sni).is_empty());
    }
}

fn add_http(
    hosts: &mut HostTable<GatewayHost>,
    rules: &[Arc<Rule>],
    redirect: Option<&Origin>,
    shared: &[Str],
) {
    for host in shared {
        let slot = hosts.slot(host, GatewayHost::default);
        let known = |rule: &Arc<Rule>| {
            let same = |r: &Arc<Rule>| Arc::ptr_eq(&r.table, &rule.table) && r.index == rule.index;
            slot.rules.iter().any(same)
        };
        // Two servers of one port may both bring the same VirtualService.
        let new: Vec<_> = rules.iter().filter(|r| !known(r)).cloned().collect();
        slot.rules.add(new);
        if let Some(origin) = redirect {
            slot.https_redirect = Some(origin.clone());
        }
    }
}

/// The hosts that a server and a VirtualService's host share: the narrower of each pair that overlaps.
fn served(hosts: &[ServerHost], namespace: &Str, wanted: &Str) -> Vec<Str> {
    hosts
        .iter()
        .filter(|h| h.namespace.as_ref().is_none_or(|ns| ns == namespace))
        .filter_map(|h| {
            if host_covers(&h.host, wanted) {
                Some(wanted.clone())
            } else {
                host_covers(wanted, &h.host).then(|| h.host.clone())
            }
        })
        .collect()
}
