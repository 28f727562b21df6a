//! TCP and TLS routes: which rule takes a connection, and where it goes.

use super::clusters::Clusters;
use super::host::HostTable;
use super::plan::{ConnectionFacts, Fault, FaultReason, TcpPlan};
use super::registry::{Registry, in_range};
use super::routes::{Compiler, at_gateway, choose};
use crate::name::Origin;
use crate::route::{L4Match, RouteTable, WeightedDestination};
use std::net::IpAddr;
use std::sync::Arc;

/// One L4 rule of a table, limited to what this proxy's connections can meet.
#[derive(Debug, Clone)]
pub(super) struct L4Rule {
    table: Arc<RouteTable>,
    kind: L4Kind,
    index: usize,
    /// Alternatives; an empty condition takes everything.
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum L4Kind {
    Tcp,
    Tls,
}

/// One alternative. Its SNI hosts are the key under which the rule is found.
#[derive(Debug, Clone, Default)]
struct Condition {
    port: Option<u16>,
    /// Ranges as network and prefix; a range that cannot be read never matches. Empty: any address.
    subnets: Vec<Option<(IpAddr, u8)>>,
    /// The client's range, as above; absent: any.
    source: Option<Option<(IpAddr, u8)>>,
    sni_hosts: Vec<lateen_base::Str>,
}

/// Rules for TLS by server name, the most specific first and then the oldest.
pub(super) type SniTable = HostTable<Vec<Arc<L4Rule>>>;

impl L4Rule {
    /// The TCP rules of `table` that can apply behind `gateway`, in order.
    pub fn tcp(compiler: &Compiler<'_>, table: &Arc<RouteTable>, gateway: &str) -> Vec<Arc<Self>> {
        let rules = table.tcp.iter().map(|rule| rule.matches.as_slice());
        Self::compile(compiler, (table, L4Kind::Tcp), rules, gateway)
    }

    /// As [`Self::tcp`], for TLS rules.
    pub fn tls(compiler: &Compiler<'_>, table: &Arc<RouteTable>, gateway: &str) -> Vec<Arc<Self>> {
        let rules = table.tls.iter().map(|rule| rule.matches.as_slice());
        Self::compile(compiler, (table, L4Kind::Tls), rules, gateway)
    }

    fn compile<'m>(
        compiler: &Compiler<'_>,
        (table, kind): (&Arc<RouteTable>, L4Kind),
        rules: impl Iterator<Item = &'m [L4Match]>,
        gateway: &str,
    ) -> Vec<Arc<Self>> {
        let mut compiled = Vec::new();
        for (index, alternatives) in rules.enumerate() {
            let applies = |m: &&L4Match| {
                at_gateway(&m.gateways, gateway)
                    && compiler.client_fits(&m.source_labels, m.source_namespace.as_ref())
            };
            let mut conditions: Vec<_> = alternatives
                .iter()
                .filter(applies)
                .map(Condition::new)
                .collect();
            if alternatives.is_empty() {
                conditions.push(Condition::default());
            }
            if !conditions.is_empty() {
                compiled.push(Arc::new(Self {
                    table: table.clone(),
                    kind,
                    index,
                    conditions,
                }));
            }
        }
        compiled
    }

    /// Server names that lead to this rule; a rule without one takes any name.
    pub fn server_names(&self) -> impl Iterator<Item = &str> {
        self.conditions.iter().flat_map(|c| {
            let any = c.sni_hosts.is_empty().then_some("*");
            c.sni_hosts.iter().map(|h| &**h).chain(any)
        })
    }

    /// The user's object.
    pub fn origin(&self) -> &Origin {
        &self.table.origin
    }

    /// Whether the rule takes a connection to this address; `sni` is checked for TLS rules only.
    pub fn takes(&self, facts: &ConnectionFacts, sni: Option<&str>) -> bool {
        self.conditions.iter().any(|c| c.fits(facts, sni))
    }

    /// The weighted destinations.
    pub fn destinations(&self) -> &[WeightedDestination] {
        match self.kind {
            L4Kind::Tcp => &self.table.tcp[self.index].destinations,
            L4Kind::Tls => &self.table.tls[self.index].destinations,
        }
    }

    /// The plan for a connection that this rule takes.
    pub fn plan(&self, registry: &Registry, clusters: &Clusters, port: u16, dice: u64) -> TcpPlan {
        let origin = Some(self.origin().clone());
        let Some(choice) = choose(self.destinations(), |d| d.weight, dice) else {
            return TcpPlan::Refuse(Fault {
                reason: FaultReason::NoCluster,
                origin,
                subject: "a rule without a destination of positive weight".to_owned(),
            });
        };
        let target = clusters.of_destination(registry, &choice.destination, port);
        match target.usable(origin.as_ref()) {
            Ok(cluster) => TcpPlan::Forward {
                cluster: cluster.clone(),
                origin,
            },
            Err(fault) => TcpPlan::Refuse(fault),
        }
    }
}

impl Condition {
    fn new(wanted: &L4Match) -> Self {
        Self {
            port: wanted.port,
            subnets: wanted
                .destination_subnets
                .iter()
                .map(|text| parse_range(text))
                .collect(),
            source: wanted.source_subnet.as_deref().map(parse_range),
            sni_hosts: wanted.sni_hosts.clone(),
        }
    }

    fn fits(&self, facts: &ConnectionFacts, sni: Option<&str>) -> bool {
        let within = |range: &Option<(IpAddr, u8)>, ip: IpAddr| {
            range.is_some_and(|(network, prefix)| in_range(network, prefix, ip))
        };
        let in_subnet = |range: &Option<(IpAddr, u8)>| within(range, facts.destination.ip());
        let from = |range: &Option<(IpAddr, u8)>| within(range, facts.source.ip());
        let name_fits = sni.is_none_or(|sni| {
            self.sni_hosts.is_empty()
                || self
                    .sni_hosts
                    .iter()
                    .any(|host| crate::matching::host_covers(host, sni))
        });
        self.port.is_none_or(|p| p == facts.destination.port())
            && (self.subnets.is_empty() || self.subnets.iter().any(in_subnet))
            && self.source.as_ref().is_none_or(from)
            && name_fits
    }
}

/// `10.0.0.0/8` or a single address.
fn parse_range(text: &str) -> Option<(IpAddr, u8)> {
    match text.split_once('/') {
        Some(_) => {
            let net: ipnet::IpNet = text.parse().ok()?;
            Some((net.network(), net.prefix_len()))
        }
        None => {
            let ip: IpAddr = text.parse().ok()?;
            Some((ip, if ip.is_ipv4() { 32 } else { 128 }))
        }
    }
}

/// Adds the TLS rules of a table to a table by server name; `serves` limits the names.
pub(super) fn add_sni(table: &mut SniTable, rules: &[Arc<L4Rule>], serves: impl Fn(&str) -> bool) {
    for rule in rules {
        let mut names: Vec<_> = rule.server_names().filter(|name| serves(name)).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            table.slot(name, Vec::new).push(rule.clone());
        }
    }
}

/// The rule that takes a TLS connection with this server name.
pub(super) fn by_sni<'t>(
    table: &'t SniTable,
    facts: &ConnectionFacts,
    sni: &str,
) -> Option<&'t Arc<L4Rule>> {
    table
        .find_all(sni)
        .flatten()
        .find(|rule| rule.takes(facts, Some(sni)))
}
