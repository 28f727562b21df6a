//! Any bytes as the messages of an HTTP/1 connection. However they are cut, framing sees the same; and every head that it
//! lets through is read by another parser, `httparse`, to its last byte, with as many fields, and with the same body.
//!
//! First byte: whose messages, and whether a request to change the protocol is granted. Second byte: where to cut.
#![no_main]

use httparse::{EMPTY_HEADER, Header, Status};
use lateen_net::http::fuzz::{Messages, Reader, Stopped, requests};
use libfuzzer_sys::fuzz_target;

/// Longest line of a chunk's size; of longer ones it may depend on the cuts what is wrong with them.
const SIZE_LINE: usize = 1024;

/// Heads of one input whose bodies are tried out.
const TRIED: usize = 3;

/// Longest body that is tried out whole.
const LONGEST: u64 = 2048;

#[derive(Debug, Clone, Copy)]
struct Connection {
    messages: Messages,
    /// Whether requests to change the protocol are granted.
    switches: bool,
}

fuzz_target!(|data: &[u8]| {
    let [mode, cuts, bytes @ ..] = data else {
        return;
    };
    let connection = Connection {
        messages: match mode & 3 {
            0 => Messages::Requests,
            1 => Messages::Responses,
            2 => Messages::ResponsesToHead,
            _ => Messages::ResponsesToConnect,
        },
        switches: mode & 4 != 0,
    };
    let whole = read(connection, bytes, || usize::MAX);
    compare(bytes, &whole, &read(connection, bytes, || 1));
    let mut state = u32::from(*cuts);
    let some = || {
        // Any generator would do (Numerical Recipes).
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        1 + (state >> 24) as usize % (2 + usize::from(*cuts % 64))
    };
    compare(bytes, &whole, &read(connection, bytes, some));
    follow(connection, &bytes[..whole.good]);
    if mode & 7 == 0 {
        engine(&bytes[..whole.good]);
    }
});

/// The engine behind the guard finds the requests that the guard has counted, no others.
fn engine(bytes: &[u8]) {
    let mut reader = Reader::new(Messages::Requests);
    let mut good = 0;
    while good < bytes.len() {
        let (n, stopped) = reader.look(&bytes[good..]);
        good += n;
        match stopped {
            None => {}
            Some(Stopped::Held) => reader.release(false),
            Some(Stopped::Bad { .. }) => break,
        }
    }
    if let Some(found) = requests(&bytes[..good]) {
        assert_eq!(
            found,
            reader.heads(),
            "requests that one of both does not see"
        );
    }
}

/// What became of bytes.
#[derive(Debug)]
struct Read {
    good: usize,
    stopped: Option<Stopped>,
}

/// Feeds `bytes` in pieces of the given sizes.
fn read(connection: Connection, bytes: &[u8], mut size: impl FnMut() -> usize) -> Read {
    let mut reader = Reader::new(connection.messages);
    let mut good = 0;
    while good < bytes.len() {
        let piece = &bytes[good..bytes.len().min(good.saturating_add(size()))];
        let (n, stopped) = reader.look(piece);
        good += n;
        match stopped {
            None => assert_eq!(n, piece.len(), "bytes that are neither good nor bad"),
            Some(Stopped::Held) => reader.release(connection.switches),
            Some(Stopped::Bad { .. }) => {
                let (n, again) = reader.look(b"GET / HTTP/1.1\r\n\r\n");
                assert!(n == 0 && again.is_some(), "it goes on after the end");
                return Read { good, stopped };
            }
        }
    }
    Read {
        good,
        stopped: None,
    }
}

/// The same bytes were cut in other places. What was cut may have let the beginning of the bad line through.
fn compare(bytes: &[u8], whole: &Read, cut: &Read) {
    assert!(cut.good >= whole.good, "{whole:?} but {cut:?}");
    let line = &bytes[whole.good..cut.good];
    assert!(!line.contains(&b'\n'), "{whole:?} but {cut:?}");
    let rest = &bytes[whole.good..];
    let length = rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
    match (whole.stopped, cut.stopped) {
        (Some(Stopped::Bad { in_head: a, .. }), Some(Stopped::Bad { in_head: b, .. }))
            if length >= SIZE_LINE =>
        {
            assert_eq!(a, b);
        }
        (a, b) => assert_eq!(a, b, "{whole:?} but {cut:?}"),
    }
}

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    Length(u64),
    Chunked,
    /// Everything to the end of the connection.
    Endless,
}

/// Follows bytes that are good, one by one, and compares the end of each head, and of each body, with what others read.
fn follow(connection: Connection, bytes: &[u8]) {
    let mut reader = Reader::new(connection.messages);
    let mut was_in_head = false;
    // Where the next message begins; absent: nowhere.
    let mut start = Some(0);
    let (mut at, mut heads) = (0, 0);
    while at < bytes.len() {
        match reader.look(&bytes[at..=at]) {
            (1, None) => at += 1,
            (0, Some(Stopped::Held)) => {
                reader.release(connection.switches);
                continue;
            }
            other => panic!("{other:?} for byte {at}, which was good before"),
        }
        let is_in_head = reader.is_in_head();
        let ended = std::mem::replace(&mut was_in_head, is_in_head) && !is_in_head;
        let from = start.unwrap_or(bytes.len());
        assert!(at > from || !is_in_head, "byte {at} belongs to no head");
        if !ended || bytes[from..at].iter().all(|b| b"\r\n".contains(b)) {
            continue;
        }
        let (body, holds) = head(connection, &bytes[from..at]);
        heads += 1;
        if heads <= TRIED {
            try_out(connection, &bytes[..at], (body, holds));
        }
        start = match body {
            _ if holds && connection.switches => None,
            Body::Length(length) => usize::try_from(length)
                .ok()
                .and_then(|n| at.checked_add(n))
                .filter(|end| *end <= bytes.len()),
            Body::Chunked => chunks(&bytes[at..]).map(|n| at + n),
            Body::Endless => None,
        };
    }
}

/// Reads a head as `httparse` does: its body, and whether it asks for another protocol.
fn head(connection: Connection, bytes: &[u8]) -> (Body, bool) {
    let lines = bytes.iter().filter(|b| **b == b'\n').count();
    let mut fields = vec![EMPTY_HEADER; lines];
    let blank = bytes
        .split_inclusive(|b| *b == b'\n')
        .take_while(|line| line.iter().all(|b| b"\r\n".contains(b)))
        .count();
    // Neither its first line nor its last is a field.
    let count = lines - blank - 2;
    if connection.messages == Messages::Requests {
        let bytes = ascii_first(bytes, blank);
        let mut request = httparse::Request::new(&mut fields);
        let status = request.parse(&bytes);
        assert_eq!(status, Ok(Status::Complete(bytes.len())), "a request");
        assert_eq!(request.headers.len(), count, "fields of a request");
        let (chunked, length) = framed(request.headers, request.version);
        let is = |name: &str| request.headers.iter().any(|h| named(h, name));
        let connects = request.method == Some("CONNECT");
        let body = match chunked {
            true => Body::Chunked,
            false => Body::Length(length.unwrap_or(0)),
        };
        assert!(!connects || body == Body::Length(0), "CONNECT has a body");
        return (body, connects || is("upgrade"));
    }
    let mut response = httparse::Response::new(&mut fields);
    let status = response.parse(bytes);
    assert_eq!(status, Ok(Status::Complete(bytes.len())), "a response");
    assert_eq!(response.headers.len(), count, "fields of a response");
    let (chunked, length) = framed(response.headers, response.version);
    let body = match (connection.messages, response.code.unwrap_or_default()) {
        (_, 101) | (Messages::ResponsesToConnect, 200..300) => Body::Endless,
        (_, 100..200 | 204 | 304) | (Messages::ResponsesToHead, _) => Body::Length(0),
        _ if chunked => Body::Chunked,
        _ => length.map_or(Body::Endless, Body::Length),
    };
    (body, false)
}

/// The head with a request line of ASCII: `httparse` refuses targets that are not UTF-8, and where they end is no question.
fn ascii_first(head: &[u8], blank: usize) -> Vec<u8> {
    let mut lines = 0;
    let plain = head.iter().map(|byte| {
        lines += usize::from(*byte == b'\n');
        if lines <= blank && *byte >= 0x80 {
            b'x'
        } else {
            *byte
        }
    });
    plain.collect()
}

fn named(header: &Header<'_>, name: &str) -> bool {
    header.name.eq_ignore_ascii_case(name)
}

/// Whether a body is chunked, and the length that is given.
fn framed(headers: &[Header<'_>], version: Option<u8>) -> (bool, Option<u64>) {
    let all = |name: &str| -> Vec<&str> {
        let of = headers.iter().filter(|h| named(h, name));
        of.map(|h| std::str::from_utf8(h.value).expect("text"))
            .collect()
    };
    let (codings, lengths) = (all("transfer-encoding"), all("content-length"));
    assert!(codings.len() + lengths.len() <= 1, "two ways to frame it");
    if let Some(coding) = codings.first() {
        assert!(coding.eq_ignore_ascii_case("chunked"), "{coding:?}");
        assert_eq!(version, Some(1), "chunks in HTTP/1.0");
    }
    let length = lengths.first().map(|text| text.parse().expect("a number"));
    (!codings.is_empty(), length)
}

/// Where a chunked body ends; absent: not here.
fn chunks(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let Ok(Status::Complete((n, size))) = httparse::parse_chunk_size(bytes.get(at..)?) else {
            return None;
        };
        at += n;
        if size == 0 {
            break;
        }
        let data = usize::try_from(size).ok()?;
        at = at.checked_add(data)?.checked_add(2)?;
        if !bytes.get(..at)?.ends_with(b"\r\n") {
            return None;
        }
    }
    let rest = bytes.get(at..)?;
    let mut trailers = vec![EMPTY_HEADER; rest.iter().filter(|b| **b == b'\n').count()];
    match httparse::parse_headers(rest, &mut trailers) {
        Ok(Status::Complete((n, _))) => Some(at + n),
        _ => None,
    }
}

/// After the head that `bytes` end with, framing takes exactly the body that others would take.
fn try_out(connection: Connection, bytes: &[u8], (body, holds): (Body, bool)) {
    let mut reader = Reader::new(connection.messages);
    let mut good = 0;
    while good < bytes.len() {
        let (n, stopped) = reader.look(&bytes[good..]);
        good += n;
        if stopped.is_some() {
            reader.release(connection.switches);
        }
    }
    let mut take = |bytes: &[u8]| {
        assert_eq!(reader.look(bytes), (bytes.len(), None), "{body:?}");
        assert!(!reader.is_in_head(), "its body is shorter than {body:?}");
    };
    match body {
        Body::Length(0) => {}
        Body::Length(length) if length <= LONGEST => {
            let filler = vec![1; length as usize];
            take(&filler[1..]);
            take(&filler[..1]);
        }
        Body::Chunked => take(b"3;x=\"y\"\r\n\r\n\r\r\n0\r\nx: y\r\n\r\n"),
        Body::Length(_) | Body::Endless => return take(&[1; LONGEST as usize]),
    }
    match (reader.look(b"G"), holds) {
        ((0, Some(Stopped::Held)), true) => {}
        ((1, None), false) if reader.is_in_head() => {}
        other => panic!("{other:?} after {body:?}"),
    }
}
