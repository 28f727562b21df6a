//! Many picks in, shares out.

use super::*;
use lateen_model::decide::cluster::Discovery;
use lateen_model::service::Protocol;
use lateen_model::workload::{Health, Workload};
use std::time::Duration;

fn workload() -> Arc<Workload> {
    let none: Str = "".into();
    Arc::new(Workload {
        uid: none.clone(),
        name: none.clone(),
        namespace: none.clone(),
        addresses: Vec::new(),
        hostname: None,
        labels: Default::default(),
        service_account: none.clone(),
        workload_name: none.clone(),
        canonical_name: none.clone(),
        canonical_revision: none.clone(),
        node: none.clone(),
        locality: none,
        weight: 1,
        has_sidecar: false,
        takes_mtls: false,
        trust_domain: "".into(),
        services: Default::default(),
    })
}

fn cluster(balancer: Balancer, weights: &[u32]) -> (Cluster, Arc<[Endpoint]>) {
    let endpoints: Arc<[Endpoint]> = weights
        .iter()
        .enumerate()
        .map(|(i, weight)| Endpoint {
            mutual: false,
            identity: None,
            address: SocketAddr::from(([10, 0, 0, i as u8], 80)),
            weight: *weight,
            health: Health::Ready,
            workload: workload(),
        })
        .collect();
    let cluster = Cluster {
        tls: lateen_model::decide::cluster::ClusterTls::Plain,
        name: "c".into(),
        service: None,
        discovery: Discovery::Endpoints(Arc::clone(&endpoints)),
        balancer,
        connect_timeout: Duration::from_secs(1),
        protocol: Protocol::Http,
    };
    (cluster, endpoints)
}

/// Shares of 3,000 picks, in per cent.
fn check(balancer: Balancer, weights: &[u32], want: &[u32], within: u32) {
    let (cluster, endpoints) = cluster(balancer, weights);
    let (turns, loads) = (Turns::default(), Loads::default());
    let mut seen = vec![0u32; weights.len()];
    for _ in 0..3000 {
        seen[turns.pick(&cluster, &endpoints, &loads, &[]).unwrap()] += 1;
    }
    for (seen, want) in seen.iter().zip(want) {
        assert!(
            (seen / 30).abs_diff(*want) <= within,
            "{balancer:?} {weights:?}: {seen} of 3000"
        );
    }
}

#[test]
fn shares_follow_weights() {
    check(Balancer::RoundRobin, &[1, 1, 1], &[33, 33, 33], 1);
    check(Balancer::RoundRobin, &[90, 10], &[90, 10], 1);
    check(Balancer::Random, &[1, 1], &[50, 50], 5);
    check(Balancer::Random, &[3, 1], &[75, 25], 5);
    check(Balancer::LeastRequest, &[1, 1, 1, 1], &[25, 25, 25, 25], 5);
}

#[test]
fn the_less_busy_of_two_wins() {
    let (cluster, endpoints) = cluster(Balancer::LeastRequest, &[1, 1]);
    let (turns, loads) = (Turns::default(), Loads::default());
    let _busy = loads.begin(endpoints[0].address);
    for _ in 0..100 {
        assert_eq!(turns.pick(&cluster, &endpoints, &loads, &[]), Some(1));
    }
}

#[test]
fn tried_endpoints_are_passed_over() {
    let (cluster, endpoints) = cluster(Balancer::LeastRequest, &[1, 1, 1]);
    let (turns, loads) = (Turns::default(), Loads::default());
    let all: Vec<_> = endpoints.iter().map(|e| e.address).collect();
    for _ in 0..20 {
        assert_eq!(turns.pick(&cluster, &endpoints, &loads, &all[..2]), Some(2));
    }
    assert_eq!(turns.pick(&cluster, &endpoints, &loads, &all), None);
}

#[test]
fn turns_go_on_when_endpoints_change() {
    let (cluster, endpoints) = cluster(Balancer::RoundRobin, &[1, 1]);
    let (turns, loads) = (Turns::default(), Loads::default());
    let pick = |endpoints: &Arc<[Endpoint]>| turns.pick(&cluster, endpoints, &loads, &[]).unwrap();
    let first = pick(&endpoints);
    let copy: Arc<[Endpoint]> = endpoints.to_vec().into();
    assert_eq!(pick(&copy), 1 - first);
    assert_eq!(pick(&copy), first);
}
