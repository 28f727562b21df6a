//! Load-balancing settings → the model's.

use super::Reading;
use lateen_api::destination_rule::balancer::{
    ConsistentHash as WrittenHash, LoadBalancerSettings, LocalityLbSetting, SimpleBalancer,
};
use lateen_api::fields::DurationText;
use lateen_base::Str;
use lateen_model::traffic::{
    Balancer, ConsistentHash, Distribute, Failover, HashCookie, HashKey, HashTable, LoadBalancer,
    Locality, Warmup,
};
use std::time::Duration;

impl Reading<'_> {
    /// How an endpoint is chosen.
    pub(super) fn balancer(&mut self, written: &LoadBalancerSettings, field: &str) -> LoadBalancer {
        let given = [
            (
                "zoneAwareLbSetting",
                written.zone_aware_lb_setting.is_some(),
            ),
            ("backendUtilization", written.backend_utilization.is_some()),
        ];
        for (name, is_given) in given {
            self.not_yet(format!("{field}.{name}"), is_given);
        }
        let algorithm = match (written.simple, &written.consistent_hash) {
            (Some(SimpleBalancer::RoundRobin), _) => Balancer::RoundRobin,
            (Some(SimpleBalancer::Random), _) => Balancer::Random,
            (Some(SimpleBalancer::Passthrough), _) => Balancer::Passthrough,
            (None, Some(hash)) => consistent_hash(hash),
            (None | Some(SimpleBalancer::Unspecified | SimpleBalancer::LeastConn), _)
            | (Some(SimpleBalancer::LeastRequest), _) => Balancer::LeastRequest,
        };
        let warms = matches!(algorithm, Balancer::LeastRequest | Balancer::RoundRobin);
        LoadBalancer {
            algorithm,
            locality: written.locality_lb_setting.as_ref().map(locality),
            warmup: warmup(written).filter(|_| warms),
        }
    }
}

fn consistent_hash(written: &WrittenHash) -> Balancer {
    let key = if let Some(name) = &written.http_header_name {
        HashKey::Header(name.to_ascii_lowercase().into())
    } else if let Some(cookie) = &written.http_cookie {
        let attributes = cookie.attributes.iter();
        HashKey::Cookie(HashCookie {
            name: cookie.name.as_str().into(),
            path: cookie.path.as_deref().unwrap_or_default().into(),
            ttl: duration(cookie.ttl.as_ref()),
            attributes: attributes
                .map(|a| {
                    let value = a.value.as_deref().unwrap_or_default();
                    (a.name.as_str().into(), value.into())
                })
                .collect(),
        })
    } else if written.use_source_ip == Some(true) {
        HashKey::SourceIp
    } else if let Some(name) = &written.http_query_parameter_name {
        HashKey::QueryParameter(name.as_str().into())
    } else {
        // `useSourceIp: false`: there is no key, so endpoints are drawn (Istio, whose Envoy has no hash policy then).
        return Balancer::Random;
    };
    let narrow = |size: u64, most: u32| u32::try_from(size).unwrap_or(most).clamp(1, most);
    let table = match &written.maglev {
        Some(maglev) => {
            let size = maglev.table_size.unwrap_or(HashTable::MAGLEV.into());
            HashTable::Maglev {
                size: narrow(size, HashTable::MAGLEV_MOST),
            }
        }
        None => {
            let ring = written.ring_hash.as_ref().and_then(|r| r.minimum_ring_size);
            let minimum = ring.or(written.minimum_ring_size);
            HashTable::Ring {
                minimum: narrow(minimum.unwrap_or(HashTable::RING.into()), HashTable::MOST),
            }
        }
    };
    Balancer::ConsistentHash(ConsistentHash { key, table })
}

/// `warmup`, else the deprecated `warmupDurationSecs`.
fn warmup(written: &LoadBalancerSettings) -> Option<Warmup> {
    let warmup = written.warmup.as_ref();
    let duration = duration(match warmup {
        Some(warmup) => warmup.duration.as_ref(),
        None => written.warmup_duration_secs.as_ref(),
    });
    Some(Warmup {
        duration: duration.filter(|time| !time.is_zero())?,
        minimum_percent: warmup.and_then(|w| w.minimum_percent).unwrap_or(10.0),
        aggression: warmup.and_then(|w| w.aggression).unwrap_or(1.0),
    })
}

/// Preference for near endpoints.
pub(crate) fn locality(written: &LocalityLbSetting) -> Locality {
    let text = |text: &Option<String>| Str::from(text.as_deref().unwrap_or_default());
    Locality {
        enabled: written.enabled != Some(false),
        distribute: written
            .distribute
            .iter()
            .map(|one| Distribute {
                from: text(&one.from),
                to: one
                    .to
                    .iter()
                    .map(|(to, share)| (to.as_str().into(), *share))
                    .collect(),
            })
            .collect(),
        failover: written
            .failover
            .iter()
            .map(|one| Failover {
                from: text(&one.from),
                to: text(&one.to),
            })
            .collect(),
        failover_priority: written
            .failover_priority
            .iter()
            .map(|label| label.as_str().into())
            .collect(),
    }
}

fn duration(text: Option<&DurationText>) -> Option<Duration> {
    text?.parse().ok()
}
