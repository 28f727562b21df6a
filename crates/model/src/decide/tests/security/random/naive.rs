//! The verdict read off the policies as they are written: slowly, one after the other.

use super::Asked;
use super::Case;
use crate::decide::authz::Token;
use crate::decide::host;
use crate::identity::SpiffeId;
use crate::mesh::MeshSettings;
use crate::security::*;
use lateen_base::Str;
use std::net::IpAddr;

/// What a case has of every attribute; `None`: bytes have no such thing.
pub type Values = Option<Vec<String>>;

pub struct Seen<'a> {
    pub case: &'a Case,
    pub path: String,
    pub mesh: &'a MeshSettings,
}

impl Seen<'_> {
    fn http(&self, of: impl Fn(&Asked) -> Vec<String>) -> Values {
        self.case.request.as_ref().map(of)
    }

    fn token(&self, of: impl Fn(&Token) -> Vec<String>) -> Values {
        self.http(|r| r.token.as_ref().map(&of).unwrap_or_default())
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
}

fn text(pattern: &str, value: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        _ if pattern == "*" => true,
        (Some(suffix), _) => value.ends_with(suffix),
        (None, Some(prefix)) => value.starts_with(prefix),
        _ => pattern == value,
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
        return (0..=path.len()).any(|at| template(rest, &path[at..]));
    }
    if let Some(rest) = pattern.strip_prefix("{*}") {
        let end = path.find('/').unwrap_or(path.len());
        return (1..=end).any(|at| template(rest, &path[at..]));
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

fn hostname(pattern: &str, authority: &str) -> bool {
    let name = host::canonical(authority).into_owned();
    let full = format!("{name}:{}", host::port_of(authority).unwrap_or(80));
    let pattern = pattern.to_ascii_lowercase();
    text(&pattern, if pattern.contains(':') { &full } else { &name })
}

/// Whether lists say yes: any of `wanted` when there are some, none of `unwanted`. `closed` is what is said of HTTP
/// where there is none.
fn lists<P>(
    values: Values,
    (wanted, unwanted): (&[P], &[P]),
    closed: bool,
    fits: impl Fn(&P, &str) -> bool,
) -> bool {
    if wanted.is_empty() && unwanted.is_empty() {
        return true;
    }
    let Some(values) = values else {
        return closed;
    };
    let any = |list: &[P]| list.iter().any(|p| values.iter().any(|v| fits(p, v)));
    (wanted.is_empty() || any(wanted)) && !any(unwanted)
}

fn address(net: &ipnet::IpNet, value: &str) -> bool {
    net.contains(&value.parse::<IpAddr>().expect("address"))
}

fn source(s: &Source, seen: &Seen<'_>, closed: bool) -> bool {
    let plain = |values, wanted: &[Str], unwanted: &[Str]| {
        lists(values, (wanted, unwanted), closed, |p, v| text(p, v))
    };
    let id = |p: &Str, v: &str| principal(seen.mesh, p, v);
    let ip = || Some(vec![seen.case.source.to_string()]);
    lists(
        seen.peer(|id| Some(id.principal().to_owned())),
        (&s.principals, &s.not_principals),
        closed,
        id,
    ) && plain(
        seen.token(|t| t.principal.clone().into_iter().collect()),
        &s.request_principals,
        &s.not_request_principals,
    ) && plain(
        seen.peer(|id| id.namespace().map(str::to_owned)),
        &s.namespaces,
        &s.not_namespaces,
    ) && plain(seen.account(), &s.service_accounts, &s.not_service_accounts)
        && plain(
            seen.peer(|id| Some(id.trust_domain().to_owned())),
            &s.trust_domains,
            &s.not_trust_domains,
        )
        && lists(ip(), (&s.ip_blocks, &s.not_ip_blocks), closed, address)
        && lists(
            ip(),
            (&s.remote_ip_blocks, &s.not_remote_ip_blocks),
            closed,
            address,
        )
}

fn operation(o: &Operation, seen: &Seen<'_>, closed: bool) -> bool {
    let authority = seen.http(|r| vec![r.authority.clone()]);
    let port = Some(vec![seen.case.port.to_string()]);
    lists(authority, (&o.hosts, &o.not_hosts), closed, |p, v| {
        hostname(p, v)
    }) && lists(port, (&o.ports, &o.not_ports), closed, |p, v| {
        p.to_string() == v
    }) && lists(
        seen.http(|r| vec![r.method.to_owned()]),
        (&o.methods, &o.not_methods),
        closed,
        |p, v| text(p, v),
    ) && lists(
        seen.http(|_| vec![seen.path.clone()]),
        (&o.paths, &o.not_paths),
        closed,
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

fn condition(c: &Condition, seen: &Seen<'_>, closed: bool) -> bool {
    let values = match &c.attribute {
        Attribute::RequestHeader(name) => seen.http(|r| {
            let all = r
                .headers
                .iter()
                .filter(|(n, _)| n.eq_ignore_ascii_case(name));
            all.map(|(_, v)| (*v).to_owned()).collect()
        }),
        Attribute::SourceIp | Attribute::RemoteIp => Some(vec![seen.case.source.to_string()]),
        Attribute::SourceNamespace => seen.peer(|id| id.namespace().map(str::to_owned)),
        Attribute::SourceServiceAccount => seen.account(),
        Attribute::SourceTrustDomain => seen.peer(|id| Some(id.trust_domain().to_owned())),
        Attribute::SourcePrincipal => seen.peer(|id| Some(id.principal().to_owned())),
        Attribute::RequestPrincipal => seen.token(|t| t.principal.clone().into_iter().collect()),
        Attribute::RequestAudiences => seen.token(|t| t.audiences.clone()),
        Attribute::RequestPresenter => seen.token(|t| t.presenter.clone().into_iter().collect()),
        Attribute::RequestClaim(path) => seen.token(|t| claim(t, path)),
        Attribute::DestinationIp => Some(vec!["10.244.0.5".to_owned()]),
        Attribute::DestinationPort => Some(vec![seen.case.port.to_string()]),
        Attribute::ServerName => {
            let name = seen.case.peer.server_name.to_string();
            Some(Some(name).filter(|n| !n.is_empty()).into_iter().collect())
        }
    };
    let is_address = matches!(
        c.attribute,
        Attribute::SourceIp | Attribute::RemoteIp | Attribute::DestinationIp
    );
    lists(
        values,
        (&c.values, &c.not_values),
        closed,
        |p, v| match &c.attribute {
            Attribute::SourcePrincipal => principal(seen.mesh, p, v),
            _ if is_address => address(&p.parse().expect("network"), v),
            _ => text(p, v),
        },
    )
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

pub fn rule(policy: &AuthorizationPolicy, rule: &Rule, seen: &Seen<'_>) -> bool {
    let closed = policy.action != Action::Allow;
    if seen.case.request.is_none() && !closed && speaks_http(rule) {
        return false;
    }
    (rule.from.is_empty() || rule.from.iter().any(|s| source(s, seen, closed)))
        && (rule.to.is_empty() || rule.to.iter().any(|o| operation(o, seen, closed)))
        && rule.when.iter().all(|c| condition(c, seen, closed))
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
