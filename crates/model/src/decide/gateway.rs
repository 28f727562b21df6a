//! Decisions at a gateway: which ports it opens, and which server and route take what comes in.

mod ports;
mod tls;

use super::host::{HostTable, canonical};
use super::l4::{L4Rule, SniTable, by_sni};
use super::plan::{
    ConnectionFacts, ConnectionPlan, Fault, FaultReason, GatewayTls, Inside, Peer, RequestHead,
    RequestPlan, RouteFacts, ServerFacts, TcpPlan,
};
use super::routes::{self, Rules};
use super::snapshot::Snapshot;
use crate::gateway::ServerProtocol;
use crate::name::Origin;
use crate::route::{Redirect, RedirectPort};
use crate::tls::ServerTls;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use tls::{Section, TlsServer};

pub(super) use ports::ports;

/// A port that a gateway pod opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayListener {
    /// Port to bind in the pod: the target of `port` in the Service that selects the pod, else `port` itself.
    pub bind_port: u16,
    /// Port number in the Gateway object; of several that share the bound port, the oldest one's.
    pub port: u16,
    /// What it speaks; of servers with TLS, which share a port, the oldest one's.
    pub protocol: ServerProtocol,
    /// Address to listen on; absent: every address. Of several servers on one port, the oldest one's.
    pub address: Option<IpAddr>,
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
    pub rules: Rules,
    /// The Gateway that sends plain HTTP to `https`.
    https_redirect: Option<Origin>,
}

/// Protocols that share a port: all that begin with TLS do.
fn family(protocol: ServerProtocol) -> u8 {
    match protocol {
        ServerProtocol::Http => 0,
        ServerProtocol::Tcp => 1,
        ServerProtocol::TlsPassthrough
        | ServerProtocol::TlsAutoPassthrough
        | ServerProtocol::TlsTerminate
        | ServerProtocol::Https => 2,
    }
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
        ServerProtocol::TlsPassthrough
        | ServerProtocol::TlsAutoPassthrough
        | ServerProtocol::TlsTerminate
        | ServerProtocol::Https => {
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

/// The server that ends TLS for a server name, whether its certificates are there or not.
pub(super) fn server<'s>(
    snapshot: &'s Snapshot,
    facts: &ConnectionFacts,
    sni: &str,
) -> Option<(&'s Arc<ServerTls>, &'s ServerFacts, Inside)> {
    port(snapshot, facts)?.0.ends(sni)
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
                prefix: None,
                authority: None,
                scheme: Some("https".into()),
                port: RedirectPort::Kept,
                status: 301,
            },
            route: RouteFacts {
                name: "https_redirect".into(),
                origin: Some(origin.clone()),
                rule: None,
                policy: None,
            },
            response_edits: Vec::new(),
        },
        _ => routes::plan(&served.rules, head, dice),
    }
}
