//! Decisions at a gateway: which ports it opens, and which server and route take what comes in.

mod tls;

use super::host::{HostTable, canonical};
use super::inbound::own_workload;
use super::l4::{L4Rule, SniTable, add_sni, by_sni};
use super::plan::{
    ConnectionFacts, ConnectionPlan, Fault, FaultReason, GatewayTls, Inside, Peer, RequestHead,
    RequestPlan, RouteFacts, ServerFacts, TcpPlan,
};
use super::resources::ResourceSet;
use super::routes::{self, Compiler, Rule};
use super::snapshot::Snapshot;
use crate::gateway::{Gateway, Server, ServerHost, ServerProtocol};
use crate::matching::{host_covers, labels_match};
use crate::name::Origin;
use crate::route::{Redirect, RouteTable};
use lateen_base::Str;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tls::{Section, TlsServer};

/// A port that a gateway pod opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayListener {
    /// Port to bind in the pod: the target of `port` in the Service that selects the pod, else `port` itself.
    pub bind_port: u16,
    /// Port number in the Gateway object; of several that share the bound port, the oldest one's.
    pub port: u16,
    /// What it speaks; of servers with TLS, which share a port, the oldest one's.
    pub protocol: ServerProtocol,
    /// Whether binding needs a privilege (below 1024): a pod without it skips the listener and says so.
    pub privileged: bool,
    /// Gateways that open it, oldest first.
    pub origins: Vec<Origin>,
}

/// One open port with what it serves.
#[derive(Debug)]
pub(super) struct GatewayPort {
    pub listener: GatewayListener,
    /// Numbers by which clients and Gateways name this port: of the servers, and of the Services in front.
    numbers: BTreeSet<u16>,
    pub hosts: HostTable<GatewayHost>,
    tcp: Vec<Arc<L4Rule>>,
    /// Rules for TLS that passes through.
    tls: SniTable,
    /// Servers that end TLS.
    pub servers: Vec<TlsServer>,
    /// Whose each server name is.
    names: HostTable<Section>,
}

/// One host on one port of a gateway.
#[derive(Debug, Default)]
pub(super) struct GatewayHost {
    /// Rules of every VirtualService bound to the host, oldest first, those that take everything last.
    pub rules: Vec<Arc<Rule>>,
    /// The Gateway that sends plain HTTP to `https`.
    https_redirect: Option<Origin>,
}

/// Compiles the ports of every Gateway that selects this proxy, by the port bound in the pod: servers
/// for 80 and for 8080 meet where a Service sends 80 to 8080. Of two servers that disagree on a port's
/// protocol the older Gateway's wins; HTTP servers share a port, and so do all that begin with TLS.
pub(super) fn ports(
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
                host.rules.sort_by_key(|rule| rule.is_catch_all());
            }
        }
    }
    ports
}

/// Protocols that share a port: all that begin with TLS do.
fn family(protocol: ServerProtocol) -> u8 {
    match protocol {
        ServerProtocol::Http => 0,
        ServerProtocol::Tcp => 1,
        ServerProtocol::TlsPassthrough | ServerProtocol::TlsTerminate | ServerProtocol::Https => 2,
    }
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
                (ServerProtocol::Https | ServerProtocol::TlsTerminate, None) => {}
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
        slot.rules.extend(new);
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

/// The open port that a connection came in on: by the port bound in the pod, else by a number that clients or
/// Gateways have for it. The facts returned carry the Gateway's number.
pub(super) fn port<'s>(
    snapshot: &'s Snapshot,
    facts: &ConnectionFacts,
) -> Option<(&'s GatewayPort, ConnectionFacts)> {
    let number = facts.destination.port();
    let found = snapshot.gateway.get(&number).or_else(|| {
        let mut ports = snapshot.gateway.values();
        ports.find(|p| p.numbers.contains(&number))
    })?;
    let mut facts = *facts;
    facts.destination.set_port(found.listener.port);
    Some((found, facts))
}

fn no_route(subject: String) -> Fault {
    Fault {
        reason: FaultReason::NoRoute,
        origin: None,
        subject,
    }
}

fn closed(facts: &ConnectionFacts) -> Fault {
    no_route(format!(
        "gateway port {}: no Gateway opens it",
        facts.destination.port()
    ))
}

/// Plan for a new connection: by the server's protocol.
pub(super) fn connection(
    snapshot: &Snapshot,
    facts: &ConnectionFacts,
    dice: u64,
) -> ConnectionPlan {
    let Some((opened, facts)) = port(snapshot, facts) else {
        return ConnectionPlan::Tcp(TcpPlan::Refuse(closed(facts)));
    };
    let number = opened.listener.port;
    match opened.listener.protocol {
        ServerProtocol::Http => ConnectionPlan::Http,
        ServerProtocol::TlsPassthrough | ServerProtocol::TlsTerminate | ServerProtocol::Https => {
            let refuse = TcpPlan::Refuse(no_route(format!(
                "gateway port {number}: what came in is not TLS"
            )));
            match opened.servers.is_empty() {
                true => ConnectionPlan::Sni(refuse),
                false => ConnectionPlan::Tls(refuse),
            }
        }
        ServerProtocol::Tcp => {
            let rule = opened.tcp.iter().find(|rule| rule.takes(&facts, None));
            ConnectionPlan::Tcp(match rule {
                Some(rule) => rule.plan(&snapshot.registry, &snapshot.clusters, number, dice),
                None => TcpPlan::Refuse(no_route(format!(
                    "gateway port {number}: no TCP route of a VirtualService takes it"
                ))),
            })
        }
    }
}

/// Plan for TLS that passes through, by server name.
pub(super) fn server_name(
    snapshot: &Snapshot,
    facts: &ConnectionFacts,
    sni: &str,
    dice: u64,
) -> TcpPlan {
    match port(snapshot, facts) {
        Some((opened, facts)) => tls::passed(snapshot, (opened, &facts), sni, dice),
        None => TcpPlan::Refuse(closed(facts)),
    }
}

/// Which server takes a TLS connection.
pub(super) fn tls(
    snapshot: &Snapshot,
    facts: &ConnectionFacts,
    sni: &str,
    dice: u64,
) -> GatewayTls {
    match port(snapshot, facts) {
        Some((opened, facts)) => tls::choose(snapshot, (opened, &facts), sni, dice),
        None => GatewayTls::Refuse(closed(facts)),
    }
}

/// Plan for what is inside TLS that ended here.
pub(super) fn decrypted(
    snapshot: &Snapshot,
    facts: &ConnectionFacts,
    sni: &str,
    dice: u64,
) -> ConnectionPlan {
    match port(snapshot, facts) {
        Some((opened, facts)) => tls::decrypted(snapshot, (opened, &facts), sni, dice),
        None => ConnectionPlan::Tcp(TcpPlan::Refuse(closed(facts))),
    }
}

/// The hosts that a request of such a connection can be for.
pub(super) fn hosts<'s>(
    opened: &'s GatewayPort,
    peer: &Peer,
    host: &str,
) -> Result<&'s HostTable<GatewayHost>, Fault> {
    match family(opened.listener.protocol) == family(ServerProtocol::Https) {
        true => tls::hosts(opened, peer, host),
        false => Ok(&opened.hosts),
    }
}

/// Plan for a request: redirect to `https` where the server says so, else the host's rules.
pub(super) fn request(
    snapshot: &Snapshot,
    facts: &ConnectionFacts,
    peer: &Peer,
    head: &RequestHead<'_>,
    dice: u64,
) -> RequestPlan {
    let Some((opened, _)) = port(snapshot, facts) else {
        return RequestPlan::Refuse(closed(facts));
    };
    let host = canonical(head.authority);
    let hosts = match hosts(opened, peer, &host) {
        Ok(hosts) => hosts,
        Err(fault) => return RequestPlan::Refuse(fault),
    };
    let Some(served) = hosts.find(&host) else {
        return RequestPlan::Refuse(no_route(host.into_owned()));
    };
    match &served.https_redirect {
        Some(origin) if head.scheme == "http" => RequestPlan::Redirect {
            redirect: Redirect {
                uri: None,
                authority: None,
                scheme: Some("https".into()),
                port: None,
                status: 301,
            },
            route: RouteFacts {
                name: "https_redirect".into(),
                origin: Some(origin.clone()),
                rule: None,
            },
        },
        _ => routes::plan(&served.rules, head, dice),
    }
}
