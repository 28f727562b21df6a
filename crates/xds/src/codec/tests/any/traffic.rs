//! Settings of traffic policies.

use super::{duration, name, port, text, tls};
use lateen_model::traffic::*;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::BTreeMap;
use std::time::Duration;

pub fn settings() -> impl Strategy<Value = TrafficSettings> {
    let ports = btree_map(port(), of_port().boxed(), 0..3);
    (of_port().boxed(), ports).prop_map(|(settings, ports)| TrafficSettings { ports, ..settings })
}

fn of_port() -> impl Strategy<Value = TrafficSettings> {
    let tunnel = (any::<bool>(), name(), port());
    let tunnel = tunnel.prop_map(|(post, host, port)| Tunnel { post, host, port });
    let versions = select(vec![ProxyProtocol::V1, ProxyProtocol::V2]);
    let budget = (0.0..=100.0, any::<u32>());
    let budget = budget.prop_map(|(percent, least)| RetryBudget { percent, least });
    (
        (
            option::of(balancer().boxed()),
            option::of(pool().boxed()),
            option::of(outlier().boxed()),
        ),
        (option::of(tls::client()), option::of(tunnel)),
        (option::of(versions), option::of(budget)),
    )
        .prop_map(|(a, b, c)| TrafficSettings {
            balancer: a.0,
            pool: a.1,
            outlier: a.2,
            tls: b.0,
            tunnel: b.1,
            proxy_protocol: c.0,
            retry_budget: c.1,
            ports: BTreeMap::new(),
        })
}

fn balancer() -> impl Strategy<Value = LoadBalancer> {
    let simple = select(vec![
        Balancer::LeastRequest,
        Balancer::RoundRobin,
        Balancer::Random,
        Balancer::Passthrough,
    ]);
    let algorithm = prop_oneof![simple, hash().prop_map(Balancer::ConsistentHash)];
    let warmup =
        (span(), 0.0..=100.0, 1.0..100.0).prop_map(|(duration, minimum_percent, aggression)| {
            Warmup {
                duration,
                minimum_percent,
                aggression,
            }
        });
    (algorithm, option::of(locality()), option::of(warmup)).prop_map(
        |(algorithm, locality, warmup)| LoadBalancer {
            algorithm,
            locality,
            warmup,
        },
    )
}

fn hash() -> impl Strategy<Value = ConsistentHash> {
    let cookie = (name(), text(), duration(), vec((name(), text()), 0..2)).prop_map(
        |(name, path, ttl, attributes)| {
            HashKey::Cookie(HashCookie {
                name,
                path,
                ttl,
                attributes,
            })
        },
    );
    let key = prop_oneof![
        name().prop_map(HashKey::Header),
        cookie,
        Just(HashKey::SourceIp),
        name().prop_map(HashKey::QueryParameter),
    ];
    let table = prop_oneof![
        (1..=HashTable::MOST).prop_map(|minimum| HashTable::Ring { minimum }),
        (1..=HashTable::MAGLEV_MOST).prop_map(|size| HashTable::Maglev { size }),
    ];
    (key, table).prop_map(|(key, table)| ConsistentHash { key, table })
}

pub fn locality() -> impl Strategy<Value = Locality> {
    let distribute = (text(), vec((text(), any::<u32>()), 0..3));
    let distribute = distribute.prop_map(|(from, to)| Distribute { from, to });
    let failover = (text(), text()).prop_map(|(from, to)| Failover { from, to });
    (
        any::<bool>(),
        vec(distribute, 0..2),
        vec(failover, 0..2),
        vec(text(), 0..3),
    )
        .prop_map(
            |(enabled, distribute, failover, failover_priority)| Locality {
                enabled,
                distribute,
                failover,
                failover_priority,
            },
        )
}

fn span() -> impl Strategy<Value = Duration> {
    any::<u32>().prop_map(|n| Duration::from_micros(n.into()))
}

fn number() -> impl Strategy<Value = Option<u32>> {
    option::of(any::<u32>())
}

pub fn keepalive() -> impl Strategy<Value = TcpKeepalive> {
    (number(), duration(), duration()).prop_map(|(probes, time, interval)| TcpKeepalive {
        probes,
        time,
        interval,
    })
}

pub fn pool() -> impl Strategy<Value = ConnectionPool> {
    let ping =
        (span(), span()).prop_map(|(interval, timeout)| Http2Keepalive { interval, timeout });
    (
        (duration(), number(), option::of(keepalive()), duration()),
        (duration(), number(), number(), number()),
        (number(), duration(), option::of(any::<bool>())),
        (any::<bool>(), number(), option::of(ping)),
    )
        .prop_map(|(a, b, c, d)| ConnectionPool {
            connect_timeout: a.0,
            max_connections: a.1,
            keepalive: a.2,
            max_connection_duration: a.3,
            tcp_idle_timeout: b.0,
            max_pending: b.1,
            max_requests: b.2,
            max_requests_per_connection: b.3,
            max_retries: c.0,
            http_idle_timeout: c.1,
            h2_upgrade: c.2,
            use_client_protocol: d.0,
            max_concurrent_streams: d.1,
            http2_keepalive: d.2,
        })
}

pub fn outlier() -> impl Strategy<Value = OutlierDetection> {
    (
        (any::<u32>(), any::<u32>(), number()),
        (span(), span()),
        (0..=100u32, 0..=100u32, vec(any::<u16>(), 0..3)),
    )
        .prop_map(|(a, b, c)| OutlierDetection {
            consecutive_5xx: a.0,
            consecutive_gateway: a.1,
            consecutive_local: a.2,
            interval: b.0,
            base_ejection_time: b.1,
            max_ejection_percent: c.0,
            min_health_percent: c.1,
            error_codes: c.2,
        })
}
