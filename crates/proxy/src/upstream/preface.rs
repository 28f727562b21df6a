//! The PROXY protocol's header, which tells an endpoint whose connection it is (haproxy: `proxy-protocol.txt`).

use super::pool::Preface;
use lateen_model::traffic::ProxyProtocol;
use std::net::IpAddr;

/// How version 2 begins.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, on behalf of somebody.
const PROXY: u8 = 0x21;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// The header.
pub(super) fn bytes(preface: &Preface) -> Vec<u8> {
    match preface.version {
        ProxyProtocol::V1 => text(preface).into_bytes(),
        ProxyProtocol::V2 => binary(preface),
    }
}

/// Both ends in one family: IPv6 where either is.
fn ends(preface: &Preface) -> (IpAddr, IpAddr) {
    let (source, destination) = (preface.source.ip(), preface.destination.ip());
    match (source, destination) {
        (IpAddr::V4(v4), IpAddr::V6(_)) => (v4.to_ipv6_mapped().into(), destination),
        (IpAddr::V6(_), IpAddr::V4(v4)) => (source, v4.to_ipv6_mapped().into()),
        same => same,
    }
}

fn text(preface: &Preface) -> String {
    let (source, destination) = ends(preface);
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let ports = (preface.source.port(), preface.destination.port());
    format!(
        "PROXY {family} {source} {destination} {} {}\r\n",
        ports.0, ports.1
    )
}

fn binary(preface: &Preface) -> Vec<u8> {
    let mut addresses = Vec::new();
    let (source, destination) = ends(preface);
    for ip in [source, destination] {
        match ip {
            IpAddr::V4(ip) => addresses.extend(ip.octets()),
            IpAddr::V6(ip) => addresses.extend(ip.octets()),
        }
    }
    addresses.extend(preface.source.port().to_be_bytes());
    addresses.extend(preface.destination.port().to_be_bytes());
    let family = if source.is_ipv4() { TCP4 } else { TCP6 };
    let mut header = SIGNATURE.to_vec();
    header.extend([PROXY, family, 0, addresses.len() as u8]);
    header.extend(addresses);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(version: ProxyProtocol, source: &str, destination: &str) -> Vec<u8> {
        bytes(&Preface {
            version,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        })
    }

    #[test]
    fn the_text_form() {
        let said = header(ProxyProtocol::V1, "10.0.0.1:1234", "10.0.0.2:80");
        assert_eq!(said, b"PROXY TCP4 10.0.0.1 10.0.0.2 1234 80\r\n");
        let said = header(ProxyProtocol::V1, "10.0.0.1:1", "[2001:db8::1]:80");
        let text = String::from_utf8(said).unwrap();
        assert_eq!(text, "PROXY TCP6 ::ffff:10.0.0.1 2001:db8::1 1 80\r\n");
    }

    #[test]
    fn the_binary_form() {
        let said = header(ProxyProtocol::V2, "10.0.0.1:258", "10.0.0.2:80");
        let (start, rest) = said.split_at(16);
        assert_eq!(start, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c");
        assert_eq!(rest, [10, 0, 0, 1, 10, 0, 0, 2, 1, 2, 0, 80]);
        let said = header(ProxyProtocol::V2, "[::1]:1", "[::2]:2");
        assert_eq!((said[13], said[15], said.len()), (0x21, 36, 52));
    }
}
