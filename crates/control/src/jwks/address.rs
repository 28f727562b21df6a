//! Which addresses the control plane calls on behalf of a user's URI, so that a URI cannot make it fetch what only
//! it can reach (server-side request forgery). Checked on the address that is dialled, not on the name. Pure.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is never called, and what it is.
const NEVER_V4: [(Ipv4Addr, u8, &str); 8] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8, "an unspecified address"),
    (
        Ipv4Addr::new(169, 254, 0, 0),
        16,
        "a link-local address, where clouds serve their metadata",
    ),
    (
        Ipv4Addr::new(100, 100, 100, 200),
        32,
        "a cloud's metadata server",
    ),
    (
        Ipv4Addr::new(168, 63, 129, 16),
        32,
        "a cloud's metadata server",
    ),
    (
        Ipv4Addr::new(192, 0, 0, 192),
        32,
        "a cloud's metadata server",
    ),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "a multicast address"),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "a reserved address"),
    LOOPBACK_V4,
];
const NEVER_V6: [(Ipv6Addr, u8, &str); 8] = [
    (Ipv6Addr::UNSPECIFIED, 128, "an unspecified address"),
    (
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0),
        10,
        "a link-local address",
    ),
    (
        Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0),
        10,
        "a site-local address",
    ),
    (
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
        128,
        "a cloud's metadata server",
    ),
    (
        Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
        128,
        "a cloud's metadata server",
    ),
    // RFC 8215: where the IPv4 address stands in it is not known here.
    (
        Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0),
        48,
        "a translated address (NAT64)",
    ),
    (
        Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0),
        8,
        "a multicast address",
    ),
    LOOPBACK_V6,
];
const LOOPBACK_V4: (Ipv4Addr, u8, &str) = (Ipv4Addr::new(127, 0, 0, 0), 8, LOOPBACK);
const LOOPBACK_V6: (Ipv6Addr, u8, &str) = (Ipv6Addr::LOCALHOST, 128, LOOPBACK);
const LOOPBACK: &str = "a loopback address";

/// The rules.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    /// Further networks.
    pub(crate) blocked: Vec<IpNet>,
    /// Whether loopback is called after all.
    pub(crate) allow_loopback: bool,
}

impl Rules {
    /// Whether an address may be called; the error says what it is.
    pub(crate) fn check(&self, address: IpAddr) -> Result<(), String> {
        for form in forms(address) {
            if let Some(what) = never(form)
                && !(what == LOOPBACK && self.allow_loopback)
            {
                return Err(format!("{address} is {what}, which is never called"));
            }
            if let Some(net) = self.blocked.iter().find(|net| net.contains(&form)) {
                return Err(format!("{address} is in the blocked network {net}"));
            }
        }
        Ok(())
    }
}

fn never(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => {
            let mut all = NEVER_V4.iter();
            let found = all.find(|(net, bits, _)| {
                Ipv4Net::new(*net, *bits).is_ok_and(|net| net.contains(&v4))
            });
            found.map(|(_, _, what)| *what)
        }
        IpAddr::V6(v6) => {
            let mut all = NEVER_V6.iter();
            let found = all.find(|(net, bits, _)| {
                Ipv6Net::new(*net, *bits).is_ok_and(|net| net.contains(&v6))
            });
            found.map(|(_, _, what)| *what)
        }
    }
}

/// The address and the IPv4 addresses that it stands for: mapped and compatible ones (RFC 4291 §2.5.5), NAT64
/// (RFC 6052 §2.1), 6to4 (RFC 3056 §2).
fn forms(address: IpAddr) -> Vec<IpAddr> {
    let IpAddr::V6(v6) = address else {
        return vec![address];
    };
    let segments = v6.segments();
    let v4 = |high: u16, low: u16| {
        let bits = (u32::from(high) << 16) | u32::from(low);
        IpAddr::V4(Ipv4Addr::from_bits(bits))
    };
    let mut all = vec![address];
    match segments {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            all.push(v4(high, low));
        }
        // `::` and `::1` are no IPv4 addresses.
        [0, 0, 0, 0, 0, 0, high, low] if (high, low) > (0, 1) => all.push(v4(high, low)),
        [0x2002, high, low, ..] => all.push(v4(high, low)),
        _ => {}
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, rules: &Rules, allowed: bool) {
        let verdict = rules.check(address.parse().expect("an address"));
        assert_eq!(verdict.is_ok(), allowed, "{address}: {verdict:?}");
    }

    #[test]
    fn what_is_never_called() {
        let rules = Rules::default();
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "100.100.100.200",
            "224.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "fe80::1",
            "fec0::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "64:ff9b:1::a9fe:a9fe",
            "64:ff9b:1:a9fe:0:a9fe::",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "2002:7f00:1::",
        ] {
            check(address, &rules, false);
        }
        for address in [
            "10.96.0.1",
            "192.168.1.1",
            "172.16.0.1",
            "8.8.8.8",
            "2001:db8::1",
            "fd00::1",
        ] {
            check(address, &rules, true);
        }
    }

    #[test]
    fn what_the_operator_says() {
        let rules = Rules {
            blocked: vec!["10.0.0.0/8".parse().expect("a network")],
            allow_loopback: true,
        };
        check("10.96.0.1", &rules, false);
        check("::ffff:10.0.0.1", &rules, false);
        check("127.0.0.1", &rules, true);
        check("::1", &rules, true);
        check("169.254.169.254", &rules, false);
    }
}
