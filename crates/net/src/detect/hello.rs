//! Server name and protocols from a TLS ClientHello, without a TLS stack (RFC 8446 §4.1.2, RFC 6066 §3, RFC 7301).

use super::{Guess, MOST};

/// What a ClientHello says in the clear.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientHello {
    /// Server name, lower case; absent when the client sent none or the hello is too large to read.
    pub server_name: Option<String>,
    /// Application protocols, in the client's order; bytes that are no text are replaced.
    pub alpn: Vec<String>,
}

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;

/// Looks at bytes that begin with a handshake record's type.
pub(super) fn guess(bytes: &[u8]) -> Guess {
    let message = match handshake(bytes) {
        Progress::Whole(message) => message,
        Progress::Short if bytes.len() >= MOST => return Guess::Tls(ClientHello::default()),
        Progress::Short => return Guess::Unsure,
        Progress::Not => return Guess::Other,
    };
    // TLS that cannot be read further is still TLS: it is passed on as it is.
    Guess::Tls(parse(&message).unwrap_or_default())
}

enum Progress {
    Whole(Vec<u8>),
    Short,
    Not,
}

// The first handshake message, put together from as many records as it takes.
fn handshake(bytes: &[u8]) -> Progress {
    let mut message: Vec<u8> = Vec::new();
    let mut rest = bytes;
    loop {
        if rest.first().is_some_and(|t| *t != HANDSHAKE) || rest.get(1).is_some_and(|v| *v != 3) {
            return Progress::Not;
        }
        let Some((header, body)) = rest.split_at_checked(5) else {
            return Progress::Short;
        };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length == 0 || length > (1 << 14) + 256 {
            return Progress::Not;
        }
        message.extend_from_slice(&body[..length.min(body.len())]);
        if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Progress::Not;
        }
        if let [_, a, b, c, ..] = message[..] {
            let want = 4 + usize::from(a) * 65536 + usize::from(b) * 256 + usize::from(c);
            if message.len() >= want {
                message.truncate(want);
                return Progress::Whole(message.split_off(4));
            }
        }
        match body.get(length..) {
            Some(next) => rest = next,
            None => return Progress::Short,
        }
    }
}

fn parse(message: &[u8]) -> Option<ClientHello> {
    let mut hello = ClientHello::default();
    let rest = message.get(2 + 32..)?;
    let (_session, rest) = short(rest)?;
    let (_suites, rest) = long(rest)?;
    let (_compression, rest) = short(rest)?;
    if rest.is_empty() {
        return Some(hello);
    }
    let (mut extensions, _) = long(rest)?;
    while !extensions.is_empty() {
        let kind = u16::from_be_bytes([*extensions.first()?, *extensions.get(1)?]);
        let (body, next) = long(extensions.get(2..)?)?;
        match kind {
            SERVER_NAME => hello.server_name = server_name(body),
            ALPN => hello.alpn = protocols(body)?,
            _ => {}
        }
        extensions = next;
    }
    Some(hello)
}

// Only `host_name` entries (type 0) exist. What cannot be a host's name is as good as none: it would end up in logs and
// in decisions. (Istio's names of clusters, `outbound_.80_._.host`, have underscores.)
fn server_name(body: &[u8]) -> Option<String> {
    let (list, _) = long(body)?;
    let (name, _) = long(list.strip_prefix(&[0])?)?;
    let name = std::str::from_utf8(name).ok()?.trim_end_matches('.');
    let is_host = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let good = !name.is_empty() && name.len() <= 255 && name.bytes().all(is_host);
    good.then(|| name.to_ascii_lowercase())
}

fn protocols(body: &[u8]) -> Option<Vec<String>> {
    let (mut list, _) = long(body)?;
    let mut found = Vec::new();
    while !list.is_empty() {
        let (one, next) = short(list)?;
        found.push(String::from_utf8_lossy(one).into_owned());
        list = next;
    }
    Some(found)
}

fn short(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

fn long(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}
