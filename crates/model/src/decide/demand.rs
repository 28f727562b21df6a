//! What a proxy must ask the control plane before it decides, when it was not sent everything. Nothing is asked here.
//!
//! A proxy that has the very address or name knows all about it: what comes at all comes with everything that decisions
//! on it depend on (`reach`).

use super::host::canonical;
use super::snapshot::Snapshot;
use crate::lookup::Lookup;
use std::net::IpAddr;

/// What is to be asked before an outbound connection to `ip` is decided on; absent: nothing.
pub fn of_address(snapshot: &Snapshot, ip: IpAddr) -> Option<Lookup> {
    let open = snapshot.scope.on_demand && !ip.is_loopback() && !snapshot.registry.has_address(ip);
    open.then_some(Lookup::Address(ip))
}

/// What is to be asked before an outbound request for the authority `host` on `port` is decided on; absent: nothing.
pub fn of_authority(snapshot: &Snapshot, port: u16, host: &str) -> Option<Lookup> {
    if !snapshot.scope.on_demand {
        return None;
    }
    let host = canonical(host);
    let served = snapshot
        .hosts
        .get(&port)
        .is_some_and(|hosts| hosts.has(&host));
    if served {
        None
    } else {
        of_host(snapshot, &host)
    }
}

/// What is to be asked before an outbound connection for the server name `sni` is decided on; absent: nothing.
pub fn of_server_name(snapshot: &Snapshot, sni: &str) -> Option<Lookup> {
    let host = canonical(sni);
    match snapshot.scope.on_demand && !snapshot.registry.has_host(&host) {
        true => of_host(snapshot, &host),
        false => None,
    }
}

fn of_host(snapshot: &Snapshot, host: &str) -> Option<Lookup> {
    match Lookup::of(host)? {
        Lookup::Address(ip) => of_address(snapshot, ip),
        lookup => Some(lookup),
    }
}

/// What is to be asked before the application's question for `name` (as for [`super::known`]) is answered; empty: nothing.
pub fn of_name(snapshot: &Snapshot, name: &str, search: &[String]) -> Vec<Lookup> {
    if !snapshot.scope.on_demand || super::known(snapshot, name, search).is_some() {
        return Vec::new();
    }
    let bare = search
        .iter()
        .find_map(|domain| name.strip_suffix(domain.as_str())?.strip_suffix('.'));
    let names = [Some(name), bare];
    names.into_iter().flatten().filter_map(Lookup::of).collect()
}

/// What is worth asking to know who a peer is, for telemetry; absent: nothing.
pub fn of_peer(snapshot: &Snapshot, ip: IpAddr) -> Option<Lookup> {
    let open = snapshot.partial && !ip.is_loopback() && snapshot.workload_at(ip).is_none();
    open.then_some(Lookup::Peer(ip))
}
