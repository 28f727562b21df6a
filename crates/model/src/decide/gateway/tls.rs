//! Servers of a gateway that end TLS: which one takes a server name, and whether its certificates are there.

use super::{GatewayHost, GatewayPort, no_route};
use crate::decide::cluster::{Cluster, ClusterTls, Discovery};
use crate::decide::clusters::outbound_name;
use crate::decide::host::HostTable;
use crate::decide::l4::L4Rule;
use crate::decide::plan::{
    ConnectionFacts, ConnectionPlan, Fault, FaultReason, GatewayTls, Inside, Peer, ServerFacts,
    TcpPlan,
};
use crate::decide::snapshot::Snapshot;
use crate::security::Credential;
use crate::tls::{ServerTls, ServerTlsMode};
use lateen_base::Str;
use std::sync::Arc;

/// A server that ends TLS.
#[derive(Debug)]
pub(in crate::decide) struct TlsServer {
    pub(super) facts: ServerFacts,
    pub(super) key: Arc<ServerTls>,
    pub(super) then: Inside,
    /// What it serves when HTTP is inside.
    pub hosts: HostTable<GatewayHost>,
    /// What takes the bytes when HTTP is not.
    pub(super) tcp: Vec<Arc<L4Rule>>,
}

/// Whose a server name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    /// Position of the server that ends TLS.
    Server(usize),
    Passthrough,
    /// Whatever service the name itself says.
    Automatic,
}

impl GatewayPort {
    /// Whose `sni` (canonical; empty: none was sent) is. Without a name only a server for every host can be meant.
    pub(super) fn section(&self, sni: &str) -> Option<Section> {
        let sni = if sni.is_empty() { "*" } else { sni };
        self.names.find(sni).copied()
    }

    fn server(&self, sni: &str) -> Option<&TlsServer> {
        match self.section(sni)? {
            Section::Server(at) => self.servers.get(at),
            Section::Passthrough | Section::Automatic => None,
        }
    }

    /// How TLS for `sni` ends here; absent: it does not.
    pub(super) fn ends(&self, sni: &str) -> Option<(&Arc<ServerTls>, &ServerFacts, Inside)> {
        let server = self.server(sni)?;
        Some((&server.key, &server.facts, server.then))
    }

    fn unknown(&self, sni: &str) -> Fault {
        let number = self.listener.port;
        no_route(match sni {
            "" => format!("a ClientHello without server name on port {number}"),
            _ => format!("server name {sni:?} on port {number}"),
        })
    }
}

/// Which server takes a TLS connection on `opened`.
pub(super) fn choose(
    snapshot: &Snapshot,
    (opened, facts): (&GatewayPort, &ConnectionFacts),
    sni: &str,
    dice: u64,
) -> GatewayTls {
    match opened.server(sni) {
        Some(server) => match ready(snapshot, server) {
            Ok(()) => GatewayTls::Terminate {
                key: server.key.clone(),
                server: server.facts.clone(),
                then: server.then,
            },
            Err(fault) => GatewayTls::Refuse(fault),
        },
        None => match passed(snapshot, (opened, facts), sni, dice) {
            TcpPlan::Refuse(fault) => GatewayTls::Refuse(fault),
            plan => GatewayTls::Passthrough(plan),
        },
    }
}

/// Where TLS goes that passes through `opened`.
pub(super) fn passed(
    snapshot: &Snapshot,
    (opened, facts): (&GatewayPort, &ConnectionFacts),
    sni: &str,
    dice: u64,
) -> TcpPlan {
    let name = if sni.is_empty() { "*" } else { sni };
    let rule = match opened.section(sni) {
        Some(Section::Automatic) => return automatic(snapshot, opened, sni),
        Some(Section::Passthrough) => super::by_sni(&opened.tls, facts, name),
        _ => None,
    };
    match rule {
        Some(rule) => rule.plan(
            &snapshot.registry,
            &snapshot.clusters,
            opened.listener.port,
            dice,
        ),
        None => TcpPlan::Refuse(opened.unknown(sni)),
    }
}

/// The service port and subset that a server name of Istio's form says: `outbound_.80_.v1_.host`.
fn named(sni: &str) -> Option<String> {
    let mut parts = sni.strip_prefix("outbound_.")?.splitn(3, "_.");
    let (port, subset, host) = (parts.next()?, parts.next()?, parts.next()?);
    let port: u16 = port.parse().ok()?;
    Some(outbound_name(port, subset, host))
}

/// Plan for TLS whose server name says the service. Its endpoints end the TLS, so only those that take mutual TLS count.
fn automatic(snapshot: &Snapshot, opened: &GatewayPort, sni: &str) -> TcpPlan {
    let Some(name) = named(sni) else {
        return TcpPlan::Refuse(opened.unknown(sni));
    };
    let fault = |reason| Fault {
        reason,
        origin: opened.listener.origins.first().cloned(),
        subject: name.clone(),
    };
    let Some(cluster) = snapshot.cluster(&name) else {
        return TcpPlan::Refuse(fault(FaultReason::NoCluster));
    };
    let Discovery::Endpoints(all) = &cluster.discovery else {
        return TcpPlan::Refuse(fault(FaultReason::NoCluster));
    };
    let takes: Vec<_> = all.iter().filter(|e| e.mutual).cloned().collect();
    if takes.is_empty() {
        return TcpPlan::Refuse(fault(FaultReason::NoEndpoint));
    }
    let passed = Cluster {
        discovery: Discovery::Endpoints(takes.into()),
        tls: ClusterTls::Plain,
        ..Cluster::clone(cluster)
    };
    TcpPlan::Forward {
        cluster: Arc::new(passed),
        origin: opened.listener.origins.first().cloned(),
    }
}

/// Plan for what is inside TLS that ended here.
pub(super) fn decrypted(
    snapshot: &Snapshot,
    (opened, facts): (&GatewayPort, &ConnectionFacts),
    sni: &str,
    dice: u64,
) -> ConnectionPlan {
    let Some(server) = opened.server(sni) else {
        return ConnectionPlan::Tcp(TcpPlan::Refuse(opened.unknown(sni)));
    };
    if server.then == Inside::Http {
        return ConnectionPlan::Http;
    }
    let number = server.facts.port;
    let rule = server.tcp.iter().find(|rule| rule.takes(facts, None));
    ConnectionPlan::Tcp(match rule {
        Some(rule) => rule.plan(&snapshot.registry, &snapshot.clusters, number, dice),
        None => TcpPlan::Refuse(Fault {
            origin: Some(server.facts.origin.clone()),
            ..no_route(format!(
                "server name {sni:?} on port {number}: no TCP route of a VirtualService takes it"
            ))
        }),
    })
}

/// The hosts that a request can be for, given the server that its connection chose by server name. A server name of one
/// server never leads to hosts of another: that one may ask for client certificates.
///
/// # Errors
/// The connection is not TLS, its server name is nobody's, or `host` (canonical) belongs to another server.
pub(super) fn hosts<'s>(
    opened: &'s GatewayPort,
    peer: &Peer,
    host: &str,
) -> Result<&'s HostTable<GatewayHost>, Fault> {
    if !peer.tls {
        let number = opened.listener.port;
        return Err(no_route(format!("port {number}: the port takes TLS only")));
    }
    let sni = &*peer.server_name;
    let (Some(mine), Some(server)) = (opened.section(sni), opened.server(sni)) else {
        return Err(opened.unknown(sni));
    };
    match opened.section(host) {
        Some(owner) if owner != mine => Err(Fault {
            reason: FaultReason::Misdirected,
            origin: Some(server.facts.origin.clone()),
            subject: format!("{host} on a connection for {sni:?}"),
        }),
        _ => Ok(&server.hosts),
    }
}

/// Whether a server's certificates are there.
fn ready(snapshot: &Snapshot, server: &TlsServer) -> Result<(), Fault> {
    let key = &server.key;
    let fault = |subject| Fault {
        reason: FaultReason::HandshakeFailed,
        origin: Some(server.facts.origin.clone()),
        subject,
    };
    if key.mode == ServerTlsMode::IstioMutual {
        return Ok(());
    }
    let usable = |name: &Str| {
        let found = snapshot.credentials(name);
        found.is_some_and(|c| !c.chain.is_empty() && !c.key.expose().is_empty())
    };
    if !key.credentials.is_empty() && !key.credentials.iter().any(usable) {
        return Err(fault(missing(
            snapshot,
            &key.credentials,
            "a certificate and its key",
        )));
    }
    if key.credentials.is_empty() && key.files.is_empty() {
        return Err(fault("the server names no certificate".to_owned()));
    }
    let verifies = matches!(
        key.mode,
        ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual
    ) && !key.skip_verify;
    if verifies && !has_ca(snapshot, key) {
        let names = match &key.ca_credential {
            Some(name) => std::slice::from_ref(name),
            None => &key.credentials,
        };
        let wanted = "a CA to verify clients with";
        return Err(fault(missing(snapshot, names, wanted)));
    }
    Ok(())
}

fn has_ca(snapshot: &Snapshot, key: &ServerTls) -> bool {
    let has = |credential: Option<&Arc<Credential>>| credential.is_some_and(|c| !c.ca.is_empty());
    if let Some(name) = &key.ca_credential {
        return has(snapshot.credentials(name));
    }
    let beside = |name: &Str| {
        has(snapshot.credentials(name)) || has(snapshot.credentials(&format!("{name}-cacert")))
    };
    key.credentials.iter().any(beside) || key.files.iter().any(|f| f.ca.is_some())
}

fn missing(snapshot: &Snapshot, names: &[Str], what: &str) -> String {
    let scope = snapshot.scope();
    let full = |name: &Str| match name.contains('/') {
        true => name.to_string(),
        false => format!("{}/{name}", scope.namespace),
    };
    let names: Vec<_> = names.iter().map(full).collect();
    format!(
        "secret {} with {what} is not there, or service account {}/{} may not read it",
        names.join(" or "),
        scope.namespace,
        scope.service_account
    )
}
