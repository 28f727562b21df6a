//! Limits by domain and descriptor, and which of them a descriptor meets. Reading them is in `read`; nothing is
//! counted here.

mod read;
#[cfg(test)]
mod tests;

pub use read::{Broken, read_file, read_texts};

use crate::stats::Counters;
use crate::window::Unit;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A limit in force.
#[derive(Debug, Clone)]
pub struct Limit {
    /// Requests in one window.
    pub requests: u32,
    /// The window.
    pub unit: Unit,
    /// Passes everything, and counts it only for the metrics.
    pub unlimited: bool,
    /// Counts, but never refuses.
    pub shadow: bool,
    /// Name that other limits replace it by; empty: none.
    pub name: Arc<str>,
    /// Names of limits that do not count where this one does.
    pub replaces: Vec<Arc<str>>,
    /// What became of the hits.
    pub counters: Arc<Counters>,
}

/// What users wrote about one key, or one key and value.
#[derive(Debug, Clone, Default)]
pub struct Node {
    limit: Option<Limit>,
    /// By key: what is written about it.
    below: BTreeMap<String, Values>,
}

/// What users wrote about the values of a key.
#[derive(Debug, Clone, Default)]
struct Values {
    exact: HashMap<String, Node>,
    /// Beginnings of values, in the order of the file.
    prefixes: Vec<(String, Node)>,
    /// Every other value.
    any: Option<Box<Node>>,
}

/// All limits, by domain.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    domains: BTreeMap<String, Node>,
}

impl Limits {
    /// Whether the domain is known.
    pub fn has(&self, domain: &str) -> bool {
        self.domains.contains_key(domain)
    }

    /// Names of the domains.
    pub fn domains(&self) -> impl Iterator<Item = &str> {
        self.domains.keys().map(String::as_str)
    }

    /// The limit of a descriptor: the one that is written at exactly its depth, a value before a beginning of values
    /// before any value (envoyproxy/ratelimit).
    pub fn find<'e>(
        &self,
        domain: &str,
        entries: impl Iterator<Item = (&'e str, &'e str)>,
    ) -> Option<&Limit> {
        let mut node = self.domains.get(domain)?;
        for (key, value) in entries {
            node = node.below.get(key)?.find(value)?;
        }
        node.limit.as_ref()
    }
}

impl Values {
    fn find(&self, value: &str) -> Option<&Node> {
        let beginning = || {
            let mut prefixes = self.prefixes.iter();
            let found = prefixes.find(|(prefix, _)| value.starts_with(prefix.as_str()));
            found.map(|(_, node)| node)
        };
        self.exact
            .get(value)
            .or_else(beginning)
            .or(self.any.as_deref())
    }
}
