//! Policies and requests drawn from few words, so that they often meet.

use super::{Asked, Case};
use crate::decide::authz::Token;
use crate::decide::plan::Peer;
use crate::identity::SpiffeId;
use crate::name::{Origin, Visibility};
use crate::security::*;
use lateen_base::Str;
use proptest::prelude::*;
use proptest::sample::select;

const PRINCIPALS: &[&str] = &[
    "td1/ns/a/sa/x",
    "td2/ns/a/sa/x",
    "cluster.local/ns/b/sa/y",
    "td1/ns/b/sa/y",
    "far/ns/a/sa/x",
    "td1/ns/a/*",
    "*/sa/y",
    "*",
    "far/*",
];
const NAMES: &[&str] = &["a", "b", "*", "a*", "*b", "c"];
const HOSTS: &[&str] = &[
    "a.example",
    "B.example",
    "*.example",
    "a.*",
    "*",
    "a.example:8080",
    "*:80",
    "b.example:*",
    "x.org",
];
const PATHS: &[&str] = &[
    "/",
    "/a",
    "/a/*",
    "/a/b*",
    "*/b",
    "*",
    "/a/{*}",
    "/a/{*}/c",
    "/{**}",
    "/a/{**}/c",
    "/{*}/b",
    "/x",
];

fn some<T: Clone + std::fmt::Debug + 'static>(
    of: &[T],
    most: usize,
) -> impl Strategy<Value = Vec<T>> + use<T> {
    prop_oneof![
        2 => Just(Vec::new()),
        1 => prop::collection::vec(select(of.to_vec()), 1..=most),
    ]
}

fn texts(of: &[&'static str]) -> impl Strategy<Value = Vec<Str>> + use<> {
    some(of, 3).prop_map(|list| list.into_iter().map(Str::from).collect())
}

fn nets() -> impl Strategy<Value = Vec<ipnet::IpNet>> {
    some(
        &[
            "10.0.0.0/8",
            "10.1.0.0/16",
            "192.0.2.7/32",
            "2001:db8::/32",
            "0.0.0.0/0",
        ],
        3,
    )
    .prop_map(|list| list.iter().map(|n| n.parse().expect("network")).collect())
}

fn sources() -> impl Strategy<Value = Source> {
    let first = (
        texts(PRINCIPALS),
        texts(PRINCIPALS),
        texts(NAMES),
        texts(NAMES),
        texts(&["a/x", "b/y"]),
        texts(&["iss/me", "iss/*", "*"]),
    );
    let second = (
        texts(&["iss/me", "*"]),
        texts(&["td1", "far"]),
        nets(),
        nets(),
        nets(),
        texts(&["b/y"]),
    );
    (first, second).prop_map(|(a, b)| Source {
        principals: a.0,
        not_principals: if a.1.len() > 1 { a.1 } else { Vec::new() },
        namespaces: a.2,
        not_namespaces: if a.3.len() > 1 { a.3 } else { Vec::new() },
        service_accounts: a.4,
        request_principals: a.5,
        not_request_principals: b.0,
        trust_domains: b.1,
        ip_blocks: b.2,
        not_ip_blocks: if b.3.len() > 1 { b.3 } else { Vec::new() },
        remote_ip_blocks: b.4,
        not_service_accounts: b.5,
        ..Source::default()
    })
}

fn operations() -> impl Strategy<Value = Operation> {
    let ports = || some(&[80u16, 8080, 3306], 2);
    (
        texts(HOSTS),
        texts(HOSTS),
        ports(),
        ports(),
        texts(&["GET", "P*", "*T", "*"]),
        texts(&["POST"]),
        texts(PATHS),
        texts(PATHS),
    )
        .prop_map(|o| Operation {
            hosts: o.0,
            not_hosts: if o.1.len() > 1 { o.1 } else { Vec::new() },
            ports: o.2,
            not_ports: if o.3.len() > 1 { o.3 } else { Vec::new() },
            methods: o.4,
            not_methods: o.5,
            paths: o.6,
            not_paths: if o.7.len() > 1 { o.7 } else { Vec::new() },
        })
}

fn conditions() -> impl Strategy<Value = Condition> {
    let text = |attribute: Attribute, of: &[&'static str]| {
        (Just(attribute), texts(of), texts(of)).prop_map(|(attribute, values, not_values)| {
            Condition {
                attribute,
                values,
                not_values,
            }
        })
    };
    let nets = &["10.0.0.0/8", "10.1.0.0/16", "192.0.2.7/32"];
    prop_oneof![
        text(Attribute::RequestHeader("X-A".into()), &["1", "2*", "*"]),
        text(Attribute::SourceIp, nets),
        text(Attribute::RemoteIp, nets),
        text(Attribute::DestinationIp, &["10.244.0.0/16", "10.0.0.1/32"]),
        text(Attribute::SourcePrincipal, PRINCIPALS),
        text(Attribute::SourceNamespace, NAMES),
        text(Attribute::RequestAudiences, &["one", "t*"]),
        text(Attribute::RequestPresenter, &["me"]),
        text(Attribute::RequestClaim(vec!["g".into()]), &["admin", "*"]),
        text(
            Attribute::RequestClaim(vec!["r".into(), "s".into()]),
            &["deep", "d*"]
        ),
        text(Attribute::DestinationPort, &["80", "3306"]),
        text(Attribute::ServerName, &["a.example", "*.example"]),
    ]
}

fn rules() -> impl Strategy<Value = Rule> {
    let few = 0..=2usize;
    (
        prop::collection::vec(sources(), few.clone()),
        prop::collection::vec(operations(), few.clone()),
        prop::collection::vec(conditions(), few),
    )
        .prop_map(|(from, to, when)| Rule { from, to, when })
}

pub fn policies() -> impl Strategy<Value = Vec<AuthorizationPolicy>> {
    let action = prop_oneof![
        3 => Just(Action::Allow),
        3 => Just(Action::Deny),
        1 => Just(Action::Audit),
        1 => Just(Action::Custom { provider: "p1".into() }),
        1 => Just(Action::Custom { provider: "p2".into() }),
    ];
    let policy = (action, prop::collection::vec(rules(), 0..=3));
    prop::collection::vec(policy, 0..=6).prop_map(|list| {
        let policies =
            list.into_iter()
                .enumerate()
                .map(|(at, (action, rules))| AuthorizationPolicy {
                    origin: Origin {
                        kind: "AuthorizationPolicy".into(),
                        namespace: "default".into(),
                        name: format!("p{at}").into(),
                        created: at as u64,
                    },
                    selection: Selection::default(),
                    visibility: Visibility::Public,
                    action,
                    dry_run: false,
                    rules,
                });
        policies.collect()
    })
}

fn tokens() -> impl Strategy<Value = Token> {
    (
        some(&["iss/me", "other/x"], 1),
        some(&["one", "two", "x"], 2),
        some(&["me", "you"], 1),
        select(vec![
            r#"{}"#,
            r#"{"g":"admin"}"#,
            r#"{"g":["user","admin"],"r":{"s":"deep"}}"#,
            r#"{"g":7,"r":{"s":["x","deeper"]}}"#,
            r#"{"r":"deep"}"#,
        ]),
    )
        .prop_map(|(principal, audiences, presenter, claims)| Token {
            principal: principal.first().map(ToString::to_string),
            audiences: audiences.iter().map(ToString::to_string).collect(),
            presenter: presenter.first().map(ToString::to_string),
            claims: serde_json::from_str(claims).expect("JSON"),
        })
}

pub fn cases() -> impl Strategy<Value = Case> {
    let asked = (
        select(vec!["GET", "POST", "PUT", "DELETE"]),
        select(vec![
            "a.example",
            "A.Example.",
            "b.example:80",
            "c.example:8080",
            "x.org",
            "a.example:8080",
            "a.b",
        ]),
        select(vec![
            "/",
            "/a",
            "/a?q=/x",
            "/a/b",
            "/a/b/c",
            "/a/x/c",
            "/x/../a",
            "/%61/b",
            "/x",
            "/a//c",
            "/a/",
            "/y\\..\\x",
        ]),
        some(&[("x-a", "1"), ("X-A", "22"), ("x-b", "1")], 3),
        prop::option::of(tokens()),
    )
        .prop_map(|(method, authority, path, headers, token)| Asked {
            method,
            authority: authority.to_owned(),
            path: path.to_owned(),
            headers,
            token,
        });
    let identity = prop::option::of(select(vec![
        "td1/ns/a/sa/x",
        "td2/ns/a/sa/x",
        "td1/ns/b/sa/y",
        "far/ns/a/sa/x",
        "cluster.local/ns/b/sa/y",
        "td2/other",
    ]));
    (
        select(vec![
            "10.1.2.3",
            "10.2.0.1",
            "192.0.2.7",
            "2001:db8::1",
            "203.0.113.9",
        ]),
        select(vec![80u16, 8080, 3306]),
        identity,
        select(vec!["", "a.example", "b.org"]),
        prop::option::weighted(0.7, asked),
    )
        .prop_map(|(source, port, identity, sni, request)| Case {
            source: source.parse().expect("address"),
            port,
            peer: Peer {
                identity: identity.map(|p| SpiffeId::parse(&format!("spiffe://{p}")).expect("id")),
                server_name: sni.into(),
                alpn: "".into(),
                tls: true,
            },
            request,
        })
}
