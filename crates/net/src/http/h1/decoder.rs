//! Where a message's body ends within what was read: sans-io. The guard has held every byte against RFC 9112 before, so
//! that this follows the message and does not judge it; what it cannot follow is an error all the same.

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Most bytes of a message's trailers.
const TRAILERS: usize = 16 * 1024;
/// Most trailers of a message.
const FIELDS: usize = 100;
/// Longest line of a chunk's size; the guard ends longer ones before.
const LINE: usize = 4 * 1024;

/// How the bytes that follow are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decoder {
    /// The message is over.
    Done,
    /// So many bytes of it are left.
    Sized(u64),
    /// In chunks.
    Chunks(Chunk),
    /// Until the connection ends.
    UntilEnd,
}

/// What of a chunk comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunk {
    /// The line with its size.
    Size,
    /// So many bytes.
    Bytes(u64),
    /// The line end behind its bytes.
    End,
    /// The trailers, and the empty line that ends the message.
    Trailers,
}

/// What was found.
#[derive(Debug)]
pub(super) enum Found {
    /// Bytes of the body.
    Data(Bytes),
    /// The trailers, after which the message is over.
    Trailers(HeaderMap),
    /// The message is over.
    End,
    /// More must be read first.
    Nothing,
}

impl Decoder {
    /// A body of so many bytes.
    pub(super) fn sized(length: u64) -> Self {
        match length {
            0 => Self::Done,
            length => Self::Sized(length),
        }
    }

    /// Takes what comes next out of `read`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn next(&mut self, read: &mut BytesMut) -> Result<Found, &'static str> {
        loop {
            match self {
                Self::Done => return Ok(Found::End),
                _ if read.is_empty() => return Ok(Found::Nothing),
                Self::UntilEnd => return Ok(Found::Data(read.split().freeze())),
                Self::Sized(left) => {
                    let (data, rest) = take(read, *left);
                    *self = Self::sized(rest);
                    return Ok(Found::Data(data));
                }
                Self::Chunks(Chunk::Bytes(left)) => {
                    let (data, rest) = take(read, *left);
                    *self = Self::Chunks(match rest {
                        0 => Chunk::End,
                        rest => Chunk::Bytes(rest),
                    });
                    return Ok(Found::Data(data));
                }
                Self::Chunks(Chunk::Size) => {
                    let Some(end) = line_end(read, LINE)? else {
                        return Ok(Found::Nothing);
                    };
                    let size = size(&read[..end])?;
                    read.advance(end + 2);
                    *self = Self::Chunks(match size {
                        0 => Chunk::Trailers,
                        size => Chunk::Bytes(size),
                    });
                }
                Self::Chunks(Chunk::End) => {
                    if read.len() < 2 {
                        return Ok(Found::Nothing);
                    }
                    if !read.starts_with(b"\r\n") {
                        return Err("a chunk that is longer than it said");
                    }
                    read.advance(2);
                    *self = Self::Chunks(Chunk::Size);
                }
                Self::Chunks(Chunk::Trailers) => {
                    if read.starts_with(b"\r\n") {
                        read.advance(2);
                        *self = Self::Done;
                        return Ok(Found::End);
                    }
                    let Some(end) = find(read, b"\r\n\r\n") else {
                        return if read.len() > TRAILERS {
                            Err("too many bytes of trailers")
                        } else {
                            Ok(Found::Nothing)
                        };
                    };
                    let trailers = trailers(&read.split_to(end + 4))?;
                    *self = Self::Done;
                    return Ok(Found::Trailers(trailers));
                }
            }
        }
    }
}

fn take(read: &mut BytesMut, left: u64) -> (Bytes, u64) {
    let there = read.len() as u64;
    if there <= left {
        return (read.split().freeze(), left - there);
    }
    // `left` is less than a length.
    (read.split_to(left as usize).freeze(), 0)
}

fn line_end(read: &[u8], most: usize) -> Result<Option<usize>, &'static str> {
    match find(read, b"\r\n") {
        None if read.len() > most => Err("a chunk's size that does not end"),
        found => Ok(found),
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|at| at == what)
}

// RFC 9112 §7.1: hexadecimal, then extensions that mean nothing here.
fn size(line: &[u8]) -> Result<u64, &'static str> {
    let bad = "a chunk's size that is no number";
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let digits = std::str::from_utf8(&line[..digits]).map_err(|_| bad)?;
    u64::from_str_radix(digits, 16).map_err(|_| bad)
}

fn trailers(block: &[u8]) -> Result<HeaderMap, &'static str> {
    let bad = "trailers that cannot be read";
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(block, &mut fields)
    else {
        return Err(bad);
    };
    let mut all = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| bad)?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| bad)?;
        all.append(name, value);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found when the bytes come in pieces of so many.
    fn found(mut decoder: Decoder, bytes: &[u8], pieces: usize) -> Result<String, &'static str> {
        let mut read = BytesMut::new();
        let (mut data, mut end) = (Vec::new(), "open".to_owned());
        for piece in bytes.chunks(pieces) {
            read.extend_from_slice(piece);
            loop {
                match decoder.next(&mut read)? {
                    Found::Data(bytes) => data.extend_from_slice(&bytes),
                    Found::Trailers(all) => end = format!("{all:?}"),
                    Found::End if end == "open" => end = "end".to_owned(),
                    Found::End | Found::Nothing => break,
                }
            }
        }
        let rest = String::from_utf8_lossy(&read).into_owned();
        Ok(format!("{} {end} {rest}", String::from_utf8_lossy(&data)))
    }

    #[test]
    fn bodies_end_where_they_say_however_they_are_cut() {
        let chunks = b"5\r\nhello\r\n1;x=y\r\n \r\n5\r\nworld\r\n0\r\n\r\nGET";
        let with_trailers = b"1\r\nx\r\n0\r\nx-sum: 7\r\n\r\nGET";
        for pieces in 1..40 {
            let check = |decoder, bytes: &[u8], expected: &str| {
                assert_eq!(found(decoder, bytes, pieces).as_deref(), Ok(expected));
            };
            check(Decoder::Chunks(Chunk::Size), chunks, "hello world end GET");
            let expected = r#"x {"x-sum": "7"} GET"#;
            check(Decoder::Chunks(Chunk::Size), with_trailers, expected);
            check(Decoder::sized(5), b"helloGET", "hello end GET");
            check(Decoder::sized(0), b"GET", " end GET");
            check(Decoder::UntilEnd, b"hello", "hello open ");
        }
    }

    #[test]
    fn what_is_no_body_is_an_error() {
        let long = [b"0\r\n".to_vec(), vec![b'x'; TRAILERS + 1]].concat();
        for bad in [&b"x\r\n"[..], b"1\r\nabc", b"11111111111111111\r\n", &long] {
            assert!(found(Decoder::Chunks(Chunk::Size), bad, 64).is_err());
        }
    }
}
