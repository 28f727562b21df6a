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

/// Endpoints `10.0.0.N:80` with these weights.
pub(super) fn endpoints(weights: &[u32]) -> Arc<[Endpoint]> {
    weights
        .iter()
        .enumerate()
        .map(|(i, weight)| Endpoint {
            mutual: false,
            identity: None,
            address: SocketAddr::from(([10, 0, 0, i as u8], 80)),
            weight: *weight,
            priority: 0,
            locality_weight: 0,
            health: Health::Ready,
            workload: workload(),
        })
        .collect()
}

fn cluster(balancer: Balancer, weights: &[u32]) -> (Cluster, Arc<[Endpoint]>) {
    let endpoints = endpoints(weights);
    let cluster = Cluster {
        settings: Arc::default(),
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

fn choice<'a>(loads: &'a Loads, tried: &'a [SocketAddr]) -> Choice<'a> {
    Choice {
        loads,
        ejected: None,
        state: None,
        hash: None,
        tried,
        now: Instant::now(),
    }
}

/// Shares of 3,000 picks, in per cent.
fn check(balancer: &Balancer, weights: &[u32], want: &[u32], within: u32) {
    let (cluster, endpoints) = cluster(balancer.clone(), weights);
    let (turns, loads) = (Turns::default(), Loads::default());
    let mut seen = vec![0u32; weights.len()];
    for _ in 0..3000 {
        let picked = turns.pick(&cluster, &endpoints, &choice(&loads, &[]));
        seen[picked.unwrap().0] += 1;
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
    check(&Balancer::RoundRobin, &[1, 1, 1], &[33, 33, 33], 1);
    check(&Balancer::RoundRobin, &[90, 10], &[90, 10], 1);
    check(&Balancer::Random, &[1, 1], &[50, 50], 5);
    check(&Balancer::Random, &[3, 1], &[75, 25], 5);
    check(&Balancer::LeastRequest, &[1, 1, 1, 1], &[25, 25, 25, 25], 5);
    check(&Balancer::LeastRequest, &[80, 10, 10], &[80, 10, 10], 5);
}

#[test]
fn the_less_busy_of_two_wins() {
    let (cluster, endpoints) = cluster(Balancer::LeastRequest, &[1, 1]);
    let (turns, loads) = (Turns::default(), Loads::default());
    let _busy = loads.begin(endpoints[0].address);
    for _ in 0..100 {
        let picked = turns.pick(&cluster, &endpoints, &choice(&loads, &[]));
        assert_eq!(picked, Some((1, true)));
    }
}

#[test]
fn tried_endpoints_are_passed_over() {
    let (cluster, endpoints) = cluster(Balancer::LeastRequest, &[1, 1, 1]);
    let (turns, loads) = (Turns::default(), Loads::default());
    let all: Vec<_> = endpoints.iter().map(|e| e.address).collect();
    for _ in 0..20 {
        let picked = turns.pick(&cluster, &endpoints, &choice(&loads, &all[..2]));
        assert_eq!(picked, Some((2, false)));
    }
    let picked = turns.pick(&cluster, &endpoints, &choice(&loads, &all));
    assert_eq!(picked, None);
}

#[test]
fn ejected_endpoints_get_nothing() {
    for balancer in [
        Balancer::LeastRequest,
        Balancer::RoundRobin,
        Balancer::Random,
    ] {
        let (cluster, endpoints) = cluster(balancer, &[1, 1, 1]);
        let (turns, loads) = (Turns::default(), Loads::default());
        let out = |hosts: &[usize]| {
            let out = hosts.iter().map(|at| endpoints[*at].address);
            Some(Arc::new(out.collect()))
        };
        let pick = |ejected: Option<Ejected>| {
            let choice = Choice {
                ejected,
                ..choice(&loads, &[])
            };
            turns.pick(&cluster, &endpoints, &choice)
        };
        let one = out(&[1]);
        for _ in 0..50 {
            assert_ne!(pick(one.clone()).unwrap().0, 1);
        }
        assert_eq!(pick(out(&[0, 2])), Some((1, false)));
        assert_eq!(pick(out(&[0, 1, 2])), None, "nobody is left");
        assert!(pick(None).is_some());
    }
}

#[test]
fn young_endpoints_get_less_and_in_the_end_as_much() {
    use crate::upstream::limits::States;
    use lateen_model::decide::cluster::ClusterSettings;
    use lateen_model::traffic::Warmup;
    let (mut cluster, endpoints) = cluster(Balancer::RoundRobin, &[1, 1]);
    cluster.settings = Arc::new(ClusterSettings {
        warmup: Some(Warmup {
            duration: Duration::from_secs(100),
            minimum_percent: 10.0,
            aggression: 1.0,
        }),
        ..ClusterSettings::default()
    });
    let states = States::default();
    let state = states.of(&cluster.name);
    let old = Instant::now();
    let young = old + Duration::from_secs(200);
    state.know(endpoints[0].address, old);
    state.know(endpoints[1].address, young);
    let (turns, loads) = (Turns::default(), Loads::default());
    let share = |age: u64| {
        let choice = || Choice {
            state: Some(Arc::clone(&state)),
            now: young + Duration::from_secs(age),
            ..choice(&loads, &[])
        };
        let pick = |_| turns.pick(&cluster, &endpoints, &choice()).unwrap().0;
        (0..1000).map(pick).filter(|at| *at == 1).count()
    };
    // A tenth of the other's weight, then half of it, then all.
    for (age, want) in [(0, 91), (50, 333), (100, 500)] {
        let got = share(age);
        assert!(got.abs_diff(want) < 10, "{got} of 1000 at {age} s");
    }
}

#[test]
fn turns_go_on_when_endpoints_change() {
    let (cluster, endpoints) = cluster(Balancer::RoundRobin, &[1, 1]);
    let (turns, loads) = (Turns::default(), Loads::default());
    let pick = |endpoints: &Arc<[Endpoint]>| {
        let choice = choice(&loads, &[]);
        turns.pick(&cluster, endpoints, &choice).unwrap().0
    };
    let first = pick(&endpoints);
    let copy: Arc<[Endpoint]> = endpoints.to_vec().into();
    assert_eq!(pick(&copy), 1 - first);
    assert_eq!(pick(&copy), first);
}
