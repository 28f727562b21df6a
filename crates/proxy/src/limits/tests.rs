//! Buckets and leases with clocks of the test's own.

use super::buckets::take;
use super::generations::Generations;
use super::leases::{Leases, Step, Subject, Verdict};
use lateen_filters::external::Fingerprint;
use lateen_model::limit::Bucket;
use lateen_proto::ratelimit::rate_limit_descriptor::Entry;
use lateen_proto::ratelimit::rate_limit_response::{Code, DescriptorStatus, RateLimit};
use lateen_proto::ratelimit::{
    Duration as WireDuration, RateLimitDescriptor, RateLimitRequest, RateLimitResponse,
};
use lateen_ratelimit::engine::Engine;
use lateen_ratelimit::limits::read_file;
use lateen_ratelimit::stats::Stats;
use lateen_ratelimit::store::Store;
use lateen_ratelimit::store::memory::Memory;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SECOND: u64 = 1_000_000_000;

fn bucket(tokens: u32, seconds: u64, burst: u32) -> Bucket {
    Bucket {
        tokens,
        interval: Duration::from_secs(seconds),
        burst,
    }
}

/// How many of `tries` at `now` get a token.
fn got(full_at: &Arc<AtomicU64>, bucket: &Bucket, now: u64, tries: u32) -> u32 {
    let one = |_| take(full_at, bucket, now).1.is_some();
    (0..tries).filter(|i| one(*i)).count() as u32
}

#[test]
fn a_bucket_gives_its_burst_and_fills_at_its_rate() {
    let full_at = Arc::default();
    let bucket = bucket(10, 60, 4);
    assert_eq!(got(&full_at, &bucket, SECOND, 9), 4);
    assert_eq!(got(&full_at, &bucket, 6 * SECOND, 9), 0);
    assert_eq!(got(&full_at, &bucket, 7 * SECOND, 9), 1, "one every 6 s");
    assert_eq!(got(&full_at, &bucket, 19 * SECOND, 9), 2);
    assert_eq!(
        got(&full_at, &bucket, 1000 * SECOND, 9),
        4,
        "never more than the burst"
    );
}

#[test]
fn a_bucket_says_what_is_left_and_when_there_is_more() {
    let full_at = Arc::default();
    let bucket = bucket(2, 10, 2);
    let (standing, taken) = take(&full_at, &bucket, SECOND);
    assert!(taken.is_some());
    assert_eq!((standing.limit, standing.remaining), (Some(2), 1));
    take(&full_at, &bucket, SECOND);
    let (standing, taken) = take(&full_at, &bucket, 2 * SECOND);
    assert!(taken.is_none());
    assert_eq!(
        (standing.remaining, standing.reset),
        (0, Duration::from_secs(4))
    );
    let headers = standing.headers();
    let shown: Vec<_> = headers
        .iter()
        .map(|(n, v)| format!("{n}: {}", v.to_str().unwrap()))
        .collect();
    assert_eq!(
        shown,
        [
            "x-ratelimit-limit: 2, 2;w=10",
            "x-ratelimit-remaining: 0",
            "x-ratelimit-reset: 4"
        ]
    );
}

#[test]
fn nothing_passes_an_empty_bucket_and_a_smaller_one_forgets_what_the_larger_lacked() {
    assert_eq!(got(&Arc::default(), &bucket(0, 1, 0), SECOND, 3), 0);
    let full_at = Arc::default();
    assert_eq!(got(&full_at, &bucket(5, 24 * 3600, 5), SECOND, 9), 5);
    // Edited to five a second: nobody waits for tomorrow.
    assert_eq!(got(&full_at, &bucket(5, 1, 5), 2 * SECOND, 9), 0);
    full_at.store(100_000 * SECOND, Ordering::Relaxed);
    assert_eq!(got(&full_at, &bucket(5, 1, 5), 2 * SECOND, 1), 0);
}

#[test]
fn threads_together_get_exactly_the_burst() {
    let full_at: Arc<AtomicU64> = Arc::default();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let full_at = Arc::clone(&full_at);
            std::thread::spawn(move || got(&full_at, &bucket(1000, 3600, 1000), SECOND, 900))
        })
        .collect();
    let all: u32 = threads.into_iter().map(|t| t.join().unwrap()).sum();
    assert_eq!(all, 1000);
}

#[test]
fn what_is_used_stays_and_the_number_is_bounded() {
    let mut map = Generations::new(10);
    *map.entry(&0, || 0) = 7;
    for i in 1..1000 {
        map.entry(&i, || 0);
        assert_eq!(*map.entry(&0, || 0), 7, "it is used all the time");
        assert!(map.len() <= 20);
    }
    assert!(map.find(&1).is_none());
}

fn subject() -> Subject {
    let one = Fingerprint::of([&b"a"[..]]);
    Subject {
        whole: one,
        parts: vec![one],
    }
}

fn answer(code: Code, left: u32, reset: Duration) -> RateLimitResponse {
    RateLimitResponse {
        overall_code: code as i32,
        statuses: vec![DescriptorStatus {
            code: code as i32,
            current_limit: Some(RateLimit {
                requests_per_unit: 100,
                unit: 2,
                name: String::new(),
            }),
            limit_remaining: left,
            duration_until_reset: Some(WireDuration {
                seconds: reset.as_secs() as i64,
                nanos: reset.subsec_nanos() as i32,
            }),
        }],
        ..RateLimitResponse::default()
    }
}

fn asks(leases: &mut Leases, now: Instant) -> u32 {
    match leases.take(&subject(), now) {
        Step::Ask(hits) => hits,
        other => panic!("{other:?}"),
    }
}

#[test]
fn leases_grow_with_demand_up_to_a_share_of_what_is_left() {
    let mut leases = Leases::default();
    let now = Instant::now();
    let reset = Duration::from_millis(10_500);
    let mut sizes = Vec::new();
    let mut left = 1000;
    for _ in 0..8 {
        let hits = asks(&mut leases, now);
        sizes.push(hits);
        left -= hits;
        let verdict = leases.answered(&subject(), (now, hits), &answer(Code::Ok, left, reset));
        assert!(matches!(verdict, Verdict::Granted(_)));
        for _ in 1..hits {
            assert!(matches!(leases.take(&subject(), now), Step::Granted(_)));
        }
    }
    assert_eq!(sizes, [1, 2, 4, 8, 16, 32, 64, 87]);
}

#[test]
fn a_lease_ends_with_its_window_and_shrinks_to_what_was_used() {
    let mut leases = Leases::default();
    let now = Instant::now();
    let reset = Duration::from_millis(500);
    for _ in 0..4 {
        let hits = asks(&mut leases, now);
        leases.answered(&subject(), (now, hits), &answer(Code::Ok, 900, reset));
        for _ in 1..hits {
            leases.take(&subject(), now);
        }
    }
    assert_eq!(asks(&mut leases, now), 16);
    leases.answered(&subject(), (now, 16), &answer(Code::Ok, 900, reset));
    for _ in 0..5 {
        assert!(matches!(leases.take(&subject(), now), Step::Granted(_)));
    }
    let after = now + reset;
    assert_eq!(asks(&mut leases, after), 5, "what was used of the last one");
}

#[test]
fn a_used_up_limit_is_remembered_until_its_window_ends() {
    let mut leases = Leases::default();
    let now = Instant::now();
    assert_eq!(asks(&mut leases, now), 1);
    let over = answer(Code::OverLimit, 0, Duration::from_millis(1500));
    assert!(matches!(
        leases.answered(&subject(), (now, 1), &over),
        Verdict::Over(_)
    ));
    let late = now + Duration::from_millis(1499);
    match leases.take(&subject(), late) {
        Step::Over(standing) => assert_eq!(standing.reset, Duration::from_millis(1)),
        other => panic!("{other:?}"),
    }
    assert_eq!(asks(&mut leases, now + Duration::from_millis(1500)), 1);
}

/// envoyproxy/ratelimit says whole seconds, rounded up.
#[test]
fn the_last_of_whole_seconds_is_not_counted_on() {
    let mut leases = Leases::default();
    let now = Instant::now();
    assert_eq!(asks(&mut leases, now), 1);
    leases.answered(
        &subject(),
        (now, 9),
        &answer(Code::Ok, 90, Duration::from_secs(2)),
    );
    let second = Duration::from_secs(1);
    assert!(matches!(
        leases.take(&subject(), now + second / 2),
        Step::Granted(_)
    ));
    assert!(matches!(
        leases.take(&subject(), now + second),
        Step::Ask(_)
    ));
}

#[test]
fn fewer_are_asked_for_where_not_so_many_are_left() {
    let mut leases = Leases::default();
    let now = Instant::now();
    asks(&mut leases, now);
    let reset = Duration::from_millis(1500);
    let over = answer(Code::OverLimit, 3, reset);
    assert!(matches!(
        leases.answered(&subject(), (now, 8), &over),
        Verdict::Fewer
    ));
    assert!(
        matches!(leases.take(&subject(), now), Step::Wait(_)),
        "it is being asked"
    );
    let one = answer(Code::Ok, 2, reset);
    assert!(matches!(
        leases.answered(&subject(), (now, 1), &one),
        Verdict::Granted(_)
    ));
}

#[test]
fn answers_are_bounded_in_number() {
    let mut leases = Leases::default();
    let now = Instant::now();
    for i in 0..20_000u32 {
        let one = Fingerprint::of([&i.to_be_bytes()[..]]);
        let subject = Subject {
            whole: one,
            parts: vec![one],
        };
        leases.take(&subject, now);
        let over = answer(Code::OverLimit, 0, Duration::from_secs(60));
        leases.answered(&subject, (now, 1), &over);
    }
    assert!(leases.len() <= 4 * 4096, "{}", leases.len());
}

const LIMITS: &str =
    "domain: d\ndescriptors:\n- key: k\n  rate_limit: {unit: second, requests_per_unit: 40}\n";

/// Several proxies with leases against the real engine, with delays on both ways, over many windows.
#[test]
fn proxies_together_never_pass_the_limit_of_a_window() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let stats = Arc::new(Stats::default());
        let limits = read_file("f", LIMITS, &stats).unwrap();
        let engine = Engine::new(Store::Memory(Memory::new(100)), false, stats);
        engine.set(limits);
        let mut proxies: Vec<Leases> = (0..3).map(|_| Leases::default()).collect();
        let start = Instant::now();
        let mut random = fastrand::Rng::with_seed(7);
        let mut passed: BTreeMap<u64, u32> = BTreeMap::new();
        let mut questions = 0;
        let mut now = Duration::from_millis(1_000_003);
        for _ in 0..6000 {
            now += Duration::from_micros(random.u64(0..6000));
            let leases = &mut proxies[random.usize(0..3)];
            let instant = |now: Duration| start + now;
            match leases.take(&subject(), instant(now)) {
                Step::Granted(_) => *passed.entry(now.as_secs()).or_default() += 1,
                Step::Over(_) => {}
                Step::Wait(_) => panic!("nobody asks"),
                Step::Ask(mut hits) => loop {
                    questions += 1;
                    let asked = now;
                    now += Duration::from_micros(random.u64(0..3000));
                    let request = RateLimitRequest {
                        domain: "d".to_owned(),
                        descriptors: vec![RateLimitDescriptor {
                            entries: vec![Entry {
                                key: "k".to_owned(),
                                value: "v".to_owned(),
                            }],
                            ..RateLimitDescriptor::default()
                        }],
                        hits_addend: hits,
                    };
                    let answer = engine.answer(&request, now).await.unwrap();
                    // The hit of who asked is of the window in which it was granted.
                    let window = now.as_secs();
                    now += Duration::from_micros(random.u64(0..3000));
                    match leases.answered(&subject(), (instant(asked), hits), &answer) {
                        Verdict::Granted(_) => *passed.entry(window).or_default() += 1,
                        Verdict::Over(_) => {}
                        Verdict::Fewer => {
                            hits = 1;
                            continue;
                        }
                    }
                    break;
                },
            }
        }
        assert!(passed.len() > 10, "many windows: {}", passed.len());
        assert!(passed.values().all(|n| *n <= 40), "{passed:?}");
        let all: u32 = passed.values().sum();
        assert!(
            all as usize > passed.len() * 30,
            "most of the limit is used: {passed:?}"
        );
        assert!(questions < 4 * all, "{questions} for {all}");
    });
}
