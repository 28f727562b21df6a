//! URLs to try, and the address that the client's resolver would give for them.

use crate::decide::cluster::Discovery;
use crate::decide::gateway;
use crate::decide::host::{canonical, port_of};
use crate::decide::plan::{ConnectionFacts, Direction};
use crate::decide::snapshot::Snapshot;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The URL cannot be used.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error(
    "{url:?} is not a URL to simulate: {reason}; write http://host[:port]/path, https://host or tcp://host:port"
)]
pub struct BadUrl {
    /// As given.
    pub url: String,
    /// What is wrong.
    pub reason: &'static str,
}

/// A URL in parts.
pub(super) struct Url<'a> {
    pub scheme: &'a str,
    pub authority: &'a str,
    pub path: &'a str,
    pub port: u16,
}

pub(super) fn parse(text: &str) -> Result<Url<'_>, BadUrl> {
    let bad = |reason| BadUrl {
        url: text.to_owned(),
        reason,
    };
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let authority = authority.rsplit('@').next().unwrap_or(authority);
    if canonical(authority).is_empty() {
        return Err(bad("it has no host"));
    }
    let default = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        "tcp" => None,
        _ => return Err(bad("its scheme is not known")),
    };
    let port = port_of(authority).or(default);
    Ok(Url {
        scheme,
        authority,
        path,
        port: port.ok_or_else(|| bad("it has no port"))?,
    })
}

/// The address that the client's resolver gives: virtual, else an endpoint's, else a stand-in.
pub(super) fn resolve(
    snapshot: &Snapshot,
    direction: Direction,
    url: &Url<'_>,
    steps: &mut Vec<String>,
) -> SocketAddr {
    let host = canonical(url.authority);
    let own = SocketAddr::new(own_address(snapshot), url.port);
    match direction {
        Direction::Outbound => {}
        Direction::Inbound => return own,
        Direction::Gateway => {
            // What policies see is the port that the pod binds.
            let facts = ConnectionFacts {
                direction,
                source: own,
                destination: own,
            };
            let bound =
                gateway::port(snapshot, &facts).map(|(opened, _)| opened.listener.bind_port);
            return SocketAddr::new(own.ip(), bound.unwrap_or(url.port));
        }
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        return SocketAddr::new(ip, url.port);
    }
    // TEST-NET-1 (RFC 5737): an address that no service has.
    let stand_in = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let Some(visible) = snapshot.service_by_alias(&host, url.port) else {
        steps.push(format!(
            "{host} is no service that this proxy sees: taken for an outside host."
        ));
        return SocketAddr::new(stand_in, url.port);
    };
    let service = &visible.service;
    let target = snapshot
        .clusters
        .of_port(visible, url.port)
        .usable(None)
        .cloned();
    let (ip, port, kind) = match (
        service
            .addresses
            .first()
            .map(|a| a.ip)
            .or(service.allocated.first().copied()),
        target.map(|c| c.discovery.clone()),
    ) {
        (Some(ip), _) => (ip, url.port, "virtual address"),
        (None, Ok(Discovery::Endpoints(list))) if !list.is_empty() => (
            list[0].address.ip(),
            list[0].address.port(),
            "a pod's address",
        ),
        _ => (stand_in, url.port, "an outside address"),
    };
    steps.push(format!(
        "{host} is service {}; it resolves to {ip} ({kind}).",
        service.key
    ));
    SocketAddr::new(ip, port)
}

pub(super) fn own_address(snapshot: &Snapshot) -> IpAddr {
    let first = snapshot.scope().addresses.first().copied();
    first.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}
