//! Decisions and codecs alone: no sockets, no threads.

use crate::allocations;
use crate::mesh;
use lateen_model::decide;
use lateen_model::decide::authz::{RequestFacts, Verdict};
use lateen_model::decide::plan::{ConnectionFacts, Direction, Peer, RequestHead, RequestPlan};
use lateen_model::decide::resources::ResourceSet;
use lateen_model::decide::snapshot::Snapshot;
use lateen_model::mesh::Role;
use lateen_model::resource::Kind;
use lateen_model::service::Protocol;
use lateen_xds::codec;
use std::hint::black_box;

fn counted(times: u64, mut work: impl FnMut()) -> u64 {
    work();
    let before = allocations::count();
    for _ in 0..times {
        work();
    }
    allocations::count() - before
}

fn snapshot() -> Snapshot {
    let services = (0..100u8).flat_map(|at| {
        let name = format!("web-{at}");
        [
            mesh::service(&name, [10, 96, 1, at], Protocol::Http),
            mesh::pod(&name, ([10, 244, 0, at], 8080).into(), true),
            mesh::routes(&name, "mesh", 10),
        ]
    });
    let policies = (0..100).map(|at| mesh::allow(&format!("team-{at}")));
    let set = ResourceSet::of(services.chain(policies));
    Snapshot::build(&set, &mesh::scope(Role::Sidecar, "web-7", "10.244.0.7"))
}

/// From a request's head to its plan: one of 100 hosts, one of eleven rules.
pub(crate) fn route(times: u64) -> u64 {
    let snapshot = snapshot();
    let facts = ConnectionFacts {
        direction: Direction::Outbound,
        source: ([10, 244, 0, 7], 40000).into(),
        destination: ([10, 96, 1, 42], 80).into(),
    };
    let authority = mesh::host("web-42");
    let headers = http::HeaderMap::new();
    let head = RequestHead {
        method: &http::Method::GET,
        authority: &authority,
        path: "/api/v1/items/7/parts?page=3",
        scheme: "http",
        headers: &headers,
        token: None,
    };
    let peer = Peer::default();
    counted(times, || {
        let plan = decide::request(black_box(&snapshot), &facts, &peer, black_box(&head), 7);
        assert!(matches!(plan, RequestPlan::Forward(_)), "it has a route");
    })
}

/// A request and its verdict: one of 100 ALLOW policies matches.
pub(crate) fn policy(times: u64) -> u64 {
    let snapshot = snapshot();
    let facts = ConnectionFacts {
        direction: Direction::Inbound,
        source: ([10, 244, 0, 9], 40000).into(),
        destination: ([10, 244, 0, 7], 8080).into(),
    };
    let peer = Peer {
        identity: Some(mesh::id("team-42")),
        tls: true,
        ..Peer::default()
    };
    let authority = mesh::host("web-7");
    let headers = http::HeaderMap::new();
    let head = RequestHead {
        method: &http::Method::GET,
        authority: &authority,
        path: "/api/v1/items/7/parts?page=3",
        scheme: "http",
        headers: &headers,
        token: None,
    };
    let request = RequestFacts {
        head,
        remote: facts.source.ip(),
        token: None,
    };
    counted(times, || {
        let ruling = decide::authz::authorize(black_box(&snapshot), &facts, &peer, &request);
        assert_eq!(ruling.verdict, Verdict::Allow, "a policy allows it");
    })
}

/// A route table as bytes of the wire.
pub(crate) fn encode(times: u64) -> u64 {
    let table = mesh::routes("web", "mesh", 10);
    counted(times, || {
        black_box(codec::encode(black_box(&table)));
    })
}

/// A route table from bytes of the wire.
pub(crate) fn decode(times: u64) -> u64 {
    let bytes = codec::encode(&mesh::routes("web", "mesh", 10));
    let url = codec::type_url(Kind::RouteTable);
    counted(times, || {
        codec::decode(black_box(url), black_box(&bytes)).expect("it is whole");
    })
}
