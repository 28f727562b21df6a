//! Finds the few rules that can match, among any number, by what their matches have in common.
//!
//! Each rule is filed under the values of the one attribute of it that the fewest rules share. Rules without such an
//! attribute are tried each time.

use super::affix::{Affixes, End};
use super::attribute::{Attr, Facts, Host, Value};
use super::rules::Compiled;
use super::values::{Pattern, names_port};
use ipnet::IpNet;
use lateen_base::Str;
use std::collections::HashMap;
use std::net::IpAddr;

/// Rules of policies with one action.
#[derive(Debug, Default)]
pub(super) struct RuleSet {
    rules: Vec<Compiled>,
    /// Rules by the attribute that they are filed under.
    files: Vec<(Attr, File)>,
    /// Positions of rules that are filed nowhere.
    others: Vec<usize>,
    /// Number of rules that were tried.
    #[cfg(test)]
    tried: std::sync::atomic::AtomicUsize,
}

/// Positions of rules by value of one attribute.
#[derive(Debug)]
struct File {
    exact: HashMap<Str, Vec<usize>>,
    prefixes: Affixes<Vec<usize>>,
    suffixes: Affixes<Vec<usize>>,
    /// By prefix length and network.
    nets: HashMap<(u8, u128), Vec<usize>>,
    /// Lengths that occur in `nets`.
    lengths: Vec<u8>,
    ports: HashMap<u16, Vec<usize>>,
}

/// One value under which rules are filed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Exact(Str),
    Prefix(Str),
    Suffix(Str),
    Net(u8, u128),
    Port(u16),
}

impl Key {
    /// The key that every value of a pattern leads to; `None`: there is none.
    fn of(attr: &Attr, pattern: &Pattern) -> Option<Self> {
        let host = *attr == Attr::Host;
        let found = match pattern {
            Pattern::Exact(text) if host && names_port(text) => Self::Exact(name(text)),
            // Only the port is open.
            Pattern::Prefix(text) if host && names_port(text) => Self::Exact(name(text)),
            Pattern::Suffix(text) if host && names_port(text) => Self::Suffix(name(text)),
            Pattern::Exact(text) => Self::Exact(text.clone()),
            Pattern::Prefix(text) => Self::Prefix(text.clone()),
            Pattern::Suffix(text) => Self::Suffix(text.clone()),
            Pattern::Template(template) => return Self::of(attr, &template.necessary()),
            Pattern::Glob(parts) => return Self::of(attr, &ends(parts)),
            Pattern::Net(net) => {
                let (length, bits) = match net {
                    IpNet::V4(net) => (
                        96 + net.prefix_len(),
                        net.network().to_ipv6_mapped().to_bits(),
                    ),
                    IpNet::V6(net) => (net.prefix_len(), net.network().to_bits()),
                };
                Self::Net(length, bits)
            }
            Pattern::Port(port) => Self::Port(*port),
            Pattern::Present | Pattern::Unreadable => return None,
        };
        match &found {
            Self::Prefix(text) | Self::Suffix(text) if text.is_empty() => None,
            _ => Some(found),
        }
    }
}

/// What every text of a form begins or ends with, whichever says more.
fn ends(parts: &[Str]) -> Pattern {
    let of = |part: Option<&Str>| part.cloned().unwrap_or_default();
    let (first, last) = (of(parts.first()), of(parts.last()));
    match first.len() >= last.len() {
        true => Pattern::Prefix(first),
        false => Pattern::Suffix(last),
    }
}

/// The host of `host:port`, without brackets.
fn name(host: &str) -> Str {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name.trim_start_matches('[').trim_end_matches(']').into()
}

/// The keys of a rule for one attribute.
type Filing<'r> = (&'r Attr, Vec<Key>);

fn filings(rule: &Compiled) -> Vec<Filing<'_>> {
    rule.necessary()
        .into_iter()
        .filter_map(|(attr, patterns)| {
            let keys = patterns.iter().map(|p| Key::of(attr, p));
            Some((attr, keys.collect::<Option<Vec<_>>>()?))
        })
        .collect()
}

impl RuleSet {
    /// Files the rules.
    pub fn new(rules: Vec<Compiled>) -> Self {
        let possible: Vec<_> = rules.iter().map(filings).collect();
        let mut shared: HashMap<(&Attr, &Key), usize> = HashMap::new();
        for (attr, keys) in possible.iter().flatten() {
            for key in keys {
                *shared.entry((attr, key)).or_default() += 1;
            }
        }
        let mut files: HashMap<&Attr, HashMap<&Key, Vec<usize>>> = HashMap::new();
        let mut others = Vec::new();
        for (at, filings) in possible.iter().enumerate() {
            let crowd = |(attr, keys): &&Filing<'_>| {
                let most = keys.iter().map(|key| shared[&(*attr, key)]).max();
                (most.unwrap_or(0), keys.len())
            };
            let Some((attr, keys)) = filings.iter().min_by_key(crowd) else {
                others.push(at);
                continue;
            };
            let file = files.entry(attr).or_default();
            for key in keys {
                let list = file.entry(key).or_default();
                if list.last() != Some(&at) {
                    list.push(at);
                }
            }
        }
        let mut files: Vec<_> = files
            .into_iter()
            .map(|(attr, file)| (attr.clone(), File::new(file)))
            .collect();
        files.sort_by_key(|(attr, _)| format!("{attr:?}"));
        Self {
            files,
            others,
            rules,
            #[cfg(test)]
            tried: Default::default(),
        }
    }

    /// Number of rules that have to be tried each time.
    #[cfg(test)]
    pub fn unfiled(&self) -> usize {
        self.others.len()
    }

    /// Number of rules that were tried so far.
    #[cfg(test)]
    pub fn tried(&self) -> usize {
        self.tried.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// A rule that matches: always the same one for the same facts.
    pub fn first(&self, facts: &Facts<'_>) -> Option<&Compiled> {
        let mut found = None;
        self.each(facts, |rule| {
            found = Some(rule);
            true
        });
        found
    }

    /// Calls `visit` for every rule that matches, until it says so. A rule may come more than once.
    pub fn each<'s>(&'s self, facts: &Facts<'_>, mut visit: impl FnMut(&'s Compiled) -> bool) {
        let mut test = |at: usize| {
            let rule = &self.rules[at];
            #[cfg(test)]
            self.tried
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            rule.fits(facts) && visit(rule)
        };
        if self.others.iter().any(|at| test(*at)) {
            return;
        }
        for (attr, file) in &self.files {
            if facts.any(attr, |value| file.any(value, &mut test)) {
                return;
            }
        }
    }
}

impl File {
    fn new(keys: HashMap<&Key, Vec<usize>>) -> Self {
        let mut exact = HashMap::new();
        let (mut prefixes, mut suffixes) = (Vec::new(), Vec::new());
        let (mut nets, mut lengths) = (HashMap::new(), Vec::new());
        let mut ports = HashMap::new();
        for (key, rules) in keys {
            match key {
                Key::Exact(text) => {
                    exact.insert(text.clone(), rules);
                }
                Key::Prefix(text) => prefixes.push((text.clone(), rules)),
                Key::Suffix(text) => suffixes.push((text.clone(), rules)),
                Key::Net(length, bits) => {
                    lengths.push(*length);
                    nets.insert((*length, *bits), rules);
                }
                Key::Port(port) => {
                    ports.insert(*port, rules);
                }
            }
        }
        lengths.sort_unstable();
        lengths.dedup();
        Self {
            exact,
            prefixes: Affixes::new(End::Prefix, prefixes),
            suffixes: Affixes::new(End::Suffix, suffixes),
            nets,
            lengths,
            ports,
        }
    }

    /// Whether `test` says yes to any rule filed under `value`.
    fn any(&self, value: Value<'_>, test: &mut impl FnMut(usize) -> bool) -> bool {
        let mut all = |list: &Vec<usize>| list.iter().any(|at| test(*at));
        match value {
            Value::Text(text) | Value::Host(Host { name: text, .. }) => {
                self.exact.get(text).is_some_and(&mut all)
                    || self.prefixes.of(text).any(&mut all)
                    || self.suffixes.of(text).any(&mut all)
            }
            Value::Ip(ip) => {
                let bits = match ip.to_canonical() {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
                    IpAddr::V6(ip) => ip.to_bits(),
                };
                self.lengths.iter().any(|length| {
                    let cut = 128 - u32::from(*length);
                    let network = bits.checked_shr(cut).map_or(0, |b| b << cut);
                    self.nets.get(&(*length, network)).is_some_and(&mut all)
                })
            }
            Value::Port(port) => self.ports.get(&port).is_some_and(&mut all),
        }
    }
}
