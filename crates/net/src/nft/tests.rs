//! Rules as the kernel takes them, read back with the `nft` program, which is needed for these
//! tests only.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use super::*;

/// What `nft list ruleset` prints after `change`, which runs in a network namespace of its own;
/// absent, with a loud note, on a machine without that program or the rights. Fails under `CI`.
pub(crate) fn listing(change: impl FnOnce() + Send + 'static) -> Option<String> {
    let job = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).ok()?;
        change();
        let output = Command::new("nft")
            .args(["list", "ruleset"])
            .output()
            .ok()?;
        assert!(output.status.success(), "{output:?}");
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let listing = std::thread::spawn(job).join().expect("the change succeeds");
    if listing.is_none() {
        let note = "NOT TRIED: reading rules back needs root and the nft program";
        assert!(std::env::var_os("CI").is_none(), "{note}");
        eprintln!("{note}");
    }
    listing
}

fn base(kind: ChainKind, hook: Hook) -> Base {
    Base {
        kind,
        hook,
        priority: 0,
    }
}

fn check(kind: ChainKind, hook: Hook, rules: Vec<Rule>, expected: &[&str]) {
    let change = move || {
        let mut batch = Batch::new(Family::Inet, "t");
        batch
            .add_table()
            .add_base_chain("c", base(kind, hook))
            .add_chain("other");
        let mut set = Set::of(&[Kind::Ipv4, Kind::Ipv4]);
        let address = Value::from(Ipv4Addr::new(10, 0, 0, 1));
        set.insert(&[address.clone(), address]);
        batch.add_set("pairs", &set);
        rules.iter().for_each(|rule| {
            batch.add_rule("c", rule);
        });
        batch.commit().expect("the kernel takes the rules");
    };
    let Some(listing) = listing(change) else {
        return;
    };
    for line in expected {
        assert!(
            listing.lines().any(|found| found.trim() == *line),
            "no {line:?} in:\n{listing}"
        );
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn conditions() {
    let port = Field::DestinationPort;
    let v4 = [Field::Ipv4Source, Field::Ipv4Destination];
    let net = |text: &str| text.parse().unwrap();
    let rules = vec![
        Rule::new()
            .tcp()
            .port_in(port, &[443, 80, 80])
            .then(Verdict::Accept),
        Rule::new()
            .to_network(net("10.128.0.0"), 9)
            .then(Verdict::Drop),
        Rule::new().to_network(net("fd00::"), 61).counter(),
        Rule::new()
            .protocol(Protocol::Udp)
            .between(port, 100u16, 200u16)
            .then(Verdict::Return),
        Rule::new()
            .has_bits(Field::TrackState, 2 | 4)
            .then(Verdict::Accept),
        Rule::new()
            .has_bits(Field::TrackStatus, 0x20)
            .then(Verdict::Goto("other".to_owned())),
        Rule::new()
            .in_set(&v4, "pairs")
            .then(Verdict::Jump("other".to_owned())),
        Rule::new().is_not(Field::DestinationType, 2u32).set_mark(7),
        Rule::new()
            .is(Field::InInterface, "eth0")
            .then(Verdict::Accept),
        Rule::new().tcp().is(port, 80u16).reject(Reject::TcpReset),
        Rule::new().reject(Reject::PortUnreachable),
    ];
    let expected = [
        "tcp dport { 80, 443 } accept",
        "ip daddr 10.128.0.0/9 drop",
        "ip6 daddr fd00::/61 counter packets 0 bytes 0",
        "udp dport 100-200 return",
        "ct state established,related accept",
        "ct status dnat goto other",
        "ip saddr . ip daddr @pairs jump other",
        "fib daddr type != local meta mark set 0x00000007",
        "iifname \"eth0\" accept",
        "tcp dport 80 reject with tcp reset",
        "reject",
    ];
    check(ChainKind::Filter, Hook::Prerouting, rules, &expected);
}

#[test]
fn translation() {
    let [a, b] = [address("10.0.0.1:80"), address("10.0.0.2:81")];
    let rules = vec![
        Rule::new().tcp().destination_nat(&[a], Pick::Random),
        Rule::new().tcp().destination_nat(&[a, b], Pick::Random),
        Rule::new().tcp().destination_nat(&[b, a], Pick::SourceHash),
        Rule::new()
            .tcp()
            .destination_nat(&[address("[fd00::1]:80")], Pick::Random),
        Rule::new().tcp().redirect(99),
    ];
    let expected = [
        "meta l4proto tcp meta nfproto ipv4 dnat ip to 10.0.0.1:80",
        "meta l4proto tcp meta nfproto ipv4 dnat ip to numgen random mod 2 map \
         { 0 : 10.0.0.1 . 80, 1 : 10.0.0.2 . 81 }",
        "meta l4proto tcp dnat ip to jhash ip saddr mod 2 map \
         { 0 : 10.0.0.2 . 81, 1 : 10.0.0.1 . 80 }",
        "meta l4proto tcp meta nfproto ipv6 dnat ip6 to [fd00::1]:80",
        "meta l4proto tcp redirect to :99",
    ];
    check(ChainKind::Nat, Hook::Output, rules, &expected);
}

#[test]
fn verdict_maps() {
    let mut map = Set::verdict_map(&[Kind::Ipv4, Kind::Transport, Kind::Port]);
    let key = [
        Ipv4Addr::new(10, 0, 0, 1).into(),
        Value::Byte(6),
        Value::Port(80),
    ];
    map.insert_verdict(&key, Verdict::Goto("other".to_owned()));
    let fields = [
        Field::Ipv4Destination,
        Field::Transport,
        Field::DestinationPort,
    ];
    let rules = vec![Rule::new().verdict_in(&fields, map)];
    let expected = ["ip daddr . meta l4proto . th dport vmap { 10.0.0.1 . tcp . 80 : goto other }"];
    check(ChainKind::Filter, Hook::Output, rules, &expected);
}

#[test]
fn a_refused_command_is_named_and_nothing_is_done() {
    let change = || {
        let mut batch = Batch::new(Family::Inet, "t");
        batch
            .add_table()
            .add_rule("missing", &Rule::new().counter());
        let error = batch.commit().unwrap_err().to_string();
        assert!(
            error.starts_with("cannot add rule to chain missing (table inet t): No such file"),
            "{error}"
        );
    };
    if let Some(listing) = listing(change) {
        assert_eq!(listing, "");
    }
}

#[test]
fn many_elements_fit() {
    let change = || {
        let mut set = Set::of(&[Kind::Ipv4]);
        (0..20_000u32).for_each(|n| set.insert(&[Ipv4Addr::from(n + 1).into()]));
        let mut batch = Batch::new(Family::Ipv4, "t");
        batch.add_table().add_set("s", &set);
        batch.commit().unwrap();
    };
    if let Some(listing) = listing(change) {
        assert!(listing.contains("0.0.78.32"), "the last element");
    }
}
