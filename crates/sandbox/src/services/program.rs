//! Entries as packet-filter rules.
//!
//! ```text
//! prerouting, output (nat) ─▶ translate: address and port ─▶ an endpoint
//! forward, output (filter) ─▶ refuse:    addresses without endpoints, and without services
//! postrouting (nat):       a pod that reaches itself gets the node's address as its source
//! ```

use std::net::{IpAddr, Ipv4Addr};

use lateen_net::nft::{
    Base, Batch, ChainKind, Family, Field, Hook, Kind, Protocol, Reject, Rule, Set, Value, Verdict,
};

use super::Options;
use super::plan::Entry;

/// The table that holds all of it.
pub(super) const TABLE: &str = "lateen-services";

const TRANSLATE: &str = "translate";
const REFUSE: &str = "refuse";
const LEAVE: &str = "leave";
/// Pairs of an endpoint's address with itself.
const SELF_CALLS: &str = "self-calls";
/// Status bit of connection tracking: the destination has been translated.
const DESTINATION_TRANSLATED: u32 = 0x20;
/// Routing type of addresses that are the node's own.
const LOCAL: u32 = 2;

/// The transaction that makes the rules say exactly this.
pub(super) fn batch(entries: &[Entry], options: &Options) -> Batch {
    const DESTINATION_NAT: i32 = -100;
    const SOURCE_NAT: i32 = 100;
    let mut batch = Batch::new(Family::Inet, TABLE);
    batch.add_table();
    let base = |kind, hook, priority| Base {
        kind,
        hook,
        priority,
    };
    for (chain, base) in [
        (
            "prerouting",
            base(ChainKind::Nat, Hook::Prerouting, DESTINATION_NAT),
        ),
        (
            "output",
            base(ChainKind::Nat, Hook::Output, DESTINATION_NAT),
        ),
        (LEAVE, base(ChainKind::Nat, Hook::Postrouting, SOURCE_NAT)),
        ("refuse-forward", base(ChainKind::Filter, Hook::Forward, 0)),
        ("refuse-output", base(ChainKind::Filter, Hook::Output, 0)),
    ] {
        batch.add_base_chain(chain, base).flush_chain(chain);
    }
    for chain in [TRANSLATE, REFUSE] {
        batch.add_chain(chain).flush_chain(chain);
    }
    let jump = |chain: &str| Rule::new().then(Verdict::Jump(chain.to_owned()));
    batch
        .add_rule("prerouting", &jump(TRANSLATE))
        .add_rule("output", &jump(TRANSLATE));
    batch
        .add_rule("refuse-forward", &jump(REFUSE))
        .add_rule("refuse-output", &jump(REFUSE));
    translate(&mut batch, entries);
    refuse(&mut batch, entries, options);
    leave(&mut batch, entries);
    batch
}

fn translate(batch: &mut Batch, entries: &[Entry]) {
    for entry in entries.iter().filter(|entry| !entry.backends.is_empty()) {
        for address in &entry.addresses {
            let backends: Vec<_> = entry
                .backends
                .iter()
                .filter(|backend| backend.is_ipv4() == address.is_ipv4())
                .copied()
                .collect();
            let rule = Rule::new().to(address.ip()).protocol(entry.protocol);
            let rule = rule.is(Field::DestinationPort, address.port());
            batch.add_rule(TRANSLATE, &rule.destination_nat(&backends, entry.pick));
        }
        if let Some(port) = entry.node_port {
            let backends: Vec<_> = entry
                .backends
                .iter()
                .filter(|backend| backend.is_ipv4())
                .copied()
                .collect();
            let rule = Rule::new()
                .protocol(entry.protocol)
                .is(Field::DestinationPort, port);
            let rule = rule.is(Field::DestinationType, LOCAL);
            batch.add_rule(TRANSLATE, &rule.destination_nat(&backends, entry.pick));
        }
    }
}

/// What is still addressed to a service here has not been translated.
fn refuse(batch: &mut Batch, entries: &[Entry], options: &Options) {
    for entry in entries.iter().filter(|entry| entry.backends.is_empty()) {
        for address in &entry.addresses {
            let rule = Rule::new().to(address.ip()).protocol(entry.protocol);
            let rule = rule.is(Field::DestinationPort, address.port());
            let how = match entry.protocol {
                Protocol::Tcp => Reject::TcpReset,
                Protocol::Udp => Reject::PortUnreachable,
            };
            batch.add_rule(REFUSE, &rule.reject(how));
        }
    }
    // Addresses that no service has; those that the node itself has, such as DNS, are not meant.
    let network = IpAddr::V4(options.network.network());
    let unknown = Rule::new()
        .to_network(network, options.network.prefix_len())
        .is_not(Field::DestinationType, LOCAL);
    batch.add_rule(REFUSE, &unknown.clone().tcp().reject(Reject::TcpReset));
    batch.add_rule(REFUSE, &unknown.reject(Reject::PortUnreachable));
}

/// Answers must come back through the node, or the caller would not know them.
fn leave(batch: &mut Batch, entries: &[Entry]) {
    let mut own = Set::of(&[Kind::Ipv4, Kind::Ipv4]);
    let backends = entries.iter().flat_map(|entry| &entry.backends);
    let addresses = backends.filter_map(|backend| match backend.ip() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    let addresses: std::collections::BTreeSet<Ipv4Addr> = addresses.collect();
    for address in addresses {
        own.insert(&[Value::from(address), Value::from(address)]);
    }
    batch
        .add_set(SELF_CALLS, &Set::of(&[Kind::Ipv4, Kind::Ipv4]))
        .flush_set(SELF_CALLS);
    batch.add_set(SELF_CALLS, &own);
    let pair = [Field::Ipv4Source, Field::Ipv4Destination];
    let rule = Rule::new().has_bits(Field::TrackStatus, DESTINATION_TRANSLATED);
    batch.add_rule(LEAVE, &rule.clone().in_set(&pair, SELF_CALLS).masquerade());
    // The node called one of its ports on 127.0.0.1.
    let loopback = Value::from(Ipv4Addr::new(127, 0, 0, 0));
    let last = Value::from(Ipv4Addr::new(127, 255, 255, 255));
    let rule = rule.between(Field::Ipv4Source, loopback, last);
    batch.add_rule(LEAVE, &rule.is_not(Field::OutInterface, "lo").masquerade());
}
