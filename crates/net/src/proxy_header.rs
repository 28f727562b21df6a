//! The header that load balancers put before a connection's bytes to say who the client is (HAProxy: "The PROXY
//! protocol", versions 1 and 2). Reading only, and no sockets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest header that is read: version 1 has 107 bytes at most, version 2 what its length says; 512 are plenty for
/// addresses and the extensions that balancers add.
pub const LONGEST: usize = 512;

/// What version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// What the first bytes of a connection say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// A header of `length` bytes, and the client's address; absent: the balancer speaks for itself (`LOCAL`), or the
    /// client has no IP address (`UNKNOWN`, sockets).
    Header {
        /// The client.
        source: Option<SocketAddr>,
        /// How many bytes it takes.
        length: usize,
    },
    /// More bytes are needed.
    Incomplete,
    /// It is none.
    Bad(&'static str),
}

/// Reads a header at the start of `bytes`.
pub fn parse(bytes: &[u8]) -> Parsed {
    let seen = bytes.len().min(SIGNATURE.len());
    if bytes[..seen] == SIGNATURE[..seen] {
        return match seen == SIGNATURE.len() {
            true => version2(bytes),
            false => Parsed::Incomplete,
        };
    }
    let word = b"PROXY ";
    let seen = bytes.len().min(word.len());
    if bytes[..seen] != word[..seen] {
        return Parsed::Bad("no PROXY header");
    }
    version1(bytes)
}

fn version1(bytes: &[u8]) -> Parsed {
    const MOST: usize = 107;
    let head = &bytes[..bytes.len().min(MOST)];
    let Some(end) = head.windows(2).position(|pair| pair == b"\r\n") else {
        return match bytes.len() >= MOST {
            true => Parsed::Bad("a PROXY line without end"),
            false => Parsed::Incomplete,
        };
    };
    let Ok(line) = std::str::from_utf8(&bytes[..end]) else {
        return Parsed::Bad("a PROXY line that is no text");
    };
    let length = end + 2;
    let words: Vec<&str> = line.split(' ').collect();
    let source = match words[..] {
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", family @ ("TCP4" | "TCP6"), source, _, port, _] => {
            let address = source.parse::<IpAddr>().ok();
            let address = address.filter(|ip| ip.is_ipv4() == (family == "TCP4"));
            match (address, port.parse::<u16>()) {
                (Some(ip), Ok(port)) => Some(SocketAddr::new(ip, port)),
                _ => return Parsed::Bad("a PROXY line with an address that is none"),
            }
        }
        _ => return Parsed::Bad("a PROXY line of no known form"),
    };
    Parsed::Header { source, length }
}

fn version2(bytes: &[u8]) -> Parsed {
    let Some(&[kind, family, high, low]) = bytes.get(12..16).and_then(|b| b.first_chunk::<4>())
    else {
        return Parsed::Incomplete;
    };
    let body = usize::from(u16::from_be_bytes([high, low]));
    let length = 16 + body;
    if length > LONGEST {
        return Parsed::Bad("a PROXY header of too many bytes");
    }
    let Some(body) = bytes.get(16..length) else {
        return Parsed::Incomplete;
    };
    let source = match (kind, family) {
        (0x20, _) => None,
        // Over TCP and UDP the addresses stand in the same places.
        (0x21, 0x11 | 0x12) => match body.first_chunk::<12>() {
            Some(b) => Some(SocketAddr::new(
                Ipv4Addr::new(b[0], b[1], b[2], b[3]).into(),
                u16::from_be_bytes([b[8], b[9]]),
            )),
            None => return Parsed::Bad("a PROXY header without the addresses that it promises"),
        },
        (0x21, 0x21 | 0x22) => match (body.first_chunk::<16>(), body.get(32..34)) {
            (Some(ip), Some(port)) => Some(SocketAddr::new(
                Ipv6Addr::from(*ip).into(),
                u16::from_be_bytes([port[0], port[1]]),
            )),
            _ => return Parsed::Bad("a PROXY header without the addresses that it promises"),
        },
        (0x21, _) => None,
        _ => return Parsed::Bad("a PROXY header of no known version and command"),
    };
    Parsed::Header { source, length }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(kind: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([kind, family]);
        bytes.extend((body.len() as u16).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    #[track_caller]
    fn check(header: &[u8], want: Result<Option<&str>, &str>) {
        let mut bytes = header.to_vec();
        bytes.extend(b"GET / HTTP/1.1");
        let got = match parse(&bytes) {
            Parsed::Header { source, length } => {
                assert_eq!(length, header.len());
                for cut in 0..length {
                    assert_eq!(parse(&bytes[..cut]), Parsed::Incomplete, "cut at {cut}");
                }
                Ok(source.map(|s| s.to_string()))
            }
            Parsed::Incomplete => panic!("incomplete"),
            Parsed::Bad(reason) => Err(reason.to_owned()),
        };
        let want = want
            .map(|source| source.map(str::to_owned))
            .map_err(str::to_owned);
        assert_eq!(got, want);
    }

    #[test]
    fn lines() {
        check(
            b"PROXY TCP4 192.0.2.1 10.0.0.1 56324 443\r\n",
            Ok(Some("192.0.2.1:56324")),
        );
        check(
            b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n",
            Ok(Some("[2001:db8::1]:1")),
        );
        check(b"PROXY UNKNOWN\r\n", Ok(None));
        check(b"PROXY UNKNOWN a b c d\r\n", Ok(None));
        check(
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            Err("a PROXY line with an address that is none"),
        );
        check(
            b"PROXY TCP4 1.2.3.4 1.2.3.4 99999 2\r\n",
            Err("a PROXY line with an address that is none"),
        );
        check(b"PROXY SCTP\r\n", Err("a PROXY line of no known form"));
        check(b"GET / HTTP/1.1\r\n", Err("no PROXY header"));
        check(
            &[b"PROXY ".as_slice(), &[b'x'; 120]].concat(),
            Err("a PROXY line without end"),
        );
    }

    #[test]
    fn binary() {
        let four = [192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x34, 0, 80];
        check(&v2(0x21, 0x11, &four), Ok(Some("192.0.2.7:4660")));
        check(
            &v2(0x21, 0x11, &[&four[..], &[4, 0, 1, 9]].concat()),
            Ok(Some("192.0.2.7:4660")),
        );
        let mut six = [0; 36];
        six[15] = 1;
        six[33] = 9;
        check(&v2(0x21, 0x21, &six), Ok(Some("[::1]:9")));
        check(&v2(0x20, 0, &[]), Ok(None));
        check(&v2(0x21, 0x31, &[0; 216]), Ok(None));
        check(
            &v2(0x21, 0x11, &[1, 2]),
            Err("a PROXY header without the addresses that it promises"),
        );
        check(
            &v2(0x31, 0x11, &four),
            Err("a PROXY header of no known version and command"),
        );
        check(
            &v2(0x21, 0x11, &[0; 600]),
            Err("a PROXY header of too many bytes"),
        );
    }
}
