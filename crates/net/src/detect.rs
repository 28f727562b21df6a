//! Telling protocols apart by a connection's first bytes. Pure, bounded, and without a clock:
//! the caller reads more while the answer is [`Guess::Unsure`].

pub mod hello;

pub use hello::ClientHello;

/// Most bytes that are read before an undecided connection counts as something else.
pub const MOST: usize = 16 * 1024;

/// What the first bytes look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guess {
    /// More bytes are needed.
    Unsure,
    /// An HTTP/1 request line.
    Http1,
    /// The HTTP/2 preface (RFC 9113 §3.4).
    Http2,
    /// A TLS ClientHello.
    Tls(ClientHello),
    /// None of these.
    Other,
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// Methods that are common enough to be believed without seeing the rest of the line.
const METHODS: [&str; 9] = [
    "GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE",
];

/// No method has as many letters.
const LONGEST_METHOD: usize = 32;

/// Longest request line that an unusual method may have.
const LONGEST_LINE: usize = 8 * 1024;

/// Looks at the first bytes that a client sent.
pub fn guess(bytes: &[u8]) -> Guess {
    match bytes.first() {
        None => Guess::Unsure,
        Some(0x16) => hello::guess(bytes),
        Some(b'A'..=b'Z') => guess_http(bytes),
        Some(_) => Guess::Other,
    }
}

fn guess_http(bytes: &[u8]) -> Guess {
    let shared = bytes.len().min(PREFACE.len());
    if bytes[..shared] == PREFACE[..shared] {
        // `P` and `PR` could still be POST or PROPFIND: the guess stays open until the preface is whole.
        return if shared == PREFACE.len() {
            Guess::Http2
        } else {
            Guess::Unsure
        };
    }
    let token = bytes
        .iter()
        .take_while(|b| b.is_ascii_uppercase() || **b == b'-')
        .count();
    match bytes.get(token) {
        // Whether the end of the word came with it or not.
        _ if token >= LONGEST_METHOD => return Guess::Other,
        None => return Guess::Unsure,
        Some(b' ') => {}
        _ => return Guess::Other,
    }
    if METHODS.iter().any(|m| m.as_bytes() == &bytes[..token]) {
        return Guess::Http1;
    }
    // An unusual word followed by a space, such as PROPFIND or SMTP's EHLO: the end of the line decides.
    let line = &bytes[..bytes.len().min(LONGEST_LINE)];
    match line.iter().position(|b| *b == b'\n') {
        Some(end) => {
            let line = line[..end].strip_suffix(b"\r").unwrap_or(&line[..end]);
            if line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0") {
                Guess::Http1
            } else {
                Guess::Other
            }
        }
        None if line.len() == LONGEST_LINE => Guess::Other,
        None => Guess::Unsure,
    }
}

#[cfg(test)]
mod tests;
