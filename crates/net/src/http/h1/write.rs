//! Heads of HTTP/1 messages, to bytes: with the lengths that their bodies have, in the spelling of whoever sent them.

use super::encoder::Encoder;
use super::head::{has_token, is_bodiless, switches};
use super::spelling::{Reason, Spelling};
use crate::http::Outgoing;
use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, TRAILER, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, Method, Uri, response};

/// What decides about the form of a response.
pub(super) struct Form<'a> {
    pub(super) method: &'a Method,
    /// The client speaks HTTP/1.0.
    pub(super) is_10: bool,
    /// The client's connection goes on, as far as the client and we are concerned.
    pub(super) keep_alive: bool,
    pub(super) takes_trailers: bool,
    /// Bytes of the body; absent: not known.
    pub(super) length: Option<u64>,
}

/// Writes a response's head; tells how its body is to be written, and whether the connection goes on after it.
pub(super) fn response(
    out: &mut Vec<u8>,
    parts: &response::Parts,
    form: &Form<'_>,
) -> (Encoder, bool) {
    let status = parts.status;
    let switched = switches(form.method, status);
    let bodiless = switched || is_bodiless(form.method, status);
    let headers = &parts.headers;
    let closes = has_token(headers, &CONNECTION, "close");
    let mut goes_on = form.keep_alive && !closes;
    status_line(out, parts, form.is_10);
    let spelling = parts.extensions.get::<Spelling>();
    let mut next = 0;
    let mut told = None;
    for (name, value) in headers {
        if *name == TRANSFER_ENCODING || *name == TRAILER && (bodiless || form.is_10) {
            continue;
        }
        if *name == CONTENT_LENGTH {
            let said = || value.to_str().ok().and_then(|text| text.parse().ok());
            let length: Option<u64> = match told {
                Some(_) => None,
                // It says what GET would be answered with.
                None if *form.method == Method::HEAD => said(),
                None if bodiless => None,
                None => form.length.or_else(said),
            };
            if let Some(length) = length {
                field_name(out, spelling, name, &mut next);
                number(out, length);
                out.extend_from_slice(b"\r\n");
                told = Some(length);
            }
            continue;
        }
        field_name(out, spelling, name, &mut next);
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    let encoder = match (bodiless, told, form.length) {
        // A body of our own that HEAD asks about; one of no known bytes says nothing.
        (true, None, Some(length))
            if length > 0 && !switched && !is_bodiless(&Method::GET, status) =>
        {
            out.extend_from_slice(b"content-length: ");
            number(out, length);
            out.extend_from_slice(b"\r\n");
            Encoder::Nothing
        }
        (true, ..) => Encoder::Nothing,
        (false, Some(length), _) => Encoder::sized(length),
        (false, None, Some(length)) => {
            out.extend_from_slice(b"content-length: ");
            number(out, length);
            out.extend_from_slice(b"\r\n");
            Encoder::sized(length)
        }
        (false, None, None) if form.is_10 => {
            goes_on = false;
            Encoder::UntilEnd
        }
        (false, None, None) => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            Encoder::chunks(headers, form.takes_trailers)
        }
    };
    match (goes_on || switched, form.is_10) {
        (false, false) if !closes => out.extend_from_slice(b"connection: close\r\n"),
        (true, true) if !has_token(headers, &CONNECTION, "keep-alive") => {
            out.extend_from_slice(b"connection: keep-alive\r\n");
        }
        _ => {}
    }
    out.extend_from_slice(b"\r\n");
    (encoder, goes_on)
}

fn status_line(out: &mut Vec<u8>, parts: &response::Parts, is_10: bool) {
    out.extend_from_slice(if is_10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(parts.status.as_str().as_bytes());
    out.push(b' ');
    let reason = match parts.extensions.get::<Reason>() {
        Some(Reason(words)) => words,
        // A response that was given another status than it came with keeps no words of the first.
        None => parts
            .status
            .canonical_reason()
            .unwrap_or_default()
            .as_bytes(),
    };
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}

/// Writes the head of a request with a body of `length` bytes, absent when that is not known; tells how the body is to be
/// written.
pub(super) fn request(out: &mut Vec<u8>, request: &Outgoing<'_>, length: Option<u64>) -> Encoder {
    let head = request.head;
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    target(out, &head.uri, &head.method);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let chunked = length.is_none() && !head.headers.contains_key(CONTENT_LENGTH);
    let spelling = head.extensions.get::<Spelling>();
    let mut next = 0;
    let mut told = None;
    let mut cookies = false;
    for (name, value) in &head.headers {
        let is_length = *name == CONTENT_LENGTH;
        if *name == TRANSFER_ENCODING
            || is_length && (chunked || told.is_some())
            || request.set.iter().any(|(set, _)| set == name)
            || *name == COOKIE && std::mem::replace(&mut cookies, true)
        {
            continue;
        }
        if is_length {
            told = value.to_str().ok().and_then(|text| text.parse().ok());
        }
        field_name(out, spelling, name, &mut next);
        out.extend_from_slice(value.as_bytes());
        if *name == COOKIE {
            // HTTP/2 clients may send them one by one (RFC 9113 §8.2.3).
            for more in head.headers.get_all(COOKIE).iter().skip(1) {
                out.extend_from_slice(b"; ");
                out.extend_from_slice(more.as_bytes());
            }
        }
        out.extend_from_slice(b"\r\n");
    }
    for (name, value) in request.set {
        field_name(out, spelling, name, &mut next);
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    let encoder = match (chunked, told, length) {
        (true, ..) => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            Encoder::chunks(&head.headers, true)
        }
        (false, Some(told), length) if length != Some(0) => Encoder::sized(told),
        (false, None, Some(length)) if length > 0 || expects_length(&head.method) => {
            out.extend_from_slice(b"content-length: ");
            number(out, length);
            out.extend_from_slice(b"\r\n");
            Encoder::sized(length)
        }
        (false, ..) => Encoder::Nothing,
    };
    out.extend_from_slice(b"\r\n");
    encoder
}

// Some servers wait for a body unless they are told of none (RFC 9110 §8.6), but for methods that have none.
fn expects_length(method: &Method) -> bool {
    !matches!(
        *method,
        Method::GET | Method::HEAD | Method::DELETE | Method::TRACE | Method::CONNECT
    )
}

/// In origin form, but for CONNECT, which names a host (RFC 9112 §3.2).
fn target(out: &mut Vec<u8>, uri: &Uri, method: &Method) {
    let target = match (uri.authority(), uri.path_and_query()) {
        (Some(authority), _) if *method == Method::CONNECT => authority.as_str(),
        (_, Some(path)) => path.as_str(),
        (_, None) => "/",
    };
    out.extend_from_slice(target.as_bytes());
}

fn field_name(out: &mut Vec<u8>, spelling: Option<&Spelling>, name: &HeaderName, next: &mut usize) {
    let written = spelling.and_then(|spelling| spelling.of(name, next));
    out.extend_from_slice(written.unwrap_or_else(|| name.as_str().as_bytes()));
    out.extend_from_slice(b": ");
}

fn number(out: &mut Vec<u8>, number: u64) {
    // The conversion of header values needs no text in between.
    out.extend_from_slice(HeaderValue::from(number).as_bytes());
}
