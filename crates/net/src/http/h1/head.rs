//! Heads of HTTP/1 messages, from bytes. Their memory goes round: a worker's next message has that of an earlier one.

use super::decoder::{Chunk, Decoder};
use super::spelling::{Notes, Reason};
use crate::http::Limits;
use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TE, TRANSFER_ENCODING, UPGRADE};
use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    Version, request, response,
};
use std::cell::RefCell;
use std::mem::MaybeUninit;

/// Headers that are parsed without asking for memory.
const USUAL: usize = 100;
/// Headers that a proxy adds to a message.
const ADDED: usize = 12;
/// Messages whose memory a worker keeps.
const KEPT: usize = 16;
/// Longest target of a request.
const TARGET: usize = 65_534;

/// Why a head is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bad {
    /// It is not HTTP/1.
    Syntax(&'static str),
    /// It has too many bytes, or too many headers.
    Large,
    /// Its target is too long.
    LongTarget,
}

impl Bad {
    /// What a client is told.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Syntax(_) => StatusCode::BAD_REQUEST,
            Self::Large => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::LongTarget => StatusCode::URI_TOO_LONG,
        }
    }

    /// The same in words.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Syntax(why) => why,
            Self::Large => "a head that is too large",
            Self::LongTarget => "a request target that is too long",
        }
    }
}

/// A request's head, and what it says of its connection.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) parts: request::Parts,
    pub(super) body: Decoder,
    pub(super) keep_alive: bool,
    /// It waits for `100 Continue` before it sends its body.
    pub(super) expects: bool,
    /// It asks for another protocol.
    pub(super) upgrades: bool,
    /// It takes trailers.
    pub(super) takes_trailers: bool,
}

/// A response's head, and what it says of its connection.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) parts: response::Parts,
    pub(super) body: Decoder,
    pub(super) keep_alive: bool,
    /// The connection speaks another protocol now.
    pub(super) switched: bool,
}

/// Where a header's name and value are.
type Place = (u32, u32, u32, u32);

thread_local! {
    static PLACES: RefCell<Vec<Place>> = const { RefCell::new(Vec::new()) };
    static SPARE: RefCell<Vec<Fields>> = const { RefCell::new(Vec::new()) };
}

/// A head's fields.
struct Fields {
    headers: HeaderMap,
    extensions: Extensions,
}

/// The request whose head begins `read`; absent while it is not whole.
///
/// # Errors
/// It is none, or beyond `limits`.
pub(super) fn request(read: &mut BytesMut, limits: &Limits) -> Result<Option<Asked>, Bad> {
    PLACES.with_borrow_mut(|places| {
        places.clear();
        let bytes: &[u8] = read;
        let parsed = with_slots(limits.headers, |slots| {
            let mut request = httparse::Request::new(&mut []);
            let status = request.parse_with_uninit_headers(bytes, slots);
            let httparse::Status::Complete(length) = status.map_err(bad)? else {
                return Ok(None);
            };
            note(bytes, request.headers, places);
            let target = request.path.unwrap_or_default();
            if target.len() > TARGET {
                return Err(Bad::LongTarget);
            }
            let method = request.method.unwrap_or_default().as_bytes();
            let method = Method::from_bytes(method).map_err(|_| Bad::Syntax("a method"))?;
            let at = offset(bytes, target.as_bytes());
            let is_11 = request.version == Some(1);
            Ok(Some((length, method, (at, at + target.len()), is_11)))
        })?;
        let Some((length, method, target, is_11)) = parsed else {
            return Ok(None);
        };
        let head = cut(read, length, limits)?;
        let uri = Uri::from_maybe_shared(head.slice(target.0..target.1))
            .map_err(|_| Bad::Syntax("a request target"))?;
        let fields = fields(&head, places)?;
        asked(method, uri, is_11, fields).map(Some)
    })
}

fn asked(method: Method, uri: Uri, is_11: bool, fields: Fields) -> Result<Asked, Bad> {
    let headers = &fields.headers;
    let body = if headers.contains_key(TRANSFER_ENCODING) {
        if !is_chunked(headers) {
            return Err(Bad::Syntax("Transfer-Encoding of a request"));
        }
        Decoder::Chunks(Chunk::Size)
    } else {
        Decoder::sized(length(headers)?.unwrap_or(0))
    };
    let expects = headers.get(EXPECT).is_some_and(|value| {
        body != Decoder::Done && value.as_bytes().eq_ignore_ascii_case(b"100-continue")
    });
    let asked = Asked {
        body,
        keep_alive: keep_alive(headers, is_11),
        expects,
        upgrades: method == Method::CONNECT || is_11 && headers.contains_key(UPGRADE),
        takes_trailers: has_token(headers, &TE, "trailers"),
        parts: {
            let (mut parts, ()) = Request::new(()).into_parts();
            parts.method = method;
            parts.uri = uri;
            parts.version = version(is_11);
            parts.headers = fields.headers;
            parts.extensions = fields.extensions;
            parts
        },
    };
    Ok(asked)
}

/// The response to a request of `method` whose head begins `read`; absent while it is not whole. Interim ones are given
/// as well.
///
/// # Errors
/// It is none, or beyond `limits`.
pub(super) fn response(
    read: &mut BytesMut,
    limits: &Limits,
    method: &Method,
) -> Result<Option<Answered>, Bad> {
    PLACES.with_borrow_mut(|places| {
        places.clear();
        let bytes: &[u8] = read;
        let parsed = with_slots(limits.headers, |slots| {
            let mut response = httparse::Response::new(&mut []);
            let config = httparse::ParserConfig::default();
            let status = config.parse_response_with_uninit_headers(&mut response, bytes, slots);
            let httparse::Status::Complete(length) = status.map_err(bad)? else {
                return Ok(None);
            };
            note(bytes, response.headers, places);
            let status = StatusCode::from_u16(response.code.unwrap_or_default())
                .map_err(|_| Bad::Syntax("a status"))?;
            let words = response.reason.unwrap_or_default();
            let unusual = status.canonical_reason() != Some(words);
            let reason = unusual.then(|| Bytes::copy_from_slice(words.as_bytes()));
            Ok(Some((length, status, reason, response.version == Some(1))))
        })?;
        let Some((length, status, reason, is_11)) = parsed else {
            return Ok(None);
        };
        let head = cut(read, length, limits)?;
        let mut fields = fields(&head, places)?;
        if let Some(reason) = reason {
            fields.extensions.insert(Reason(reason));
        }
        answered(status, is_11, method, fields).map(Some)
    })
}

fn answered(
    status: StatusCode,
    is_11: bool,
    method: &Method,
    fields: Fields,
) -> Result<Answered, Bad> {
    let headers = &fields.headers;
    let switched = switches(method, status);
    // RFC 9112 §6.3.
    let body = if switched || is_bodiless(method, status) {
        Decoder::Done
    } else if headers.contains_key(TRANSFER_ENCODING) {
        match is_chunked(headers) {
            true => Decoder::Chunks(Chunk::Size),
            false => Decoder::UntilEnd,
        }
    } else {
        length(headers)?.map_or(Decoder::UntilEnd, Decoder::sized)
    };
    let (mut parts, ()) = Response::new(()).into_parts();
    let keep_alive = keep_alive(headers, is_11) && !switched && body != Decoder::UntilEnd;
    parts.status = status;
    parts.version = version(is_11);
    parts.headers = fields.headers;
    parts.extensions = fields.extensions;
    Ok(Answered {
        parts,
        body,
        keep_alive,
        switched,
    })
}

/// Whether a response changes the protocol of its connection (RFC 9110 §9.3.6, §15.2.2).
pub(super) fn switches(method: &Method, status: StatusCode) -> bool {
    status == StatusCode::SWITCHING_PROTOCOLS || *method == Method::CONNECT && status.is_success()
}

/// Whether a response has no body whatever its headers say (RFC 9110 §6.4.1).
pub(super) fn is_bodiless(method: &Method, status: StatusCode) -> bool {
    *method == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

fn version(is_11: bool) -> Version {
    if is_11 {
        Version::HTTP_11
    } else {
        Version::HTTP_10
    }
}

fn with_slots<'b, T>(
    most: usize,
    parse: impl FnOnce(&mut [MaybeUninit<httparse::Header<'b>>]) -> T,
) -> T {
    if most <= USUAL {
        parse(&mut [const { MaybeUninit::uninit() }; USUAL][..most])
    } else {
        let mut slots = Vec::new();
        slots.resize_with(most, MaybeUninit::uninit);
        parse(&mut slots)
    }
}

fn bad(error: httparse::Error) -> Bad {
    match error {
        httparse::Error::TooManyHeaders => Bad::Large,
        httparse::Error::Version => Bad::Syntax("a version of HTTP"),
        httparse::Error::Token => Bad::Syntax("a method or a request target"),
        httparse::Error::Status => Bad::Syntax("a status line"),
        _ => Bad::Syntax("a header"),
    }
}

// Heads are bounded far below what 32 bits count.
fn note(bytes: &[u8], headers: &[httparse::Header<'_>], places: &mut Vec<Place>) {
    places.extend(headers.iter().map(|header| {
        let name = offset(bytes, header.name.as_bytes());
        let value = offset(bytes, header.value);
        let ends = (name + header.name.len(), value + header.value.len());
        (name as u32, ends.0 as u32, value as u32, ends.1 as u32)
    }));
}

fn offset(whole: &[u8], part: &[u8]) -> usize {
    part.as_ptr() as usize - whole.as_ptr() as usize
}

fn cut(read: &mut BytesMut, length: usize, limits: &Limits) -> Result<Bytes, Bad> {
    if length > limits.head_bytes as usize {
        return Err(Bad::Large);
    }
    Ok(if read.len() == length {
        // Alone it needs no count of who shares it yet.
        std::mem::take(read).freeze()
    } else {
        read.split_to(length).freeze()
    })
}

fn fields(head: &Bytes, places: &[Place]) -> Result<Fields, Bad> {
    let mut fields = spare(places.len() + ADDED);
    let mut notes = Notes::default();
    for &(from, to, start, end) in places {
        let name = &head[from as usize..to as usize];
        notes.see(name);
        let name = HeaderName::from_bytes(name).map_err(|_| Bad::Syntax("a header's name"))?;
        let value = head.slice(start as usize..end as usize);
        let value =
            HeaderValue::from_maybe_shared(value).map_err(|_| Bad::Syntax("a header's value"))?;
        fields.headers.append(name, value);
    }
    if let Some(spelling) = notes.of(head) {
        fields.extensions.insert(spelling);
    }
    Ok(fields)
}

/// The memory of earlier messages' fields, or new, for so many headers.
fn spare(headers: usize) -> Fields {
    let kept = SPARE.with_borrow_mut(Vec::pop);
    let mut fields = kept.unwrap_or_else(|| Fields {
        headers: HeaderMap::new(),
        extensions: Extensions::new(),
    });
    fields.headers.reserve(headers);
    fields
}

/// Keeps the memory of a message's fields for the next one of this worker.
pub(crate) fn recycle(mut headers: HeaderMap, mut extensions: Extensions) {
    if headers.capacity() == 0 || headers.capacity() > 4 * USUAL {
        return;
    }
    headers.clear();
    extensions.clear();
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < KEPT {
            spare.push(Fields {
                headers,
                extensions,
            });
        }
    });
}

/// The length that the headers tell; the guard lets only one through.
fn length(headers: &HeaderMap) -> Result<Option<u64>, Bad> {
    let Some(value) = headers.get(CONTENT_LENGTH) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let length = digits.then(|| text.parse().ok()).flatten();
    length.map(Some).ok_or(Bad::Syntax("Content-Length"))
}

fn is_chunked(headers: &HeaderMap) -> bool {
    let last = headers.get_all(TRANSFER_ENCODING).iter().next_back();
    let last = last.and_then(|value| value.to_str().ok()).unwrap_or("");
    let last = last.rsplit(',').next().unwrap_or("");
    last.trim().eq_ignore_ascii_case("chunked")
}

fn keep_alive(headers: &HeaderMap, is_11: bool) -> bool {
    !has_token(headers, &CONNECTION, "close")
        && (is_11 || has_token(headers, &CONNECTION, "keep-alive"))
}

/// Whether a list in these headers has the word.
pub(super) fn has_token(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    if !headers.contains_key(name) {
        return false;
    }
    let values = headers.get_all(name).iter();
    let mut words = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    words.any(|given| given.trim().eq_ignore_ascii_case(word))
}
