//! What a proxy's configuration costs when the mesh is large: time of the first snapshot and of one after a change, and
//! memory of resources and snapshot:
//! `cargo run --release -p lateen-model --example snapshot_cost -- 10000 5 0` (services, workloads of each, routes).
//! It measures compiling alone: nothing is received or decoded, each resource has texts of its own as if it were.

use lateen_base::Str;
use lateen_model::decide::resources::ResourceSet;
use lateen_model::decide::snapshot::Snapshot;
use lateen_model::mesh::{Role, Scope};
use lateen_model::name::{Origin, ServiceKey, Visibility};
use lateen_model::resource::Resource;
use lateen_model::route::{
    Destination, HeaderOperations, HttpAction, HttpDestination, HttpRoute, RouteTable,
};
use lateen_model::service::{Address, Location, Port, Protocol, Resolution, Service};
use lateen_model::workload::{Health, ServicePorts, Workload};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

/// Changes that are timed.
const CHANGES: usize = 20;

fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse().ok());
    let mut next = |default| numbers.next().flatten().unwrap_or(default);
    let (services, endpoints, routes) = (next(10_000), next(5), next(0));
    let empty = resident();
    let mut set = ResourceSet::default();
    for at in 0..services {
        set.apply([Resource::Service(service(at))], []);
        for pod in 0..endpoints {
            let workload = workload(at, pod, endpoints, true);
            set.apply([Resource::Workload(workload)], []);
        }
    }
    set.apply((0..routes).map(|at| Resource::RouteTable(table(at, 1))), []);
    let held = resident();
    let begun = Instant::now();
    let mut snapshot = Snapshot::build(&set, &scope());
    let built = begun.elapsed();
    let whole = resident();
    println!(
        "{services} services, {} workloads, {routes} routes",
        services * endpoints
    );
    println!("  resources            {:8.1} MB", held - empty);
    println!("  first snapshot       {:8.1} MB", whole - held);
    println!("  first snapshot       {:8.2} ms", millis(built));
    let mut times = Vec::new();
    let mut copies = Vec::new();
    for change in 0..CHANGES {
        let at = change * 7 % services;
        let workload = workload(at, 0, endpoints, change % 2 == 1);
        set.apply([Resource::Workload(workload)], []);
        let begun = Instant::now();
        let copy = set.clone();
        copies.push(begun.elapsed());
        let begun = Instant::now();
        snapshot = Snapshot::build_from(&copy, &scope(), Some(&snapshot));
        times.push(begun.elapsed());
    }
    times.sort();
    copies.sort();
    println!(
        "  copy of the set      {:8.2} ms",
        millis(copies[CHANGES / 2])
    );
    println!(
        "  after an endpoint    {:8.2} ms",
        millis(times[CHANGES / 2])
    );
    if routes > 0 {
        times.clear();
        for change in 0..CHANGES {
            let route = table(change * 7 % routes, 2 + change as u64);
            set.apply([Resource::RouteTable(route)], []);
            let begun = Instant::now();
            snapshot = Snapshot::build_from(&set, &scope(), Some(&snapshot));
            times.push(begun.elapsed());
        }
        times.sort();
        println!(
            "  after a route        {:8.2} ms",
            millis(times[CHANGES / 2])
        );
    }
    println!("  all at the end       {:8.1} MB", resident() - empty);
    println!("  clusters             {:8}", snapshot.clusters().count());
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Resident memory in MB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    number.unwrap_or_default() * 1024.0 / 1e6
}

fn text(text: impl AsRef<str>) -> Str {
    text.as_ref().into()
}

fn host(at: usize) -> String {
    format!("service-{at}.team-{}.svc.cluster.local", at / 50)
}

fn namespace(at: usize) -> Str {
    format!("team-{}", at / 50).into()
}

fn key(at: usize) -> ServiceKey {
    ServiceKey {
        namespace: namespace(at),
        hostname: host(at).into(),
    }
}

fn origin(kind: &str, at: usize) -> Origin {
    Origin {
        kind: text(kind),
        namespace: namespace(at),
        name: format!("service-{at}").into(),
        created: 1,
    }
}

fn address(base: u32, at: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(base + at as u32))
}

fn service(at: usize) -> Service {
    let port = |number, name| Port {
        number,
        name: text(name),
        protocol: Protocol::Http,
        target: Some(number),
    };
    Service {
        key: key(at),
        name: format!("service-{at}").into(),
        origin: origin("Service", at),
        addresses: vec![Address {
            ip: address(0x0b00_0000, at),
            prefix: 32,
        }],
        allocated: Vec::new(),
        ports: vec![port(8080, "http"), port(9090, "grpc")],
        resolution: Resolution::Static,
        location: Location::Internal,
        visibility: Visibility::Public,
        aliases: vec![
            format!("service-{at}.team-{}", at / 50).into(),
            format!("service-{at}.team-{}.svc", at / 50).into(),
        ],
        sans: Vec::new(),
        traffic_distribution: None,
    }
}

fn workload(at: usize, pod: usize, endpoints: usize, is_ready: bool) -> Workload {
    let name = format!("service-{at}-6d4cf56db6-{pod:05}");
    let app = format!("service-{at}");
    let labels = [
        ("app", app.as_str()),
        ("version", "v1"),
        ("pod-template-hash", "6d4cf56db6"),
        ("security.istio.io/tlsMode", "istio"),
        ("service.istio.io/canonical-name", &app),
        ("service.istio.io/canonical-revision", "v1"),
    ];
    let served = ServicePorts {
        ports: [(8080, 8080), (9090, 9090)].into(),
        health: if is_ready {
            Health::Ready
        } else {
            Health::Unready
        },
        hostname: None,
    };
    Workload {
        uid: format!("Pod/{}/{name}", namespace(at)).into(),
        name: text(&name),
        namespace: namespace(at),
        addresses: vec![address(0x0a00_0000, at * endpoints + pod)],
        hostname: None,
        labels: labels.iter().map(|(k, v)| (text(k), text(v))).collect(),
        service_account: text(&app),
        workload_name: text(&app),
        canonical_name: text(&app),
        canonical_revision: text("v1"),
        node: format!("node-{}", at * endpoints / 30).into(),
        locality: text("r1/z1"),
        weight: 1,
        has_sidecar: true,
        takes_mtls: true,
        trust_domain: text(""),
        services: BTreeMap::from([(key(at), served)]),
    }
}

fn table(at: usize, timeout: u64) -> RouteTable {
    let destination = Destination {
        host: host(at).into(),
        subset: None,
        port: Some(8080),
    };
    let forward = HttpAction::Forward(vec![HttpDestination {
        destination,
        weight: 1,
        headers: HeaderOperations::default(),
    }]);
    RouteTable {
        origin: origin("VirtualService", at),
        hosts: vec![host(at).into()],
        gateways: vec![text("mesh")],
        visibility: Visibility::Public,
        http: vec![HttpRoute {
            timeout: Some(Duration::from_secs(timeout)),
            ..HttpRoute::of(forward)
        }],
        tls: Vec::new(),
        tcp: Vec::new(),
    }
}

fn scope() -> Scope {
    Scope {
        on_demand: false,
        role: Role::Sidecar,
        pod: "client".into(),
        namespace: "team-0".into(),
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
