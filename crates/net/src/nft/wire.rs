//! The bytes of netlink messages: headers, attributes, nesting. It knows the numbers of Linux's
//! `nf_tables.h` that this crate uses (user-space ABI), and no more about what they mean.

/// Address family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6 together.
    Inet,
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
}

impl Family {
    /// The name that the `nft` program prints.
    pub fn name(self) -> &'static str {
        match self {
            Family::Inet => "inet",
            Family::Ipv4 => "ip",
            Family::Ipv6 => "ip6",
        }
    }

    fn number(self) -> u8 {
        match self {
            Family::Inet => 1,
            Family::Ipv4 => 2,
            Family::Ipv6 => 10,
        }
    }
}

/// Flag of commands that make the object when it is missing.
pub(super) const CREATE: u16 = libc::NLM_F_CREATE as u16;
/// The verdict (and policy) that lets a packet pass.
pub(super) const ACCEPT: u32 = 1;

pub(super) const TABLE_NAME: u16 = 1;
pub(super) const CHAIN_NAME: u16 = 3;
pub(super) const CHAIN_HOOK: u16 = 4;
pub(super) const CHAIN_POLICY: u16 = 5;
pub(super) const CHAIN_TYPE: u16 = 7;
pub(super) const HOOK_NUMBER: u16 = 1;
pub(super) const HOOK_PRIORITY: u16 = 2;
pub(super) const RULE_CHAIN: u16 = 2;
pub(super) const RULE_EXPRESSIONS: u16 = 4;
pub(super) const SET_NAME: u16 = 2;
pub(super) const ELEMENTS_SET: u16 = 2;
pub(super) const ELEMENTS_LIST: u16 = 3;
pub(super) const ELEMENTS_SET_ID: u16 = 4;
pub(super) const LIST_ITEM: u16 = 1;
pub(super) const DATA_VALUE: u16 = 1;
pub(super) const DATA_VERDICT: u16 = 2;
pub(super) const VERDICT_CODE: u16 = 1;
pub(super) const VERDICT_CHAIN: u16 = 2;

/// Subsystem number of nf_tables inside nfnetlink.
const SUBSYSTEM: u16 = 10;
const NESTED: u16 = 1 << 15;
/// Length of the netlink header (16) and nfnetlink's own (4).
const HEADERS: usize = 20;

/// The message type of an nf_tables command.
pub(super) fn command(kind: libc::c_int) -> u16 {
    (SUBSYSTEM << 8) | kind as u16
}

/// One netlink message under construction.
#[derive(Debug, Clone)]
pub(super) struct Message {
    bytes: Vec<u8>,
    /// Some attribute grew beyond the 65,535 bytes that its header can tell.
    overflow: bool,
}

impl Message {
    /// A request of a message type.
    pub(super) fn new(kind: u16, flags: u16, family: Family) -> Message {
        Message::raw(kind, flags, family.number(), 0)
    }

    /// The brackets around a transaction.
    pub(super) fn bracket(begin: bool) -> Message {
        let kind = if begin {
            libc::NFNL_MSG_BATCH_BEGIN
        } else {
            libc::NFNL_MSG_BATCH_END
        };
        Message::raw(kind as u16, 0, 0, SUBSYSTEM)
    }

    fn raw(kind: u16, flags: u16, family: u8, resource: u16) -> Message {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&[family, 0]);
        bytes.extend_from_slice(&resource.to_be_bytes());
        Message {
            bytes,
            overflow: false,
        }
    }

    /// An attribute with raw bytes.
    pub(super) fn bytes(&mut self, attribute: u16, value: &[u8]) {
        let start = self.open(attribute);
        self.bytes.extend_from_slice(value);
        self.close(start);
    }

    /// An attribute with text, zero-terminated.
    pub(super) fn string(&mut self, attribute: u16, value: &str) {
        let start = self.open(attribute);
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.close(start);
    }

    /// An attribute with a number; nf_tables wants them big-endian.
    pub(super) fn number(&mut self, attribute: u16, value: u32) {
        self.bytes(attribute, &value.to_be_bytes());
    }

    /// An attribute that holds attributes.
    pub(super) fn nest(&mut self, attribute: u16, fill: impl FnOnce(&mut Message)) {
        let start = self.open(attribute | NESTED);
        fill(self);
        self.close(start);
    }

    /// The finished message; absent when an attribute is too long for its header.
    pub(super) fn finish(&self, sequence: u32, acknowledge: bool) -> Option<Vec<u8>> {
        if self.overflow {
            return None;
        }
        let mut bytes = self.bytes.clone();
        let length = bytes.len() as u32;
        bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        if acknowledge {
            let flags = u16::from_ne_bytes([bytes[6], bytes[7]]) | libc::NLM_F_ACK as u16;
            bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        }
        bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        Some(bytes)
    }

    fn open(&mut self, attribute: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&attribute.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) {
        match u16::try_from(self.bytes.len() - start) {
            Ok(length) => self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes()),
            Err(_) => self.overflow = true,
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// What the kernel said about one message of a transaction.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    /// Which message.
    pub(super) sequence: u32,
    /// Zero, or a positive error number.
    pub(super) errno: i32,
    /// The kernel's explanation; most errors carry none.
    pub(super) text: Option<String>,
}

/// The acknowledgements in what was read from the socket; other messages are skipped.
pub(super) fn replies(mut bytes: &[u8]) -> Vec<Reply> {
    let mut found = Vec::new();
    while bytes.len() >= 16 {
        let length = word(bytes, 0) as usize;
        if length < 16 || length > bytes.len() {
            break;
        }
        if half(bytes, 4) == libc::NLMSG_ERROR as u16 && length >= HEADERS {
            found.push(reply(&bytes[..length]));
        }
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
    }
    found
}

fn reply(message: &[u8]) -> Reply {
    /// Attribute of an error message that holds an explanation (`NLMSGERR_ATTR_MSG`).
    const EXPLANATION: u16 = 1;
    let errno = -(word(message, 16) as i32);
    // With NETLINK_CAP_ACK only the header of the refused message follows: 16 bytes.
    let mut rest = message.get(HEADERS + 16..).unwrap_or_default();
    let mut text = None;
    while rest.len() >= 4 {
        let length = half(rest, 0) as usize;
        if length < 4 || length > rest.len() {
            break;
        }
        if half(rest, 2) == EXPLANATION {
            let value = String::from_utf8_lossy(&rest[4..length]);
            text = Some(value.trim_end_matches('\0').to_owned());
        }
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
    Reply {
        sequence: word(message, 8),
        errno,
        text,
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}
