//! Turning a record into a line. Absent values are `-` in text and `null` in JSON.

use super::Part;
use super::operator::{Field, Operator, Simple, long_flag};
use crate::record::Record;
use http::{HeaderName, HeaderValue};
use jiff::Timestamp;
use std::borrow::Cow;
use std::cell::RefCell;
use std::io::Write;
use std::net::SocketAddr;
use std::time::SystemTime;

pub(super) fn text(parts: &[Part], record: &Record, out: &mut Vec<u8>) {
    for part in parts {
        match part {
            Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
            Part::Value {
                operator: Operator::Simple(simple),
                most: None,
            } if direct(*simple, record, out) => {}
            Part::Value {
                operator: Operator::StartTime(None),
                most: None,
            } if iso_time(record.started, out) => {}
            Part::Value { operator, most } => match value(operator, record) {
                Some(value) => one_line(cut(&value, *most), out),
                None => out.push(b'-'),
            },
        }
    }
}

// A header may hold anything: a line stays one line.
fn one_line(value: &str, out: &mut Vec<u8>) {
    // Without a way out in the middle, many bytes are looked at in one step.
    if value
        .bytes()
        .fold(false, |any, b| any | b.is_ascii_control())
    {
        let plain = |b: u8| if b.is_ascii_control() { b' ' } else { b };
        out.extend(value.bytes().map(plain));
    } else {
        out.extend_from_slice(value.as_bytes());
    }
}

/// Writes numbers and addresses, which need no text of their own; says whether it did.
fn direct(simple: Simple, record: &Record, out: &mut Vec<u8>) -> bool {
    let address = match simple {
        Simple::UpstreamHost => record.upstream_host,
        Simple::UpstreamLocal => record.upstream_local,
        Simple::Local => record.local,
        Simple::Remote => record.remote,
        _ => None,
    };
    match (address, number(simple, record)) {
        (Some(SocketAddr::V4(address)), _) => {
            for (at, part) in address.ip().octets().into_iter().enumerate() {
                if at > 0 {
                    out.push(b'.');
                }
                digits(part.into(), 1, out);
            }
            out.push(b':');
            digits(address.port().into(), 1, out);
        }
        // Writing to memory cannot fail.
        (Some(address), _) => return write!(out, "{address}").is_ok(),
        (None, Some(number)) => digits(number, 1, out),
        (None, None) => return false,
    }
    true
}

/// A number with at least so many digits, without the formatter's machinery: a line has a dozen of them.
fn digits(mut number: u64, least: usize, out: &mut Vec<u8>) {
    let mut text = [b'0'; 20];
    let mut at = text.len();
    while number > 0 || text.len() - at < least {
        at -= 1;
        text[at] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&text[at..]);
}

/// As a header's value: what is absent is nothing (Envoy), but for flags.
pub(super) fn header_value(parts: &[Part], record: &Record, out: &mut Vec<u8>) {
    for part in parts {
        let is_there = match part {
            Part::Literal(_) => true,
            Part::Value { operator, .. } => {
                matches!(
                    operator,
                    Operator::Simple(Simple::Flags | Simple::FlagsLong)
                ) || value(operator, record).is_some()
            }
        };
        if is_there {
            text(std::slice::from_ref(part), record, out);
        }
    }
}

pub(super) fn json(keys: &[(String, Vec<Part>)], record: &Record, out: &mut Vec<u8>) {
    let mut object = serde_json::Map::new();
    for (key, parts) in keys {
        object.insert(key.clone(), json_value(parts, record));
    }
    // Writing to memory cannot fail.
    let _ = serde_json::to_writer(&mut *out, &object);
    out.push(b'\n');
}

// One operator alone keeps its type: numbers stay numbers (Envoy: typed JSON).
fn json_value(parts: &[Part], record: &Record) -> serde_json::Value {
    if let [Part::Value { operator, most }] = parts {
        if let Operator::Simple(simple) = operator
            && let Some(number) = number(*simple, record)
        {
            return number.into();
        }
        return value(operator, record).map_or(serde_json::Value::Null, |v| cut(&v, *most).into());
    }
    let mut line = Vec::new();
    text(parts, record, &mut line);
    String::from_utf8_lossy(&line).into()
}

fn cut(value: &str, most: Option<usize>) -> &str {
    match most.and_then(|n| value.char_indices().nth(n)) {
        Some((at, _)) => &value[..at],
        None => value,
    }
}

fn value<'r>(operator: &'r Operator, record: &'r Record) -> Option<Cow<'r, str>> {
    match operator {
        Operator::StartTime(format) => start_time(record, format.as_deref()),
        Operator::Request(fields) => fields.iter().find_map(|f| field(f, record)),
        Operator::RequestWithoutQuery(fields) => {
            let found = fields.iter().find_map(|f| field(f, record))?;
            Some(match found {
                Cow::Borrowed(text) => text.split('?').next().unwrap_or_default().into(),
                Cow::Owned(text) => text.split('?').next().unwrap_or_default().to_owned().into(),
            })
        }
        Operator::Response(names) => names
            .iter()
            .find_map(|n| header(&record.response_headers, n)),
        Operator::Simple(simple) => match number(*simple, record) {
            Some(number) => Some(number.to_string().into()),
            None => simple_text(*simple, record),
        },
    }
}

fn field<'r>(field: &Field, record: &'r Record) -> Option<Cow<'r, str>> {
    let rewritten = record.rewritten_path.as_deref();
    match field {
        Field::Method => record.method.as_ref().map(|m| m.as_str().into()),
        Field::Path => rewritten.or(record.path.as_deref()).map(Cow::from),
        Field::OriginalPath => rewritten.and(record.path.as_deref()).map(Cow::from),
        Field::Authority => record.authority.as_deref().map(Cow::from),
        Field::Scheme => record.method.as_ref().map(|_| "http".into()),
        Field::Header(name) => header(&record.request_headers, name),
    }
}

fn header<'r>(held: &'r [(HeaderName, HeaderValue)], name: &HeaderName) -> Option<Cow<'r, str>> {
    let (_, value) = held.iter().find(|(n, _)| n == name)?;
    Some(String::from_utf8_lossy(value.as_bytes()))
}

fn number(simple: Simple, record: &Record) -> Option<u64> {
    Some(match simple {
        Simple::Code => record.code.into(),
        Simple::Received => record.received,
        Simple::Sent => record.sent,
        Simple::Duration => record.duration.as_millis() as u64,
        Simple::GrpcStatus => record.grpc_status?.into(),
        Simple::Attempts => record.attempts.into(),
        Simple::LocalPort => record.local?.port().into(),
        _ => return None,
    })
}

fn some(text: &str) -> Option<Cow<'_, str>> {
    (!text.is_empty()).then_some(Cow::Borrowed(text))
}

fn simple_text(simple: Simple, record: &Record) -> Option<Cow<'_, str>> {
    match simple {
        Simple::Protocol => record.protocol.map(Cow::from),
        Simple::CodeDetails => some(&record.details),
        Simple::Flags => some(&record.flags),
        Simple::FlagsLong => {
            let long: Vec<&str> = record.flags.split(',').map(long_flag).collect();
            some(&long.join(",")).map(|text| Cow::Owned(text.into_owned()))
        }
        Simple::Termination => some(&record.termination),
        Simple::TransportFailure => some(&record.transport_failure),
        Simple::UpstreamHost => record.upstream_host.map(|a| a.to_string().into()),
        Simple::UpstreamCluster => some(&record.cluster),
        Simple::UpstreamLocal => record.upstream_local.map(|a| a.to_string().into()),
        Simple::Local => record.local.map(|a| a.to_string().into()),
        Simple::LocalIp => record.local.map(|a| a.ip().to_string().into()),
        Simple::Remote => record.remote.map(|a| a.to_string().into()),
        Simple::RemoteIp => record.remote.map(|a| a.ip().to_string().into()),
        Simple::ServerName => some(&record.server_name),
        Simple::RouteName => some(&record.route),
        _ => None,
    }
}

// Default: ISO 8601 with milliseconds (Envoy). `%3f` and the like are what jiff calls them too.
fn start_time(record: &Record, format: Option<&str>) -> Option<Cow<'static, str>> {
    let Some(format) = format else {
        let mut text = Vec::new();
        let text = iso_time(record.started, &mut text).then_some(text)?;
        return String::from_utf8(text).ok().map(Cow::from);
    };
    let started = Timestamp::try_from(record.started).ok()?;
    // A format that jiff does not know leaves the column empty rather than the line broken.
    jiff::fmt::strtime::format(format, started)
        .ok()
        .map(Cow::from)
}

thread_local! {
    /// A second, and how its times begin.
    static SECOND: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

// The lines of a second share all but their milliseconds. Says whether there is such a time.
fn iso_time(at: SystemTime, out: &mut Vec<u8>) -> bool {
    let Ok(since) = at.duration_since(SystemTime::UNIX_EPOCH) else {
        return false;
    };
    SECOND.with_borrow_mut(|(second, begin)| {
        if *second != since.as_secs() || begin.is_empty() {
            let Ok(time) = Timestamp::try_from(at) else {
                return false;
            };
            let text = format!("{time:.3}");
            let before = text.split_once('.').map_or("", |(before, _)| before);
            (*second, *begin) = (since.as_secs(), before.to_owned());
        }
        out.extend_from_slice(begin.as_bytes());
        out.push(b'.');
        digits(since.subsec_millis().into(), 3, out);
        out.push(b'Z');
        true
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_digits() {
        for (number, least, expected) in [
            (0, 1, "0"),
            (7, 3, "007"),
            (255, 1, "255"),
            (1000, 3, "1000"),
            (u64::MAX, 1, "18446744073709551615"),
        ] {
            let mut out = Vec::new();
            digits(number, least, &mut out);
            assert_eq!(out, expected.as_bytes());
        }
    }
}
