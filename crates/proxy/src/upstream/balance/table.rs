//! Where keys lead: Ketama's ring or Maglev's table over the endpoints of a rank, built as Envoy builds them, from
//! xxHash64 of their addresses. Every proxy that has the same endpoints builds the same.

use super::levels::Level;
use crate::upstream::hash::xxh64;
use lateen_model::decide::cluster::Endpoint;
use lateen_model::traffic::HashTable;

/// Where keys lead.
#[derive(Debug)]
pub(super) enum Table {
    /// Points in order, each with the index of an endpoint.
    Ring(Vec<(u64, u32)>),
    /// Indices of endpoints.
    Maglev(Vec<u32>),
}

/// An endpoint that is built in: its index, its address as text, and its share of all weight.
struct Part {
    at: u32,
    name: String,
    weight: f64,
}

impl Table {
    /// The table of a rank.
    pub(super) fn build(kind: HashTable, endpoints: &[Endpoint], level: &Level) -> Self {
        let parts = parts(endpoints, level);
        match kind {
            HashTable::Ring { minimum } => Self::Ring(ring(&parts, minimum)),
            HashTable::Maglev { size } => Self::Maglev(maglev(&parts, size as usize)),
        }
    }

    /// The endpoint that `hash` leads to; where it will not do, the next that does.
    pub(super) fn find(&self, hash: u64, tried: impl Fn(usize) -> bool) -> Option<usize> {
        let (from, len) = match self {
            Self::Ring(points) => (points.partition_point(|p| p.0 < hash), points.len()),
            Self::Maglev(table) => ((hash % table.len().max(1) as u64) as usize, table.len()),
        };
        (from..from + len)
            .map(|at| match self {
                Self::Ring(points) => points[at % len].1 as usize,
                Self::Maglev(table) => table[at % len] as usize,
            })
            .find(|at| !tried(*at))
    }
}

/// Endpoints with their shares, in order of their names: the same whoever lists them.
fn parts(endpoints: &[Endpoint], level: &Level) -> Vec<Part> {
    let mut parts = Vec::with_capacity(level.len());
    for group in level.groups() {
        let weight = |at: usize| f64::from(endpoints[at].weight.max(1));
        let whole: f64 = group.members.iter().map(|at| weight(*at)).sum();
        parts.extend(group.members.iter().map(|at| Part {
            at: *at as u32,
            name: endpoints[*at].address.to_string(),
            weight: group.share * weight(*at) / whole,
        }));
    }
    let whole: f64 = parts.iter().map(|part| part.weight).sum();
    for part in &mut parts {
        part.weight /= whole;
    }
    parts.sort_by(|a, b| a.name.cmp(&b.name));
    parts
}

/// Each endpoint has places by weight, the lightest a whole number of them, at the hashes of `address_0`, `address_1`, …
fn ring(parts: &[Part], minimum: u32) -> Vec<(u64, u32)> {
    let lightest = parts.iter().map(|p| p.weight).fold(1.0, f64::min);
    let scale = (lightest * f64::from(minimum)).ceil() / lightest;
    let scale = scale.min(f64::from(HashTable::MOST));
    let mut points = Vec::with_capacity(scale.ceil() as usize);
    let mut target = 0.0;
    for part in parts {
        target += scale * part.weight;
        let mut number = 0;
        while (points.len() as f64) < target {
            let place = format!("{}_{number}", part.name);
            points.push((xxh64(place.as_bytes(), 0), part.at));
            number += 1;
        }
    }
    points.sort_unstable_by_key(|point| point.0);
    points
}

/// Maglev (NSDI 2016, §3.4), with weights: the heaviest takes a place each round, others in proportion.
fn maglev(parts: &[Part], size: usize) -> Vec<u32> {
    const FREE: u32 = u32::MAX;
    struct Entry {
        offset: u64,
        skip: u64,
        next: u64,
        target: f64,
    }
    if parts.is_empty() {
        return Vec::new();
    }
    let places = size as u64;
    let mut entries: Vec<Entry> = parts
        .iter()
        .map(|part| Entry {
            offset: xxh64(part.name.as_bytes(), 0) % places,
            skip: xxh64(part.name.as_bytes(), 1) % places.saturating_sub(1).max(1) + 1,
            next: 0,
            target: part.weight,
        })
        .collect();
    let heaviest = parts.iter().map(|p| p.weight).fold(0.0, f64::max);
    let mut table = vec![FREE; size];
    let mut filled = 0;
    for round in 1u32.. {
        for (entry, part) in entries.iter_mut().zip(parts) {
            if filled == size {
                return table;
            }
            if f64::from(round) * part.weight < entry.target {
                continue;
            }
            entry.target += heaviest;
            let place = loop {
                let place = ((entry.offset + entry.skip * entry.next) % places) as usize;
                entry.next += 1;
                if table[place] == FREE {
                    break place;
                }
            };
            table[place] = part.at;
            filled += 1;
        }
    }
    table
}

#[cfg(test)]
mod tests;
