//! Random policies and requests: the compiled form says what the policies say when they are simply read, one after the
//! other; and what was authorized is what is sent on.

use crate::decide::authz::{RequestFacts, Ruling, Token, Verdict, admit, authorize};
use crate::decide::canonical;
use crate::decide::host;
use crate::decide::plan::{ConnectionFacts, Direction, Peer, RequestHead, RequestPlan};
use crate::decide::resources::ResourceSet;
use crate::decide::snapshot::Snapshot;
use crate::decide::tests::mesh;
use crate::identity::SpiffeId;
use crate::mesh::{MeshSettings, PathNormalization};
use crate::name::{Origin, Visibility};
use crate::resource::Resource;
use crate::security::*;
use http::{HeaderMap, HeaderValue};
use lateen_base::Str;
use proptest::prelude::*;
use proptest::sample::select;
use std::net::IpAddr;

/// A connection, and a request unless it is bytes.
#[derive(Debug, Clone)]
struct Case {
    source: IpAddr,
    port: u16,
    peer: Peer,
    request: Option<Asked>,
}

#[derive(Debug, Clone)]
struct Asked {
    method: &'static str,
    authority: String,
    path: String,
    headers: Vec<(&'static str, &'static str)>,
    token: Option<Token>,
}

mod naive {
    //! The verdict read off the policies as they are written.

    use super::*;

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
        let own = |d: &str| {
            *d == *mesh.trust_domain || mesh.trust_domain_aliases.iter().any(|a| **a == *d)
        };
        let (domain, rest) = pattern.split_once('/').unwrap_or(("*", ""));
        if domain == "*" || !(own(domain) || domain == "cluster.local") {
            return text(pattern, value);
        }
        let (theirs, name) = value.split_once('/').unwrap_or_default();
        own(theirs) && text(rest, name)
    }

    fn template(pattern: &str, path: &str) -> bool {
        let mut regex = regex::escape(pattern);
        regex = regex.replace(r"\{\*\*\}", ".*").replace(r"\{\*\}", "[^/]+");
        regex::Regex::new(&format!("^{regex}$"))
            .expect("regex")
            .is_match(path)
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
            Attribute::RequestPrincipal => {
                seen.token(|t| t.principal.clone().into_iter().collect())
            }
            Attribute::RequestAudiences => seen.token(|t| t.audiences.clone()),
            Attribute::RequestPresenter => {
                seen.token(|t| t.presenter.clone().into_iter().collect())
            }
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
}

fn settings() -> MeshSettings {
    MeshSettings {
        trust_domain: "td1".into(),
        trust_domain_aliases: vec!["td2".into()],
        authz_providers: vec![mesh::provider("p1"), mesh::provider("p2")],
        ..MeshSettings::default()
    }
}

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

fn policies() -> impl Strategy<Value = Vec<AuthorizationPolicy>> {
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

fn cases() -> impl Strategy<Value = Case> {
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

fn snapshot(policies: &[AuthorizationPolicy], settings: &MeshSettings) -> Snapshot {
    let scope = mesh::parse("me sidecar default/web-1 10.244.0.5").scope;
    let all = policies.iter().cloned().map(Resource::AuthorizationPolicy);
    let set = ResourceSet::of(all.chain([Resource::MeshSettings(settings.clone())]));
    Snapshot::build(&set, &scope)
}

fn facts(case: &Case) -> ConnectionFacts {
    ConnectionFacts {
        direction: Direction::Inbound,
        source: (case.source, 40000).into(),
        destination: ([10, 244, 0, 5], case.port).into(),
    }
}

fn ruling(snapshot: &Snapshot, case: &Case, path: Option<&str>) -> Ruling {
    let facts = facts(case);
    let Some(asked) = &case.request else {
        return admit(snapshot, &facts, &case.peer);
    };
    let mut headers = HeaderMap::new();
    for (name, value) in &asked.headers {
        let name: http::HeaderName = name.parse().expect("name");
        headers.append(name, HeaderValue::from_static(value));
    }
    let request = RequestFacts {
        head: RequestHead {
            method: &asked.method.parse().expect("method"),
            authority: &asked.authority,
            path: path.unwrap_or(&asked.path),
            scheme: "http",
            headers: &headers,
        },
        remote: case.source,
        token: asked.token.as_ref(),
    };
    authorize(snapshot, &facts, &case.peer, &request)
}

fn compare(policies: &[AuthorizationPolicy], case: &Case) -> Result<(), TestCaseError> {
    let settings = settings();
    let snapshot = snapshot(policies, &settings);
    let asked = case.request.as_ref().map_or("", |r| &r.path);
    let path = canonical::path(PathNormalization::Base, asked).expect("good path");
    let seen = naive::Seen {
        case,
        path: path.split('?').next().unwrap_or_default().to_owned(),
        mesh: &settings,
    };
    let found = naive::matching(policies, &seen);
    let of = |wanted: &dyn Fn(&Action) -> bool| -> Vec<(usize, usize)> {
        let all = found.iter().filter(|(at, _)| wanted(&policies[*at].action));
        all.copied().collect()
    };
    let denied = of(&|a| *a == Action::Deny);
    let allowed = of(&|a| *a == Action::Allow);
    let asks = of(&|a| matches!(a, Action::Custom { .. }));
    let audited = of(&|a| *a == Action::Audit);
    let got = ruling(&snapshot, case, None);
    let index = |m: &crate::decide::authz::Matched| (m.policy.created as usize, m.rule);
    let must_match = policies.iter().any(|p| p.action == Action::Allow);
    match &got.verdict {
        Verdict::Deny(by) => match &by.policy {
            Some(matched) => prop_assert!(denied.contains(&index(matched)), "{:?}", denied),
            None => prop_assert!(denied.is_empty() && must_match && allowed.is_empty()),
        },
        passed => {
            prop_assert!(denied.is_empty() && (!must_match || !allowed.is_empty()));
            let mut names: Vec<_> = match passed {
                Verdict::Ask(list) => list.iter().map(|q| index(&q.matched)).collect(),
                _ => Vec::new(),
            };
            prop_assert!(names.iter().all(|n| asks.contains(n)));
            let provider = |(at, _): &(usize, usize)| format!("{:?}", policies[*at].action);
            let mut got: Vec<_> = names.drain(..).map(|n| provider(&n)).collect();
            let mut want: Vec<_> = asks.iter().map(provider).collect();
            got.sort();
            want.sort();
            want.dedup();
            prop_assert_eq!(got, want);
        }
    }
    let mut want: Vec<_> = audited.iter().map(|(at, _)| *at as u64).collect();
    want.dedup();
    let got: Vec<_> = got.audits.iter().map(|o| o.created).collect();
    prop_assert_eq!(got, want);
    Ok(())
}

proptest! {
    #![proptest_config(super::cases(2_000))]

    #[test]
    fn compiled_policies_say_what_is_written(policies in policies(), case in cases()) {
        compare(&policies, &case)?;
    }

    #[test]
    fn what_is_authorized_is_what_is_sent(policies in policies(), case in cases()) {
        let snapshot = snapshot(&policies, &settings());
        if let Some(asked) = &case.request {
            let head = RequestHead {
                method: &asked.method.parse().expect("method"),
                authority: &asked.authority,
                path: &asked.path,
                scheme: "http",
                headers: &HeaderMap::new(),
            };
            let plan = crate::decide::request(&snapshot, &facts(&case), &case.peer, &head, 0);
            let sent = match plan {
                RequestPlan::Forward(plan) => plan.path.unwrap_or(asked.path.clone()),
                other => panic!("{other:?}"),
            };
            let first = ruling(&snapshot, &case, None);
            prop_assert_eq!(first, ruling(&snapshot, &case, Some(&sent)));
        }
    }
}

#[test]
fn many_policies_are_found_by_index() {
    let policies: Vec<_> = (0..2_000)
        .map(|at| {
            let mut rest = vec![format!("default/p{at}")];
            let rule = match at % 5 {
                0 => format!("from principals=td1/ns/n{at}/sa/x"),
                1 => format!("from principals=td1/ns/a/sa/x to paths=/p{at}/*"),
                2 => format!("from ipBlocks=10.{}.{}.0/24", at / 256, at % 256),
                3 => format!("to hosts=h{at}.example methods=GET"),
                _ => format!("when request.headers[x-tenant]=t{at}"),
            };
            rest.push(rule);
            format!("deny {}\n rule {}", rest[0], rest[1])
        })
        .collect();
    let config = format!(
        "me sidecar default/web-1 10.244.0.5\n{}",
        policies.join("\n")
    );
    let snapshot = mesh::snapshot(&config);
    assert_eq!(snapshot.security.authz.unfiled(), 0);
}
