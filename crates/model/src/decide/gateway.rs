//! Decisions at a gateway: which ports it opens, and which server and route take what comes in.

use super::host::{HostTable, canonical};
use super::inbound::own_workload;
use super::l4::{L4Rule, SniTable, add_sni, by_sni};
use super::plan::{
    ConnectionFacts, ConnectionPlan, Fault, FaultReason, GatewayTls, Peer, RequestHead,
    RequestPlan, RouteFacts, TcpPlan,
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

/// A port that a gateway pod opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayListener {
    /// Port to bind in the pod: the target of `port` in the Service that selects the pod, else `port` itself.
    pub bind_port: u16,
    /// Port number in the Gateway object; of several that share the bound port, the oldest one's.
    pub port: u16,
    /// What it speaks.
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
    tls: SniTable,
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
/// protocol the older Gateway's wins; HTTP servers share a port.
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
            if matches!(
                server.protocol,
                ServerProtocol::TlsTerminate | ServerProtocol::Https
            ) {
                continue;
            }
            let bind_port = targets.get(&server.port).copied().unwrap_or(server.port);
            let opened = ports
                .entry(bind_port)
                .or_insert_with(|| GatewayPort::new(bind_port, server, &targets));
            if opened.listener.protocol != server.protocol {
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
    for host in ports.values_mut().flat_map(|p| p.hosts.values_mut()) {
        host.rules.sort_by_key(|rule| rule.is_catch_all());
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
                privileged: bind_port < 1024,
                origins: Vec::new(),
            },
            numbers: in_front.map(|(port, _)| *port).collect(),
            hosts: HostTable::default(),
            tcp: Vec::new(),
            tls: SniTable::default(),
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
        for table in tables {
            let shared: Vec<_> = table
                .hosts
                .iter()
                .flat_map(|host| served(&server.hosts, &table.origin.namespace, host))
                .collect();
            if shared.is_empty() {
                continue;
            }
            match server.protocol {
                ServerProtocol::Http => {
                    self.add_http(compiler, (gateway, server, name), table, &shared);
                }
                ServerProtocol::Tcp => self.tcp.extend(L4Rule::tcp(compiler, table, name)),
                ServerProtocol::TlsPassthrough => {
                    let rules = L4Rule::tls(compiler, table, name);
                    let serves = |sni: &str| {
                        shared
                            .iter()
                            .any(|host| host_covers(host, sni) || host_covers(sni, host))
                    };
                    add_sni(&mut self.tls, &rules, serves);
                }
                ServerProtocol::TlsTerminate | ServerProtocol::Https => {}
            }
        }
    }

    fn add_http(
        &mut self,
        compiler: &Compiler<'_>,
        (gateway, server, name): (&Gateway, &Server, &str),
        table: &Arc<RouteTable>,
        shared: &[Str],
    ) {
        let rules = compiler.rules(table, server.port, name);
        for host in shared {
            let slot = self.hosts.slot(host, GatewayHost::default);
            let known = |rule: &Arc<Rule>| {
                let same =
                    |r: &Arc<Rule>| Arc::ptr_eq(&r.table, &rule.table) && r.index == rule.index;
                slot.rules.iter().any(same)
            };
            // Two servers of one port may both bring the same VirtualService.
            let new: Vec<_> = rules.iter().filter(|r| !known(r)).cloned().collect();
            slot.rules.extend(new);
            if server.https_redirect {
                slot.https_redirect = Some(gateway.origin.clone());
            }
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
        ServerProtocol::Http | ServerProtocol::Https => ConnectionPlan::Http,
        ServerProtocol::TlsPassthrough => ConnectionPlan::Sni(TcpPlan::Refuse(no_route(format!(
            "gateway port {number}: what came in is not TLS"
        )))),
        ServerProtocol::Tcp | ServerProtocol::TlsTerminate => {
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
    let Some((opened, facts)) = port(snapshot, facts) else {
        return TcpPlan::Refuse(closed(facts));
    };
    let number = opened.listener.port;
    match by_sni(&opened.tls, &facts, sni) {
        Some(rule) => rule.plan(&snapshot.registry, &snapshot.clusters, number, dice),
        None => TcpPlan::Refuse(no_route(format!("server name {sni:?} on port {number}"))),
    }
}

/// Which server takes a TLS connection.
pub(super) fn tls(
    snapshot: &Snapshot,
    facts: &ConnectionFacts,
    sni: &str,
    dice: u64,
) -> GatewayTls {
    GatewayTls::Passthrough(server_name(snapshot, facts, sni, dice))
}

/// Plan for what is inside TLS that ended here.
pub(super) fn decrypted(
    snapshot: &Snapshot,
    facts: &ConnectionFacts,
    _sni: &str,
    dice: u64,
) -> ConnectionPlan {
    connection(snapshot, facts, dice)
}

/// Plan for a request: redirect to `https` where the server says so, else the host's rules.
pub(super) fn request(
    snapshot: &Snapshot,
    facts: &ConnectionFacts,
    _peer: &Peer,
    head: &RequestHead<'_>,
    dice: u64,
) -> RequestPlan {
    let Some((opened, _)) = port(snapshot, facts) else {
        return RequestPlan::Refuse(closed(facts));
    };
    let host = canonical(head.authority);
    let Some(served) = opened.hosts.find(&host) else {
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
