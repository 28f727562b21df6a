//! Clients that are not sent everything: on demand, and within a Sidecar object.

use super::*;
use lateen_model::lookup::Lookup;
use lateen_model::mesh::{EgressHost, SidecarScope};
use lateen_model::name::{ServiceKey, Visibility};
use lateen_model::service::{Address, Location, Resolution, Service};
use lateen_model::workload::{Health, ServicePorts, Workload};

fn host(name: &str) -> String {
    format!("{name}.default.svc.cluster.local")
}

fn service(name: &str, last: u8) -> Resource {
    Resource::Service(Service {
        key: ServiceKey {
            namespace: "default".into(),
            hostname: host(name).into(),
        },
        name: name.into(),
        origin: Origin {
            kind: "Service".into(),
            namespace: "default".into(),
            name: name.into(),
            created: 1,
        },
        addresses: vec![Address {
            ip: [10, 96, 0, last].into(),
            prefix: 32,
        }],
        allocated: Vec::new(),
        ports: Vec::new(),
        resolution: Resolution::Static,
        location: Location::Internal,
        visibility: Visibility::Public,
        aliases: vec![format!("{name}.default").into()],
        sans: Vec::new(),
        traffic_distribution: None,
    })
}

fn pod(service: &str, number: u8, health: Health) -> Resource {
    let name = format!("{service}-{number}");
    Resource::Workload(Workload {
        uid: format!("Pod/default/{name}").into(),
        name: name.as_str().into(),
        namespace: "default".into(),
        addresses: vec![[10, 244, 0, number].into()],
        hostname: None,
        labels: [].into(),
        service_account: "default".into(),
        workload_name: name.as_str().into(),
        canonical_name: name.as_str().into(),
        canonical_revision: "latest".into(),
        node: "".into(),
        locality: "".into(),
        weight: 1,
        has_sidecar: true,
        takes_mtls: true,
        trust_domain: "".into(),
        services: [(
            ServiceKey {
                namespace: "default".into(),
                hostname: host(service).into(),
            },
            ServicePorts {
                ports: [(80, 80)].into(),
                health,
                hostname: None,
            },
        )]
        .into(),
    })
}

fn sidecar(hosts: &[&str]) -> Resource {
    let egress = hosts.iter().map(|name| EgressHost {
        namespace: None,
        host: host(name).into(),
        port: None,
    });
    Resource::SidecarScope(SidecarScope {
        origin: Origin {
            kind: "Sidecar".into(),
            namespace: "default".into(),
            name: "own".into(),
            created: 1,
        },
        workload_selector: [].into(),
        egress: Some(egress.collect()),
        excluded: Vec::new(),
        outbound: None,
        egress_proxy: None,
        ingress: None,
        inbound_pool: None,
    })
}

fn mesh() -> Vec<Resource> {
    vec![
        service("a", 1),
        service("b", 2),
        pod("a", 11, Health::Ready),
        pod("b", 12, Health::Ready),
        table("default/a", &host("a"), None),
        table("default/b", &host("b"), None),
    ]
}

impl Pair {
    fn on_demand() -> Self {
        let mut table = ready(mesh());
        table.make_directory();
        let mut pair = Self::new(table);
        pair.scope.on_demand = true;
        pair
    }

    fn ask(&mut self, text: &str) -> Vec<Lookup> {
        let lookup = text.parse().expect(text);
        let asking = self.subscription.ask(lookup).expect("a new question");
        self.request(asking.request);
        asking.forgotten
    }

    fn give_up(&mut self, text: &str) {
        self.request(DeltaDiscoveryRequest {
            type_url: LOOKUP.to_owned(),
            resource_names_unsubscribe: vec![text.to_owned()],
            ..DeltaDiscoveryRequest::default()
        });
    }
}

const A: [&str; 3] = [
    "Service +default/a.default.svc.cluster.local",
    "Workload +Pod/default/a-11",
    "RouteTable +default/a",
];

#[test]
fn a_service_comes_when_it_is_asked_for_and_the_answer_comes_last() {
    let mut pair = Pair::on_demand();
    pair.connect();
    assert_eq!(pair.settle(), Vec::<String>::new(), "nobody asked");
    pair.ask("host/a.default");
    let mut want = A.to_vec();
    want.push("Lookup +host/a.default");
    assert_eq!(pair.settle(), want);
    pair.ask("address/10.96.0.1");
    assert_eq!(
        pair.settle(),
        ["Lookup +address/10.96.0.1"],
        "it is there already"
    );
    pair.ask("host/nobody");
    assert_eq!(pair.settle(), ["Lookup +host/nobody"]);
    let status = pair.session.status().expect("a node");
    assert_eq!(
        (status.lookups, status.kinds[&Kind::Service].resources),
        (3, 1)
    );
}

#[test]
fn the_answer_waits_until_what_it_brings_was_sent() {
    let mut pair = Pair::on_demand();
    pair.connect();
    pair.settle();
    // A response that is not acknowledged holds back what comes after it.
    pair.ask("host/a");
    assert_eq!(
        pair.sent().last().map(String::as_str),
        Some("Lookup +host/a")
    );
    pair.ask("host/b");
    assert_eq!(pair.sent(), Vec::<String>::new());
    pair.answered();
    assert_eq!(
        pair.settle().last().map(String::as_str),
        Some("Lookup +host/b")
    );
}

#[test]
fn changes_of_others_are_not_sent() {
    let mut pair = Pair::on_demand();
    pair.connect();
    pair.ask("host/a");
    pair.settle();
    pair.apply(vec![pod("b", 13, Health::Ready), service("c", 3)], &[]);
    pair.apply(vec![table("default/b", "other", None)], &[]);
    assert_eq!(pair.settle(), Vec::<String>::new());
    pair.apply(vec![pod("a", 14, Health::Ready)], &[]);
    assert_eq!(pair.settle(), ["Workload +Pod/default/a-14"]);
    pair.table.apply(
        vec![],
        vec![Key {
            kind: Kind::Workload,
            name: "Pod/default/a-11".into(),
        }],
    );
    assert_eq!(pair.settle(), ["Workload -Pod/default/a-11"]);
    // A service that appears under a name that was asked for before it existed.
    pair.ask("host/late");
    pair.settle();
    pair.apply(vec![service("late", 4)], &[]);
    assert_eq!(
        pair.settle(),
        ["Service +default/late.default.svc.cluster.local"]
    );
}

#[test]
fn a_new_stream_knows_what_was_asked() {
    let mut pair = Pair::on_demand();
    pair.connect();
    pair.ask("host/a");
    pair.settle();
    pair.apply(vec![pod("a", 11, Health::Draining)], &[]);
    pair.connect();
    assert_eq!(
        pair.settle(),
        ["Workload +Pod/default/a-11", "Lookup +host/a"]
    );
}

#[test]
fn what_is_given_up_is_taken_back() {
    let mut pair = Pair::on_demand();
    pair.connect();
    pair.ask("host/a");
    pair.ask("host/a.default");
    pair.settle();
    pair.give_up("host/a");
    assert_eq!(
        pair.settle(),
        Vec::<String>::new(),
        "the other name keeps it"
    );
    pair.give_up("host/a.default");
    assert_eq!(pair.settle(), A.map(|line| line.replace('+', "-")));
}

#[test]
fn a_client_gives_up_the_oldest_for_one_too_many_and_peers_first() {
    let mut pair = Pair::on_demand();
    pair.connect();
    for n in 0..4095 {
        assert_eq!(pair.ask(&format!("host/n{n}")), []);
    }
    assert_eq!(pair.ask("peer/10.244.0.11"), []);
    pair.settle();
    for (more, given_up) in [("host/more", "peer/10.244.0.11"), ("host/most", "host/n0")] {
        assert_eq!(pair.ask(more), [given_up.parse().expect(given_up)]);
        pair.settle();
    }
    assert_eq!(pair.session.status().expect("a node").lookups, 4096);
}

#[test]
fn a_sidecar_object_takes_away_and_gives_back() {
    let mut pair = Pair::new(ready(mesh()));
    pair.connect();
    pair.settle();
    let b = [
        "Service +default/b.default.svc.cluster.local",
        "Workload +Pod/default/b-12",
        "RouteTable +default/b",
    ];
    pair.apply(vec![sidecar(&["a"])], &[]);
    let mut want = b.map(|line| line.replace('+', "-")).to_vec();
    want.insert(2, "SidecarScope +default/own".to_owned());
    assert_eq!(pair.settle(), want);
    pair.apply(vec![pod("b", 12, Health::Draining), service("b", 9)], &[]);
    assert_eq!(pair.settle(), Vec::<String>::new(), "not its concern");
    pair.apply(vec![sidecar(&["a", "b"])], &[]);
    let mut want = b.map(str::to_owned).to_vec();
    want.insert(2, "SidecarScope +default/own".to_owned());
    assert_eq!(pair.settle(), want);
    pair.apply(vec![sidecar(&[])], &[]);
    pair.settle();
    pair.table.apply(
        vec![],
        vec![Key {
            kind: Kind::SidecarScope,
            name: "default/own".into(),
        }],
    );
    let all = pair.settle();
    assert!(
        all.contains(&"RouteTable +default/a +default/b".to_owned()),
        "{all:?}"
    );
}

#[test]
fn bad_lookups_are_refused() {
    let mut pair = Pair::on_demand();
    pair.connect();
    let request = DeltaDiscoveryRequest {
        type_url: LOOKUP.to_owned(),
        resource_names_subscribe: vec!["host/a b".to_owned()],
        ..DeltaDiscoveryRequest::default()
    };
    let refused = pair
        .session
        .on_request(&pair.table, request, SystemTime::UNIX_EPOCH);
    let text = refused.expect_err("no lookup").to_string();
    assert!(text.contains("\"host/a b\" is no lookup"), "{text}");
}

#[test]
fn changes_of_what_a_client_does_not_use_pass_it_by() {
    let mut pair = Pair::on_demand();
    pair.connect();
    pair.settle();
    pair.ask(&format!("host/{}", host("a")));
    pair.settle();
    let passes = |pair: &mut Pair, changed: Resource| {
        pair.apply(vec![changed], &[]);
        let passed = pair.session.pass(&pair.table);
        let generation = pair.table.generation();
        assert_eq!(passed, pair.session.acked() == Some(generation));
        assert_eq!(passed, pair.settle().is_empty());
        passed
    };
    assert!(passes(&mut pair, pod("b", 12, Health::Unready)));
    assert!(!passes(&mut pair, pod("a", 11, Health::Unready)));
    assert!(!passes(&mut pair, pod("a", 13, Health::Ready)));
    assert!(!passes(&mut pair, table("default/c", &host("a"), None)));
    pair.apply(vec![], &["default/c"]);
    assert!(!pair.session.pass(&pair.table), "it has what is gone");
    assert_eq!(pair.settle(), ["RouteTable -default/c"]);
}

#[test]
fn nothing_passes_a_client_that_is_owed_something() {
    let mut pair = Pair::on_demand();
    pair.connect();
    assert!(!pair.session.pass(&pair.table), "it has nothing yet");
    pair.settle();
    pair.ask(&format!("host/{}", host("a")));
    pair.apply(vec![pod("b", 12, Health::Unready)], &[]);
    assert!(!pair.session.pass(&pair.table), "it has just asked");
    assert!(!pair.sent().is_empty());
    // Under way is what it asked for: a change of something else may pass, but it has acknowledged nothing.
    let before = pair.session.acked();
    pair.apply(vec![pod("b", 12, Health::Ready)], &[]);
    pair.session.pass(&pair.table);
    assert_eq!(pair.session.acked(), before);
    pair.answered();
    pair.settle();
    assert_eq!(pair.session.acked(), Some(pair.table.generation()));
}
