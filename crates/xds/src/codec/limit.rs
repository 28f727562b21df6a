//! Rate limits.

use super::parts::{
    Read, Within, bad, duration, each, known, labels, map, named, narrow, origin, port,
    read_duration, read_origin, read_visibility, required, strs, text, texts, visibility,
};
use super::route::{decode_match, encode_match};
use lateen_base::Str;
use lateen_model::limit::{
    Bucket, Descriptor, Entry, EntryValue, LimitMatch, LimitRule, Limiter, RateLimitPolicy, Service,
};
use lateen_proto::mesh as proto;
use proto::limit_rule::Limiter as Wire;
use std::time::Duration;

pub(super) fn encode(from: &RateLimitPolicy) -> proto::RateLimitPolicy {
    proto::RateLimitPolicy {
        origin: origin(&from.origin),
        selector: map(&from.selector),
        visible_to: visibility(&from.visibility),
        status: from.status.into(),
        headers: from.headers,
        rules: from.rules.iter().map(encode_rule).collect(),
    }
}

fn encode_rule(from: &LimitRule) -> proto::LimitRule {
    let limiter = match &from.limiter {
        Limiter::Local { bucket } => Wire::Local(proto::LocalLimit {
            bucket: bucket.as_ref().map(encode_bucket),
        }),
        Limiter::Global(service) => Wire::Global(proto::LimitService {
            domain: text(&service.domain),
            host: text(&service.host),
            port: service.port.into(),
            fail_open: service.fail_open,
            timeout: duration(Some(service.timeout)),
            leases: service.leases,
        }),
    };
    let matches = from.matches.iter().map(|m| proto::LimitMatch {
        http: Some(encode_match(&m.http)),
        route: m.route.as_ref().map(text),
    });
    let descriptors = from.descriptors.iter().map(|d| proto::LimitDescriptor {
        entries: d.entries.iter().map(encode_entry).collect(),
        limit: d.limit.as_ref().map(encode_bucket),
    });
    proto::LimitRule {
        name: text(&from.name),
        matches: matches.collect(),
        limiter: Some(limiter),
        descriptors: descriptors.collect(),
    }
}

fn encode_bucket(from: &Bucket) -> proto::TokenBucket {
    proto::TokenBucket {
        tokens: from.tokens,
        interval: duration(Some(from.interval)),
        burst: from.burst,
    }
}

fn encode_entry(from: &Entry) -> proto::LimitEntry {
    use proto::LimitEntrySource as To;
    let (source, names) = match &from.value {
        EntryValue::Header(name) => (To::Header, vec![text(name)]),
        EntryValue::RemoteAddress => (To::RemoteAddress, Vec::new()),
        EntryValue::Route => (To::Route, Vec::new()),
        EntryValue::Principal => (To::Principal, Vec::new()),
        EntryValue::Claim(path) => (To::Claim, texts(path)),
        EntryValue::Destination => (To::Destination, Vec::new()),
        EntryValue::Literal(value) => (To::Literal, vec![text(value)]),
    };
    proto::LimitEntry {
        key: text(&from.key),
        source: source.into(),
        names,
    }
}

pub(super) fn decode(from: proto::RateLimitPolicy) -> Read<RateLimitPolicy> {
    let status = narrow(from.status, "status")?;
    if !(400..=599).contains(&status) {
        return Err(bad("status", format!("{status} is not in 400..=599")));
    }
    Ok(RateLimitPolicy {
        origin: read_origin(from.origin)?,
        selector: labels(from.selector),
        visibility: read_visibility(from.visible_to),
        status,
        headers: from.headers,
        rules: each(from.rules, "rules", decode_rule)?,
    })
}

fn decode_rule(from: proto::LimitRule) -> Read<LimitRule> {
    let limiter = match required(from.limiter, "limiter")? {
        Wire::Local(local) => Limiter::Local {
            bucket: local
                .bucket
                .map(|bucket| decode_bucket(bucket).within("local.bucket"))
                .transpose()?,
        },
        Wire::Global(service) => Limiter::Global(decode_service(service).within("global")?),
    };
    let is_local = matches!(limiter, Limiter::Local { .. });
    let descriptor = |d: proto::LimitDescriptor| {
        if d.limit.is_some() != is_local {
            return Err(bad("limit", "local rules have it, and only they"));
        }
        Ok(Descriptor {
            entries: each(d.entries, "entries", decode_entry)?,
            limit: d
                .limit
                .map(|limit| decode_bucket(limit).within("limit"))
                .transpose()?,
        })
    };
    let alternative = |m: proto::LimitMatch| {
        Ok(LimitMatch {
            http: decode_match(required(m.http, "http")?).within("http")?,
            route: m.route.map(Into::into),
        })
    };
    Ok(LimitRule {
        name: from.name.into(),
        matches: each(from.matches, "matches", alternative)?,
        limiter,
        descriptors: each(from.descriptors, "descriptors", descriptor)?,
    })
}

fn decode_bucket(from: proto::TokenBucket) -> Read<Bucket> {
    Ok(Bucket {
        tokens: from.tokens,
        interval: positive(from.interval, "interval")?,
        burst: from.burst,
    })
}

fn positive(from: Option<proto::Duration>, field: &str) -> Read<Duration> {
    match read_duration(from) {
        None => Err(bad(field, "it is missing")),
        Some(Duration::ZERO) => Err(bad(field, "it is zero")),
        Some(duration) => Ok(duration),
    }
}

fn decode_service(from: proto::LimitService) -> Read<Service> {
    Ok(Service {
        domain: named(&from.domain, "domain")?,
        host: named(&from.host, "host")?,
        port: port(from.port, "port")?,
        fail_open: from.fail_open,
        timeout: positive(from.timeout, "timeout")?,
        leases: from.leases,
    })
}

fn decode_entry(from: proto::LimitEntry) -> Read<Entry> {
    use proto::LimitEntrySource as From;
    let only = || -> Read<Str> {
        match &from.names[..] {
            [one] if !one.is_empty() => Ok(one.as_str().into()),
            _ => Err(bad("names", "there must be exactly one")),
        }
    };
    let value = match from.source() {
        From::Unspecified => None,
        From::Header => Some(EntryValue::Header(only()?)),
        From::RemoteAddress => Some(EntryValue::RemoteAddress),
        From::Route => Some(EntryValue::Route),
        From::Principal => Some(EntryValue::Principal),
        From::Claim if from.names.is_empty() => {
            return Err(bad("names", "a claim has at least one name"));
        }
        From::Claim => Some(EntryValue::Claim(strs(from.names.clone()))),
        From::Destination => Some(EntryValue::Destination),
        From::Literal => Some(EntryValue::Literal(only()?)),
    };
    Ok(Entry {
        value: known(value, from.source, "source")?,
        key: named(&from.key, "key")?,
    })
}
