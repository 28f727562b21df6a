//! TLS and TCP rules of a VirtualService.

use super::{destination, gateways, weight_sum};
use crate::validate::{Findings, bad_host};
use crate::virtual_service::l4::{RouteDestination, TcpRoute, TlsRoute};

/// Validates a rule for opaque TCP.
pub(super) fn tcp_route(f: &mut Findings, field: &str, rule: &TcpRoute) {
    for (j, m) in rule.matches.iter().enumerate() {
        let field = format!("{field}.match[{j}]");
        subnets(f, &field, &m.destination_subnets);
        gateways(f, &format!("{field}.gateways"), &m.gateways);
        if let Some(subnet) = &m.source_subnet {
            f.subnet(&format!("{field}.sourceSubnet"), subnet);
        }
    }
    l4_destinations(f, field, &rule.route);
}

/// Validates a rule for TLS that is passed through.
pub(super) fn tls_route(f: &mut Findings, field: &str, rule: &TlsRoute, hosts: &[String]) {
    if rule.matches.is_empty() {
        f.error(field, "has no match: add one with sniHosts");
    }
    for (i, condition) in rule.matches.iter().enumerate() {
        let field = format!("{field}.match[{i}]");
        if condition.sni_hosts.is_empty() {
            f.error(format!("{field}.sniHosts"), "is empty: name a server");
        }
        for (j, name) in condition.sni_hosts.iter().enumerate() {
            let field = format!("{field}.sniHosts[{j}]");
            f.host(&field, name);
            // Short hosts become longer names later, so only full names can be compared here.
            let is_covered = hosts
                .iter()
                .any(|host| !host.contains('.') || covers(host, name));
            if bad_host(name).is_none() && !is_covered {
                f.error(
                    field,
                    format!("{name:?} is not covered by spec.hosts: add it there"),
                );
            }
        }
        subnets(f, &field, &condition.destination_subnets);
        gateways(f, &format!("{field}.gateways"), &condition.gateways);
    }
    l4_destinations(f, field, &rule.route);
}

fn subnets(f: &mut Findings, field: &str, subnets: &[String]) {
    for (i, subnet) in subnets.iter().enumerate() {
        f.subnet(&format!("{field}.destinationSubnets[{i}]"), subnet);
    }
}

/// Whether pattern `host` covers `name`, without regard to case.
fn covers(host: &str, name: &str) -> bool {
    let (host, name) = (host.to_ascii_lowercase(), name.to_ascii_lowercase());
    match host.strip_prefix('*') {
        Some(suffix) => name.ends_with(suffix),
        None => host == name,
    }
}

fn l4_destinations(f: &mut Findings, field: &str, routes: &[RouteDestination]) {
    if routes.is_empty() {
        f.error(field, "has no route: name a destination");
    }
    let weights = routes.iter().map(|r| r.weight.unwrap_or(0));
    weight_sum(f, field, weights.collect());
    for (i, route) in routes.iter().enumerate() {
        let field = format!("{field}.route[{i}].destination");
        destination(f, &field, &route.destination);
    }
}
