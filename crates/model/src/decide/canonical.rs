//! The one form of paths and hosts that routing, policies and the application all see.
//!
//! The proxy gives each request this form before anything looks at it, and sends it on in this form: what was
//! authorized is what the application gets.

use super::host;
use crate::mesh::PathNormalization as Mode;
use std::borrow::Cow;

/// What is wrong with a target that has a fragment.
const FRAGMENT: &str = "a path with a fragment (#)";
/// What is wrong with a target that has a NUL or another control character, encoded or not.
const CONTROL: &str = "a path with a control character";
/// What is wrong with a `%` that two hexadecimal digits do not follow.
const PERCENT: &str = "a path with a broken percent-encoding";
/// What is wrong with a host with brackets that are no address's.
const BRACKETS: &str = "a Host with brackets that are not around an IPv6 address";
/// What is wrong with a path that does not begin with a slash.
const RELATIVE: &str = "a path that does not begin with a slash";

/// The canonical form of a request's path with query (`*` stays `*`). The query is kept as it is. Applying it again
/// changes nothing; what is canonical already is not copied.
///
/// `Base` (RFC 3986 §6.2.2): unreserved characters are decoded, other encodings get upper-case digits, `\` is `/`, dot
/// segments go, bytes beyond ASCII are encoded. `MergeSlashes` turns runs of slashes into one. `DecodeAndMergeSlashes`
/// decodes `%2F` and `%5C` before all that. `None` changes nothing.
///
/// # Errors
/// What the path has that makes it ambiguous: a fragment, a control character (NUL too, encoded as well), a broken
/// percent-encoding, no slash at the beginning. With `None` encodings are not looked at.
pub fn path(mode: Mode, target: &str) -> Result<Cow<'_, str>, &'static str> {
    if target.is_empty() {
        return Ok(Cow::Borrowed("/"));
    }
    if is_plain(target.as_bytes()) || target == "*" {
        return Ok(Cow::Borrowed(target));
    }
    for byte in target.bytes() {
        match byte {
            b'#' => return Err(FRAGMENT),
            0..=b' ' | 0x7f => return Err(CONTROL),
            _ => {}
        }
    }
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    if mode == Mode::None {
        let rooted = path.starts_with('/');
        return rooted.then_some(Cow::Borrowed(target)).ok_or(RELATIVE);
    }
    let mut text = decoded(path, mode == Mode::DecodeAndMergeSlashes)?;
    if !text.starts_with('/') {
        return Err(RELATIVE);
    }
    text = without_dots(&text);
    if mode != Mode::Base {
        text = merged(&text);
    }
    if let Some(query) = query {
        text.push('?');
        text.push_str(query);
    }
    if text == target {
        return Ok(Cow::Borrowed(target));
    }
    Ok(Cow::Owned(text))
}

/// Whether every mode leaves it alone, seen at one glance: the common case.
fn is_plain(target: &[u8]) -> bool {
    let mut last = 0;
    if target.first() != Some(&b'/') {
        return false;
    }
    // Most targets have nothing but what is looked at no closer.
    let common =
        |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'~' | b'=' | b'&');
    for byte in target {
        if common(byte) {
            last = b'a';
            continue;
        }
        match byte {
            b'?' => break,
            b'/' if last == b'/' => return false,
            b'.' if last == b'/' => return false,
            b'%' | b'\\' | b'#' | 0..=b' ' | 0x7f.. => return false,
            _ => last = *byte,
        }
    }
    let query = target.iter().skip_while(|b| **b != b'?');
    !query
        .into_iter()
        .any(|b| matches!(b, b'#' | 0..=b' ' | 0x7f))
}

/// Decodes what needs no encoding, encodes what does, and turns backslashes.
fn decoded(path: &str, slashes: bool) -> Result<String, &'static str> {
    let bytes = path.as_bytes();
    let mut out = String::with_capacity(path.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'%' => {
                let digits = bytes.get(at..at + 2).ok_or(PERCENT)?;
                at += 2;
                let value = hex(digits[0]).zip(hex(digits[1])).ok_or(PERCENT)?;
                match value.0 << 4 | value.1 {
                    0 => return Err(CONTROL),
                    b'/' | b'\\' if slashes => out.push('/'),
                    value if is_unreserved(value) => out.push(char::from(value)),
                    value => encode(value, &mut out),
                }
            }
            b'\\' => out.push('/'),
            byte if byte.is_ascii() => out.push(char::from(*byte)),
            byte => encode(*byte, &mut out),
        }
    }
    Ok(out)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|d| d as u8)
}

fn encode(byte: u8, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

/// RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// RFC 3986 §5.2.4, never above the root.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut open = false;
    for segment in path.split('/').skip(1) {
        open = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            other => kept.push(other),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in &kept {
        out.push('/');
        out.push_str(segment);
    }
    // `/a/..` means the directory above, with its slash.
    if open || out.is_empty() {
        out.push('/');
    }
    out
}

fn merged(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !out.ends_with('/') {
            out.push(c);
        }
    }
    out
}

/// The canonical form of a host with or without port: lower case, without port, brackets and one trailing dot.
///
/// # Errors
/// What makes it ambiguous: nothing before the port, a port that is none, brackets around anything but an IPv6 address,
/// user information, a control character, a space, a comma, a percent-encoding or another character that no host has,
/// two trailing dots.
pub fn host(authority: &str) -> Result<Cow<'_, str>, &'static str> {
    if let Some(name) = plain_host(authority) {
        return Ok(Cow::Borrowed(name));
    }
    let strange = |b: u8| {
        matches!(
            b,
            0..=b' ' | 0x7f.. | b',' | b'%' | b'/' | b'\\' | b'?' | b'#' | b'<' | b'>' | b'"' | b'|' | b'^' | b'`' | b'{' | b'}'
        )
    };
    if authority.contains('@') {
        return Err("a Host with user information (@)");
    }
    if authority.bytes().any(strange) {
        return Err("a Host with characters that hosts do not have");
    }
    let (name, port) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').ok_or(BRACKETS)?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let is_address = || name.parse::<std::net::Ipv6Addr>().is_ok();
    if authority.contains(['[', ']']) && !(authority.starts_with('[') && is_address()) {
        return Err(BRACKETS);
    }
    // An address without brackets has no port.
    let port = if authority.parse::<std::net::Ipv6Addr>().is_ok() {
        ""
    } else {
        port
    };
    if !port.is_empty() && !is_port(port) {
        return Err("a Host whose port is none");
    }
    let name = host::canonical(authority);
    if name.is_empty() || name.ends_with('.') {
        return Err("a Host without a name");
    }
    Ok(name)
}

/// The name in `name` or `name:port` that is canonical already, seen at one glance: the common case.
fn plain_host(authority: &str) -> Option<&str> {
    let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_');
    let end = authority.bytes().position(|b| !plain(b));
    let (name, port) = authority.split_at(end.unwrap_or(authority.len()));
    let fits = !name.is_empty() && !name.ends_with('.') && (port.is_empty() || is_port(port));
    fits.then_some(name)
}

/// `:80`, or `:` without a number (RFC 3986 §3.2.3).
fn is_port(text: &str) -> bool {
    let digits = text.strip_prefix(':');
    digits.is_some_and(|digits| {
        let plain = digits.bytes().all(|b| b.is_ascii_digit());
        plain && (digits.is_empty() || digits.parse::<u16>().is_ok())
    })
}
