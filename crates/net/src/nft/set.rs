//! Sets and maps: what rules look packet fields up in.

use super::expression::{Value, Verdict};
use super::wire::{self, Message};

/// What one part of a set's key, or of a map's value, is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An IPv4 address.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
    /// A TCP or UDP port.
    Port,
    /// A transport protocol number.
    Transport,
    /// A plain number in the machine's byte order.
    Number,
    /// An interface name.
    Interface,
    /// A mark.
    Mark,
}

impl Kind {
    /// Size in bytes, and the number that the `nft` program knows the type by when it lists.
    fn describe(self) -> (usize, u32) {
        match self {
            Kind::Ipv4 => (4, 7),
            Kind::Ipv6 => (16, 8),
            Kind::Port => (2, 13),
            Kind::Transport => (1, 12),
            Kind::Number => (4, 4),
            Kind::Interface => (16, 41),
            Kind::Mark => (4, 19),
        }
    }
}

/// Keys, with a value each when it is a map. Several kinds make a concatenated key or value.
#[derive(Debug, Clone)]
pub struct Set {
    key: Vec<Kind>,
    value: Shape,
    elements: Vec<Element>,
}

#[derive(Debug, Clone)]
enum Shape {
    None,
    Parts(Vec<Kind>),
    Verdict,
}

impl Set {
    /// A set whose keys have these parts.
    pub fn of(key: &[Kind]) -> Set {
        Set {
            key: key.to_vec(),
            value: Shape::None,
            elements: Vec::new(),
        }
    }

    /// A map from keys to values with these parts.
    pub fn map(key: &[Kind], value: &[Kind]) -> Set {
        Set {
            key: key.to_vec(),
            value: Shape::Parts(value.to_vec()),
            elements: Vec::new(),
        }
    }

    /// A map from keys to verdicts.
    pub fn verdict_map(key: &[Kind]) -> Set {
        Set {
            key: key.to_vec(),
            value: Shape::Verdict,
            elements: Vec::new(),
        }
    }

    /// Adds a key to a set.
    pub fn insert(&mut self, key: &[Value]) {
        self.elements.push(Element {
            key: concatenate(key),
            outcome: Outcome::None,
        });
    }

    /// Adds an entry to a map.
    pub fn insert_pair(&mut self, key: &[Value], value: &[Value]) {
        let outcome = Outcome::Bytes(concatenate(value));
        self.elements.push(Element {
            key: concatenate(key),
            outcome,
        });
    }

    /// Adds an entry to a verdict map.
    pub fn insert_verdict(&mut self, key: &[Value], verdict: Verdict) {
        let outcome = Outcome::Verdict(verdict);
        self.elements.push(Element {
            key: concatenate(key),
            outcome,
        });
    }

    pub(super) fn is_map(&self) -> bool {
        !matches!(self.value, Shape::None)
    }

    pub(super) fn is_verdict_map(&self) -> bool {
        matches!(self.value, Shape::Verdict)
    }

    /// Appends the attributes that describe the set itself.
    pub(super) fn encode(&self, message: &mut Message, id: u32, anonymous: bool) {
        const ANONYMOUS_CONSTANT: u32 = 1 | 2;
        const MAP: u32 = 8;
        const VERDICT: u32 = 0xffff_ff00;
        let (length, kind) = layout(&self.key);
        let mut flags = if anonymous { ANONYMOUS_CONSTANT } else { 0 };
        if self.is_map() {
            flags |= MAP;
        }
        message.number(3, flags);
        message.number(4, kind);
        message.number(5, length);
        match &self.value {
            Shape::None => {}
            Shape::Parts(parts) => {
                let (length, kind) = layout(parts);
                message.number(6, kind);
                message.number(7, length);
            }
            Shape::Verdict => {
                message.number(6, VERDICT);
                message.number(7, 0);
            }
        }
        message.number(10, id);
        if self.key == [Kind::Number] {
            // A note for whoever lists the rules: the keys are in host byte order.
            message.bytes(13, &[0, 4, 1, 0, 0, 0]);
        }
    }

    /// The elements in parts that fit one attribute.
    pub(super) fn element_lists(&self) -> impl Iterator<Item = &[Element]> {
        const PER_MESSAGE: usize = 500;
        self.elements.chunks(PER_MESSAGE)
    }
}

/// One entry.
#[derive(Debug, Clone)]
pub(super) struct Element {
    key: Vec<u8>,
    outcome: Outcome,
}

#[derive(Debug, Clone)]
enum Outcome {
    None,
    Bytes(Vec<u8>),
    Verdict(Verdict),
}

impl Element {
    pub(super) fn encode(&self, list: &mut Message) {
        const KEY: u16 = 1;
        const DATA: u16 = 2;
        list.nest(wire::LIST_ITEM, |item| {
            item.nest(KEY, |data| data.bytes(wire::DATA_VALUE, &self.key));
            match &self.outcome {
                Outcome::None => {}
                Outcome::Bytes(value) => {
                    item.nest(DATA, |data| data.bytes(wire::DATA_VALUE, value));
                }
                Outcome::Verdict(verdict) => verdict.encode(DATA, item),
            }
        });
    }
}

/// Length in bytes and type number of parts put together. A single part has its own size; of
/// several, each fills whole 4-byte slots.
fn layout(parts: &[Kind]) -> (u32, u32) {
    if let [part] = parts {
        let (size, kind) = part.describe();
        return (size as u32, kind);
    }
    parts.iter().fold((0, 0), |(length, kinds), part| {
        let (size, kind) = part.describe();
        (
            length + size.next_multiple_of(4) as u32,
            (kinds << 6) | kind,
        )
    })
}

fn concatenate(values: &[Value]) -> Vec<u8> {
    if let [value] = values {
        return value.to_bytes();
    }
    let mut bytes = Vec::new();
    for value in values {
        bytes.extend(value.to_bytes());
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}
