//! A snapshot's routes and listeners as lines for people.

use super::routes::Rule;
use super::snapshot::Snapshot;
use crate::name::Origin;
use crate::service::{Address, Protocol};
use lateen_base::Str;
use std::sync::Arc;

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
    pub address: Option<Address>,
    /// Port.
    pub port: u16,
    /// What it speaks.
    pub protocol: Protocol,
    /// Service host; HTTP on any address is routed by Host.
    pub host: Str,
}

impl Snapshot {
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
                let rules = host.rules.as_deref().map_or(&[][..], |rules| rules);
                summary(*port, host.domain.to_string(), rules)
            })
        });
        let gateway = self.gateway.iter().flat_map(|(port, opened)| {
            let secured = opened.servers.iter().flat_map(|server| server.hosts.iter());
            let all = opened.hosts.iter().chain(secured);
            all.map(|(host, served)| summary(*port, host, &served.rules))
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
