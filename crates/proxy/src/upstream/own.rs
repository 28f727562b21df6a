//! The proxy's own ports, which it never calls on anybody's behalf: routes and endpoints are written by users, and those
//! servers trust who comes from beside them.

use crate::start::Addresses;
use lateen_net::original::canonical;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where the proxy itself listens.
#[derive(Debug)]
pub(crate) struct Own {
    listeners: Vec<SocketAddr>,
    /// Addresses of the workload.
    addresses: Vec<IpAddr>,
}

impl Own {
    /// The servers of a proxy that listens at `at`, on a machine with these `addresses`.
    pub(crate) fn new(at: &Addresses, addresses: &[IpAddr]) -> Self {
        let all = [
            Some(at.admin),
            Some(at.merged),
            Some(at.ready),
            Some(at.metrics),
        ];
        let captured = [at.outbound, at.inbound, at.dns];
        Self {
            listeners: all.into_iter().chain(captured).flatten().collect(),
            addresses: addresses.to_vec(),
        }
    }

    /// Whether a call to this address would arrive at one of them.
    pub(crate) fn is(&self, address: SocketAddr) -> bool {
        let ip = reached(address);
        let here = ip.is_loopback() || self.addresses.contains(&ip);
        self.arrives(ip, address.port(), here)
    }

    /// Whether a connection, by its two ends, has arrived at one of them: who calls itself has one address twice.
    pub(crate) fn has_arrived(&self, local: SocketAddr, peer: SocketAddr) -> bool {
        let (local, peer) = (canonical(local), canonical(peer));
        self.arrives(peer.ip(), peer.port(), local.ip() == peer.ip())
    }

    fn arrives(&self, ip: IpAddr, port: u16, here: bool) -> bool {
        self.listeners
            .iter()
            .any(|at| at.port() == port && (at.ip() == ip || at.ip().is_unspecified() && here))
    }
}

// Calls to the unspecified address go to loopback.
fn reached(address: SocketAddr) -> IpAddr {
    match canonical(address).ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(bind: &str) -> Own {
        let at = |port| SocketAddr::new(bind.parse().unwrap(), port);
        let addresses = Addresses {
            outbound: Some(at(15001)),
            inbound: Some(at(15006)),
            dns: Some("127.0.0.1:15053".parse().unwrap()),
            admin: "127.0.0.1:15000".parse().unwrap(),
            merged: at(15020),
            ready: at(15021),
            metrics: at(15090),
        };
        Own::new(&addresses, &["10.0.0.7".parse().unwrap()])
    }

    #[test]
    fn every_way_to_an_own_port_is_known() {
        for bind in ["0.0.0.0", "::"] {
            let own = own(bind);
            for (address, wanted) in [
                ("127.0.0.1:15000", true),
                ("[::ffff:127.0.0.1]:15000", true),
                ("0.0.0.0:15000", true),
                ("127.0.0.1:15020", true),
                ("127.0.0.1:15053", true),
                ("127.0.0.9:15020", true),
                ("10.0.0.7:15006", true),
                ("127.0.0.1:8080", false),
                ("10.0.0.8:15000", false),
                ("10.0.0.8:15006", false),
                // Administration listens on one address only.
                ("10.0.0.7:15000", false),
            ] {
                let address: SocketAddr = address.parse().unwrap();
                assert_eq!(own.is(address), wanted, "{address} with {bind}");
            }
        }
    }

    #[test]
    fn calls_that_come_back_are_known_by_their_ends() {
        let own = own("::");
        let end = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert!(own.has_arrived(end("192.168.1.2:40000"), end("192.168.1.2:15020")));
        assert!(!own.has_arrived(end("192.168.1.2:40000"), end("192.168.1.3:15020")));
        assert!(!own.has_arrived(end("192.168.1.2:40000"), end("192.168.1.2:80")));
    }
}
