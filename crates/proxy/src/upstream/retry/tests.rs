//! A policy, a trouble: again or over.

use super::*;
use crate::upstream::Security;
use lateen_base::Str;
use lateen_net::dial::DialError;
use std::io;

fn picked(more: bool) -> Picked {
    Picked {
        security: Security::Plain,
        address: "10.0.0.1:80".parse().unwrap(),
        workload: None,
        more,
    }
}

fn connect() -> Trouble {
    let source = io::Error::from(io::ErrorKind::ConnectionRefused);
    let refused = DialError::Refused {
        address: "10.0.0.1:80".parse().unwrap(),
        source,
    };
    Trouble::Connect(refused.into())
}

fn ended(reused: bool, untouched: bool) -> Trouble {
    Trouble::Ended {
        reused,
        untouched,
        reason: String::new(),
    }
}

const GET: Request = Request {
    idempotent: true,
    repeatable: true,
    inbound: false,
    body_sent: false,
};
const POST: Request = Request {
    idempotent: false,
    repeatable: true,
    inbound: false,
    body_sent: false,
};
const SPENT: Request = Request {
    idempotent: true,
    repeatable: false,
    inbound: false,
    body_sent: false,
};

/// How often `trouble` at an endpoint is followed by another try.
fn check(retry_on: &[&str], attempts: u32, request: Request, trouble: &Trouble, more: bool) -> u32 {
    let policy = RetryPolicy {
        attempts,
        retry_on: retry_on.iter().map(|c| Str::from(*c)).collect(),
        careful: false,
        ..RetryPolicy::none()
    };
    let mut course = Course::new(&policy);
    let again =
        |course: &mut Course<'_>| course.after(trouble, &picked(more), request) != Next::Over;
    (0..20).take_while(|_| again(&mut course)).count() as u32
}

#[test]
fn connecting_again_elsewhere_is_free_and_here_is_policy() {
    assert_eq!(check(&[], 0, POST, &connect(), false), 0);
    assert_eq!(
        check(&[], 0, POST, &connect(), true),
        7,
        "until enough endpoints were tried"
    );
    assert_eq!(check(&["connect-failure"], 2, POST, &connect(), false), 2);
    assert_eq!(check(&["503"], 2, POST, &connect(), false), 0);
}

#[test]
fn what_was_not_looked_at_is_sent_again() {
    assert_eq!(check(&[], 0, POST, &ended(true, true), false), MOST_STALE);
    assert_eq!(check(&[], 0, GET, &ended(true, false), false), MOST_STALE);
    assert_eq!(
        check(&[], 0, POST, &ended(true, false), false),
        0,
        "it may have had an effect"
    );
    assert_eq!(
        check(&[], 0, GET, &ended(false, false), false),
        0,
        "a new connection that breaks is an answer"
    );
    assert_eq!(
        check(&[], 0, SPENT, &ended(true, false), false),
        0,
        "half of the body is gone"
    );
    assert_eq!(check(&["reset"], 3, POST, &ended(false, false), false), 3);
}

#[test]
fn the_application_beside_us_is_asked_once_more() {
    let inbound = Request {
        inbound: true,
        ..GET
    };
    assert_eq!(check(&[], 0, inbound, &ended(false, false), false), 1);
    assert_eq!(
        check(
            &[],
            0,
            Request {
                inbound: true,
                ..POST
            },
            &ended(false, false),
            false
        ),
        0
    );
}

#[test]
fn an_application_that_was_not_reached_costs_nothing_elsewhere() {
    assert_eq!(check(&[], 0, POST, &Trouble::Unreached, true), 7);
    assert_eq!(check(&[], 0, POST, &Trouble::Unreached, false), 0);
    assert_eq!(check(&[], 0, SPENT, &Trouble::Unreached, true), 0);
}

#[test]
fn slow_tries_and_statuses_follow_the_policy() {
    assert_eq!(check(&["5xx"], 1, GET, &Trouble::SlowTry, false), 1);
    assert_eq!(check(&["503"], 1, GET, &Trouble::SlowTry, false), 0);
    assert_eq!(check(&["5xx"], 5, GET, &Trouble::TooLate, false), 0);
    assert_eq!(check(&["503"], 2, GET, &Trouble::Status, true), 2);
}

#[test]
fn disliked_responses() {
    for (condition, status, grpc, want) in [
        ("5xx", 500, None, true),
        ("gateway-error", 500, None, false),
        ("gateway-error", 504, None, true),
        ("503", 503, None, true),
        ("retriable-4xx", 409, None, true),
        ("unavailable", 200, Some("14"), true),
        ("cancelled", 200, Some("14"), false),
    ] {
        let policy = RetryPolicy {
            attempts: 1,
            retry_on: vec![condition.into()],
            ..RetryPolicy::none()
        };
        let mut response = Response::builder().status(status);
        if let Some(grpc) = grpc {
            response = response.header("grpc-status", grpc);
        }
        assert_eq!(
            Course::new(&policy).dislikes(&response.body(()).unwrap()),
            want,
            "{condition} {status}"
        );
    }
}

#[test]
fn careful_policies_send_no_body_twice_unless_that_is_harmless() {
    let policy = RetryPolicy {
        attempts: 2,
        retry_on: vec!["reset".into(), "503".into()],
        ..RetryPolicy::none()
    };
    let sent = |idempotent| Request {
        idempotent,
        body_sent: true,
        ..POST
    };
    for (trouble, request, want) in [
        (ended(false, false), sent(false), Next::Over),
        (Trouble::Status, sent(false), Next::Over),
        (Trouble::SlowTry, sent(false), Next::Over),
    ] {
        let mut course = Course::new(&policy);
        assert_eq!(course.after(&trouble, &picked(false), request), want);
        for harmless in [POST, sent(true)] {
            let mut course = Course::new(&policy);
            let next = course.after(&trouble, &picked(false), harmless);
            assert_ne!(next, Next::Over, "{trouble:?}");
        }
    }
}

#[test]
fn pauses_grow_from_the_given_base_to_ten_times_it() {
    let policy = RetryPolicy {
        attempts: 20,
        retry_on: vec!["connect-failure".into()],
        backoff: Some(Duration::from_secs(1)),
        ..RetryPolicy::none()
    };
    let mut longest = Duration::ZERO;
    for _ in 0..50 {
        let mut course = Course::new(&policy);
        for tries in 0..20 {
            let Next::Again(pause) = course.after(&connect(), &picked(false), POST) else {
                panic!("over after {tries}");
            };
            let most = Duration::from_secs((1 << tries.min(9)).min(10));
            assert!(pause <= most, "{pause:?} after {tries}");
            longest = longest.max(pause);
        }
    }
    assert!(longest > Duration::from_secs(5), "{longest:?}");
}

#[test]
fn a_handshake_is_tried_again_when_it_failed_but_not_when_it_took_too_long() {
    use crate::tls::TlsError;
    let of = |error| Trouble::Connect(ConnectError::Tls(error));
    let failed = of(TlsError::Handshake("refused".into()));
    assert_eq!(check(&[], 0, POST, &failed, false), 1);
    let slow = of(TlsError::TooSlow("connection timeout".into()));
    assert_eq!(check(&[], 0, POST, &slow, false), 0);
}
