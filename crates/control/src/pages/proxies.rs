//! Connected proxies as JSON.

use lateen_model::mesh::Role;
use lateen_model::resource::Kind;
use lateen_xds::server::{KindStatus, ProxyStatus, Store};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::SystemTime;

/// A proxy's name as Istio's users know it: `pod.namespace`.
pub(super) fn name(proxy: &ProxyStatus) -> String {
    format!("{}.{}", proxy.scope.pod, proxy.scope.namespace)
}

/// Whether `wanted` is the proxy's name or node id.
pub(super) fn is_called(proxy: &ProxyStatus, wanted: &str) -> bool {
    wanted == name(proxy) || wanted == proxy.node_id
}

/// `/debug/syncz`: for each proxy and kind, what was sent and acknowledged.
pub(super) fn sync(proxies: &[ProxyStatus]) -> Value {
    let one = |proxy: &ProxyStatus| {
        let kinds: Map<String, Value> = proxy
            .kinds
            .iter()
            .map(|(kind, status)| (format!("{kind:?}"), json!(state(status))))
            .collect();
        json!({
            "proxy": name(proxy),
            "proxy_type": role(proxy),
            "cluster_id": proxy.scope.cluster,
            "istio_version": proxy.version,
            "state": overall(proxy),
            "kinds": kinds,
        })
    };
    proxies.iter().map(one).collect()
}

/// `/debug/adsz`: everything that is known of each stream.
pub(super) fn detail(proxies: &[ProxyStatus]) -> Value {
    let clients: Vec<Value> = proxies
        .iter()
        .map(|proxy| {
            let kinds: Map<String, Value> = proxy
                .kinds
                .iter()
                .map(|(kind, status)| (format!("{kind:?}"), kind_detail(status)))
                .collect();
            json!({
                "connectionId": proxy.node_id,
                "onDemand": proxy.scope.on_demand,
                "lookups": proxy.lookups,
                "proxy": name(proxy),
                "proxyType": role(proxy),
                "version": proxy.version,
                "connectedAt": time(Some(proxy.connected_at)),
                "addresses": proxy.scope.addresses,
                "labels": proxy.scope.labels,
                "kinds": kinds,
            })
        })
        .collect();
    json!({ "totalClients": clients.len(), "clients": clients })
}

/// `/debug/connections`: how many proxies of which version.
pub(super) fn connections(proxies: &[ProxyStatus]) -> Value {
    let mut versions: BTreeMap<&str, usize> = BTreeMap::new();
    for proxy in proxies {
        *versions.entry(&proxy.version).or_default() += 1;
    }
    json!({ "total": proxies.len(), "byVersion": versions, "proxies": sync(proxies) })
}

/// `/debug/config_dump`: the resources that this proxy is sent.
pub(super) fn config_dump(proxy: &ProxyStatus, store: &Store) -> Value {
    let kinds: Map<String, Value> = Kind::ALL
        .into_iter()
        .map(|kind| {
            let entries = store.dump_for(proxy, kind).into_iter();
            let seen: Vec<Value> = entries
                .map(|entry| {
                    json!({
                        "name": entry.key.name, "version": entry.version, "bytes": entry.size,
                        "resource": entry.resource,
                    })
                })
                .collect();
            (format!("{kind:?}"), json!(seen))
        })
        .collect();
    json!({ "proxy": name(proxy), "resources": kinds })
}

fn role(proxy: &ProxyStatus) -> &'static str {
    match proxy.scope.role {
        Role::Sidecar => "sidecar",
        Role::Gateway => "router",
    }
}

/// One word for one kind, as `proxy-status` shows it.
fn state(status: &KindStatus) -> &'static str {
    match (&status.sent, &status.nack) {
        (_, Some(_)) => "ERROR",
        (None, _) => "NOT SENT",
        (sent, None) if *sent == status.acked => "SYNCED",
        _ => "STALE",
    }
}

/// The worst word of all kinds.
fn overall(proxy: &ProxyStatus) -> &'static str {
    let states: Vec<_> = proxy.kinds.values().map(state).collect();
    let worst = ["ERROR", "STALE"]
        .into_iter()
        .find(|bad| states.contains(bad));
    worst.unwrap_or("SYNCED")
}

fn kind_detail(status: &KindStatus) -> Value {
    json!({
        "state": state(status),
        "resources": status.resources,
        "pushes": status.pushes,
        "resourcesSent": status.carried,
        "rejects": status.rejects,
        "lastSent": status.sent,
        "lastAcknowledged": status.acked,
        "sentAt": time(status.sent_at),
        "acknowledgedAt": time(status.acked_at),
        "refusal": status.nack,
    })
}

fn time(at: Option<SystemTime>) -> Option<String> {
    jiff::Timestamp::try_from(at?).ok().map(|at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(sent: Option<&str>, acked: Option<&str>, nack: Option<&str>) -> KindStatus {
        KindStatus {
            sent: sent.map(str::to_owned),
            acked: acked.map(str::to_owned),
            nack: nack.map(str::to_owned),
            ..KindStatus::default()
        }
    }

    #[test]
    fn one_word_for_each_state() {
        for (sent, acked, nack, want) in [
            (None, None, None, "NOT SENT"),
            (Some("1"), None, None, "STALE"),
            (Some("2"), Some("1"), None, "STALE"),
            (Some("2"), Some("2"), None, "SYNCED"),
            (Some("2"), Some("2"), Some("weight is missing"), "ERROR"),
        ] {
            assert_eq!(
                state(&status(sent, acked, nack)),
                want,
                "{sent:?} {acked:?} {nack:?}"
            );
        }
    }
}
