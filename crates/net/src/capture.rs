//! Transparent capture: the packet-filter rules that bring a pod's TCP connections to the proxy
//! beside the application, inbound to one port and outbound to another.
//!
//! ```text
//! other pod ──▶ prerouting ──▶ 15006 inbound ──(source 127.0.0.6)──▶ application
//! application ──▶ output ──▶ 15001 outbound ──(marked socket)──▶ anywhere
//! ```
//!
//! The rules are those of Istio's sidecar (its `istio-iptables`), in one table of our own. A
//! connection is the proxy's own, and left alone, when its socket carries the exempt mark or
//! belongs to an exempt user or group. Of those, one kind is captured all the same: the proxy's
//! call to an address of its own pod, which is how an application's call to its own service gets
//! to the inbound side. The inbound side in turn calls the application from 127.0.0.6 (or `::6`),
//! so that this is not captured again.
//!
//! Where DNS is captured, the application's questions to the machine's resolvers go to a server beside it. The proxy's own
//! go on untracked: one that happened to have the port of an earlier question of the application would else be taken for
//! that and come back.
//!
//! It does not open the ports, and does not touch routes or other tables.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::nft::{Base, Batch, ChainKind, Family, Field, Hook, NftError, Protocol, Rule, Verdict};

#[cfg(test)]
mod tests;

/// The table that holds everything capture sets up.
pub const TABLE: &str = "lateen-capture";
/// Where outbound connections go unless told otherwise. Istio: `ProxyPort`.
pub const OUTBOUND_PORT: u16 = 15001;
/// Where inbound connections go unless told otherwise. Istio: `InboundCapturePort`.
pub const INBOUND_PORT: u16 = 15006;
/// Where the application's DNS questions go, by UDP and TCP. Istio: the agent's DNS port.
pub const DNS_PORT: u16 = 15053;
/// The port of DNS.
const ASKED_PORT: u16 = 53;
/// The proxy's user and group, and the mark on its sockets.
pub const PROXY_ID: u32 = 1337;
/// Source of the proxy's connections to the application, so that they are not captured again.
pub const PASSTHROUGH_SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);
/// The same for IPv6.
pub const PASSTHROUGH_SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);

/// Ports of the proxy itself: HBONE, metrics and health, readiness, statistics, administration.
const OWN_PORTS: [u16; 5] = [15008, 15020, 15021, 15090, 15000];
/// HBONE: never sent to the plain inbound port, as it is a door of its own.
const HBONE_PORT: u16 = 15008;

/// Which ports capture concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// Every port. Istio: `*`.
    All,
    /// These only; an empty list means none.
    Only(Vec<u16>),
}

/// Which destination networks capture concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Networks {
    /// Every address. Istio: `*`.
    All,
    /// These only; an empty list means none.
    Only(Vec<IpNet>),
}

/// What to capture in a pod. [`CaptureRules::default`] is Istio's default: everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptureRules {
    /// Local port that outbound connections are sent to.
    pub outbound_port: u16,
    /// Local port that inbound connections are sent to.
    pub inbound_port: u16,
    /// Mark of sockets that are the proxy's own; 0 means that no mark exempts.
    pub exempt_mark: u32,
    /// Users whose sockets are the proxy's own.
    pub exempt_users: Vec<u32>,
    /// Groups whose sockets are the proxy's own.
    pub exempt_groups: Vec<u32>,
    /// `traffic.sidecar.istio.io/includeInboundPorts`.
    pub inbound_ports: Ports,
    /// `traffic.sidecar.istio.io/excludeInboundPorts`; the proxy's own ports are always excluded.
    pub excluded_inbound_ports: Vec<u16>,
    /// `traffic.sidecar.istio.io/includeOutboundIPRanges`.
    pub outbound_networks: Networks,
    /// `traffic.sidecar.istio.io/excludeOutboundIPRanges`.
    pub excluded_outbound_networks: Vec<IpNet>,
    /// `traffic.sidecar.istio.io/includeOutboundPorts`: captured whatever the address is.
    pub included_outbound_ports: Vec<u16>,
    /// `traffic.sidecar.istio.io/excludeOutboundPorts`; wins over every inclusion.
    pub excluded_outbound_ports: Vec<u16>,
    /// `traffic.sidecar.istio.io/excludeInterfaces`: left alone in both directions.
    pub excluded_interfaces: Vec<String>,
    /// Whose DNS questions go to [`DNS_PORT`]. Istio: `ISTIO_META_DNS_CAPTURE`.
    pub dns: Dns,
}

/// Which questions to DNS servers are captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dns {
    /// None.
    None,
    /// Those to these servers. Istio: to those of `/etc/resolv.conf`.
    Servers(Vec<IpAddr>),
    /// All. Istio: `--capture-all-dns`.
    All,
}

impl Default for CaptureRules {
    fn default() -> CaptureRules {
        CaptureRules {
            outbound_port: OUTBOUND_PORT,
            inbound_port: INBOUND_PORT,
            exempt_mark: PROXY_ID,
            exempt_users: vec![PROXY_ID],
            exempt_groups: vec![PROXY_ID],
            inbound_ports: Ports::All,
            excluded_inbound_ports: Vec::new(),
            outbound_networks: Networks::All,
            excluded_outbound_networks: Vec::new(),
            included_outbound_ports: Vec::new(),
            excluded_outbound_ports: Vec::new(),
            excluded_interfaces: Vec::new(),
            dns: Dns::None,
        }
    }
}

/// Why capture could not be set up or taken away. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// An option makes no sense.
    #[error("cannot capture traffic: {0}")]
    Invalid(String),
    /// The kernel refused.
    #[error("cannot capture traffic: {0}")]
    Kernel(#[from] NftError),
}

/// Puts the rules in place in the calling thread's network namespace, replacing those of an
/// earlier call in the same instant. Needs `CAP_NET_ADMIN` there. Connections that exist already
/// stay as they are.
pub fn apply(rules: &CaptureRules) -> Result<(), CaptureError> {
    validate(rules)?;
    let mut batch = Batch::new(Family::Inet, TABLE);
    batch.add_table().delete_table().add_table();
    inbound(&mut batch, rules);
    outbound(&mut batch, rules);
    Ok(batch.commit()?)
}

/// Takes the rules away from the calling thread's network namespace; no error when there are none.
pub fn remove() -> Result<(), CaptureError> {
    let mut batch = Batch::new(Family::Inet, TABLE);
    batch.add_table().delete_table();
    Ok(batch.commit()?)
}

fn validate(rules: &CaptureRules) -> Result<(), CaptureError> {
    if rules.inbound_port == 0 || rules.outbound_port == 0 {
        let reason = "the inbound and outbound ports must not be 0";
        return Err(CaptureError::Invalid(reason.to_owned()));
    }
    if rules.inbound_port == rules.outbound_port {
        return Err(CaptureError::Invalid(format!(
            "inbound and outbound connections cannot both go to port {}; give them two ports",
            rules.inbound_port
        )));
    }
    let unusable = |name: &&String| name.is_empty() || name.len() > 15;
    match rules.excluded_interfaces.iter().find(unusable) {
        Some(name) => Err(CaptureError::Invalid(format!(
            "excluded interface {name:?} is no interface name (1 to 15 bytes)"
        ))),
        None => Ok(()),
    }
}

const TO_INBOUND: &str = "to-inbound";
const TO_OUTBOUND: &str = "to-outbound";

fn inbound(batch: &mut Batch, rules: &CaptureRules) {
    const CHAIN: &str = "inbound";
    const DESTINATION_NAT: i32 = -100;
    let base = Base {
        kind: ChainKind::Nat,
        hook: Hook::Prerouting,
        priority: DESTINATION_NAT,
    };
    batch.add_base_chain(CHAIN, base);
    batch.add_chain(TO_INBOUND);
    batch.add_rule(TO_INBOUND, &Rule::new().tcp().redirect(rules.inbound_port));

    for name in &rules.excluded_interfaces {
        let rule = Rule::new().is(Field::InInterface, name.as_str());
        batch.add_rule(CHAIN, &rule.then(Verdict::Return));
    }
    let mut excluded = OWN_PORTS.to_vec();
    excluded.extend(&rules.excluded_inbound_ports);
    let rule = Rule::new().tcp().port_in(Field::DestinationPort, &excluded);
    batch.add_rule(CHAIN, &rule.then(Verdict::Return));
    let capture = Verdict::Jump(TO_INBOUND.to_owned());
    match &rules.inbound_ports {
        Ports::All => {
            batch.add_rule(CHAIN, &Rule::new().tcp().then(capture));
        }
        Ports::Only(ports) if ports.is_empty() => {}
        Ports::Only(ports) => {
            let rule = Rule::new().tcp().port_in(Field::DestinationPort, ports);
            batch.add_rule(CHAIN, &rule.then(capture));
        }
    }
}

fn outbound(batch: &mut Batch, rules: &CaptureRules) {
    const CHAIN: &str = "outbound";
    const DESTINATION_NAT: i32 = -100;
    let base = Base {
        kind: ChainKind::Nat,
        hook: Hook::Output,
        priority: DESTINATION_NAT,
    };
    batch.add_base_chain(CHAIN, base);
    batch.add_chain(TO_OUTBOUND);
    batch.add_rule(
        TO_OUTBOUND,
        &Rule::new().tcp().redirect(rules.outbound_port),
    );

    for name in &rules.excluded_interfaces {
        let rule = Rule::new().is(Field::OutInterface, name.as_str());
        batch.add_rule(CHAIN, &rule.then(Verdict::Return));
    }
    if !rules.excluded_outbound_ports.is_empty() {
        let rule = Rule::new().tcp();
        let rule = rule.port_in(Field::DestinationPort, &rules.excluded_outbound_ports);
        batch.add_rule(CHAIN, &rule.then(Verdict::Return));
    }
    dns(batch, CHAIN, rules);
    loopback(batch, CHAIN, rules);
    for own in own_sockets(rules) {
        batch.add_rule(CHAIN, &own.then(Verdict::Return));
    }

    let capture = Verdict::Jump(TO_OUTBOUND.to_owned());
    if !rules.included_outbound_ports.is_empty() {
        let rule = Rule::new().tcp();
        let rule = rule.port_in(Field::DestinationPort, &rules.included_outbound_ports);
        batch.add_rule(CHAIN, &rule.then(capture.clone()));
    }
    for network in &rules.excluded_outbound_networks {
        batch.add_rule(CHAIN, &within(*network).then(Verdict::Return));
    }
    match &rules.outbound_networks {
        Networks::All => {
            batch.add_rule(CHAIN, &Rule::new().tcp().then(capture));
        }
        Networks::Only(networks) => {
            for network in networks {
                batch.add_rule(CHAIN, &within(*network).tcp().then(capture.clone()));
            }
        }
    }
}

/// Questions to DNS servers, before anything else is said about their ports and addresses.
fn dns(batch: &mut Batch, chain: &str, rules: &CaptureRules) {
    const TO_DNS: &str = "to-dns";
    const UNTRACKED: &str = "own-dns";
    const UNTRACKED_ANSWERS: &str = "own-dns-answers";
    const RAW: i32 = -300;
    let (servers, answering): (Vec<Rule>, Vec<Rule>) = match &rules.dns {
        Dns::None => return,
        Dns::All => (vec![Rule::new()], vec![Rule::new()]),
        Dns::Servers(servers) => {
            let both = |ip: &IpAddr| (Rule::new().to(*ip), Rule::new().from(*ip));
            servers.iter().map(both).unzip()
        }
    };
    batch.add_chain(TO_DNS);
    for own in own_sockets(rules) {
        batch.add_rule(TO_DNS, &own.then(Verdict::Return));
    }
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        let redirect = Rule::new().protocol(protocol).redirect(DNS_PORT);
        batch.add_rule(TO_DNS, &redirect);
        for server in &servers {
            let asks = server.clone().protocol(protocol);
            let asks = asks.is(Field::DestinationPort, ASKED_PORT);
            batch.add_rule(chain, &asks.then(Verdict::Jump(TO_DNS.to_owned())));
        }
    }
    let raw = |hook| Base {
        kind: ChainKind::Filter,
        hook,
        priority: RAW,
    };
    batch.add_base_chain(UNTRACKED, raw(Hook::Output));
    // Answers to it would else begin a connection that clashes with the application's.
    batch.add_base_chain(UNTRACKED_ANSWERS, raw(Hook::Prerouting));
    for from in answering {
        let answers = from.protocol(Protocol::Udp);
        let answers = answers.is(Field::SourcePort, ASKED_PORT);
        batch.add_rule(UNTRACKED_ANSWERS, &answers.untracked());
    }
    for own in own_sockets(rules) {
        let asks = own.protocol(Protocol::Udp);
        let asks = asks.is(Field::DestinationPort, ASKED_PORT);
        batch.add_rule(UNTRACKED, &asks.untracked());
    }
}

/// Traffic inside the pod, which all goes by the loopback interface. Only the proxy's calls to
/// the pod's own addresses are captured.
fn loopback(batch: &mut Batch, chain: &str, rules: &CaptureRules) {
    let on_loopback = |rule: Rule| rule.is(Field::OutInterface, "lo");
    for source in [
        IpAddr::V4(PASSTHROUGH_SOURCE),
        IpAddr::V6(PASSTHROUGH_SOURCE_V6),
    ] {
        let rule = on_loopback(Rule::new()).from(source);
        batch.add_rule(chain, &rule.then(Verdict::Return));
    }
    for own in own_sockets(rules) {
        for localhost in [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ] {
            let rule = on_loopback(own.clone()).tcp().not_to(localhost);
            let rule = rule.is_not(Field::DestinationPort, HBONE_PORT);
            batch.add_rule(chain, &rule.then(Verdict::Jump(TO_INBOUND.to_owned())));
        }
    }
    batch.add_rule(chain, &on_loopback(Rule::new()).then(Verdict::Return));
}

/// One condition for each way by which a socket shows that it is the proxy's.
fn own_sockets(rules: &CaptureRules) -> Vec<Rule> {
    let mut own = Vec::new();
    if rules.exempt_mark != 0 {
        own.push(Rule::new().is(Field::Mark, rules.exempt_mark));
    }
    let users = rules
        .exempt_users
        .iter()
        .map(|id| Rule::new().is(Field::SocketUser, *id));
    let groups = rules
        .exempt_groups
        .iter()
        .map(|id| Rule::new().is(Field::SocketGroup, *id));
    own.extend(users.chain(groups));
    own
}

fn within(network: IpNet) -> Rule {
    Rule::new().to_network(network.network(), network.prefix_len())
}
