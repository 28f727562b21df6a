//! Words of traffic settings.

use super::{balancer, option};
use crate::mesh::TrafficDefaults;
use crate::traffic::{
    ConnectionPool, Distribute, Failover, LoadBalancer, Locality, OutlierDetection,
};
use std::time::Duration;

/// The load balancer of a policy; none when no word is about it.
pub fn balancer_of(rest: &[&str]) -> Option<LoadBalancer> {
    let algorithm = rest.iter().find_map(|w| balancer(w));
    let locality = locality(rest);
    if algorithm.is_none() && locality.is_none() {
        return None;
    }
    Some(LoadBalancer {
        locality,
        ..algorithm.unwrap_or_default()
    })
}

fn locality(rest: &[&str]) -> Option<Locality> {
    let near = option(rest, "near");
    let failover = option(rest, "failover");
    let distribute: Vec<_> = rest
        .iter()
        .filter_map(|w| w.strip_prefix("distribute="))
        .collect();
    if near.is_none() && failover.is_none() && distribute.is_empty() {
        return None;
    }
    let labels = near.filter(|word| *word != "off").into_iter();
    Some(Locality {
        enabled: near != Some("off"),
        failover_priority: labels
            .flat_map(|list| list.split(','))
            .map(|label| label.replace(':', "=").as_str().into())
            .collect(),
        failover: failover
            .and_then(|pair| pair.split_once(':'))
            .map(|(from, to)| Failover {
                from: from.into(),
                to: to.into(),
            })
            .into_iter()
            .collect(),
        distribute: distribute
            .into_iter()
            .filter_map(|text| text.split_once('>'))
            .map(|(from, to)| Distribute {
                from: from.into(),
                to: to
                    .split(',')
                    .filter_map(|one| one.split_once(':'))
                    .map(|(to, share)| (to.into(), share.parse().expect("share")))
                    .collect(),
            })
            .collect(),
    })
}

/// The connection pool of a policy; none when no word is about it.
pub fn pool(rest: &[&str]) -> Option<ConnectionPool> {
    let number = |key| option(rest, key).map(|n| n.parse().expect("number"));
    let pool = ConnectionPool {
        connect_timeout: seconds(rest),
        max_connections: number("conns"),
        max_requests: number("requests"),
        h2_upgrade: option(rest, "h2").map(|word| word == "yes"),
        ..ConnectionPool::default()
    };
    (pool != ConnectionPool::default()).then_some(pool)
}

fn seconds(rest: &[&str]) -> Option<Duration> {
    let seconds = option(rest, "connect")?;
    Some(Duration::from_secs(seconds.parse().expect("seconds")))
}

/// The mesh's defaults.
pub fn defaults(rest: &[&str]) -> TrafficDefaults {
    let usual = TrafficDefaults::default();
    TrafficDefaults {
        locality: locality(rest).unwrap_or(usual.locality),
        connect_timeout: seconds(rest).unwrap_or(usual.connect_timeout),
        h2_upgrade: rest.contains(&"h2"),
        outlier: rest.contains(&"eject").then(OutlierDetection::default),
        ..usual
    }
}
