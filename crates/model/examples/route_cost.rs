//! What finding a request's route costs with 1, 1,000 and 10,000 hosts, and with 1, 10 and 1,000 routes of one host:
//! `cargo run --release -p lateen-model --example route_cost`. It measures the decision alone: from the head to the plan.

use lateen_model::decide;
use lateen_model::decide::plan::{ConnectionFacts, Direction, Peer, RequestHead, RequestPlan};
use lateen_model::decide::resources::ResourceSet;
use lateen_model::decide::snapshot::Snapshot;
use lateen_model::matching::StringMatch;
use lateen_model::mesh::{Role, Scope};
use lateen_model::name::{Origin, ServiceKey, Visibility};
use lateen_model::resource::Resource;
use lateen_model::route::{
    Destination, HeaderOperations, HttpAction, HttpDestination, HttpMatch, HttpRoute, RouteTable,
};
use lateen_model::service::{Location, Port, Protocol, Resolution, Service};
use lateen_model::workload::{Health, ServicePorts, Workload};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

/// Decisions timed together.
const TIMES: u32 = 2_000;

/// So many times; the fastest counts, which nothing else on the machine has disturbed.
const BATCHES: u32 = 200;

/// What a decision may take, in nanoseconds.
const MOST: u128 = 2_000;

fn main() {
    println!("  hosts  routes  match        build     decision");
    for (hosts, routes) in [
        (1, 1),
        (1_000, 1),
        (10_000, 1),
        (1, 10),
        (1, 1_000),
        (1_000, 1_000),
    ] {
        for kind in ["exact", "prefix"] {
            measure(hosts, routes, kind);
        }
    }
}

fn measure(hosts: usize, routes: usize, kind: &str) {
    let services =
        (0..hosts).flat_map(|at| [Resource::Service(service(at)), Resource::Workload(pod(at))]);
    // The last host has all the routes, the others one each.
    let tables = (0..hosts).map(|at| {
        let count = if at + 1 == hosts { routes } else { 1 };
        Resource::RouteTable(table(at, count, kind))
    });
    let set = ResourceSet::of(services.chain(tables));
    let begun = Instant::now();
    let snapshot = Snapshot::build(&set, &scope());
    let built = begun.elapsed();
    let facts = ConnectionFacts {
        direction: Direction::Outbound,
        source: ([10, 244, 0, 9], 40000).into(),
        destination: ([10, 96, 0, 1], 80).into(),
    };
    let (authority, headers) = (name(hosts - 1), http::HeaderMap::new());
    let paths: Vec<String> = (0..routes)
        .map(|at| match kind {
            "exact" => format!("/api/v1/items/{at}?page=7"),
            _ => format!("/api/v1/items/{at}/parts/7?page=7"),
        })
        .collect();
    let peer = Peer::default();
    let mut paths = paths.iter().cycle();
    let mut batch = |_| {
        let begun = Instant::now();
        for (at, path) in (0..TIMES).zip(&mut paths) {
            let head = RequestHead {
                method: &http::Method::GET,
                authority: &authority,
                path,
                scheme: "http",
                headers: &headers,
                token: None,
            };
            let plan = decide::request(
                black_box(&snapshot),
                &facts,
                &peer,
                black_box(&head),
                u64::from(at),
            );
            assert!(
                matches!(plan, RequestPlan::Forward(_)),
                "the request has a route"
            );
        }
        begun.elapsed() / TIMES
    };
    let each = (0..BATCHES).map(&mut batch).min().unwrap_or_default();
    println!("{hosts:>7}  {routes:>6}  {kind:<6} {built:>11.1?}  {each:>11.1?}");
    assert!(
        each.as_nanos() <= MOST,
        "a decision takes more than {MOST} ns"
    );
}

fn name(at: usize) -> String {
    format!("web-{at}.default.svc.cluster.local")
}

fn origin(kind: &str, at: usize) -> Origin {
    Origin {
        kind: kind.into(),
        namespace: "default".into(),
        name: format!("web-{at}").into(),
        created: at as u64,
    }
}

fn table(at: usize, routes: usize, kind: &str) -> RouteTable {
    let uri = |at: usize| match kind {
        "exact" => StringMatch::Exact(format!("/api/v1/items/{at}").into()),
        _ => StringMatch::Prefix(format!("/api/v1/items/{at}/").into()),
    };
    let rule = |number: usize| HttpRoute {
        matches: vec![HttpMatch {
            uri: Some(uri(number)),
            ..HttpMatch::default()
        }],
        ..to(at)
    };
    RouteTable {
        origin: origin("VirtualService", at),
        hosts: vec![name(at).into()],
        gateways: vec!["mesh".into()],
        visibility: Visibility::Public,
        http: (0..routes).map(rule).collect(),
        tls: Vec::new(),
        tcp: Vec::new(),
    }
}

fn to(at: usize) -> HttpRoute {
    HttpRoute {
        name: "".into(),
        matches: Vec::new(),
        ..HttpRoute::of(HttpAction::Forward(vec![HttpDestination {
            destination: Destination {
                host: name(at).into(),
                subset: None,
                port: Some(80),
            },
            weight: 1,
            headers: HeaderOperations::default(),
        }]))
    }
}

fn key(at: usize) -> ServiceKey {
    ServiceKey {
        namespace: "default".into(),
        hostname: name(at).into(),
    }
}

fn service(at: usize) -> Service {
    Service {
        key: key(at),
        origin: origin("ServiceEntry", at),
        name: format!("web-{at}").into(),
        addresses: Vec::new(),
        ports: vec![Port {
            number: 80,
            name: "http".into(),
            protocol: Protocol::Http,
            target: Some(8080),
        }],
        resolution: Resolution::Static,
        location: Location::Internal,
        visibility: Visibility::Public,
        traffic_distribution: None,
        aliases: Vec::new(),
        allocated: Vec::new(),
        sans: Vec::new(),
    }
}

fn pod(at: usize) -> Workload {
    let ports = ServicePorts {
        ports: BTreeMap::from([(80, 8080)]),
        health: Health::Ready,
        hostname: None,
    };
    let [_, high, middle, low] = (at as u32).to_be_bytes();
    Workload {
        uid: format!("Pod/default/web-{at}").into(),
        name: format!("web-{at}").into(),
        namespace: "default".into(),
        addresses: vec![[10, high, middle, low].into()],
        hostname: None,
        labels: BTreeMap::new(),
        service_account: "default".into(),
        workload_name: "web".into(),
        canonical_name: "web".into(),
        canonical_revision: "latest".into(),
        node: "node".into(),
        locality: "".into(),
        weight: 1,
        has_sidecar: true,
        takes_mtls: true,
        trust_domain: "".into(),
        services: BTreeMap::from([(key(at), ports)]),
    }
}

fn scope() -> Scope {
    Scope {
        on_demand: false,
        role: Role::Sidecar,
        pod: "client".into(),
        namespace: "default".into(),
        labels: BTreeMap::new(),
        addresses: Vec::new(),
        service_account: "client".into(),
        workload_name: "client".into(),
        canonical_name: "client".into(),
        canonical_revision: "latest".into(),
        cluster: "Kubernetes".into(),
        domain: "cluster.local".into(),
    }
}
