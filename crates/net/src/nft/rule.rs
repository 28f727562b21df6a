//! Rules, written in the words of packet filters and compiled to the kernel's steps.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::expression::{Compare, Field, Reject, SetName, Step, Target, Value, Verdict};
use super::set::{Kind, Set};
use super::wire::Message;

/// Transport protocols that rules name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// How one of several destinations is chosen for a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// Evenly at random.
    Random,
    /// By a hash of the source address: one client stays with one destination while the list of
    /// destinations stays the same.
    SourceHash,
}

/// Conditions, all of which must hold, and what then happens. Conditions are checked in the order
/// written; conditions on an address imply the IP version.
#[derive(Debug, Clone, Default)]
pub struct Rule {
    steps: Vec<Step>,
    sets: Vec<Set>,
    version: Option<u8>,
}

impl Rule {
    /// A rule that matches every packet and does nothing.
    pub fn new() -> Rule {
        Rule::default()
    }

    /// The transport protocol is this one.
    pub fn protocol(self, protocol: Protocol) -> Rule {
        let number = match protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        };
        self.compare(Field::Transport, Compare::Equal, Value::Byte(number))
    }

    /// The transport protocol is TCP.
    pub fn tcp(self) -> Rule {
        self.protocol(Protocol::Tcp)
    }

    /// The field has this value.
    pub fn is(self, field: Field, value: impl Into<Value>) -> Rule {
        self.compare(field, Compare::Equal, value.into())
    }

    /// The field has another value.
    pub fn is_not(self, field: Field, value: impl Into<Value>) -> Rule {
        self.compare(field, Compare::Unequal, value.into())
    }

    /// The destination address is this one, of either version.
    pub fn to(self, address: IpAddr) -> Rule {
        self.is(destination(address), address)
    }

    /// The destination address is another than this one (and of the same version).
    pub fn not_to(self, address: IpAddr) -> Rule {
        self.is_not(destination(address), address)
    }

    /// The source address is this one, of either version.
    pub fn from(self, address: IpAddr) -> Rule {
        let field = if address.is_ipv4() {
            Field::Ipv4Source
        } else {
            Field::Ipv6Source
        };
        self.is(field, address)
    }

    /// The first `length` bits of the destination address are those of `network`. Longer lengths
    /// than the address mean the whole address.
    pub fn to_network(self, network: IpAddr, length: u8) -> Rule {
        let field = destination(network);
        let bytes = Value::Address(network).to_bytes();
        let mask = mask(bytes.len(), length);
        let value = bytes
            .iter()
            .zip(&mask)
            .map(|(byte, mask)| byte & mask)
            .collect();
        let mut rule = self.assume_version(field).load(field);
        rule.steps.push(Step::Mask { mask });
        rule.steps.push(Step::Compare {
            how: Compare::Equal,
            value,
        });
        rule
    }

    /// The field lies between two values, both included.
    pub fn between(self, field: Field, low: impl Into<Value>, high: impl Into<Value>) -> Rule {
        let mut rule = self.assume_version(field).load(field);
        let (low, high) = (low.into().to_bytes(), high.into().to_bytes());
        rule.steps.push(Step::Compare {
            how: Compare::AtLeast,
            value: low,
        });
        rule.steps.push(Step::Compare {
            how: Compare::AtMost,
            value: high,
        });
        rule
    }

    /// Some of these bits are set in the field.
    pub fn has_bits(self, field: Field, bits: u32) -> Rule {
        let mut rule = self.load(field);
        rule.steps.push(Step::Mask {
            mask: bits.to_ne_bytes().to_vec(),
        });
        rule.steps.push(Step::Compare {
            how: Compare::Unequal,
            value: vec![0; 4],
        });
        rule
    }

    /// The port is one of these. With none, the rule never matches.
    pub fn port_in(self, field: Field, ports: &[u16]) -> Rule {
        let mut set = Set::of(&[Kind::Port]);
        let mut ports = ports.to_vec();
        ports.sort_unstable();
        ports.dedup();
        ports
            .iter()
            .for_each(|port| set.insert(&[Value::Port(*port)]));
        let rule = self.load(field);
        rule.look_up_anonymous(set, None)
    }

    /// The fields, taken together in this order, are in a named set of the table.
    pub fn in_set(self, fields: &[Field], name: &str) -> Rule {
        self.look_up(fields, name, false, None)
    }

    /// The fields, taken together in this order, are not in a named set of the table.
    pub fn not_in_set(self, fields: &[Field], name: &str) -> Rule {
        self.look_up(fields, name, true, None)
    }

    /// Does what a named verdict map of the table says for the fields; goes on when it has no entry.
    pub fn verdict_from(self, fields: &[Field], name: &str) -> Rule {
        self.look_up(fields, name, false, Some(Target::Verdict))
    }

    /// Does what a verdict map says for the fields; goes on when it has no entry. Panics never;
    /// a map of another shape is refused by the kernel.
    pub fn verdict_in(self, fields: &[Field], map: Set) -> Rule {
        let into = map.is_verdict_map().then_some(Target::Verdict);
        self.load_all(fields).look_up_anonymous(map, into)
    }

    /// Counts packets and bytes that come this far.
    pub fn counter(mut self) -> Rule {
        self.steps.push(Step::Counter);
        self
    }

    /// Marks the packet.
    pub fn set_mark(mut self, mark: u32) -> Rule {
        self.steps.push(Step::Constant {
            slot: 0,
            value: mark.to_ne_bytes().to_vec(),
        });
        self.steps.push(Step::SetMark);
        self
    }

    /// Keeps connection tracking, and with it translation, away from the packet; only in hooks before it.
    pub fn untracked(mut self) -> Rule {
        self.steps.push(Step::NoTrack);
        self
    }

    /// Ends with a verdict.
    pub fn then(mut self, verdict: Verdict) -> Rule {
        self.steps.push(Step::Decide(verdict));
        self
    }

    /// Ends by refusing the packet with an answer to the sender.
    pub fn reject(mut self, how: Reject) -> Rule {
        self.steps.push(Step::Reject(how));
        self
    }

    /// Ends by sending the connection to a local port: in the output hook to loopback, before
    /// routing to the address of the incoming interface. The rule must match a protocol.
    pub fn redirect(mut self, port: u16) -> Rule {
        self.steps.push(Step::Constant {
            slot: 0,
            value: port.to_be_bytes().to_vec(),
        });
        self.steps.push(Step::Redirect);
        self
    }

    /// Ends by giving the connection the source address of the interface it leaves by.
    pub fn masquerade(mut self) -> Rule {
        self.steps.push(Step::Masquerade);
        self
    }

    /// Ends by giving the connection this source. The rule must match a protocol.
    pub fn source_nat(self, source: SocketAddr) -> Rule {
        self.translate(source, false)
    }

    /// Ends by sending the connection to one of these destinations, which must be of one IP
    /// version. With none the packet goes on unchanged. The rule must match a protocol.
    pub fn destination_nat(self, destinations: &[SocketAddr], pick: Pick) -> Rule {
        let Some(first) = destinations.first() else {
            return self;
        };
        if destinations.len() == 1 {
            return self.translate(*first, true);
        }
        let v4 = first.is_ipv4();
        let address = if v4 { Kind::Ipv4 } else { Kind::Ipv6 };
        let mut map = Set::map(&[Kind::Number], &[address, Kind::Port]);
        for (index, destination) in destinations.iter().enumerate() {
            let value = [
                Value::Address(destination.ip()),
                Value::Port(destination.port()),
            ];
            map.insert_pair(&[Value::Number(index as u32)], &value);
        }
        let modulus = destinations.len() as u32;
        let field = if v4 {
            Field::Ipv4Source
        } else {
            Field::Ipv6Source
        };
        let mut rule = self.assume_version(field);
        match pick {
            Pick::Random => rule.steps.push(Step::Random { modulus }),
            Pick::SourceHash => {
                // Slots 4 to 7: the hash itself goes to slot 0.
                rule.steps.push(Step::Load { field, slot: 4 });
                let length = field.size() as u32;
                rule.steps.push(Step::Hash {
                    slot: 4,
                    length,
                    modulus,
                });
            }
        }
        let mut rule = rule.look_up_anonymous(map, Some(Target::Slot(0)));
        rule.push_nat(*first, true);
        rule
    }

    /// The anonymous sets that must exist before the rule does.
    pub(super) fn sets(&self) -> &[Set] {
        &self.sets
    }

    pub(super) fn encode(&self, list: &mut Message, first_set: u32) {
        self.steps
            .iter()
            .for_each(|step| step.encode(list, first_set));
    }

    fn translate(self, to: SocketAddr, is_destination: bool) -> Rule {
        let mut rule = self.assume_version(destination(to.ip()));
        let value = Value::Address(to.ip()).to_bytes();
        rule.steps.push(Step::Constant { slot: 0, value });
        let slot = port_slot(to);
        rule.steps.push(Step::Constant {
            slot,
            value: to.port().to_be_bytes().to_vec(),
        });
        rule.push_nat(to, is_destination);
        rule
    }

    /// The address is in slot 0 and the port in the slot after it.
    fn push_nat(&mut self, to: SocketAddr, is_destination: bool) {
        let version = destination(to.ip());
        let port_slot = port_slot(to);
        self.steps.push(Step::Nat {
            destination: is_destination,
            version,
            port_slot,
        });
    }

    fn compare(self, field: Field, how: Compare, value: Value) -> Rule {
        let mut rule = self.assume_version(field).load(field);
        rule.steps.push(Step::Compare {
            how,
            value: value.to_bytes(),
        });
        rule
    }

    fn look_up(self, fields: &[Field], name: &str, invert: bool, into: Option<Target>) -> Rule {
        let mut rule = self.load_all(fields);
        rule.steps.push(Step::Lookup {
            set: SetName::Named(name.to_owned()),
            invert,
            into,
        });
        rule
    }

    fn look_up_anonymous(mut self, set: Set, into: Option<Target>) -> Rule {
        let name = SetName::Anonymous(self.sets.len() as u32);
        self.sets.push(set);
        self.steps.push(Step::Lookup {
            set: name,
            invert: false,
            into,
        });
        self
    }

    fn load(mut self, field: Field) -> Rule {
        self.steps.push(Step::Load { field, slot: 0 });
        self
    }

    fn load_all(self, fields: &[Field]) -> Rule {
        let mut rule = fields
            .iter()
            .fold(self, |rule, field| rule.assume_version(*field));
        let mut slot = 0;
        for field in fields {
            rule.steps.push(Step::Load {
                field: *field,
                slot,
            });
            slot += field.size().div_ceil(4) as u32;
        }
        rule
    }

    /// An address field says nothing in a packet of the other version, so that is checked first.
    fn assume_version(mut self, field: Field) -> Rule {
        let version = match field {
            Field::Ipv4Source | Field::Ipv4Destination => 2,
            Field::Ipv6Source | Field::Ipv6Destination => 10,
            _ => return self,
        };
        if self.version != Some(version) {
            self.version = Some(version);
            self = self.load(Field::Version);
            self.steps.push(Step::Compare {
                how: Compare::Equal,
                value: vec![version],
            });
        }
        self
    }
}

fn destination(address: IpAddr) -> Field {
    if address.is_ipv4() {
        Field::Ipv4Destination
    } else {
        Field::Ipv6Destination
    }
}

fn port_slot(address: SocketAddr) -> u32 {
    let size = if address.is_ipv4() {
        Ipv4Addr::BITS
    } else {
        Ipv6Addr::BITS
    };
    size / 32
}

fn mask(bytes: usize, length: u8) -> Vec<u8> {
    let bit = |index: usize| index < usize::from(length);
    (0..bytes)
        .map(|byte| (0..8).fold(0, |mask, at| (mask << 1) | u8::from(bit(byte * 8 + at))))
        .collect()
}
