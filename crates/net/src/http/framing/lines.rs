//! The syntax of single HTTP/1 lines, as strict as RFC 9112 and RFC 9110 §5 write it. Lines come without their ends and
//! without control characters but tabs.

/// A request line's parts that matter to framing.
pub(super) struct RequestLine<'a> {
    pub(super) method: &'a [u8],
    pub(super) http_10: bool,
}

/// A status line's parts that matter to framing.
pub(super) struct StatusLine {
    pub(super) status: u16,
    pub(super) http_10: bool,
}

/// A field's meaning for framing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Field {
    Other,
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`, the only one there is.
    Chunked,
    Upgrade,
}

/// Fields that a trailer must not carry: they frame, route, authenticate, or change how the content is read
/// (RFC 9110 §6.5.1).
const NOT_IN_TRAILERS: [&[u8]; 18] = [
    b"authorization",
    b"connection",
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"content-type",
    b"cookie",
    b"expect",
    b"host",
    b"keep-alive",
    b"max-forwards",
    b"proxy-authorization",
    b"set-cookie",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"x-forwarded-client-cert",
];

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// How many bytes come before the first control character.
pub(super) fn plain_run(bytes: &[u8]) -> usize {
    let (chunks, rest) = bytes.as_chunks::<8>();
    for (n, chunk) in chunks.iter().enumerate() {
        // The high bit of a byte is set when it is below a space, or DEL; also of some bytes above such a one, but the
        // lowest that is set is right.
        let word = u64::from_le_bytes(*chunk);
        let del = word ^ (ONES * 0x7f);
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let found = (control | (del.wrapping_sub(ONES) & !del)) & HIGHS;
        if found != 0 {
            return n * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let is_control = |b: &u8| *b < 0x20 || *b == 0x7f;
    let more = rest.iter().position(is_control).unwrap_or(rest.len());
    chunks.len() * 8 + more
}

/// Whether no byte is a control character.
pub(super) fn is_plain(bytes: &[u8]) -> bool {
    plain_run(bytes) == bytes.len()
}

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0;
    while b < 128 {
        let c = b as u8;
        table[b] = c.is_ascii_alphanumeric()
            || matches!(
                c,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_'
            )
            || matches!(c, b'`' | b'|' | b'~');
        b += 1;
    }
    table
};

fn token(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|b| TOKEN[usize::from(**b)]).count()
}

/// `method SP target SP HTTP/1.x`.
pub(super) fn request_line(text: &[u8]) -> Result<RequestLine<'_>, &'static str> {
    let (method, rest) = text.split_at(token(text));
    if method.is_empty() {
        return Err("a request that does not begin with a method");
    }
    let rest = rest
        .strip_prefix(b" ")
        .ok_or("a method that is no token, or not followed by one space")?;
    let target = rest
        .strip_suffix(b" HTTP/1.1")
        .or_else(|| rest.strip_suffix(b" HTTP/1.0"))
        .ok_or("a request line that does not end with HTTP/1.1 or HTTP/1.0")?;
    let allowed = |b: &u8| *b > b' ' && *b != b'#';
    if target.is_empty() || !target.iter().all(allowed) {
        return Err("a request target with spaces or a fragment");
    }
    Ok(RequestLine {
        method,
        http_10: text.ends_with(b"0"),
    })
}

/// `HTTP/1.x SP code [SP reason]`; a reason that is left out with its space is forgiven.
pub(super) fn status_line(text: &[u8]) -> Result<StatusLine, &'static str> {
    let rest = text.strip_prefix(b"HTTP/1.");
    let (minor, rest) = rest
        .and_then(<[u8]>::split_first)
        .filter(|(minor, _)| matches!(minor, b'0' | b'1'))
        .ok_or("a response that does not begin with HTTP/1.1 or HTTP/1.0")?;
    let status = match rest {
        [b' ', a, b, c, rest @ ..] if matches!(rest.first(), None | Some(b' ')) => [a, b, c],
        _ => return Err("a status that is not three digits"),
    };
    if !status.iter().all(|b| b.is_ascii_digit()) {
        return Err("a status that is not three digits");
    }
    Ok(StatusLine {
        status: status.iter().fold(0, |n, b| n * 10 + u16::from(**b - b'0')),
        http_10: *minor == b'0',
    })
}

fn name_and_value(text: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    let (name, rest) = text.split_at(token(text));
    match rest {
        [b':', value @ ..] if !name.is_empty() => Ok((name, value.trim_ascii())),
        [b' ' | b'\t', ..] if name.is_empty() => Err("a header that is folded over two lines"),
        [b' ' | b'\t', ..] => Err("a space between a header's name and its colon"),
        _ => Err("a header's name that is no token"),
    }
}

/// `name: value`.
pub(super) fn field(text: &[u8]) -> Result<Field, &'static str> {
    let (name, value) = name_and_value(text)?;
    // Lengths first: most names are told apart without looking at a letter.
    match name.len() {
        7 if name.eq_ignore_ascii_case(b"upgrade") => Ok(Field::Upgrade),
        14 if name.eq_ignore_ascii_case(b"content-length") => length(value).map(Field::Length),
        17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
            if value.eq_ignore_ascii_case(b"chunked") {
                Ok(Field::Chunked)
            } else {
                Err("a Transfer-Encoding other than chunked")
            }
        }
        _ => Ok(Field::Other),
    }
}

fn length(value: &[u8]) -> Result<u64, &'static str> {
    const WRONG: &str = "a Content-Length that is not one number";
    // 18 digits cannot overflow.
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return Err(WRONG);
    }
    Ok(value.iter().fold(0, |n, b| n * 10 + u64::from(*b - b'0')))
}

/// `hex [; extension]`.
pub(super) fn size_line(text: &[u8]) -> Result<u64, &'static str> {
    let digits = text.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let (size, rest) = text.split_at(digits);
    if size.is_empty() || size.len() > 16 {
        return Err("a chunk size that is not 1 to 16 hexadecimal digits");
    }
    if !(rest.is_empty() || rest.starts_with(b";")) {
        return Err("a chunk size that is followed by something else than an extension");
    }
    // With its CR, as when it comes in parts.
    if text.len() + 1 > super::SIZE_LINE {
        return Err("a chunk extension that is too long");
    }
    let size = std::str::from_utf8(size).ok();
    let size = size.and_then(|s| u64::from_str_radix(s, 16).ok());
    size.filter(|size| *size <= u64::MAX / 4)
        .ok_or("a chunk of an impossible size")
}

/// `name: value` after a chunked body.
pub(super) fn trailer(text: &[u8]) -> Result<(), &'static str> {
    let (name, _) = name_and_value(text)?;
    if NOT_IN_TRAILERS.iter().any(|n| name.eq_ignore_ascii_case(n)) {
        return Err("a trailer that may only be a header");
    }
    Ok(())
}
