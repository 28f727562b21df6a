//! Decisions for what the application sends into the mesh.

use super::clusters::{Target, pinned};
use super::host::canonical;
use super::l4::by_sni;
use super::plan::{
    ConnectionFacts, ConnectionPlan, Fault, FaultReason, RequestHead, RequestPlan, TcpPlan,
};
use super::registry::Visible;
use super::routes;
use super::snapshot::Snapshot;
use super::virtual_hosts::VirtualHost;
use crate::mesh::OutboundMode;
use crate::service::{Port, Protocol, Resolution};
use std::sync::Arc;

/// Plan for a new connection: by virtual address, else by endpoint address. The port alone says only how to look at it:
/// what is neither HTTP nor TLS is never taken for a service because of its port.
pub(super) fn connection(
    snapshot: &Snapshot,
    facts: &ConnectionFacts,
    dice: u64,
) -> ConnectionPlan {
    let (ip, number) = (facts.destination.ip(), facts.destination.port());
    let registry = &snapshot.registry;
    if let Some((visible, port)) = registry.by_address(ip, number) {
        let plan = || service_plan(snapshot, facts, (visible, port), dice);
        return by_protocol(port.protocol, plan);
    }
    if let Some((visible, port)) = registry.by_endpoint(ip, number) {
        let plan = || endpoint_plan(snapshot, facts, (visible, port), dice);
        return by_protocol(port.protocol, plan);
    }
    let rest = unknown(snapshot, facts);
    // Which ports are HTTP somewhere is not known, so each may be.
    if snapshot.scope.on_demand {
        return ConnectionPlan::Detect(rest);
    }
    let Some(used) = registry.port_use.get(&number) else {
        return ConnectionPlan::Tcp(rest);
    };
    match (used.http, used.tls) {
        // Istio: HTTP ports listen on every address and let what is not HTTP pass.
        (true, _) => ConnectionPlan::Detect(rest),
        (false, true) => ConnectionPlan::Sni(rest),
        (false, false) => ConnectionPlan::Tcp(rest),
    }
}

fn by_protocol(protocol: Protocol, plan: impl FnOnce() -> TcpPlan) -> ConnectionPlan {
    match protocol {
        protocol if protocol.is_http() => ConnectionPlan::Http,
        Protocol::Detect => ConnectionPlan::Detect(plan()),
        Protocol::Tls => ConnectionPlan::Sni(plan()),
        _ => ConnectionPlan::Tcp(plan()),
    }
}

/// Bytes to a known service port: its TCP routes, else the service itself.
fn service_plan(
    snapshot: &Snapshot,
    facts: &ConnectionFacts,
    (visible, port): (&Arc<Visible>, &Port),
    dice: u64,
) -> TcpPlan {
    if let Some(ruled) = ruled(snapshot, facts, visible, dice) {
        return ruled;
    }
    // Bytes name nobody whose address could be looked up.
    if visible.service.resolution == Resolution::DynamicDns {
        return unknown(snapshot, facts);
    }
    forward(&snapshot.clusters.of_port(visible, port.number))
}

/// TLS that names a server, to a known service port.
fn named_plan(
    snapshot: &Snapshot,
    facts: &ConnectionFacts,
    (visible, port): (&Arc<Visible>, &Port),
    dice: u64,
) -> TcpPlan {
    match visible.service.resolution {
        Resolution::DynamicDns => forward(&snapshot.clusters.of_port(visible, port.number)),
        _ => service_plan(snapshot, facts, (visible, port), dice),
    }
}

/// Bytes to an endpoint's own address: TCP routes of a headless service, else that very endpoint.
fn endpoint_plan(
    snapshot: &Snapshot,
    facts: &ConnectionFacts,
    (visible, port): (&Arc<Visible>, &Port),
    dice: u64,
) -> TcpPlan {
    let ruled = match visible.is_headless() {
        true => ruled(snapshot, facts, visible, dice),
        false => None,
    };
    ruled.unwrap_or_else(|| forward(&pin(snapshot.clusters.of_port(visible, port.number))))
}

fn ruled(
    snapshot: &Snapshot,
    facts: &ConnectionFacts,
    visible: &Visible,
    dice: u64,
) -> Option<TcpPlan> {
    let rule = snapshot
        .tcp_rules
        .find(&visible.service.key.hostname)?
        .iter()
        .find(|rule| rule.takes(facts, None))?;
    Some(rule.plan(
        &snapshot.registry,
        &snapshot.clusters,
        facts.destination.port(),
        dice,
    ))
}

fn forward(target: &Target) -> TcpPlan {
    match target.usable(None) {
        Ok(cluster) => TcpPlan::Forward {
            cluster: cluster.clone(),
            origin: None,
        },
        Err(fault) => TcpPlan::Refuse(fault),
    }
}

fn pin(target: Target) -> Target {
    match target {
        Target::Cluster(cluster) => Target::Cluster(pinned(&cluster)),
        missing => missing,
    }
}

/// What the outbound mode says of bytes to an address that nobody declares.
fn unknown(snapshot: &Snapshot, facts: &ConnectionFacts) -> TcpPlan {
    if let Some(target) = &snapshot.egress_proxy {
        return forward(target);
    }
    match snapshot.outbound {
        OutboundMode::AllowAny | OutboundMode::AllowAnyDynamicDns => TcpPlan::Forward {
            cluster: snapshot.passthrough.clone(),
            origin: None,
        },
        OutboundMode::RegistryOnly => {
            TcpPlan::Refuse(not_in_registry(facts.destination.to_string()))
        }
    }
}

fn not_in_registry(subject: String) -> Fault {
    Fault {
        reason: FaultReason::NotInRegistry,
        origin: None,
        subject,
    }
}

/// Plan for TLS that passes through: TLS routes, else the addressed service, else the service whose
/// host is the server name, else as for any bytes.
pub(super) fn server_name(
    snapshot: &Snapshot,
    facts: &ConnectionFacts,
    sni: &str,
    dice: u64,
) -> TcpPlan {
    let (ip, number) = (facts.destination.ip(), facts.destination.port());
    if let Some(rule) = by_sni(&snapshot.tls_rules, facts, sni) {
        return rule.plan(&snapshot.registry, &snapshot.clusters, number, dice);
    }
    let registry = &snapshot.registry;
    if let Some(addressed) = registry.by_address(ip, number) {
        return named_plan(snapshot, facts, addressed, dice);
    }
    if let Some(addressed) = registry.by_endpoint(ip, number) {
        return endpoint_plan(snapshot, facts, addressed, dice);
    }
    match registry.by_server_name(sni, number) {
        Some(named) => named_plan(snapshot, facts, named, dice),
        None => match connection(snapshot, facts, dice) {
            ConnectionPlan::Tcp(plan)
            | ConnectionPlan::Detect(plan)
            | ConnectionPlan::Sni(plan)
            | ConnectionPlan::Tls(plan) => plan,
            ConnectionPlan::Http => unknown(snapshot, facts),
        },
    }
}

/// Plan for a request: the virtual host of its port and Host, whatever the address; a Host that
/// nobody declares goes where the connection was going.
pub(super) fn request(
    snapshot: &Snapshot,
    facts: &ConnectionFacts,
    head: &RequestHead<'_>,
    dice: u64,
) -> RequestPlan {
    let host = canonical(head.authority);
    match virtual_host(snapshot, facts, &host) {
        Some(found) => match &found.rules {
            Some(rules) => routes::plan(rules, head, dice),
            None => default_route(snapshot, facts, found),
        },
        None => undeclared(snapshot, facts, &host),
    }
}

/// The virtual host that serves `host` (canonical) on the connection's port.
pub(super) fn virtual_host<'s>(
    snapshot: &'s Snapshot,
    facts: &ConnectionFacts,
    host: &str,
) -> Option<&'s VirtualHost> {
    let number = facts.destination.port();
    let found = snapshot.hosts.get(&number)?.find(host)?;
    let addressed = snapshot
        .registry
        .by_address(facts.destination.ip(), number)
        .filter(|(_, port)| port.protocol == Protocol::Detect);
    // Istio: the routes of an undeclared port know its own service only.
    let elsewhere = addressed.is_some_and(|(visible, _)| {
        found
            .service
            .as_ref()
            .is_some_and(|s| s.service.key != visible.service.key)
    });
    (!elsewhere).then_some(&**found)
}

fn default_route(snapshot: &Snapshot, facts: &ConnectionFacts, found: &VirtualHost) -> RequestPlan {
    let names = &snapshot.names;
    let Some(visible) = &found.service else {
        return RequestPlan::Refuse(not_in_registry(found.domain.to_string()));
    };
    if visible.is_headless() {
        let to = (facts.destination.ip(), facts.destination.port());
        let own = snapshot
            .registry
            .by_endpoint(to.0, to.1)
            .filter(|(service, _)| service.service.key == visible.service.key);
        if own.is_some() {
            let target = pin(found.target.clone());
            return routes::default_plan(&target, &names.default, &snapshot.default_retries);
        }
    }
    routes::default_plan(&found.target, &names.default, &snapshot.default_retries)
}

fn undeclared(snapshot: &Snapshot, facts: &ConnectionFacts, host: &str) -> RequestPlan {
    let names = &snapshot.names;
    let (ip, number) = (facts.destination.ip(), facts.destination.port());
    if let Some((visible, port)) = snapshot.registry.by_endpoint(ip, number) {
        let target = pin(snapshot.clusters.of_port(visible, port.number));
        return routes::default_plan(&target, &names.default, &snapshot.default_retries);
    }
    if let Some(target) = &snapshot.egress_proxy {
        return routes::default_plan(target, &names.allow_any, &snapshot.default_retries);
    }
    match snapshot.outbound {
        OutboundMode::AllowAny => {
            let target = Target::Cluster(snapshot.passthrough.clone());
            routes::default_plan(&target, &names.allow_any, &snapshot.no_retries)
        }
        OutboundMode::AllowAnyDynamicDns => {
            let target = Target::Cluster(snapshot.dynamic.clone());
            routes::default_plan(&target, &names.allow_any_dynamic_dns, &snapshot.no_retries)
        }
        OutboundMode::RegistryOnly => RequestPlan::Refuse(not_in_registry(host.to_owned())),
    }
}
