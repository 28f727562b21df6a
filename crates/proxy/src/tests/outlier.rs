//! Endpoints that fail are left out.

use super::mesh::{pod, policy, retries, routes, rule, service};
use super::*;
use lateen_model::route::HttpRoute;
use lateen_model::service::Protocol;
use lateen_model::traffic::{OutlierDetection, TrafficSettings};

const A: &str = "10.96.0.1:80";
const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

fn one_error(outlier: OutlierDetection) -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: 1,
        max_ejection_percent: 100,
        // Longer than any test.
        base_ejection_time: Duration::from_secs(1000),
        ..outlier
    }
}

/// A service with these endpoints, without retries.
fn resources(outlier: OutlierDetection, endpoints: &[SocketAddr]) -> Vec<Resource> {
    let settings = TrafficSettings {
        outlier: Some(outlier),
        ..TrafficSettings::default()
    };
    let never = HttpRoute {
        retries: retries(0, &[]),
        ..rule(&[("a", 1)])
    };
    let mut all = vec![
        service("a", "10.96.0.1", 80, Protocol::Http),
        policy("a", settings),
        routes("a", vec![never]),
    ];
    all.extend(endpoints.iter().map(|to| pod("a", "v1", 80, *to)));
    all
}

/// A server that answers everything with this status.
async fn always(ip: &str, status: u16) -> SocketAddr {
    server(ip, move |mut stream, _| async move {
        while read_head(&mut stream).await.is_some() {
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await
}

async fn statuses(bench: &Bench, requests: usize) -> Vec<String> {
    let mut statuses = Vec::new();
    for _ in 0..requests {
        let answer = bench.ask(GET).await;
        statuses.push(answer[9..12].to_owned());
    }
    statuses
}

#[test]
fn one_that_fails_gets_no_more_requests() {
    run(async {
        let good = web("127.1.0.1", "ok").await;
        let bad = always("127.1.0.2", 500).await;
        let outlier = one_error(OutlierDetection::default());
        let bench = Bench::sidecar(A, resources(outlier, &[good, bad])).await;
        let seen = statuses(&bench, 60).await;
        let errors = seen.iter().filter(|status| *status == "500").count();
        assert_eq!(errors, 1, "{seen:?}");
    });
}

#[test]
fn all_workers_know_of_it() {
    run(async {
        let good = web("127.1.0.1", "ok").await;
        let bad = always("127.1.0.2", 500).await;
        let mut config = Config::new(mesh::scope(lateen_model::mesh::Role::Sidecar));
        config.destinations = Destinations::Fixed(A.parse().unwrap());
        config.concurrency = 2;
        let outlier = one_error(OutlierDetection::default());
        let bench = Bench::with(config, resources(outlier, &[good, bad])).await;
        let seen = statuses(&bench, 100).await;
        let errors = seen.iter().filter(|status| *status == "500").count();
        assert_eq!(errors, 1, "{seen:?}");
    });
}

#[test]
fn nobody_left_and_panic() {
    run(async {
        let (one, other) = (
            always("127.1.0.1", 500).await,
            always("127.1.0.2", 500).await,
        );
        let outlier = one_error(OutlierDetection::default());
        let bench = Bench::sidecar(A, resources(outlier.clone(), &[one, other])).await;
        assert_eq!(statuses(&bench, 4).await, ["500", "500", "503", "503"]);
        let line = bench.log.lines(3).await.remove(2);
        assert!(line.contains(" 503 UH no_healthy_upstream "), "{line}");
        let panics = OutlierDetection {
            min_health_percent: 30,
            ..outlier
        };
        let bench = Bench::sidecar(A, resources(panics, &[one, other])).await;
        assert_eq!(statuses(&bench, 4).await, ["500"; 4]);
    });
}

#[test]
fn one_that_cannot_be_reached_is_called_no_more() {
    run(async {
        let good = web("127.1.0.1", "ok").await;
        let gone = nobody("127.1.0.2").await;
        let outlier = one_error(OutlierDetection::default());
        let bench = Bench::sidecar(A, resources(outlier, &[good, gone])).await;
        // Nobody notices, as another endpoint is tried at once.
        assert_eq!(statuses(&bench, 40).await, ["200"; 40]);
        // Somebody listens there now, and is not called.
        let listener = TcpListener::bind(gone).await.unwrap();
        let called = async { listener.accept().await.is_ok() };
        let asked = async {
            assert_eq!(statuses(&bench, 40).await, ["200"; 40]);
            false
        };
        let is_called = tokio::select! {
            is_called = called => is_called,
            is_called = asked => is_called,
        };
        assert!(!is_called);
    });
}
