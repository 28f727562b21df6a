//! What providers are sent, what their answers mean, and which answers are kept.

use super::*;
use http::Request;
use std::rc::Rc;
use std::time::{Duration, Instant};

fn strs(names: &[&str]) -> Vec<Str> {
    names.iter().map(|n| Str::from(*n)).collect()
}

fn headers(list: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in list {
        headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    headers
}

fn lines<'h>(list: impl IntoIterator<Item = (&'h HeaderName, &'h HeaderValue)>) -> Vec<String> {
    let lines = list.into_iter();
    let mut lines: Vec<_> = lines
        .map(|(n, v)| format!("{n}: {}", v.to_str().unwrap()))
        .collect();
    lines.sort();
    lines
}

#[test]
fn a_check_says_what_the_provider_wants_to_know() {
    let (sent, added) = (
        strs(&["x-a", "x-pre-*", "*-suf"]),
        vec![("X-Add".into(), "1".into())],
    );
    let provider = HttpProvider {
        path_prefix: "/check",
        request_headers: &sent,
        additional_headers: &added,
        upstream_on_allow: &[],
        downstream_on_deny: &[],
        downstream_on_allow: &[],
    };
    let (mut head, ()) = Request::post("/a?b=c").body(()).unwrap().into_parts();
    head.headers = headers(&[
        ("authorization", "Bearer t"),
        ("x-a", "1"),
        ("x-a", "2"),
        ("x-b", "no"),
        ("x-pre-1", "p"),
        ("y-suf", "s"),
        ("x-add", "client's"),
        ("content-length", "7"),
        ("transfer-encoding", "chunked"),
    ]);
    let none: Option<&Excerpt<Vec<u8>>> = None;
    let check = provider.check(&head, "shop:80", "/a?b=c", none).unwrap();
    assert_eq!(
        (check.method.as_str(), check.uri.to_string().as_str()),
        ("POST", "/check/a?b=c")
    );
    let want = [
        "authorization: Bearer t",
        "content-length: 0",
        "host: shop:80",
        "x-a: 1",
        "x-a: 2",
        "x-add: 1",
        "x-pre-1: p",
        "y-suf: s",
    ];
    assert_eq!(lines(&check.headers), want);
    let part = Excerpt {
        bytes: b"abc",
        whole: false,
    };
    let check = provider.check(&head, "shop", "/", Some(&part)).unwrap();
    assert_eq!(check.headers["content-length"], "3");
    assert_eq!(check.headers[PARTIAL_BODY], "true");
}

#[test]
fn answers_mean_what_their_status_says() {
    let (up, deny, allow) = (strs(&["x-user"]), strs(&["x-why"]), strs(&["set-cookie"]));
    let mut provider = HttpProvider {
        path_prefix: "",
        request_headers: &[],
        additional_headers: &[],
        upstream_on_allow: &up,
        downstream_on_deny: &deny,
        downstream_on_allow: &allow,
    };
    let said = headers(&[
        ("x-user", "ann"),
        ("x-why", "because"),
        ("set-cookie", "a=1"),
        ("location", "/login"),
        ("content-length", "3"),
        ("server", "s"),
        ("x-envoy-auth-headers-to-remove", "cookie, x-old, host"),
    ]);
    let Some(Answer::Allow(yes)) = provider.answer(200, &said, b"no!".to_vec()) else {
        panic!("200 is yes");
    };
    let mut request = headers(&[
        ("x-user", "root"),
        ("cookie", "c"),
        ("x-old", "1"),
        ("host", "a"),
    ]);
    yes.apply(&mut request);
    assert_eq!(lines(&request), ["host: a", "x-user: ann"]);
    assert_eq!(
        lines(yes.downstream.iter().map(|(n, v)| (n, v))),
        ["set-cookie: a=1"]
    );
    for (list, want) in [
        (&deny[..], vec!["location: /login", "x-why: because"]),
        (
            &[],
            vec![
                "location: /login",
                "set-cookie: a=1",
                "x-envoy-auth-headers-to-remove: cookie, x-old, host",
                "x-user: ann",
                "x-why: because",
            ],
        ),
    ] {
        provider.downstream_on_deny = list;
        let Some(Answer::Deny(no)) = provider.answer(302, &said, b"no!".to_vec()) else {
            panic!("302 is no");
        };
        assert_eq!((no.status, &no.body[..]), (302, &b"no!"[..]));
        assert_eq!(lines(no.headers.iter().map(|(n, v)| (n, v))), want);
    }
    assert_eq!(provider.answer(503, &said, Vec::new()), None);
    assert!(matches!(
        provider.answer(201, &said, Vec::new()),
        Some(Answer::Deny(_))
    ));
}

#[test]
fn answers_live_as_long_as_they_say_and_no_longer_than_a_minute() {
    for (control, seconds) in [
        ("max-age=5", 5),
        ("public, Max-Age=\"7\"", 7),
        ("private, max-age=7", 0),
        ("max-age=7, private=\"x-user\"", 0),
        ("max-age=7, s-maxage=3", 3),
        ("s-maxage=0, max-age=7", 0),
        ("max-age=7, s-maxage=x", 0),
        ("max-age=86400", 60),
        ("max-age=5, no-store", 0),
        ("no-cache", 0),
        ("max-age=x", 0),
        ("public", 0),
    ] {
        let life = lifetime(&headers(&[("cache-control", control)]));
        assert_eq!(life, Duration::from_secs(seconds), "{control}");
    }
    assert_eq!(lifetime(&HeaderMap::new()), Duration::ZERO);
    let cookie = [("cache-control", "max-age=5"), ("set-cookie", "id=1")];
    assert_eq!(lifetime(&headers(&cookie)), Duration::ZERO);
}

#[test]
fn only_the_same_check_gets_a_kept_answer() {
    let now = Instant::now();
    let answer = Rc::new(Answer::Allow(Allowance::default()));
    let print = |parts: &[&str]| Fingerprint::of(parts.iter().map(|p| p.as_bytes()));
    let mut decisions = Decisions::default();
    decisions.keep(print(&["ab", "c"]), &answer, Duration::from_secs(5), now);
    assert!(decisions.find(&print(&["ab", "c"]), now).is_some());
    assert!(decisions.find(&print(&["a", "bc"]), now).is_none());
    assert!(
        decisions
            .find(&print(&["ab", "c"]), now + Duration::from_secs(5))
            .is_none()
    );
    // However many come, only so many stay.
    for n in 0..20_000 {
        decisions.keep(
            print(&[&n.to_string()]),
            &answer,
            Duration::from_secs(60),
            now,
        );
    }
    let kept = (0..20_000).filter(|n| decisions.find(&print(&[&n.to_string()]), now).is_some());
    assert!((5_000..=10_000).contains(&kept.count()));
}

#[test]
fn headers_join_as_the_provider_says() {
    let mut yes = Allowance::default();
    for (how, name, value) in [
        (Put::Append, "x-add", "2"),
        (Put::Replace, "x-set", "2"),
        (Put::IfAbsent, "x-add", "3"),
        (Put::IfAbsent, "x-new", "3"),
        (Put::IfPresent, "x-set", "4"),
        (Put::IfPresent, "x-none", "4"),
        (Put::IfAbsent, "te", "5"),
    ] {
        let name: HeaderName = name.parse().unwrap();
        yes.put(how, name, HeaderValue::from_static(value));
    }
    assert!(yes.changes_request());
    let mut request = headers(&[("x-add", "1"), ("x-set", "1")]);
    yes.apply(&mut request);
    assert_eq!(
        lines(&request),
        ["x-add: 1", "x-add: 2", "x-new: 3", "x-set: 2", "x-set: 4"]
    );
}
