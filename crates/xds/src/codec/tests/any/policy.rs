//! Authorization policies.

use super::security::selection;
use super::{ip, name, origin, text, visibility};
use ipnet::IpNet;
use lateen_base::Str;
use lateen_model::security::*;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

pub fn policy() -> impl Strategy<Value = AuthorizationPolicy> {
    let action = prop_oneof![
        select(vec![Action::Allow, Action::Deny, Action::Audit]),
        name().prop_map(|provider| Action::Custom { provider }),
    ];
    (
        (origin(), selection(), visibility()),
        (action, any::<bool>(), vec(rule(), 0..3)),
    )
        .prop_map(|(a, b)| AuthorizationPolicy {
            origin: a.0,
            selection: a.1,
            visibility: a.2,
            action: b.0,
            dry_run: b.1,
            rules: b.2,
        })
}

fn rule() -> impl Strategy<Value = Rule> {
    (
        vec(source(), 0..2),
        vec(operation(), 0..2),
        vec(condition(), 0..3),
    )
        .prop_map(|(from, to, when)| Rule { from, to, when })
}

fn names() -> impl Strategy<Value = Vec<Str>> {
    vec(text(), 0..3)
}

fn source() -> impl Strategy<Value = Source> {
    let net =
        || (ip(), 0..=32u8).prop_map(|(ip, prefix)| IpNet::new(ip, prefix).expect("it fits both"));
    let nets = || vec(net(), 0..2);
    (
        (names(), names(), names(), names(), names()),
        (names(), names(), names(), names(), names()),
        (nets(), nets(), nets(), nets()),
    )
        .prop_map(|(a, b, c)| Source {
            principals: a.0,
            not_principals: a.1,
            request_principals: a.2,
            not_request_principals: a.3,
            namespaces: a.4,
            not_namespaces: b.0,
            service_accounts: b.1,
            not_service_accounts: b.2,
            trust_domains: b.3,
            not_trust_domains: b.4,
            ip_blocks: c.0,
            not_ip_blocks: c.1,
            remote_ip_blocks: c.2,
            not_remote_ip_blocks: c.3,
        })
}

fn operation() -> impl Strategy<Value = Operation> {
    let ports = || vec(any::<u16>(), 0..3);
    (
        (names(), names(), ports(), ports()),
        (names(), names(), names(), names()),
    )
        .prop_map(|(a, b)| Operation {
            hosts: a.0,
            not_hosts: a.1,
            ports: a.2,
            not_ports: a.3,
            methods: b.0,
            not_methods: b.1,
            paths: b.2,
            not_paths: b.3,
        })
}

fn condition() -> impl Strategy<Value = Condition> {
    let attribute = prop_oneof![
        name().prop_map(Attribute::RequestHeader),
        vec(text(), 1..3).prop_map(Attribute::RequestClaim),
        select(vec![
            Attribute::SourceIp,
            Attribute::RemoteIp,
            Attribute::SourceNamespace,
            Attribute::SourceServiceAccount,
            Attribute::SourceTrustDomain,
            Attribute::SourcePrincipal,
            Attribute::RequestPrincipal,
            Attribute::RequestAudiences,
            Attribute::RequestPresenter,
            Attribute::DestinationIp,
            Attribute::DestinationPort,
            Attribute::ServerName,
        ]),
    ];
    (attribute, names(), names()).prop_map(|(attribute, values, not_values)| Condition {
        attribute,
        values,
        not_values,
    })
}
