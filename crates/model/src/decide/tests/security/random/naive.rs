//! The verdict read off the policies as they are written: slowly, one after the other, and with rules for hosts, paths,
//! issuers and namespaces of its own.

use super::Asked;
use super::Case;
use crate::decide::authz::Token;
use crate::identity::SpiffeId;
use crate::mesh::MeshSettings;
use crate::security::*;
use lateen_base::Str;
use std::net::IpAddr;

/// What a case has of every attribute; `None`: bytes have no such thing.
pub type Values = Option<Vec<String>>;

pub struct Seen<'a> {
    pub case: &'a Case,
    /// The path and query that the upstream understands.
    pub target: String,
    pub mesh: &'a MeshSettings,
}

/// What is said where it is in doubt.
#[derive(Clone, Copy)]
struct Doubt {
    /// Whether HTTP's parts of a rule fit bytes.
    closed: bool,
}

impl Seen<'_> {
    fn http(&self, of: impl Fn(&Asked) -> Vec<String>) -> Values {
        self.case.request.as_ref().map(of)
    }

    fn token(&self, of: impl Fn(&Token) -> Vec<String>) -> Values {
        self.http(|r| r.token.as_ref().map(&of).unwrap_or_default())
    }

    /// Issuer and subject, on two lines.
    fn caller(&self) -> Values {
        self.token(|t| {
            let both = t.issuer.as_ref().zip(t.subject.as_ref());
            both.map(|(i, s)| format!("{i}\n{s}")).into_iter().collect()
        })
    }

    fn peer(&self, of: impl Fn(&SpiffeId) -> Option<String>) -> Values {
        Some(
            self.case
                .peer
                .identity
                .as_ref()
                .and_then(of)
                .into_iter()
                .collect(),
        )
    }

    fn account(&self) -> Values {
        self.peer(|id| Some(format!("{}/{}", id.namespace()?, id.service_account()?)))
    }

    fn source(&self) -> Values {
        Some(vec![self.case.source.to_string()])
    }

    fn remote(&self) -> Values {
        let remote = self.case.request.as_ref().map(|r| r.remote);
        Some(vec![remote.unwrap_or(self.case.source).to_string()])
    }
}

fn text(pattern: &str, value: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        _ if pattern == "*" => true,
        (Some(suffix), _) => value.ends_with(suffix),
        (None, Some(prefix)) => value.starts_with(prefix),
        _ => pattern == value,
    }
}

fn glob(pattern: &str, value: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(rest) => (0..=value.len()).any(|at| glob(rest, &value[at..])),
        None => match (pattern.chars().next(), value.chars().next()) {
            (None, None) => true,
            (Some(a), Some(b)) => a == b && glob(&pattern[1..], &value[1..]),
            _ => false,
        },
    }
}

/// Istio's `requestPrincipalGenerator`, case by case.
fn caller(pattern: &str, value: &str) -> bool {
    let (issuer, subject) = value.split_once('\n').expect("two lines");
    let slash = pattern.rfind('/');
    let (left, right) = match slash {
        Some(at) => (&pattern[..at], &pattern[at + 1..]),
        None => (pattern, ""),
    };
    let begins = pattern.starts_with('*');
    let ends = pattern.ends_with('*');
    match (begins, ends, slash) {
        _ if pattern == "*" => true,
        (true, _, Some(_)) => issuer.ends_with(&left[1..]) && subject == right,
        (true, _, None) => subject.ends_with(&pattern[1..]),
        (_, true, Some(_)) => issuer == left && subject.starts_with(&right[..right.len() - 1]),
        (_, true, None) => issuer.starts_with(&pattern[..pattern.len() - 1]),
        _ => issuer == left && subject == right,
    }
}

fn principal(mesh: &MeshSettings, pattern: &str, value: &str) -> bool {
    let own =
        |d: &str| *d == *mesh.trust_domain || mesh.trust_domain_aliases.iter().any(|a| **a == *d);
    let (domain, rest) = pattern.split_once('/').unwrap_or(("*", ""));
    if domain == "*" || !(own(domain) || domain == "cluster.local") {
        return text(pattern, value);
    }
    let (theirs, name) = value.split_once('/').unwrap_or_default();
    own(theirs) && text(rest, name)
}

fn template(pattern: &str, path: &str) -> bool {
    if let Some(rest) = pattern.strip_prefix("{**}") {
        let mut ends = (0..=path.len()).filter(|at| path.is_char_boundary(*at));
        return ends.any(|at| template(rest, &path[at..]));
    }
    if let Some(rest) = pattern.strip_prefix("{*}") {
        let end = path.find('/').unwrap_or(path.len());
        let mut ends = (1..=end).filter(|at| path.is_char_boundary(*at));
        return ends.any(|at| template(rest, &path[at..]));
    }
    match (pattern.chars().next(), path.chars().next()) {
        (None, None) => true,
        (Some(a), Some(b)) if a == b => template(&pattern[a.len_utf8()..], &path[b.len_utf8()..]),
        _ => false,
    }
}

fn path(pattern: &str, value: &str) -> bool {
    match pattern.contains("{*") {
        true => template(pattern, value),
        false => text(pattern, value),
    }
}

/// The name of a host in lower case and without dot at its end, and the port that it was called at, if it says one.
fn host(authority: &str) -> (String, Option<u16>) {
    let lower = authority.to_ascii_lowercase();
    let (name, port) = match lower.rfind(':') {
        Some(at) if !lower[at..].contains(']') => (&lower[..at], lower[at + 1..].parse().ok()),
        _ => (&lower[..], None),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    (name.to_owned(), port)
}

/// `wide`: whether a host without port is meant at each port.
fn hostname(pattern: &str, asked: &Asked, wide: bool) -> bool {
    let usual = if asked.scheme == "https" { 443 } else { 80 };
    let (name, port) = host(&asked.authority);
    let pattern = pattern.to_ascii_lowercase();
    if pattern.contains(':') {
        return text(&pattern, &format!("{name}:{}", port.unwrap_or(usual)));
    }
    let any_port = wide || pattern.ends_with('*') || port.is_none_or(|port| port == usual);
    any_port && text(&pattern, &name)
}

/// Whether lists say yes: any of `wanted` when there are some, none of `unwanted`.
fn lists<P>(
    values: Values,
    (wanted, unwanted): (&[P], &[P]),
    doubt: Doubt,
    fits: impl Fn(&P, &str) -> bool,
) -> bool {
    if wanted.is_empty() && unwanted.is_empty() {
        return true;
    }
    let Some(values) = values else {
        return doubt.closed;
    };
    let any = |list: &[P]| list.iter().any(|p| values.iter().any(|v| fits(p, v)));
    (wanted.is_empty() || any(wanted)) && !any(unwanted)
}

fn hosts(seen: &Seen<'_>, (wanted, unwanted): (&[Str], &[Str]), doubt: Doubt) -> bool {
    if wanted.is_empty() && unwanted.is_empty() {
        return true;
    }
    let Some(asked) = &seen.case.request else {
        return doubt.closed;
    };
    let any = |list: &[Str], wide| list.iter().any(|p| hostname(p, asked, wide));
    (wanted.is_empty() || any(wanted, doubt.closed)) && !any(unwanted, !doubt.closed)
}

fn address(net: &ipnet::IpNet, value: &str) -> bool {
    let ip: IpAddr = value.parse().expect("address");
    // A network of IPv4 addresses may be written as one of IPv6 addresses, and so may the address.
    let mapped = match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V6(ip.to_ipv6_mapped()),
        ip => ip,
    };
    net.contains(&ip.to_canonical()) || net.contains(&mapped)
}

fn source(s: &Source, seen: &Seen<'_>, doubt: Doubt) -> bool {
    let plain = |values, wanted: &[Str], unwanted: &[Str]| {
        lists(values, (wanted, unwanted), doubt, |p, v| text(p, v))
    };
    let with = |values, lists_: (&[Str], &[Str]), fits: &dyn Fn(&str, &str) -> bool| {
        lists(values, lists_, doubt, |p, v| fits(p, v))
    };
    let id = |p: &str, v: &str| principal(seen.mesh, p, v);
    with(
        seen.peer(|id| Some(id.principal().to_owned())),
        (&s.principals, &s.not_principals),
        &id,
    ) && with(
        seen.caller(),
        (&s.request_principals, &s.not_request_principals),
        &caller,
    ) && with(
        seen.peer(|id| id.namespace().map(str::to_owned)),
        (&s.namespaces, &s.not_namespaces),
        &glob,
    ) && plain(seen.account(), &s.service_accounts, &s.not_service_accounts)
        && plain(
            seen.peer(|id| Some(id.trust_domain().to_owned())),
            &s.trust_domains,
            &s.not_trust_domains,
        )
        && lists(
            seen.source(),
            (&s.ip_blocks, &s.not_ip_blocks),
            doubt,
            address,
        )
        && lists(
            seen.remote(),
            (&s.remote_ip_blocks, &s.not_remote_ip_blocks),
            doubt,
            address,
        )
}

fn operation(o: &Operation, seen: &Seen<'_>, doubt: Doubt) -> bool {
    let port = Some(vec![seen.case.port.to_string()]);
    hosts(seen, (&o.hosts, &o.not_hosts), doubt)
        && lists(port, (&o.ports, &o.not_ports), doubt, |p, v| {
            p.to_string() == v
        })
        && lists(
            seen.http(|r| vec![r.method.to_owned()]),
            (&o.methods, &o.not_methods),
            doubt,
            |p, v| text(p, v),
        )
        && lists(
            seen.http(|_| vec![seen.target.split('?').next().unwrap_or_default().to_owned()]),
            (&o.paths, &o.not_paths),
            doubt,
            |p, v| path(p, v),
        )
}

fn claim(token: &Token, path: &[Str]) -> Vec<String> {
    let mut at = serde_json::Value::Object(token.claims.clone());
    for name in path {
        at = at.get(&**name).cloned().unwrap_or_default();
    }
    let texts = match at {
        serde_json::Value::Array(all) => all,
        one => vec![one],
    };
    texts
        .iter()
        .filter_map(|v| v.as_str().map(str::to_owned))
        .collect()
}

fn header(seen: &Seen<'_>, name: &str) -> Values {
    seen.http(|r| match name {
        ":path" => vec![seen.target.clone()],
        ":method" => vec![r.method.to_owned()],
        ":scheme" => vec![r.scheme.to_owned()],
        _ => {
            let all = r
                .headers
                .iter()
                .filter(|(n, _)| n.eq_ignore_ascii_case(name));
            all.map(|(_, v)| (*v).to_owned()).collect()
        }
    })
}

fn values(attribute: &Attribute, seen: &Seen<'_>) -> Values {
    match attribute {
        Attribute::RequestHeader(name) => header(seen, name),
        Attribute::SourceIp => seen.source(),
        Attribute::RemoteIp => seen.remote(),
        Attribute::SourceNamespace => seen.peer(|id| id.namespace().map(str::to_owned)),
        Attribute::SourceServiceAccount => seen.account(),
        Attribute::SourceTrustDomain => seen.peer(|id| Some(id.trust_domain().to_owned())),
        Attribute::SourcePrincipal => seen.peer(|id| Some(id.principal().to_owned())),
        Attribute::RequestPrincipal => seen.caller(),
        Attribute::RequestAudiences => seen.token(|t| t.audiences.clone()),
        Attribute::RequestPresenter => seen.token(|t| t.presenter.clone().into_iter().collect()),
        Attribute::RequestClaim(path) => seen.token(|t| claim(t, path)),
        Attribute::DestinationIp => Some(vec!["10.244.0.5".to_owned()]),
        Attribute::DestinationPort => Some(vec![seen.case.port.to_string()]),
        Attribute::ServerName => {
            let name = seen.case.peer.server_name.to_string();
            Some(Some(name).filter(|n| !n.is_empty()).into_iter().collect())
        }
    }
}

fn condition(c: &Condition, seen: &Seen<'_>, doubt: Doubt) -> bool {
    let both = (&c.values[..], &c.not_values[..]);
    if matches!(&c.attribute, Attribute::RequestHeader(name) if &**name == ":authority") {
        return hosts(seen, both, doubt);
    }
    let values = values(&c.attribute, seen);
    lists(values, both, doubt, |p, v| match &c.attribute {
        Attribute::SourcePrincipal => principal(seen.mesh, p, v),
        Attribute::RequestPrincipal => caller(p, v),
        Attribute::SourceNamespace => glob(p, v),
        Attribute::SourceIp | Attribute::RemoteIp | Attribute::DestinationIp => {
            address(&p.parse().expect("network"), v)
        }
        _ => text(p, v),
    })
}

/// Whether a rule says anything that bytes do not have.
fn speaks_http(rule: &Rule) -> bool {
    rule.to.iter().any(Operation::is_http)
        || rule
            .from
            .iter()
            .any(|s| !s.request_principals.is_empty() || !s.not_request_principals.is_empty())
        || rule
            .when
            .iter()
            .any(|c| c.attribute.is_http() && c.attribute != Attribute::RemoteIp)
}

fn rule(policy: &AuthorizationPolicy, rule: &Rule, seen: &Seen<'_>) -> bool {
    let closed = policy.action != Action::Allow;
    if seen.case.request.is_none() && !closed && speaks_http(rule) {
        return false;
    }
    let doubt = Doubt { closed };
    (rule.from.is_empty() || rule.from.iter().any(|s| source(s, seen, doubt)))
        && (rule.to.is_empty() || rule.to.iter().any(|o| operation(o, seen, doubt)))
        && rule.when.iter().all(|c| condition(c, seen, doubt))
}

/// Positions of the rules of `policies` that match, with their policy's.
pub fn matching(policies: &[AuthorizationPolicy], seen: &Seen<'_>) -> Vec<(usize, usize)> {
    let rules = policies.iter().enumerate().flat_map(|(at, policy)| {
        let rules = policy.rules.iter().enumerate();
        let fits = rules.filter(move |(_, r)| rule(policy, r, seen));
        fits.map(move |(number, _)| (at, number))
    });
    rules.collect()
}
