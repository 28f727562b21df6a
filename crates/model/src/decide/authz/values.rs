//! Sets of values as policies write them: exact, `prefix*`, `*suffix`, `*`, path templates, networks, ports.

use super::affix::{Affixes, End};
use super::attribute::{Attr, BETWEEN, Host, Value};
use super::template::Template;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use lateen_base::Str;
use std::net::IpAddr;

/// One value of a policy, in a form that can be looked up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Pattern {
    Exact(Str),
    Prefix(Str),
    Suffix(Str),
    /// Any value.
    Present,
    Template(Template),
    /// Parts with anything between them.
    Glob(Box<[Str]>),
    Net(IpNet),
    Port(u16),
    /// A value that cannot be read, such as a network of `when` that is none.
    Unreadable,
}

impl Pattern {
    /// Reads a value of `attr`.
    pub fn read(attr: &Attr, text: &str) -> Self {
        match attr {
            _ if attr.is_address() => text
                .parse::<IpNet>()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
                .map_or(Self::Unreadable, Self::net),
            Attr::Port => text.parse().map_or(Self::Unreadable, Self::Port),
            Attr::Host => Self::text(&host(text)),
            Attr::Path => match Template::read(&upper(text)) {
                Some(template) => Self::Template(template),
                None => Self::text(&upper(text)),
            },
            Attr::Target => Self::text(&target(text)),
            Attr::RequestPrincipal => Self::caller(text),
            Attr::Namespace => Self::glob(text),
            _ => Self::text(text),
        }
    }

    /// Issuer and subject, divided by the last slash (Istio); either may have a star.
    fn caller(text: &str) -> Self {
        let wild = text.starts_with('*') || text.ends_with('*');
        match text.rsplit_once('/') {
            // Any issuer, or any subject, with at least one character.
            None if wild => Self::text(text),
            None => Self::Exact(format!("{text}{BETWEEN}").into()),
            Some((issuer, subject)) => {
                let both = format!("{issuer}{BETWEEN}{subject}");
                match both.strip_prefix('*') {
                    // A star at the end, too, is a character then (Istio).
                    Some(suffix) => Self::Suffix(suffix.into()),
                    None => Self::text(&both),
                }
            }
        }
    }

    /// Istio makes an expression of a namespace, in which every star stands for anything.
    fn glob(text: &str) -> Self {
        let parts: Vec<&str> = text.split('*').collect();
        match parts[..] {
            [_] | ["", _] | [_, ""] => Self::text(text),
            _ => Self::Glob(parts.into_iter().map(Str::from).collect()),
        }
    }

    /// A network; one of IPv4 addresses written as IPv6 ones is a network of IPv4.
    pub fn net(net: IpNet) -> Self {
        Self::Net(match net {
            IpNet::V6(v6) => match (v6.network().to_ipv4_mapped(), v6.prefix_len()) {
                (Some(ip), 96..) => {
                    let v4 = Ipv4Net::new(ip, v6.prefix_len() - 96);
                    v4.map_or(net, |v4| IpNet::V4(v4.trunc()))
                }
                _ => net.trunc(),
            },
            IpNet::V4(_) => net.trunc(),
        })
    }

    // Istio looks for the star at the front first.
    fn text(text: &str) -> Self {
        if text == "*" {
            Self::Present
        } else if let Some(suffix) = text.strip_prefix('*') {
            Self::Suffix(suffix.into())
        } else if let Some(prefix) = text.strip_suffix('*') {
            Self::Prefix(prefix.into())
        } else {
            Self::Exact(text.into())
        }
    }
}

/// Hosts are compared in lower case, without a dot at the end.
fn host(text: &str) -> String {
    let text = text.to_ascii_lowercase();
    if let Some(inner) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        return inner.to_owned();
    }
    match text.split_once(':') {
        None => text.strip_suffix('.').unwrap_or(&text).to_owned(),
        Some((name, port)) => format!("{}:{port}", name.strip_suffix('.').unwrap_or(name)),
    }
}

/// Whether a host of a policy says which port: `example.com:8080`, `*:80`, `example.com:*`, `[::1]:80`.
pub(super) fn names_port(host: &str) -> bool {
    match host.rsplit_once(':') {
        Some((name, _)) => !name.contains(':') || name.ends_with(']'),
        None => false,
    }
}

/// A path with query, with percent-encodings of the path as canonical paths have them.
fn target(text: &str) -> String {
    match text.split_once('?') {
        Some((path, query)) => format!("{}?{query}", upper(path)),
        None => upper(text),
    }
}

/// Percent-encodings in a policy's path with upper-case digits, as canonical paths have them.
fn upper(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut left = 0;
    for c in path.chars() {
        if c == '%' {
            left = 3;
        }
        out.push(if left > 0 { c.to_ascii_uppercase() } else { c });
        left = usize::saturating_sub(left, 1);
    }
    out
}

/// Values of one list of a policy.
#[derive(Debug)]
pub(super) enum Set {
    /// Whatever there is, also nothing.
    Everything,
    Text(Texts),
    Hosts(Box<Hosts>),
    Paths(Texts, Vec<Template>),
    Nets(Nets),
    /// Sorted.
    Ports(Box<[u16]>),
}

impl Set {
    /// The set of `patterns`. `wide`: whether what is in doubt is in it, since nothing is let in by that: a value that
    /// cannot be read stands for everything then, and a host without a port for the host on every port.
    pub fn new(attr: &Attr, patterns: &[Pattern], wide: bool) -> Self {
        if wide && patterns.contains(&Pattern::Unreadable) {
            return Self::Everything;
        }
        let all = || patterns.iter();
        match attr {
            _ if attr.is_address() => Self::Nets(Nets::new(all())),
            Attr::Port => {
                let ports = all().filter_map(|p| match p {
                    Pattern::Port(port) => Some(*port),
                    _ => None,
                });
                let mut ports: Vec<_> = ports.collect();
                ports.sort_unstable();
                Self::Ports(ports.into())
            }
            Attr::Host => Self::Hosts(Box::new(Hosts::new(patterns, wide))),
            Attr::Path => {
                let templates = all().filter_map(|p| match p {
                    Pattern::Template(template) => Some(template.clone()),
                    _ => None,
                });
                Self::Paths(Texts::new(all()), templates.collect())
            }
            _ => Self::Text(Texts::new(all())),
        }
    }

    /// Whether a value is in it.
    pub fn has(&self, value: Value<'_>) -> bool {
        match (self, value) {
            (Self::Everything, _) => true,
            (Self::Text(texts), Value::Text(text)) => texts.have(text),
            (Self::Hosts(hosts), Value::Host(host)) => hosts.have(host),
            (Self::Paths(texts, templates), Value::Text(path)) => {
                texts.have(path) || templates.iter().any(|t| t.matches(path))
            }
            (Self::Nets(nets), Value::Ip(ip)) => nets.have(ip),
            (Self::Ports(ports), Value::Port(port)) => ports.binary_search(&port).is_ok(),
            _ => false,
        }
    }
}

/// Hosts.
#[derive(Debug)]
pub(super) struct Hosts {
    /// Those for every port.
    open: Texts,
    /// Those for the port that goes without saying.
    plain: Texts,
    /// Those with a port.
    with_port: Texts,
}

impl Hosts {
    /// Istio compares the authority with its port: `a.example` is not `a.example:9999`, while `a.*` covers it.
    fn new(patterns: &[Pattern], wide: bool) -> Self {
        let with_port = |p: &&Pattern| match p {
            Pattern::Exact(t) | Pattern::Prefix(t) | Pattern::Suffix(t) => names_port(t),
            _ => false,
        };
        let open = |p: &&Pattern| wide || matches!(p, Pattern::Prefix(_) | Pattern::Present);
        let bare = || patterns.iter().filter(|p| !with_port(p));
        Self {
            open: Texts::new(bare().filter(open)),
            plain: Texts::new(bare().filter(|p| !open(p))),
            with_port: Texts::new(patterns.iter().filter(with_port)),
        }
    }

    fn have(&self, host: Host<'_>) -> bool {
        self.open.have(host.name)
            || host.plain && self.plain.have(host.name)
            || self.with_port.have(host.full)
    }
}

/// Texts: exact ones, prefixes, suffixes, those with stars inside, or any.
#[derive(Debug)]
pub(super) struct Texts {
    any: bool,
    /// Sorted.
    exact: Box<[Str]>,
    prefixes: Affixes<()>,
    suffixes: Affixes<()>,
    globs: Vec<Box<[Str]>>,
}

impl Texts {
    fn new<'p>(patterns: impl Iterator<Item = &'p Pattern>) -> Self {
        let (mut any, mut exact) = (false, Vec::new());
        let (mut prefixes, mut suffixes) = (Vec::new(), Vec::new());
        let mut globs = Vec::new();
        for pattern in patterns {
            match pattern {
                Pattern::Glob(parts) => globs.push(parts.clone()),
                Pattern::Exact(text) => exact.push(text.clone()),
                Pattern::Prefix(text) => prefixes.push(text.clone()),
                Pattern::Suffix(text) => suffixes.push(text.clone()),
                Pattern::Present => any = true,
                _ => {}
            }
        }
        exact.sort_unstable();
        let affixes = |end, mut texts: Vec<Str>| {
            texts.sort_unstable();
            texts.dedup();
            Affixes::new(end, texts.into_iter().map(|text| (text, ())))
        };
        Self {
            any,
            exact: exact.into(),
            prefixes: affixes(End::Prefix, prefixes),
            suffixes: affixes(End::Suffix, suffixes),
            globs,
        }
    }

    fn have(&self, text: &str) -> bool {
        self.any
            || self.exact.binary_search_by(|e| (**e).cmp(text)).is_ok()
            || self.prefixes.covers(text)
            || self.suffixes.covers(text)
            || self.globs.iter().any(|parts| has_form(parts, text))
    }
}

/// Whether a text is the parts in order, with anything between them.
fn has_form(parts: &[Str], text: &str) -> bool {
    let [first, between @ .., last] = parts else {
        return false;
    };
    let ends = text.strip_prefix(&**first);
    let Some(mut rest) = ends.and_then(|rest| rest.strip_suffix(&**last)) else {
        return false;
    };
    // The first place that fits leaves the most for the others.
    for part in between {
        match rest.split_once(&**part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    true
}

/// Networks as ranges that do not meet, in order. IPv4 addresses written as IPv6 ones are IPv4 addresses.
#[derive(Debug)]
pub(super) struct Nets {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Nets {
    fn new<'p>(patterns: impl Iterator<Item = &'p Pattern>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for pattern in patterns {
            match pattern {
                Pattern::Net(IpNet::V4(net)) => v4.push(range4(net)),
                Pattern::Net(IpNet::V6(net)) => v6.push(range6(net)),
                _ => {}
            }
        }
        Self {
            v4: joined(v4),
            v6: joined(v6),
        }
    }

    fn have(&self, ip: IpAddr) -> bool {
        match ip.to_canonical() {
            IpAddr::V4(ip) => within(&self.v4, ip.to_bits()),
            IpAddr::V6(ip) => within(&self.v6, ip.to_bits()),
        }
    }
}

fn range4(net: &Ipv4Net) -> (u32, u32) {
    (net.network().to_bits(), net.broadcast().to_bits())
}

fn range6(net: &Ipv6Net) -> (u128, u128) {
    (net.network().to_bits(), net.broadcast().to_bits())
}

fn joined<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut out: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (from, to) in ranges {
        match out.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => out.push((from, to)),
        }
    }
    out
}

fn within<T: Ord>(ranges: &[(T, T)], value: T) -> bool {
    let after = ranges.partition_point(|(from, _)| *from <= value);
    after.checked_sub(1).is_some_and(|at| value <= ranges[at].1)
}
