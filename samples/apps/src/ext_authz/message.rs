//! The few fields of `envoy.service.auth.v3` that the sample reads and writes, as protocol buffers on the wire.

use bytes::{BufMut, Bytes, BytesMut};
use std::collections::BTreeMap;

/// A header's name and value.
pub(super) type Header<'a> = (&'a str, &'a str);

/// What the sample reads of a `CheckRequest`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) host: String,
    pub(super) headers: BTreeMap<String, String>,
}

/// The message of one gRPC frame; absent when it is cut short or compressed.
pub(super) fn frame(bytes: &[u8]) -> Option<&[u8]> {
    let (head, rest) = bytes.split_at_checked(5)?;
    let length = u32::from_be_bytes(head[1..].try_into().ok()?);
    (head[0] == 0).then(|| rest.get(..usize::try_from(length).ok()?))?
}

impl Check {
    /// `CheckRequest.attributes(1).request(4).http(2)`; absent when the bytes are no message.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut http: &[u8] = bytes;
        for number in [1, 4, 2] {
            let fields = fields(http)?;
            http = fields.iter().find(|f| f.0 == number).map_or(&[], |f| f.1);
        }
        let mut check = Self::default();
        for (number, value) in fields(http)? {
            match number {
                2 => check.method = text(value),
                3 => {
                    let entry = fields(value)?;
                    let of = |n| {
                        entry
                            .iter()
                            .find(|f| f.0 == n)
                            .map_or("".into(), |f| text(f.1))
                    };
                    check.headers.insert(of(1), of(2));
                }
                4 => check.path = text(value),
                5 => check.host = text(value),
                _ => {}
            }
        }
        Some(check)
    }
}

/// A framed `CheckResponse` that sets `headers`: OK, or denied (403) with a body.
pub(super) fn answer(denied: Option<&str>, headers: &[Header<'_>]) -> Bytes {
    let mut http = BytesMut::new();
    if denied.is_some() {
        // DeniedHttpResponse.status(1).code(1) = 403
        put(&mut http, 1, &[0x08, 0x93, 0x03]);
    }
    for (name, value) in headers {
        let mut pair = BytesMut::new();
        put(&mut pair, 1, name.as_bytes());
        put(&mut pair, 2, value.as_bytes());
        let mut option = BytesMut::new();
        put(&mut option, 1, &pair);
        // append_action(3) = OVERWRITE_IF_EXISTS_OR_ADD
        option.put_slice(&[0x18, 2]);
        put(&mut http, 2, &option);
    }
    let mut message = BytesMut::new();
    match denied {
        // status(1).code(1) = PERMISSION_DENIED, denied_response(2)
        Some(body) => {
            put(&mut http, 3, body.as_bytes());
            put(&mut message, 1, &[0x08, 7]);
            put(&mut message, 2, &http);
        }
        // status(1) of code 0, ok_response(3)
        None => {
            put(&mut message, 1, &[]);
            put(&mut message, 3, &http);
        }
    }
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(&message);
    frame.freeze()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn put(out: &mut BytesMut, number: u8, bytes: &[u8]) {
    out.put_u8(number << 3 | 2);
    let mut length = bytes.len();
    while length > 0x7f {
        out.put_u8((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.put_u8(length as u8);
    out.put_slice(bytes);
}

/// Number and bytes of each length-delimited field; other fields are passed over.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let skip = match tag & 7 {
            0 => {
                varint(&mut bytes)?;
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut bytes)?).ok()?,
            5 => 4,
            _ => return None,
        };
        let (value, rest) = bytes.split_at_checked(skip)?;
        bytes = rest;
        if tag & 7 == 2 {
            found.push((tag >> 3, value));
        }
    }
    Some(found)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        put(&mut out, number, bytes);
        out.to_vec()
    }

    #[test]
    fn a_check_is_read_and_nonsense_is_not() {
        let header = [field(1, b"x-ext-authz"), field(2, b"allow")].concat();
        let http = [
            vec![0x48, 0xff, 0x01], // size, a number
            field(2, b"GET"),
            field(3, &header),
            field(4, b"/a?b"),
            field(5, &[b'h'; 200]),
        ]
        .concat();
        let request = field(1, &field(4, &field(2, &http)));
        let check = Check::decode(&request).expect("a check");
        assert_eq!(
            (check.method.as_str(), check.path.as_str()),
            ("GET", "/a?b")
        );
        assert_eq!(check.host.len(), 200);
        assert_eq!(check.headers["x-ext-authz"], "allow");
        assert_eq!(Check::decode(&[]), Some(Check::default()));
        assert_eq!(Check::decode(&request[..request.len() - 1]), None);
        assert_eq!(Check::decode(&[0xff; 12]), None);
    }

    #[test]
    fn an_answer_is_one_frame() {
        for denied in [None, Some("no")] {
            let bytes = answer(denied, &[("a", "b")]);
            let message = frame(&bytes).expect("a whole frame");
            let numbers: Vec<u64> = fields(message)
                .expect("fields")
                .iter()
                .map(|f| f.0)
                .collect();
            assert_eq!(numbers, [1, if denied.is_some() { 2 } else { 3 }]);
        }
        assert_eq!(frame(&[0, 0, 0, 0, 9, 1]), None);
    }
}
