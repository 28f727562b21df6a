//! Load-balancing settings of DestinationRules (and of MeshConfig).

use super::positive;
use crate::destination_rule::balancer::{
    ConsistentHash, LoadBalancerSettings, LocalityLbSetting, SimpleBalancer,
};
use crate::validate::Findings;

/// The largest size of a Maglev table (Envoy).
const MAGLEV_MOST: u64 = 5_000_011;
/// The largest size of a ring (Envoy).
const RING_MOST: u64 = 8 * 1024 * 1024;

/// Load-balancing settings; `ejects`: whether there is outlier detection beside them.
pub(super) fn load_balancer(
    f: &mut Findings,
    field: &str,
    balancer: &LoadBalancerSettings,
    ejects: bool,
) {
    if balancer.simple.is_some() && balancer.consistent_hash.is_some() {
        f.error(
            field,
            "simple and consistentHash exclude each other: keep one of them",
        );
    }
    if let Some(hash) = &balancer.consistent_hash {
        consistent_hash(f, &format!("{field}.consistentHash"), hash);
    }
    if let Some(locality) = &balancer.locality_lb_setting {
        if balancer.zone_aware_lb_setting.is_some() {
            f.error(
                field,
                "localityLbSetting and zoneAwareLbSetting exclude each other: keep one of them",
            );
        }
        let field = format!("{field}.localityLbSetting");
        locality_setting(f, &field, locality);
        let fails_over = !locality.failover.is_empty() || !locality.failover_priority.is_empty();
        if fails_over && !ejects {
            f.warning(field, "has no effect without outlierDetection: add it");
        }
    }
    let warms = balancer.warmup.is_some() || balancer.warmup_duration_secs.is_some();
    let turns = matches!(
        balancer.simple,
        Some(SimpleBalancer::Random | SimpleBalancer::Passthrough)
    );
    if warms && (turns || balancer.consistent_hash.is_some()) {
        f.warning(
            format!("{field}.warmup"),
            "works only with ROUND_ROBIN and LEAST_REQUEST: it has no effect",
        );
    }
    if let Some(warmup) = &balancer.warmup {
        let field = format!("{field}.warmup");
        if warmup.duration.is_none() {
            f.error(format!("{field}.duration"), "is missing: say how long");
        }
        positive(f, format!("{field}.duration"), warmup.duration.as_ref());
        let percent = warmup.minimum_percent.unwrap_or(10.0);
        if !(0.0..=100.0).contains(&percent) {
            let message = format!("{percent} is no percentage; use 0 to 100");
            f.error(format!("{field}.minimumPercent"), message);
        }
        let aggression = warmup.aggression.unwrap_or(1.0);
        if aggression.is_nan() || aggression < 1.0 {
            let message = format!("{aggression} is less than 1; use 1.0 or more");
            f.error(format!("{field}.aggression"), message);
        }
    }
    positive(
        f,
        format!("{field}.warmupDurationSecs"),
        balancer.warmup_duration_secs.as_ref(),
    );
    if balancer.warmup_duration_secs.is_some() {
        f.deprecated(
            format!("{field}.warmupDurationSecs"),
            "is deprecated: use warmup.duration",
        );
    }
}

fn consistent_hash(f: &mut Findings, field: &str, hash: &ConsistentHash) {
    let keys = [
        hash.http_header_name.is_some(),
        hash.http_cookie.is_some(),
        hash.use_source_ip.is_some(),
        hash.http_query_parameter_name.is_some(),
    ];
    if keys.into_iter().filter(|given| *given).count() != 1 {
        f.error(
            field,
            "needs exactly one of httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName",
        );
    }
    if hash.ring_hash.is_some() && hash.maglev.is_some() {
        f.error(
            field,
            "ringHash and maglev exclude each other: keep one of them",
        );
    }
    if let Some(cookie) = &hash.http_cookie {
        let field = format!("{field}.httpCookie");
        if cookie.name.is_empty() {
            f.error(format!("{field}.name"), "is empty: name the cookie");
        }
        f.duration(&format!("{field}.ttl"), cookie.ttl.as_ref());
    }
    if hash.http_header_name.as_deref() == Some("") {
        f.error(format!("{field}.httpHeaderName"), "is empty: name a header");
    }
    let size = hash.maglev.as_ref().and_then(|maglev| maglev.table_size);
    if let Some(size) = size.filter(|size| *size > MAGLEV_MOST || !is_prime(*size)) {
        f.error(
            format!("{field}.maglev.tableSize"),
            format!("{size} is no prime number of at most {MAGLEV_MOST}: use one, such as 65537"),
        );
    }
    let ring = hash
        .ring_hash
        .as_ref()
        .and_then(|ring| ring.minimum_ring_size);
    if let Some(size) = ring
        .or(hash.minimum_ring_size)
        .filter(|size| *size > RING_MOST)
    {
        f.error(
            format!("{field}.ringHash.minimumRingSize"),
            format!("{size} is too large: use at most {RING_MOST}"),
        );
    }
    if hash.minimum_ring_size.is_some() {
        f.deprecated(
            format!("{field}.minimumRingSize"),
            "is deprecated: use ringHash.minimumRingSize",
        );
    }
}

fn locality_setting(f: &mut Findings, field: &str, locality: &LocalityLbSetting) {
    let given = [
        !locality.distribute.is_empty(),
        !locality.failover.is_empty(),
        !locality.failover_priority.is_empty(),
    ];
    if given.into_iter().filter(|given| *given).count() > 1 {
        f.error(
            field,
            "distribute, failover and failoverPriority exclude each other: keep one of them",
        );
    }
    for (i, distribute) in locality.distribute.iter().enumerate() {
        let sum = distribute.to.values().map(|w| u64::from(*w)).sum::<u64>();
        if sum != 100 {
            f.error(
                format!("{field}.distribute[{i}].to"),
                format!("the shares add up to {sum}; make it 100"),
            );
        }
    }
    for (i, distribute) in locality.distribute.iter().enumerate() {
        if distribute.from.as_deref().is_none_or(str::is_empty) {
            f.error(
                format!("{field}.distribute[{i}].from"),
                "is missing: name the clients' locality, or *",
            );
        }
        for (to, share) in &distribute.to {
            if *share == 0 {
                f.error(
                    format!("{field}.distribute[{i}].to[{to}]"),
                    "is 0: leave the locality out",
                );
            }
        }
    }
    for (i, failover) in locality.failover.iter().enumerate() {
        if failover.from == failover.to {
            f.error(
                format!("{field}.failover[{i}]"),
                "a region cannot take over for itself: name another",
            );
        }
    }
}

/// Whether a number of at most [`MAGLEV_MOST`] is prime.
fn is_prime(number: u64) -> bool {
    let mut divisors = (2..).take_while(|d| d * d <= number);
    number > 1 && divisors.all(|d| !number.is_multiple_of(d))
}
