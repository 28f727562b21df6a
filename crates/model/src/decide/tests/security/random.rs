//! Random policies and requests: the compiled form says what the policies say when they are simply read, one after the
//! other; and what was authorized is what is sent on.

mod drawn;
mod naive;

use crate::decide::authz::{RequestFacts, Ruling, Token, Verdict, admit, authorize};
use crate::decide::canonical;
use crate::decide::plan::{ConnectionFacts, Direction, Peer, RequestHead, RequestPlan};
use crate::decide::resources::ResourceSet;
use crate::decide::snapshot::Snapshot;
use crate::decide::tests::mesh;
use crate::mesh::{MeshSettings, PathNormalization};
use crate::resource::Resource;
use crate::security::{Action, AuthorizationPolicy};
use drawn::{cases, policies};
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
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

fn settings() -> MeshSettings {
    MeshSettings {
        trust_domain: "td1".into(),
        trust_domain_aliases: vec!["td2".into()],
        authz_providers: vec![mesh::provider("p1"), mesh::provider("p2")],
        ..MeshSettings::default()
    }
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

fn compare(
    (policies, mesh): (&[AuthorizationPolicy], &MeshSettings),
    snapshot: &Snapshot,
    case: &Case,
) -> Result<(), TestCaseError> {
    let asked = case.request.as_ref().map_or("", |r| &r.path);
    let path = canonical::path(PathNormalization::Base, asked).expect("good path");
    let seen = naive::Seen {
        case,
        path: path.split('?').next().unwrap_or_default().to_owned(),
        mesh,
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
    let got = ruling(snapshot, case, None);
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

/// Calls that each set of policies is tried with.
const CALLS: usize = 8;

proptest! {
    #![proptest_config(super::cases(300))]

    #[test]
    fn compiled_policies_say_what_is_written(
        policies in policies(),
        cases in prop::collection::vec(cases(), CALLS),
    ) {
        let settings = settings();
        let snapshot = snapshot(&policies, &settings);
        for case in &cases {
            compare((&policies, &settings), &snapshot, case)?;
            check_what_is_sent(&snapshot, case)?;
        }
    }
}

/// What is authorized is what is sent on.
fn check_what_is_sent(snapshot: &Snapshot, case: &Case) -> Result<(), TestCaseError> {
    let Some(asked) = &case.request else {
        return Ok(());
    };
    let head = RequestHead {
        method: &asked.method.parse().expect("method"),
        authority: &asked.authority,
        path: &asked.path,
        scheme: "http",
        headers: &HeaderMap::new(),
    };
    let plan = crate::decide::request(snapshot, &facts(case), &case.peer, &head, 0);
    let RequestPlan::Forward(plan) = plan else {
        return Err(TestCaseError::fail(format!("{plan:?}")));
    };
    let sent = plan.path.unwrap_or_else(|| asked.path.clone());
    let first = ruling(snapshot, case, None);
    prop_assert_eq!(first, ruling(snapshot, case, Some(&sent)));
    Ok(())
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
