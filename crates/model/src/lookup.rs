//! What a proxy asks the control plane about when configuration follows use: a host name or an address.

use lateen_base::Str;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Bytes that a host name may have (RFC 1035 §2.3.4).
const HOST_BYTES: usize = 253;

/// A question: which service, if any, is this? Written `host/NAME`, `address/IP` or `peer/IP`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lookup {
    /// A name as clients write it, in canonical form: `reviews`, `reviews.default`, `web-0.web.shop.svc.cluster.local`.
    Host(Str),
    /// The address of a service, or of a workload, that is called.
    Address(IpAddr),
    /// The address of a workload that calls: who is it? Its services are of no interest.
    Peer(IpAddr),
}

/// A text is no lookup.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no lookup: `host/NAME` (at most {HOST_BYTES} bytes), `address/IP` or `peer/IP` is"
)]
pub struct NoLookup(pub String);

impl Lookup {
    /// The question that a host in canonical form stands for; absent: nothing can have such a name.
    pub fn of(host: &str) -> Option<Self> {
        if let Ok(ip) = host.parse() {
            return Some(Self::Address(ip));
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let usable = !host.is_empty() && host.len() <= HOST_BYTES && host.bytes().all(plain);
        usable.then(|| Self::Host(host.into()))
    }
}

impl fmt::Display for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => write!(f, "host/{host}"),
            Self::Address(ip) => write!(f, "address/{ip}"),
            Self::Peer(ip) => write!(f, "peer/{ip}"),
        }
    }
}

impl FromStr for Lookup {
    type Err = NoLookup;

    fn from_str(text: &str) -> Result<Self, NoLookup> {
        let bad = || NoLookup(text.chars().take(300).collect());
        match text.split_once('/').ok_or_else(bad)? {
            ("address", ip) => ip.parse().map(Self::Address).map_err(|_| bad()),
            ("peer", ip) => ip.parse().map(Self::Peer).map_err(|_| bad()),
            ("host", host) => match Self::of(host) {
                Some(lookup @ Self::Host(_)) => Ok(lookup),
                _ => Err(bad()),
            },
            _ => Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lookup_is_written_and_read() {
        for text in [
            "host/reviews.default",
            "address/10.0.0.1",
            "address/::1",
            "peer/10.0.0.1",
        ] {
            assert_eq!(
                text.parse::<Lookup>().map(|l| l.to_string()).as_deref(),
                Ok(text)
            );
        }
        for text in [
            "reviews",
            "host/",
            "host/10.0.0.1",
            "host/a b",
            "address/x",
            "name/x",
        ] {
            assert!(text.parse::<Lookup>().is_err(), "{text}");
        }
        assert!(
            format!("host/{}", "a".repeat(254))
                .parse::<Lookup>()
                .is_err()
        );
    }
}
