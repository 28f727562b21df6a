//! Rate limits on real sockets: buckets of the proxy, and a real rate-limit service.

use super::guarded::*;
use super::mesh::{host, origin, pod, service};
use super::*;
use lateen_model::limit::{
    Bucket, Descriptor, Entry, EntryValue, LimitMatch, LimitRule, Limiter, RateLimitPolicy, Service,
};
use lateen_model::matching::StringMatch;
use lateen_model::name::Visibility;
use lateen_model::route::HttpMatch;
use lateen_model::service::Protocol;
use lateen_ratelimit::engine::Engine;
use lateen_ratelimit::limits::read_file;
use lateen_ratelimit::stats::Stats;
use lateen_ratelimit::store::Store;
use lateen_ratelimit::store::memory::Memory;
use std::sync::atomic::Ordering;
use tokio_util::sync::CancellationToken;

/// A limit whose window does not end while a test runs.
const LIMITS: &str = "domain: d\ndescriptors:\n- key: user\n  rate_limit: {unit: year, requests_per_unit: 50}\n\
     - key: user\n  value: guest\n  rate_limit: {unit: year, requests_per_unit: 0}\n";

const ASK: &str = "GET /ask HTTP/1.1\r\nhost: a\r\nx-user: ann\r\n\r\n";

fn policy(rules: Vec<LimitRule>) -> RateLimitPolicy {
    RateLimitPolicy {
        origin: origin("RateLimitPolicy", "limits"),
        selector: Default::default(),
        visibility: Visibility::Public,
        status: 429,
        headers: true,
        rules,
    }
}

fn by_user(limit: Option<Bucket>) -> Descriptor {
    Descriptor {
        entries: vec![Entry {
            key: "user".into(),
            value: EntryValue::Header("x-user".into()),
        }],
        limit,
    }
}

fn bucket(tokens: u32) -> Bucket {
    Bucket {
        tokens,
        interval: Duration::from_secs(3600),
        burst: tokens,
    }
}

fn rule(limiter: Limiter, descriptors: Vec<Descriptor>) -> LimitRule {
    LimitRule {
        name: "".into(),
        matches: Vec::new(),
        limiter,
        descriptors,
    }
}

fn local(tokens: Option<u32>, descriptors: Vec<Descriptor>) -> LimitRule {
    let bucket = tokens.map(bucket);
    rule(Limiter::Local { bucket }, descriptors)
}

fn global(change: impl FnOnce(&mut Service)) -> LimitRule {
    let mut service = Service {
        domain: "d".into(),
        host: host("limits"),
        port: 8081,
        fail_open: false,
        timeout: Duration::from_secs(5),
        leases: true,
    };
    change(&mut service);
    rule(Limiter::Global(service), vec![by_user(None)])
}

/// A sidecar with a policy, which finds its rate-limit service at `limits`.
async fn limited(policy: RateLimitPolicy, limits: SocketAddr) -> Bench {
    let app = mirror("127.1.0.1").await;
    let resources = vec![
        service("limits", "10.96.0.9", 8081, Protocol::Grpc),
        pod("limits", "v1", 8081, limits),
        settings(|mesh| mesh.access_log = true),
        Resource::RateLimitPolicy(policy),
    ];
    sidecar(app, resources).await
}

async fn local_only(rules: Vec<LimitRule>) -> Bench {
    limited(policy(rules), nobody("127.1.0.2").await).await
}

/// A rate-limit service of its own.
async fn limits() -> (Arc<Engine>, SocketAddr) {
    let stats = Arc::new(Stats::default());
    let read = read_file("limits.yaml", LIMITS, &stats).unwrap();
    let engine = Arc::new(Engine::new(Store::Memory(Memory::new(100)), false, stats));
    engine.set(read);
    let listener = TcpListener::bind(("127.1.0.2", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(lateen_ratelimit::serve(
        listener,
        Arc::clone(&engine),
        CancellationToken::new(),
    ));
    (engine, address)
}

async fn statuses(bench: &Bench, request: &str, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(outcome(&call(bench, request).await).0.to_owned());
    }
    all
}

fn passed(statuses: &[String]) -> usize {
    statuses.iter().filter(|status| *status == "200").count()
}

#[test]
fn a_bucket_refuses_in_envoys_words_and_the_log_names_the_policy() {
    run(async {
        let bench = local_only(vec![local(Some(2), Vec::new())]).await;
        let first = call(&bench, ASK).await;
        assert!(first.starts_with("HTTP/1.1 200"), "{first}");
        for line in [
            "x-ratelimit-limit: 2, 2;w=3600\r\n",
            "x-ratelimit-remaining: 1\r\n",
            "x-ratelimit-reset: 1800\r\n",
        ] {
            assert!(first.to_ascii_lowercase().contains(line), "{line}: {first}");
        }
        call(&bench, ASK).await;
        let third = call(&bench, ASK).await;
        assert_eq!(outcome(&third), ("429", "local_rate_limited"), "{third}");
        assert!(third.contains("x-envoy-ratelimited: true\r\n"), "{third}");
        assert!(third.contains("x-ratelimit-remaining: 0\r\n"), "{third}");
        let lines = bench.log.lines(3).await;
        let details = "429 RL local_rate_limited{ns[default]-policy[limits]-rule[0]}";
        assert!(lines[2].contains(details), "{}", lines[2]);
        let metric = "lateen_rate_limit_requests_total{limiter=\"local\",outcome=\"over_limit\"}";
        assert_eq!(bench.metrics(metric).await, [format!("{metric} 1")]);
    });
}

#[test]
fn each_value_has_its_own_bucket_and_conditions_hold() {
    run(async {
        let mut writes = local(Some(0), Vec::new());
        writes.matches = vec![LimitMatch {
            http: HttpMatch {
                method: Some(StringMatch::Exact("PUT".into())),
                ..HttpMatch::default()
            },
            route: None,
        }];
        let users = local(None, vec![by_user(Some(bucket(2)))]);
        let bench = local_only(vec![writes, users]).await;
        assert_eq!(statuses(&bench, ASK, 3).await, ["200", "200", "429"]);
        let bob = ASK.replace("ann", "bob");
        assert_eq!(statuses(&bench, &bob, 3).await, ["200", "200", "429"]);
        let nobody = ASK.replace("x-user", "x-other");
        assert_eq!(passed(&statuses(&bench, &nobody, 5).await), 5);
        let put = ASK.replace("GET", "PUT").replace("ann", "eve");
        assert_eq!(statuses(&bench, &put, 1).await, ["429"]);
    });
}

/// A request that one limit refuses takes nothing from another.
#[test]
fn a_refused_request_costs_nothing_elsewhere() {
    run(async {
        let rules = vec![
            local(Some(3), Vec::new()),
            local(None, vec![by_user(Some(bucket(1)))]),
        ];
        let bench = local_only(rules).await;
        assert_eq!(statuses(&bench, ASK, 4).await, ["200", "429", "429", "429"]);
        let others = ["bob", "eve", "joe"].map(|user| ASK.replace("ann", user));
        let mut seen = Vec::new();
        for other in &others {
            seen.extend(statuses(&bench, other, 1).await);
        }
        assert_eq!(seen, ["200", "200", "429"]);
    });
}

#[test]
fn grpc_clients_are_told_in_their_own_way() {
    run(async {
        let mut policy = policy(vec![local(Some(0), Vec::new())]);
        policy.headers = false;
        let bench = limited(policy, nobody("127.1.0.2").await).await;
        let request = "POST /a.B/C HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\n\
                       content-length: 0\r\n\r\n";
        let answer = exchange(&mut bench.inbound("127.1.0.9").await, request).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        for line in [
            "grpc-status: 14\r\n",
            "grpc-message: local_rate_limited\r\n",
            "x-envoy-ratelimited: true\r\n",
        ] {
            assert!(answer.contains(line), "{line}: {answer}");
        }
        assert!(!answer.contains("x-ratelimit-limit"), "{answer}");
    });
}

#[test]
fn a_service_counts_for_all_proxies_and_is_asked_less_than_there_are_requests() {
    run(async {
        let (engine, address) = limits().await;
        let one = limited(policy(vec![global(|_| {})]), address).await;
        let other = limited(policy(vec![global(|_| {})]), address).await;
        let mut all = Vec::new();
        for _ in 0..40 {
            all.extend(statuses(&one, ASK, 1).await);
            all.extend(statuses(&other, ASK, 1).await);
        }
        let count = passed(&all);
        // Leases may use less, never more.
        assert!((40..=50).contains(&count), "{count}");
        let asked = engine.stats().requests.load(Ordering::Relaxed);
        assert!(asked < 40, "{asked} questions for 80 requests");
        let refused = call(&one, ASK).await;
        assert_eq!(outcome(&refused), ("429", ""), "{refused}");
        assert!(
            refused.contains("x-ratelimit-limit: 50, 50;w=31536000\r\n"),
            "{refused}"
        );
        let lines = one.log.lines(41).await;
        let details = "429 RL request_rate_limited{ns[default]-policy[limits]-rule[0]}";
        assert!(lines[40].contains(details), "{}", lines[40]);
        let bob = ASK.replace("ann", "bob");
        assert_eq!(statuses(&one, &bob, 1).await, ["200"], "another counter");
        let guest = ASK.replace("ann", "guest");
        assert_eq!(statuses(&one, &guest, 2).await, ["429", "429"]);
    });
}

#[test]
fn requests_at_once_wait_for_one_question() {
    run(async {
        let (engine, address) = limits().await;
        let bench = limited(policy(vec![global(|_| {})]), address).await;
        let mut streams = Vec::new();
        for _ in 0..8 {
            let mut stream = bench.inbound("127.1.0.9").await;
            stream.write_all(ASK.as_bytes()).await.unwrap();
            streams.push(stream);
        }
        for stream in &mut streams {
            assert_eq!(outcome(&response(stream).await).0, "200");
        }
        assert!(engine.stats().requests.load(Ordering::Relaxed) <= 8);
    });
}

#[test]
fn without_leases_every_request_is_a_question() {
    run(async {
        let (engine, address) = limits().await;
        let bench = limited(policy(vec![global(|s| s.leases = false)]), address).await;
        let all = statuses(&bench, ASK, 55).await;
        assert_eq!(passed(&all), 50, "exactly the limit");
        assert_eq!(engine.stats().requests.load(Ordering::Relaxed), 55);
    });
}

#[test]
fn without_a_service_the_settings_decide() {
    run(async {
        let silent = server("127.1.0.2", |stream, _| async move {
            let _open = stream;
            std::future::pending().await
        })
        .await;
        for address in [nobody("127.1.0.2").await, silent] {
            for (open, want) in [(false, "500"), (true, "200")] {
                let rule = global(|service| {
                    service.fail_open = open;
                    service.timeout = Duration::from_millis(50);
                });
                let bench = limited(policy(vec![rule]), address).await;
                let answer = call(&bench, ASK).await;
                assert_eq!(outcome(&answer).0, want, "{address} {answer}");
                assert!(!answer.contains("x-envoy-ratelimited"), "{answer}");
                let outcome = if open {
                    "failure_mode_allowed"
                } else {
                    "error"
                };
                let metric = format!(
                    "lateen_rate_limit_requests_total{{limiter=\"global\",outcome=\"{outcome}\"}}"
                );
                assert_eq!(bench.metrics(&metric).await, [format!("{metric} 1")]);
                let lines = bench.log.lines(1).await;
                let said = lines[0].contains("500 RLSE rate_limiter_error");
                assert_eq!(said, !open, "{}", lines[0]);
            }
        }
    });
}

/// An edit of a policy counts for the next request, and what was used before counts on.
#[test]
fn policies_change_while_it_runs() {
    run(async {
        let bench = local_only(vec![local(Some(2), Vec::new())]).await;
        assert_eq!(statuses(&bench, ASK, 3).await, ["200", "200", "429"]);
        let update = |rules| lateen_xds::client::Update::Changed {
            changed: vec![Resource::RateLimitPolicy(policy(rules))],
            removed: Vec::new(),
        };
        bench.proxy.feed.send(update(Vec::new())).await.unwrap();
        while passed(&statuses(&bench, ASK, 1).await) == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(passed(&statuses(&bench, ASK, 5).await), 5);
    });
}
