//! Rate limits.

use super::routes::http_match;
use super::{labels, name, origin, port, text, visibility};
use lateen_model::limit::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::time::Duration;

pub fn policy() -> impl Strategy<Value = RateLimitPolicy> {
    let rule = prop_oneof![local(), global()];
    (
        (origin(), labels(), visibility()),
        (400..=599u16, any::<bool>(), vec(rule, 0..3)),
    )
        .prop_map(|(a, b)| RateLimitPolicy {
            origin: a.0,
            selector: a.1,
            visibility: a.2,
            status: b.0,
            headers: b.1,
            rules: b.2,
        })
}

fn positive() -> impl Strategy<Value = Duration> {
    (1..u32::MAX).prop_map(|n| Duration::from_micros(n.into()))
}

fn bucket() -> impl Strategy<Value = Bucket> {
    (any::<u32>(), positive(), any::<u32>()).prop_map(|(tokens, interval, burst)| Bucket {
        tokens,
        interval,
        burst,
    })
}

fn matches() -> impl Strategy<Value = Vec<LimitMatch>> {
    let one =
        (http_match(), option::of(text())).prop_map(|(http, route)| LimitMatch { http, route });
    vec(one, 0..2)
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let value = prop_oneof![
        name().prop_map(EntryValue::Header),
        Just(EntryValue::RemoteAddress),
        Just(EntryValue::Route),
        Just(EntryValue::Principal),
        vec(name(), 1..3).prop_map(EntryValue::Claim),
        Just(EntryValue::Destination),
        name().prop_map(EntryValue::Literal),
    ];
    vec(
        (name(), value).prop_map(|(key, value)| Entry { key, value }),
        0..3,
    )
}

fn local() -> impl Strategy<Value = LimitRule> {
    let descriptor = (entries(), bucket()).prop_map(|(entries, limit)| Descriptor {
        entries,
        limit: Some(limit),
    });
    (
        text(),
        matches(),
        option::of(bucket()),
        vec(descriptor, 0..3),
    )
        .prop_map(|(name, matches, bucket, descriptors)| LimitRule {
            name,
            matches,
            limiter: Limiter::Local { bucket },
            descriptors,
        })
}

fn global() -> impl Strategy<Value = LimitRule> {
    let service = (
        (name(), name(), port()),
        (any::<bool>(), positive(), any::<bool>()),
    )
        .prop_map(|(a, b)| Service {
            domain: a.0,
            host: a.1,
            port: a.2,
            fail_open: b.0,
            timeout: b.1,
            leases: b.2,
        });
    let descriptor = entries().prop_map(|entries| Descriptor {
        entries,
        limit: None,
    });
    (text(), matches(), service, vec(descriptor, 0..3)).prop_map(
        |(name, matches, service, descriptors)| LimitRule {
            name,
            matches,
            limiter: Limiter::Global(service),
            descriptors,
        },
    )
}
