//! What one authorization decision costs with 1, 1,000 and 10,000 policies: `cargo run --release -p lateen-model
//! --example authz_cost`. It measures the decision alone, not the request around it.

use lateen_model::decide::authz::{RequestFacts, Verdict, authorize};
use lateen_model::decide::plan::{ConnectionFacts, Direction, Peer, RequestHead};
use lateen_model::decide::resources::ResourceSet;
use lateen_model::decide::snapshot::Snapshot;
use lateen_model::identity::SpiffeId;
use lateen_model::mesh::{Role, Scope};
use lateen_model::name::{Origin, Visibility};
use lateen_model::resource::Resource;
use lateen_model::security::{Action, AuthorizationPolicy, Operation, Rule, Selection, Source};
use std::hint::black_box;
use std::time::Instant;

/// Decisions timed for each number.
const TIMES: u32 = 1_000_000;

fn main() {
    println!("policies  kind        build      decision");
    for kind in ["ALLOW", "DENY"] {
        for count in [1, 1_000, 10_000] {
            measure(kind, count);
        }
    }
}

fn measure(kind: &str, count: usize) {
    let policies = (0..count).map(|at| Resource::AuthorizationPolicy(policy(kind, at)));
    let set = ResourceSet::of(policies);
    let scope = scope();
    let begun = Instant::now();
    let snapshot = Snapshot::build(&set, &scope);
    let built = begun.elapsed();
    let facts = ConnectionFacts {
        direction: Direction::Inbound,
        source: ([10, 244, 0, 9], 40000).into(),
        destination: ([10, 244, 0, 5], 8080).into(),
    };
    let peer = Peer {
        identity: SpiffeId::of_account("cluster.local", "default", "client-0").ok(),
        tls: true,
        ..Peer::default()
    };
    let headers = http::HeaderMap::new();
    let request = RequestFacts {
        head: RequestHead {
            method: &http::Method::GET,
            authority: "web.default.svc.cluster.local:8080",
            path: "/api/0/items?page=7",
            scheme: "http",
            headers: &headers,
            token: None,
        },
        remote: facts.source.ip(),
        token: None,
    };
    let begun = Instant::now();
    for _ in 0..TIMES {
        let ruling = authorize(black_box(&snapshot), &facts, &peer, black_box(&request));
        assert_eq!(ruling.verdict, Verdict::Allow, "the request is allowed");
    }
    let each = begun.elapsed() / TIMES;
    println!("{count:>8}  {kind:<6} {built:>10.1?}  {each:>10.1?}");
}

/// Policies as services have them: who may call which part of the API; and lists of what is forbidden.
fn policy(kind: &str, at: usize) -> AuthorizationPolicy {
    let deny = kind == "DENY";
    let source = Source {
        principals: vec![format!("cluster.local/ns/default/sa/client-{at}").into()],
        ..Source::default()
    };
    let path = match deny {
        true => format!("/internal/{at}/*"),
        false => format!("/api/{at}/*"),
    };
    AuthorizationPolicy {
        origin: Origin {
            kind: "AuthorizationPolicy".into(),
            namespace: "default".into(),
            name: format!("policy-{at}").into(),
            created: at as u64,
        },
        selection: Selection::default(),
        visibility: Visibility::Public,
        action: if deny { Action::Deny } else { Action::Allow },
        dry_run: false,
        rules: vec![Rule {
            from: vec![source],
            to: vec![Operation {
                paths: vec![path.into()],
                methods: vec!["GET".into()],
                ..Operation::default()
            }],
            when: Vec::new(),
        }],
    }
}

fn scope() -> Scope {
    Scope {
        on_demand: false,
        role: Role::Sidecar,
        pod: "web-1".into(),
        namespace: "default".into(),
        labels: [].into(),
        addresses: vec![[10, 244, 0, 5].into()],
        service_account: "web".into(),
        workload_name: "web".into(),
        canonical_name: "web".into(),
        canonical_revision: "latest".into(),
        cluster: "Kubernetes".into(),
        domain: "cluster.local".into(),
    }
}
