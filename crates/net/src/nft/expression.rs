//! The steps that a rule is made of, as the kernel's small virtual machine takes them: load a
//! field into a register, compare it, act.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::wire::{self, Message};

/// A property of a packet that rules compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// IPv4 source address.
    Ipv4Source,
    /// IPv4 destination address.
    Ipv4Destination,
    /// IPv6 source address.
    Ipv6Source,
    /// IPv6 destination address.
    Ipv6Destination,
    /// Source port of TCP or UDP; the rule must name the protocol before.
    SourcePort,
    /// Destination port of TCP or UDP; the rule must name the protocol before.
    DestinationPort,
    /// The mark of the packet (of its socket, in the output hook).
    Mark,
    /// The user that owns the sending socket; only in the output hook.
    SocketUser,
    /// The group that owns the sending socket; only in the output hook.
    SocketGroup,
    /// Name of the interface that the packet came in by.
    InInterface,
    /// Name of the interface that the packet leaves by.
    OutInterface,
    /// Connection tracking's state bits: 2 established, 4 related, 8 new.
    TrackState,
    /// Connection tracking's status bits: 0x10 source translated, 0x20 destination translated.
    TrackStatus,
    /// The connection's mark.
    TrackMark,
    /// Routing type of the destination address: 1 unicast, 2 local, 3 broadcast.
    DestinationType,
    /// IP version as a netfilter family number: 2 or 10.
    Version,
    /// Transport protocol number, such as 6 for TCP.
    Transport,
}

/// How a field is loaded.
enum Load {
    Meta(u32),
    Payload { base: u32, offset: u32 },
    Track(u32),
    Route,
}

impl Field {
    /// Size in bytes.
    pub(super) fn size(self) -> usize {
        match self {
            Field::Version | Field::Transport => 1,
            Field::SourcePort | Field::DestinationPort => 2,
            Field::Ipv6Source
            | Field::Ipv6Destination
            | Field::InInterface
            | Field::OutInterface => 16,
            _ => 4,
        }
    }

    fn load(self) -> Load {
        const NETWORK: u32 = 1;
        const TRANSPORT: u32 = 2;
        match self {
            Field::Ipv4Source => Load::Payload {
                base: NETWORK,
                offset: 12,
            },
            Field::Ipv4Destination => Load::Payload {
                base: NETWORK,
                offset: 16,
            },
            Field::Ipv6Source => Load::Payload {
                base: NETWORK,
                offset: 8,
            },
            Field::Ipv6Destination => Load::Payload {
                base: NETWORK,
                offset: 24,
            },
            Field::SourcePort => Load::Payload {
                base: TRANSPORT,
                offset: 0,
            },
            Field::DestinationPort => Load::Payload {
                base: TRANSPORT,
                offset: 2,
            },
            Field::Mark => Load::Meta(3),
            Field::InInterface => Load::Meta(6),
            Field::OutInterface => Load::Meta(7),
            Field::SocketUser => Load::Meta(10),
            Field::SocketGroup => Load::Meta(11),
            Field::Version => Load::Meta(15),
            Field::Transport => Load::Meta(16),
            Field::TrackState => Load::Track(0),
            Field::TrackStatus => Load::Track(2),
            Field::TrackMark => Load::Track(3),
            Field::DestinationType => Load::Route,
        }
    }
}

/// What a field is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A protocol or family number.
    Byte(u8),
    /// A port.
    Port(u16),
    /// A mark, an owner, a bit set.
    Number(u32),
    /// An address of either version.
    Address(IpAddr),
    /// An interface's name; longer names than 15 bytes never match.
    Name(String),
}

impl Value {
    /// The bytes as they stand in a register.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Value::Byte(value) => vec![*value],
            Value::Port(value) => value.to_be_bytes().to_vec(),
            Value::Number(value) => value.to_ne_bytes().to_vec(),
            Value::Address(IpAddr::V4(address)) => address.octets().to_vec(),
            Value::Address(IpAddr::V6(address)) => address.octets().to_vec(),
            Value::Name(name) => {
                let mut bytes = name.as_bytes().to_vec();
                bytes.resize(16, 0);
                bytes
            }
        }
    }
}

impl From<u16> for Value {
    fn from(port: u16) -> Value {
        Value::Port(port)
    }
}
impl From<u32> for Value {
    fn from(number: u32) -> Value {
        Value::Number(number)
    }
}
impl From<IpAddr> for Value {
    fn from(address: IpAddr) -> Value {
        Value::Address(address)
    }
}
impl From<Ipv4Addr> for Value {
    fn from(address: Ipv4Addr) -> Value {
        Value::Address(address.into())
    }
}
impl From<Ipv6Addr> for Value {
    fn from(address: Ipv6Addr) -> Value {
        Value::Address(address.into())
    }
}
impl From<&str> for Value {
    fn from(name: &str) -> Value {
        Value::Name(name.to_owned())
    }
}

/// What happens to a packet at the end of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Let it pass this hook's chain.
    Accept,
    /// Discard it silently.
    Drop,
    /// Go back to the calling chain; in a base chain: accept.
    Return,
    /// Continue in another chain, and come back after it.
    Jump(String),
    /// Continue in another chain for good.
    Goto(String),
}

impl Verdict {
    pub(super) fn encode(&self, attribute: u16, message: &mut Message) {
        let (code, chain) = match self {
            Verdict::Accept => (1, None),
            Verdict::Drop => (0, None),
            Verdict::Return => (-5i32, None),
            Verdict::Jump(chain) => (-3, Some(chain)),
            Verdict::Goto(chain) => (-4, Some(chain)),
        };
        message.nest(attribute, |data| {
            data.nest(wire::DATA_VERDICT, |verdict| {
                verdict.number(wire::VERDICT_CODE, code as u32);
                if let Some(chain) = chain {
                    verdict.string(wire::VERDICT_CHAIN, chain);
                }
            });
        });
    }
}

/// How a refused sender is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reject {
    /// A TCP reset: "connection refused". Only in rules that match TCP.
    TcpReset,
    /// ICMP or ICMPv6 port unreachable.
    PortUnreachable,
}

/// Comparison operators, numbered as in the kernel.
#[derive(Debug, Clone, Copy)]
pub(super) enum Compare {
    Equal = 0,
    Unequal = 1,
    AtMost = 3,
    AtLeast = 5,
}

/// One step. Registers are numbered in 4-byte slots.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Load {
        field: Field,
        slot: u32,
    },
    Compare {
        how: Compare,
        value: Vec<u8>,
    },
    Mask {
        mask: Vec<u8>,
    },
    Constant {
        slot: u32,
        value: Vec<u8>,
    },
    Random {
        modulus: u32,
    },
    Hash {
        slot: u32,
        length: u32,
        modulus: u32,
    },
    Lookup {
        set: SetName,
        invert: bool,
        into: Option<Target>,
    },
    SetMark,
    NoTrack,
    Nat {
        destination: bool,
        version: Field,
        port_slot: u32,
    },
    Redirect,
    Masquerade,
    Reject(Reject),
    Counter,
    Decide(Verdict),
}

/// Which set a lookup uses.
#[derive(Debug, Clone)]
pub(super) enum SetName {
    Named(String),
    /// The n-th anonymous set of the rule.
    Anonymous(u32),
}

/// Where the value of a map goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    Slot(u32),
    Verdict,
}

/// Register number of a slot (`NFT_REG32_00` is 8); the verdict register is 0.
fn register(slot: u32) -> u32 {
    slot + 8
}

impl Step {
    /// Appends the step to a rule's list; `first_set` is the transaction's number of the rule's
    /// first anonymous set.
    pub(super) fn encode(&self, list: &mut Message, first_set: u32) {
        const NAME: u16 = 1;
        const BODY: u16 = 2;
        list.nest(wire::LIST_ITEM, |item| {
            item.string(NAME, self.name());
            item.nest(BODY, |body| self.body(body, first_set));
        });
    }

    fn name(&self) -> &'static str {
        match self {
            Step::Load { field, .. } => match field.load() {
                Load::Meta(_) => "meta",
                Load::Payload { .. } => "payload",
                Load::Track(_) => "ct",
                Load::Route => "fib",
            },
            Step::Compare { .. } => "cmp",
            Step::Mask { .. } => "bitwise",
            Step::Constant { .. } | Step::Decide(_) => "immediate",
            Step::Random { .. } => "numgen",
            Step::Hash { .. } => "hash",
            Step::Lookup { .. } => "lookup",
            Step::SetMark => "meta",
            Step::NoTrack => "notrack",
            Step::Nat { .. } => "nat",
            Step::Redirect => "redir",
            Step::Masquerade => "masq",
            Step::Reject(_) => "reject",
            Step::Counter => "counter",
        }
    }

    /// Attributes are numbered per expression as in `nf_tables.h`.
    fn body(&self, body: &mut Message, first_set: u32) {
        match self {
            Step::Load { field, slot } => load(body, *field, register(*slot)),
            Step::Compare { how, value } => {
                body.number(1, register(0));
                body.number(2, *how as u32);
                body.nest(3, |data| data.bytes(wire::DATA_VALUE, value));
            }
            Step::Mask { mask } => {
                body.number(1, register(0));
                body.number(2, register(0));
                body.number(3, mask.len() as u32);
                body.nest(4, |data| data.bytes(wire::DATA_VALUE, mask));
                body.nest(5, |data| data.bytes(wire::DATA_VALUE, &vec![0; mask.len()]));
            }
            Step::Constant { slot, value } => {
                body.number(1, register(*slot));
                body.nest(2, |data| data.bytes(wire::DATA_VALUE, value));
            }
            Step::Decide(verdict) => {
                body.number(1, 0);
                verdict.encode(2, body);
            }
            Step::Random { modulus } => {
                body.number(1, register(0));
                body.number(2, *modulus);
                body.number(3, 1);
            }
            Step::Hash {
                slot,
                length,
                modulus,
            } => {
                body.number(1, register(*slot));
                body.number(2, register(0));
                body.number(3, *length);
                body.number(4, *modulus);
            }
            Step::Lookup { set, invert, into } => lookup(body, set, *invert, *into, first_set),
            Step::SetMark => {
                body.number(2, 3);
                body.number(3, register(0));
            }
            Step::Nat {
                destination,
                version,
                port_slot,
            } => {
                body.number(1, u32::from(*destination));
                body.number(
                    2,
                    if *version == Field::Ipv6Destination {
                        10
                    } else {
                        2
                    },
                );
                body.number(3, register(0));
                body.number(5, register(*port_slot));
            }
            Step::Redirect => body.number(1, register(0)),
            Step::Masquerade | Step::Counter | Step::NoTrack => {}
            Step::Reject(Reject::TcpReset) => {
                body.number(1, 1);
                body.bytes(2, &[0]);
            }
            Step::Reject(Reject::PortUnreachable) => {
                body.number(1, 2);
                body.bytes(2, &[1]);
            }
        }
    }
}

fn load(body: &mut Message, field: Field, register: u32) {
    match field.load() {
        Load::Meta(key) => {
            body.number(1, register);
            body.number(2, key);
        }
        Load::Payload { base, offset } => {
            body.number(1, register);
            body.number(2, base);
            body.number(3, offset);
            body.number(4, field.size() as u32);
        }
        Load::Track(key) => {
            body.number(1, register);
            body.number(2, key);
        }
        Load::Route => {
            const ADDRESS_TYPE: u32 = 3;
            const OF_DESTINATION: u32 = 2;
            body.number(1, register);
            body.number(2, ADDRESS_TYPE);
            body.number(3, OF_DESTINATION);
        }
    }
}

fn lookup(body: &mut Message, set: &SetName, invert: bool, into: Option<Target>, first_set: u32) {
    match set {
        SetName::Named(name) => body.string(1, name),
        SetName::Anonymous(index) => {
            // The kernel finds the set of this transaction by number; the name only has to fit.
            body.string(1, "__set%d");
            body.number(4, first_set + index);
        }
    }
    body.number(2, register(0));
    match into {
        Some(Target::Slot(slot)) => body.number(3, register(slot)),
        Some(Target::Verdict) => body.number(3, 0),
        None => {}
    }
    if invert {
        body.number(5, 1);
    }
}
