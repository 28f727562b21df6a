//! Load-balancing settings.

use super::between;
use crate::codec::parts::{
    Read, Within, bad, duration, known, named, pairs, read_duration, read_pairs, required, strs,
    text, texts,
};
use lateen_model::traffic::{
    Balancer, ConsistentHash, Distribute, Failover, HashCookie, HashKey, HashTable, LoadBalancer,
    Locality, Warmup,
};
use lateen_proto::mesh as proto;

pub(super) fn encode(from: &LoadBalancer) -> proto::LoadBalancer {
    let mut hash = None;
    let algorithm = match &from.algorithm {
        Balancer::LeastRequest => proto::Balancer::LeastRequest,
        Balancer::RoundRobin => proto::Balancer::RoundRobin,
        Balancer::Random => proto::Balancer::Random,
        Balancer::Passthrough => proto::Balancer::Passthrough,
        Balancer::ConsistentHash(settings) => {
            hash = Some(encode_hash(settings));
            proto::Balancer::ConsistentHash
        }
    };
    proto::LoadBalancer {
        algorithm: algorithm.into(),
        hash,
        locality: from.locality.as_ref().map(encode_locality),
        warmup: from.warmup.map(|warmup| proto::Warmup {
            duration: duration(Some(warmup.duration)),
            minimum_percent: warmup.minimum_percent,
            aggression: warmup.aggression,
        }),
    }
}

fn encode_hash(from: &ConsistentHash) -> proto::ConsistentHash {
    use proto::consistent_hash::{Key, Table};
    let key = match &from.key {
        HashKey::Header(name) => Key::Header(text(name)),
        HashKey::Cookie(cookie) => Key::Cookie(proto::HashCookie {
            name: text(&cookie.name),
            path: text(&cookie.path),
            ttl: duration(cookie.ttl),
            attributes: pairs(&cookie.attributes),
        }),
        HashKey::SourceIp => Key::SourceIp(true),
        HashKey::QueryParameter(name) => Key::QueryParameter(text(name)),
    };
    let table = match from.table {
        HashTable::Ring { minimum } => Table::RingMinimum(minimum),
        HashTable::Maglev { size } => Table::MaglevSize(size),
    };
    proto::ConsistentHash {
        key: Some(key),
        table: Some(table),
    }
}

pub(in crate::codec) fn encode_locality(from: &Locality) -> proto::Locality {
    let share = |(locality, share): &(_, u32)| proto::LocalityShare {
        locality: text(locality),
        share: *share,
    };
    proto::Locality {
        enabled: from.enabled,
        distribute: from
            .distribute
            .iter()
            .map(|one| proto::Distribute {
                from: text(&one.from),
                to: one.to.iter().map(share).collect(),
            })
            .collect(),
        failover: from
            .failover
            .iter()
            .map(|one| proto::Failover {
                from: text(&one.from),
                to: text(&one.to),
            })
            .collect(),
        failover_priority: texts(&from.failover_priority),
    }
}

pub(super) fn decode(from: proto::LoadBalancer) -> Read<LoadBalancer> {
    let algorithm = match from.algorithm() {
        proto::Balancer::Unspecified => None,
        proto::Balancer::LeastRequest => Some(Balancer::LeastRequest),
        proto::Balancer::RoundRobin => Some(Balancer::RoundRobin),
        proto::Balancer::Random => Some(Balancer::Random),
        proto::Balancer::Passthrough => Some(Balancer::Passthrough),
        proto::Balancer::ConsistentHash => {
            let hash = required(from.hash, "hash")?;
            Some(Balancer::ConsistentHash(decode_hash(hash).within("hash")?))
        }
    };
    let warmup = from.warmup.map(decode_warmup).transpose();
    Ok(LoadBalancer {
        algorithm: known(algorithm, from.algorithm, "algorithm")?,
        locality: from.locality.map(decode_locality),
        warmup: warmup.within("warmup")?,
    })
}

fn decode_warmup(from: proto::Warmup) -> Read<Warmup> {
    Ok(Warmup {
        duration: required(read_duration(from.duration), "duration")?,
        minimum_percent: between(from.minimum_percent, (0.0, 100.0), "minimum_percent")?,
        aggression: between(from.aggression, (1.0, f64::MAX), "aggression")?,
    })
}

fn decode_hash(from: proto::ConsistentHash) -> Read<ConsistentHash> {
    use proto::consistent_hash::{Key, Table};
    let key = match required(from.key, "key")? {
        Key::Header(name) => HashKey::Header(named(&name, "header")?),
        Key::Cookie(cookie) => HashKey::Cookie(HashCookie {
            name: named(&cookie.name, "name").within("cookie")?,
            path: cookie.path.into(),
            ttl: read_duration(cookie.ttl),
            attributes: read_pairs(cookie.attributes, "attributes").within("cookie")?,
        }),
        Key::SourceIp(_) => HashKey::SourceIp,
        Key::QueryParameter(name) => HashKey::QueryParameter(named(&name, "query_parameter")?),
    };
    // What a table costs is bounded whoever sends its size.
    let bounded = |size: u32, most: u32, field: &str| match (1..=most).contains(&size) {
        true => Ok(size),
        false => Err(bad(field, format!("{size} is out of range"))),
    };
    let table = match required(from.table, "table")? {
        Table::RingMinimum(minimum) => HashTable::Ring {
            minimum: bounded(minimum, HashTable::MOST, "ring_minimum")?,
        },
        Table::MaglevSize(size) => HashTable::Maglev {
            size: bounded(size, HashTable::MAGLEV_MOST, "maglev_size")?,
        },
    };
    Ok(ConsistentHash { key, table })
}

pub(in crate::codec) fn decode_locality(from: proto::Locality) -> Locality {
    let shares = |list: Vec<proto::LocalityShare>| {
        let pairs = list.into_iter();
        pairs.map(|s| (s.locality.into(), s.share)).collect()
    };
    Locality {
        enabled: from.enabled,
        distribute: from
            .distribute
            .into_iter()
            .map(|one| Distribute {
                from: one.from.into(),
                to: shares(one.to),
            })
            .collect(),
        failover: from
            .failover
            .into_iter()
            .map(|one| Failover {
                from: one.from.into(),
                to: one.to.into(),
            })
            .collect(),
        failover_priority: strs(from.failover_priority),
    }
}
