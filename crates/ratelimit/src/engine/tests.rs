//! Requests and answers, with a clock of the test's own.

use super::*;
use crate::limits::read_file;
use crate::store::memory::Memory;
use lateen_proto::ratelimit::UInt64Value;
use lateen_proto::ratelimit::rate_limit_descriptor::Entry;

const LIMITS: &str = r#"
domain: edge
descriptors:
  - key: user
    rate_limit: { unit: minute, requests_per_unit: 10, name: users }
  - key: user
    value: admin
    rate_limit: { unlimited: true }
  - key: path
    rate_limit: { unit: hour, requests_per_unit: 3, replaces: [{ name: users }] }
  - key: trial
    shadow_mode: true
    rate_limit: { unit: second, requests_per_unit: 1 }
"#;

fn engine() -> Engine {
    let stats = Arc::new(Stats::default());
    let limits = read_file("limits.yaml", LIMITS, &stats).expect("valid");
    let engine = Engine::new(Store::Memory(Memory::new(1000)), true, stats);
    engine.set(limits);
    engine
}

fn descriptor(entries: &[(&str, &str)]) -> RateLimitDescriptor {
    RateLimitDescriptor {
        entries: entries
            .iter()
            .map(|(key, value)| Entry {
                key: (*key).to_owned(),
                value: (*value).to_owned(),
            })
            .collect(),
        ..RateLimitDescriptor::default()
    }
}

fn request(hits: u32, descriptors: &[(&str, &str)]) -> RateLimitRequest {
    RateLimitRequest {
        domain: "edge".to_owned(),
        descriptors: descriptors.iter().map(|d| descriptor(&[*d])).collect(),
        hits_addend: hits,
    }
}

/// The overall code, and what is left by the first descriptor.
async fn ask(engine: &Engine, request: &RateLimitRequest, at: u64) -> (Code, u32) {
    let answer = engine.answer(request, Duration::from_secs(at)).await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.statuses.len(), request.descriptors.len());
    (answer.overall_code(), answer.statuses[0].limit_remaining)
}

#[tokio::test]
async fn a_window_has_its_limit_and_the_next_one_its_own() {
    let engine = engine();
    let one = request(0, &[("user", "ann")]);
    for left in (0..10).rev() {
        assert_eq!(ask(&engine, &one, 100).await, (Code::Ok, left));
    }
    assert_eq!(ask(&engine, &one, 119).await, (Code::OverLimit, 0));
    assert_eq!(ask(&engine, &one, 120).await, (Code::Ok, 9));
    let other = request(0, &[("user", "bob")]);
    assert_eq!(ask(&engine, &other, 120).await, (Code::Ok, 9));
}

#[tokio::test]
async fn hits_may_be_several_and_a_refused_lease_costs_nothing() {
    let engine = engine();
    assert_eq!(
        ask(&engine, &request(8, &[("user", "ann")]), 60).await,
        (Code::Ok, 2)
    );
    assert_eq!(
        ask(&engine, &request(3, &[("user", "ann")]), 60).await,
        (Code::OverLimit, 2)
    );
    assert_eq!(
        ask(&engine, &request(2, &[("user", "ann")]), 60).await,
        (Code::Ok, 0)
    );
    let mut peek = request(1, &[("user", "bob")]);
    peek.descriptors[0].hits_addend = Some(UInt64Value { value: 0 });
    assert_eq!(ask(&engine, &peek, 60).await, (Code::Ok, 10));
}

#[tokio::test]
async fn one_descriptor_over_its_limit_refuses_the_request() {
    let engine = engine();
    let both = request(1, &[("other", "x"), ("path", "/a")]);
    for _ in 0..3 {
        assert_eq!(ask(&engine, &both, 60).await.0, Code::Ok);
    }
    let answer = engine
        .answer(&both, Duration::from_millis(60_250))
        .await
        .expect("an answer");
    assert_eq!(answer.overall_code(), Code::OverLimit);
    assert_eq!(answer.statuses[0].code(), Code::Ok);
    assert!(
        answer.statuses[0].current_limit.is_none(),
        "no limit applies"
    );
    let over = &answer.statuses[1];
    assert_eq!(over.code(), Code::OverLimit);
    let limit = over.current_limit.clone().expect("a limit");
    assert_eq!(
        (limit.requests_per_unit, limit.unit),
        (3, Unit::Hour as i32)
    );
    let reset = over.duration_until_reset.expect("a reset");
    assert_eq!((reset.seconds, reset.nanos), (3539, 750_000_000));
}

#[tokio::test]
async fn a_limit_that_replaces_another_leaves_it_uncounted() {
    let engine = engine();
    let both = request(1, &[("user", "ann"), ("path", "/a")]);
    for _ in 0..3 {
        assert_eq!(ask(&engine, &both, 60).await.0, Code::Ok);
    }
    assert_eq!(
        ask(&engine, &request(1, &[("user", "ann")]), 60).await,
        (Code::Ok, 9)
    );
}

#[tokio::test]
async fn shadow_mode_and_unlimited_refuse_nothing() {
    let engine = engine();
    for _ in 0..5 {
        assert_eq!(
            ask(&engine, &request(1, &[("trial", "x")]), 60).await.0,
            Code::Ok
        );
        let admin = ask(&engine, &request(1, &[("user", "admin")]), 60).await;
        assert_eq!(admin, (Code::Ok, u32::MAX));
    }
    let metrics = engine.metrics();
    for line in [
        r#"ratelimit_service_rate_limit_shadow_mode{domain="edge",key="trial"} 4"#,
        r#"ratelimit_service_rate_limit_over_limit{domain="edge",key="trial"} 4"#,
        r#"ratelimit_service_rate_limit_total_hits{domain="edge",key="user_admin"} 5"#,
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
}

#[tokio::test]
async fn hits_near_and_over_a_limit_are_counted_apart() {
    let engine = engine();
    for _ in 0..12 {
        ask(&engine, &request(1, &[("user", "ann")]), 60).await;
    }
    let metrics = engine.metrics();
    for (name, value) in [
        ("total_hits", 12),
        ("within_limit", 10),
        ("near_limit", 2),
        ("over_limit", 2),
    ] {
        let line = format!(
            "ratelimit_service_rate_limit_{name}{{domain=\"edge\",key=\"user\"}} {value}\n"
        );
        assert!(metrics.contains(&line), "{line} in\n{metrics}");
    }
}

#[tokio::test]
async fn long_values_are_told_apart_and_take_little_room() {
    let engine = engine();
    let long = "x".repeat(100_000);
    let (a, b) = (format!("{long}a"), format!("{long}b"));
    for _ in 0..10 {
        assert_eq!(
            ask(&engine, &request(1, &[("user", &a)]), 60).await.0,
            Code::Ok
        );
    }
    assert_eq!(
        ask(&engine, &request(1, &[("user", &a)]), 60).await.0,
        Code::OverLimit
    );
    assert_eq!(
        ask(&engine, &request(1, &[("user", &b)]), 60).await.0,
        Code::Ok
    );
}

#[tokio::test]
async fn requests_that_are_none_are_refused() {
    let engine = engine();
    let now = Duration::from_secs(1);
    let no_domain = RateLimitRequest {
        domain: String::new(),
        ..request(1, &[("user", "a")])
    };
    for bad in [no_domain, request(1, &[])] {
        let refused = engine.answer(&bad, now).await;
        assert!(matches!(refused, Err(Refused::Invalid(_))), "{refused:?}");
    }
    let unknown = RateLimitRequest {
        domain: "unknown".to_owned(),
        ..request(1, &[("user", "a")])
    };
    assert_eq!(ask(&engine, &unknown, 1).await.0, Code::Ok);
}

#[tokio::test]
async fn a_descriptor_may_bring_its_limit() {
    use lateen_proto::ratelimit::rate_limit_descriptor::RateLimitOverride;
    let engine = engine();
    let mut own = request(1, &[("user", "ann")]);
    own.descriptors[0].limit = Some(RateLimitOverride {
        requests_per_unit: 1,
        unit: Unit::Minute as i32,
    });
    assert_eq!(ask(&engine, &own, 60).await, (Code::Ok, 0));
    assert_eq!(ask(&engine, &own, 60).await.0, Code::OverLimit);
}
