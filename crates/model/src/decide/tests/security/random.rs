//! Random policies and requests: the compiled form says of what is sent on what the policies say when they are simply
//! read of what the upstream understands, one after the other.

mod drawn;
mod naive;
mod upstream;

use crate::decide::authz::{
    Matched, RequestFacts, Ruling, Shadow, Token, Verdict, admit, authorize,
};
use crate::decide::plan::{
    ConnectionFacts, Direction, FaultReason, Peer, RequestHead, RequestPlan,
};
use crate::decide::snapshot::Snapshot;
use crate::decide::tests::mesh;
use crate::mesh::{MeshSettings, PathNormalization};
use crate::resource::Resource;
use crate::security::{Action, AuthorizationPolicy};
use drawn::{cases, policies};
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use std::net::IpAddr;
use upstream::understood;

/// A connection, and a request unless it is bytes.
#[derive(Debug, Clone)]
struct Case {
    direction: Direction,
    source: IpAddr,
    port: u16,
    peer: Peer,
    request: Option<Asked>,
}

#[derive(Debug, Clone)]
struct Asked {
    method: &'static str,
    scheme: &'static str,
    authority: String,
    /// As the client sends it.
    target: String,
    headers: Vec<(&'static str, &'static str)>,
    remote: IpAddr,
    token: Option<Token>,
}

const MODES: [PathNormalization; 4] = [
    PathNormalization::None,
    PathNormalization::Base,
    PathNormalization::MergeSlashes,
    PathNormalization::DecodeAndMergeSlashes,
];

const SIDECAR: &str = "me sidecar default/web-1 10.244.0.5";

const GATEWAY: &str = "me gateway default/web-1 10.244.0.5 istio=gw
service default/web 10.96.0.10 http:80
pod default/web-2 10.244.0.6 serves=web
gateway default/gw istio=gw
  server http:80 hosts=*
routes default/web hosts=* gateways=default/gw
  http -> web:80";

fn settings(mode: PathNormalization) -> MeshSettings {
    MeshSettings {
        trust_domain: "td1".into(),
        trust_domain_aliases: vec!["td2".into(), "td3".into()],
        authz_providers: vec![mesh::provider("p1"), mesh::provider("p2")],
        path_normalization: mode,
        ..MeshSettings::default()
    }
}

/// A sidecar and a gateway with the same policies.
struct Proxies {
    policies: Vec<AuthorizationPolicy>,
    settings: MeshSettings,
    sidecar: Snapshot,
    gateway: Snapshot,
}

impl Proxies {
    fn new(policies: Vec<AuthorizationPolicy>, mode: PathNormalization) -> Self {
        let settings = settings(mode);
        let build = |config| {
            let mesh::Mesh { mut set, scope } = mesh::parse(config);
            let all = policies.iter().cloned().map(Resource::AuthorizationPolicy);
            set.apply(all.chain([Resource::MeshSettings(settings.clone())]), []);
            Snapshot::build(&set, &scope)
        };
        Self {
            sidecar: build(SIDECAR),
            gateway: build(GATEWAY),
            settings,
            policies,
        }
    }

    fn of(&self, case: &Case) -> &Snapshot {
        match case.direction {
            Direction::Gateway => &self.gateway,
            _ => &self.sidecar,
        }
    }
}

fn facts(case: &Case) -> ConnectionFacts {
    ConnectionFacts {
        direction: case.direction,
        source: (case.source, 40000).into(),
        destination: ([10, 244, 0, 5], case.port).into(),
    }
}

fn headers(asked: &Asked) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &asked.headers {
        let name: http::HeaderName = name.parse().expect("name");
        headers.append(name, HeaderValue::from_static(value));
    }
    headers
}

/// What policies say of the case, its target being `target`.
fn ruling(snapshot: &Snapshot, case: &Case, target: &str) -> Ruling {
    let facts = facts(case);
    let Some(asked) = &case.request else {
        return admit(snapshot, &facts, &case.peer);
    };
    let request = RequestFacts {
        head: RequestHead {
            method: &asked.method.parse().expect("method"),
            authority: &asked.authority,
            path: target,
            scheme: asked.scheme,
            headers: &headers(asked),
            token: None,
        },
        remote: asked.remote,
        token: asked.token.as_ref(),
    };
    authorize(snapshot, &facts, &case.peer, &request)
}

/// What the upstream is sent; `None`: the request goes nowhere, its target being refused.
fn sent(snapshot: &Snapshot, case: &Case) -> Result<Option<String>, TestCaseError> {
    let Some(asked) = &case.request else {
        return Ok(Some(String::new()));
    };
    let head = RequestHead {
        method: &asked.method.parse().expect("method"),
        authority: &asked.authority,
        path: &asked.target,
        scheme: asked.scheme,
        headers: &headers(asked),
        token: None,
    };
    match crate::decide::request(snapshot, &facts(case), &case.peer, &head, 0) {
        RequestPlan::Forward(plan) => Ok(Some(plan.path.unwrap_or_else(|| asked.target.clone()))),
        RequestPlan::Refuse(fault) if fault.reason == FaultReason::BadRequest => Ok(None),
        plan => Err(TestCaseError::fail(format!("{plan:?}"))),
    }
}

/// Rules that match by position of their policy and their own.
type Places = Vec<(usize, usize)>;

fn place(matched: &Matched) -> (usize, usize) {
    (matched.policy.created as usize, matched.rule)
}

fn compare(proxies: &Proxies, case: &Case) -> Result<(), TestCaseError> {
    let snapshot = proxies.of(case);
    let policies = &proxies.policies;
    let asked = case.request.as_ref().map_or("", |asked| &asked.target);
    let got = ruling(snapshot, case, asked);
    let Some(sent) = sent(snapshot, case)? else {
        // Whatever policies allow, there must be some to say so.
        let denied = matches!(got.verdict, Verdict::Deny(_));
        prop_assert!(denied || policies.is_empty());
        return Ok(());
    };
    let mode = proxies.settings.path_normalization;
    let target = understood(mode, &sent);
    prop_assert_eq!(
        &target,
        &understood(mode, asked),
        "what was asked for is sent"
    );
    let target = target.expect("what is sent can be understood");
    if case.request.is_some() {
        prop_assert_eq!(&sent, &target, "nothing is left to be read into it");
    }
    let seen = naive::Seen {
        case,
        target,
        mesh: &proxies.settings,
    };
    let found = naive::matching(policies, &seen);
    let of = |dry: bool, wanted: &dyn Fn(&Action) -> bool| -> Places {
        let all = found.iter().filter(|(at, _)| {
            // Only ALLOW and DENY can be tried dry.
            let policy = &policies[*at];
            let is_dry = policy.dry_run && matches!(policy.action, Action::Allow | Action::Deny);
            is_dry == dry && wanted(&policy.action)
        });
        all.copied().collect()
    };
    check_verdict(policies, &got.verdict, &of)?;
    check_shadow(policies, got.shadow.as_ref(), &of)?;
    let audited = of(false, &|a| *a == Action::Audit);
    let mut want: Vec<_> = audited.iter().map(|(at, _)| *at as u64).collect();
    want.dedup();
    let audits: Vec<_> = got.audits.iter().map(|o| o.created).collect();
    prop_assert_eq!(audits, want);
    prop_assert_eq!(got, ruling(snapshot, case, &sent), "of what is sent");
    Ok(())
}

type Of<'a> = &'a dyn Fn(bool, &dyn Fn(&Action) -> bool) -> Places;

fn check_verdict(
    policies: &[AuthorizationPolicy],
    got: &Verdict,
    of: Of<'_>,
) -> Result<(), TestCaseError> {
    let denied = of(false, &|a| *a == Action::Deny);
    let allowed = of(false, &|a| *a == Action::Allow);
    let asks = of(false, &|a| matches!(a, Action::Custom { .. }));
    let is_allow = |p: &AuthorizationPolicy| p.action == Action::Allow && !p.dry_run;
    let must_match = policies.iter().any(is_allow);
    match got {
        Verdict::Deny(by) => match &by.policy {
            Some(matched) => prop_assert!(denied.contains(&place(matched)), "{:?}", denied),
            None => prop_assert!(denied.is_empty() && must_match && allowed.is_empty()),
        },
        passed => {
            prop_assert!(denied.is_empty() && (!must_match || !allowed.is_empty()));
            let named: Places = match passed {
                Verdict::Ask(list) => list.iter().map(|q| place(&q.matched)).collect(),
                _ => Vec::new(),
            };
            prop_assert!(named.iter().all(|n| asks.contains(n)));
            let provider = |(at, _): &(usize, usize)| format!("{:?}", policies[*at].action);
            let mut got: Vec<_> = named.iter().map(provider).collect();
            let mut want: Vec<_> = asks.iter().map(provider).collect();
            got.sort();
            want.sort();
            want.dedup();
            prop_assert_eq!(got, want);
        }
    }
    Ok(())
}

fn check_shadow(
    policies: &[AuthorizationPolicy],
    got: Option<&Shadow>,
    of: Of<'_>,
) -> Result<(), TestCaseError> {
    let is_dry = |action| policies.iter().any(|p| p.dry_run && p.action == action);
    let (denies, allows) = (is_dry(Action::Deny), is_dry(Action::Allow));
    let denied = of(true, &|a| *a == Action::Deny);
    let allowed = of(true, &|a| *a == Action::Allow);
    let Some(got) = got else {
        prop_assert!(!denies && !allows);
        return Ok(());
    };
    prop_assert!(denies || allows);
    let want = denied.is_empty() && (!allows || !allowed.is_empty());
    prop_assert_eq!(got.allowed, want);
    let by = if denied.is_empty() { allowed } else { denied };
    match &got.matched {
        Some(matched) => prop_assert!(by.contains(&place(matched)), "{:?}", by),
        None => prop_assert!(by.is_empty()),
    }
    Ok(())
}

/// Calls that each set of policies is tried with.
const CALLS: usize = 8;

proptest! {
    #![proptest_config(super::cases(300))]

    #[test]
    fn what_is_sent_is_what_written_policies_allow(
        policies in policies(),
        mode in prop::sample::select(MODES.to_vec()),
        cases in prop::collection::vec(cases(), CALLS),
    ) {
        let proxies = Proxies::new(policies, mode);
        for case in &cases {
            compare(&proxies, case)?;
        }
    }
}

/// Ten thousand policies: each kind of rule is found by what it says, and only those that can match are tried.
#[test]
fn many_policies_are_found_by_index() {
    let policies: Vec<_> = (0..10_000)
        .map(|at| {
            let rule = match at % 6 {
                0 => format!("from principals=td1/ns/n{at}/sa/x"),
                1 => format!("from principals=td1/ns/a/sa/x to paths=/p{at}/*"),
                2 => format!("from ipBlocks=10.{}.{}.0/24", at / 256, at % 256),
                3 => format!("to hosts=h{at}.example methods=GET"),
                4 => format!("from requestPrincipals=https://i{at}/*"),
                _ => format!("when request.headers[x-tenant]=t{at}"),
            };
            format!("deny default/p{at}\n rule {rule}")
        })
        .collect();
    let snapshot = mesh::snapshot(&format!("{SIDECAR}\n{}", policies.join("\n")));
    let authz = &snapshot.security.authz;
    assert_eq!(authz.unfiled(), 0);
    let token = Token {
        issuer: Some("https://i4".to_owned()),
        subject: Some("me".to_owned()),
        ..Token::default()
    };
    let case = |target: &str, authority: &str| Case {
        direction: Direction::Inbound,
        source: IpAddr::from([203, 0, 113, 9]),
        port: 8080,
        peer: Peer {
            identity: crate::identity::SpiffeId::parse("spiffe://td1/ns/a/sa/x").ok(),
            ..Peer::default()
        },
        request: Some(Asked {
            method: "GET",
            scheme: "http",
            authority: authority.to_owned(),
            target: target.to_owned(),
            headers: vec![("x-tenant", "nobody")],
            remote: IpAddr::from([203, 0, 113, 9]),
            token: None,
        }),
    };
    for (case, denied, most) in [
        (case("/none", "web"), false, 0),
        (case("/p7/x", "web"), true, 1),
        (case("/", "h9.example"), true, 1),
    ] {
        let before = authz.tried();
        let got = ruling(
            &snapshot,
            &case,
            &case.request.as_ref().expect("request").target,
        );
        assert_eq!(matches!(got.verdict, Verdict::Deny(_)), denied, "{case:?}");
        let tried = authz.tried() - before;
        assert!(tried <= most, "{tried} rules tried for {case:?}");
    }
    let mut with_token = case("/none", "web");
    with_token.request.as_mut().expect("request").token = Some(token);
    let before = authz.tried();
    let got = ruling(&snapshot, &with_token, "/none");
    assert!(matches!(got.verdict, Verdict::Deny(_)));
    assert_eq!(authz.tried() - before, 1);
}
