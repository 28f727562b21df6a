//! What an application makes of a request's target: a decoder that shares nothing with the proxy's.

use crate::mesh::PathNormalization as Mode;

/// A byte of a path, and whether it was written as `%XX` of something that means itself only so.
type Sign = (u8, bool);

/// The path and query that an application understands that reads paths as `mode` promises; `None`: it does not
/// understand the encoding. With [`Mode::None`] nothing is promised, so nothing is read into it.
pub fn understood(mode: Mode, target: &str) -> Option<String> {
    if mode == Mode::None || target == "*" {
        return Some(target.to_owned());
    }
    let mut parts = target.splitn(2, '?');
    let signs = signs(parts.next()?.as_bytes(), mode)?;
    let mut directories: Vec<Vec<Sign>> = Vec::new();
    let slash = (b'/', false);
    let segments: Vec<&[Sign]> = signs.split(|sign| *sign == slash).skip(1).collect();
    for (at, segment) in segments.iter().enumerate() {
        let name: Vec<u8> = segment.iter().map(|sign| sign.0).collect();
        let last = at + 1 == segments.len();
        let up = name == b"..";
        if up {
            directories.pop();
        }
        match up || name == b"." {
            true if last => directories.push(Vec::new()),
            true => {}
            false => directories.push(segment.to_vec()),
        }
    }
    if mode != Mode::Base && !directories.is_empty() {
        let end = directories.pop()?;
        directories.retain(|name| !name.is_empty());
        directories.push(end);
    }
    let mut out: String = directories.iter().map(|name| written(name)).collect();
    if out.is_empty() {
        out.push('/');
    }
    if let Some(query) = parts.next() {
        out = format!("{out}?{query}");
    }
    Some(out)
}

fn signs(path: &[u8], mode: Mode) -> Option<Vec<Sign>> {
    let mut signs = Vec::new();
    let mut rest = path;
    while let [first, after @ ..] = rest {
        rest = after;
        let sign = match first {
            b'\\' => (b'/', false),
            b'%' => {
                let (digits, after) = rest.split_at_checked(2)?;
                rest = after;
                let text = std::str::from_utf8(digits).ok()?;
                let hex = digits.iter().all(u8::is_ascii_hexdigit);
                let byte = hex.then(|| u8::from_str_radix(text, 16).ok())??;
                let letter = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
                let slash = b"/\\".contains(&byte) && mode == Mode::DecodeAndMergeSlashes;
                match slash {
                    true => (b'/', false),
                    false => (byte, !letter),
                }
            }
            other => (*other, !other.is_ascii()),
        };
        signs.push(sign);
    }
    Some(signs)
}

fn written(name: &[Sign]) -> String {
    let sign = |(byte, encoded): &Sign| match encoded {
        true => format!("%{byte:02X}"),
        false => char::from(*byte).to_string(),
    };
    format!("/{}", name.iter().map(sign).collect::<String>())
}
