//! Policies and requests drawn from few words, so that they often meet.

use super::{Asked, Case};
use crate::decide::authz::Token;
use crate::decide::plan::{Direction, Peer};
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
    "td3/ns/b/sa/y",
    "far/ns/a/sa/x",
    "td1/ns/a/*",
    "*/sa/y",
    "*",
    "far/*",
];
const NAMES: &[&str] = &["a", "b", "*", "a*", "*b", "c", "a*b", "*-*", "a*-*b"];
const CALLERS: &[&str] = &[
    "https://i/me",
    "https://i/*",
    "https://i/a/*",
    "https://i/m*",
    "*/me",
    "*i/a/me",
    "*e",
    "https*",
    "*",
    "*/*",
    "me",
];
const DOMAINS: &[&str] = &["td1", "td*", "far", "*1"];
const ACCOUNTS: &[&str] = &["a/x", "b/y"];
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
    "/a%2Fb",
    "/a%2fb*",
];
/// Pieces of targets in which what matters is frequent.
const PIECES: &[&str] = &[
    "/", "/", "//", "a", "b", "c", "x", ".", "..", "%2e", "%2E%2e", "%61", "%62", "%2f", "%2F",
    "%5c", "\\", "A", "%25", "%2561", "é", "%c3%a9", "%00", "%4", ";",
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
            "::ffff:10.1.0.0/112",
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
        texts(ACCOUNTS),
        texts(CALLERS),
    );
    let second = (
        texts(CALLERS),
        texts(DOMAINS),
        nets(),
        nets(),
        nets(),
        texts(ACCOUNTS),
    );
    let third = (texts(DOMAINS), nets());
    // Lists of unwanted values rule out too much to be there often.
    fn rare<T>(list: Vec<T>) -> Vec<T> {
        if list.len() > 1 { list } else { Vec::new() }
    }
    (first, second, third).prop_map(|(a, b, c)| Source {
        principals: a.0,
        not_principals: rare(a.1),
        namespaces: a.2,
        not_namespaces: rare(a.3),
        service_accounts: a.4,
        request_principals: a.5,
        not_request_principals: b.0,
        trust_domains: b.1,
        ip_blocks: b.2,
        not_ip_blocks: rare(b.3),
        remote_ip_blocks: b.4,
        not_service_accounts: b.5,
        not_trust_domains: rare(c.0),
        not_remote_ip_blocks: rare(c.1),
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
        text(
            Attribute::RequestHeader(":path".into()),
            &["/a*", "*/b", "/x?q", "*?q", "/a"]
        ),
        text(Attribute::RequestHeader(":method".into()), &["GET", "P*"]),
        text(Attribute::RequestHeader(":authority".into()), HOSTS),
        text(Attribute::RequestHeader(":scheme".into()), &["https"]),
        text(Attribute::RequestPrincipal, CALLERS),
        text(Attribute::SourceTrustDomain, DOMAINS),
        text(Attribute::SourceServiceAccount, ACCOUNTS),
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
    let dry = prop::bool::weighted(0.25);
    let policy = (action, dry, prop::collection::vec(rules(), 0..=3));
    prop::collection::vec(policy, 0..=6).prop_map(|list| {
        let policies = list
            .into_iter()
            .enumerate()
            .map(|(at, (action, dry_run, rules))| AuthorizationPolicy {
                origin: Origin {
                    kind: "AuthorizationPolicy".into(),
                    namespace: "default".into(),
                    name: format!("p{at}").into(),
                    created: at as u64,
                },
                selection: Selection::default(),
                visibility: Visibility::Public,
                action,
                dry_run,
                rules,
            });
        policies.collect()
    })
}

fn tokens() -> impl Strategy<Value = Token> {
    (
        prop::option::weighted(0.9, select(vec!["https://i", "https://i/a", "me.org"])),
        prop::option::weighted(0.9, select(vec!["me", "mine", "x", "*"])),
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
        .prop_map(|(issuer, subject, audiences, presenter, claims)| Token {
            issuer: issuer.map(str::to_owned),
            subject: subject.map(str::to_owned),
            audiences: audiences.iter().map(ToString::to_string).collect(),
            presenter: presenter.first().map(ToString::to_string),
            claims: serde_json::from_str(claims).expect("JSON"),
        })
}

fn addresses() -> impl Strategy<Value = std::net::IpAddr> {
    select(vec![
        "10.1.2.3",
        "10.2.0.1",
        "192.0.2.7",
        "2001:db8::1",
        "203.0.113.9",
        "::ffff:10.1.2.3",
    ])
    .prop_map(|text| text.parse().expect("address"))
}

fn targets() -> impl Strategy<Value = String> {
    let pieces = prop::collection::vec(select(PIECES.to_vec()), 0..7);
    let raw = (
        pieces,
        prop::option::weighted(0.3, select(vec!["q", "/a", "q=/../b"])),
    );
    let raw = raw.prop_map(|(pieces, query)| {
        let query = query.map_or(String::new(), |q| format!("?{q}"));
        format!("/{}{query}", pieces.concat())
    });
    prop_oneof![
        1 => raw,
        1 => select(vec!["/", "/a", "/a/b", "/a/b/c", "/a/x/c", "/x", "/x?q", "/a/"]).prop_map(str::to_owned),
    ]
}

fn asked() -> impl Strategy<Value = Asked> {
    (
        select(vec!["GET", "POST", "PUT", "DELETE"]),
        prop_oneof![4 => Just("http"), 1 => Just("https")],
        select(vec![
            "a.example",
            "A.Example.",
            "b.example:80",
            "b.example:443",
            "c.example:8080",
            "x.org",
            "a.example:8080",
            "a.b",
        ]),
        targets(),
        some(&[("x-a", "1"), ("X-A", "22"), ("x-b", "1")], 3),
        addresses(),
        prop::option::of(tokens()),
    )
        .prop_map(
            |(method, scheme, authority, target, headers, remote, token)| Asked {
                method,
                scheme,
                authority: authority.to_owned(),
                target,
                headers,
                remote,
                token,
            },
        )
}

pub fn cases() -> impl Strategy<Value = Case> {
    let identity = prop::option::of(select(vec![
        "td1/ns/a/sa/x",
        "td2/ns/a/sa/x",
        "td3/ns/a/sa/x",
        "td1/ns/b/sa/y",
        "far/ns/a/sa/x",
        "cluster.local/ns/b/sa/y",
        "td1/ns/a-b/sa/x",
        "td2/other",
    ]));
    (
        prop_oneof![3 => Just(Direction::Inbound), 1 => Just(Direction::Gateway)],
        addresses(),
        select(vec![80u16, 8080, 3306]),
        identity,
        select(vec!["", "a.example", "b.org"]),
        prop::option::weighted(0.7, asked()),
    )
        .prop_map(|(direction, source, port, identity, sni, request)| Case {
            direction,
            source,
            // The gateway has one.
            port: if direction == Direction::Gateway {
                80
            } else {
                port
            },
            peer: Peer {
                identity: identity.map(|p| SpiffeId::parse(&format!("spiffe://{p}")).expect("id")),
                server_name: sni.into(),
                alpn: "".into(),
                tls: true,
            },
            request,
        })
}
