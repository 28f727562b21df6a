//! Requests against policies: what is answered, what is marked.

use super::{Verdict, judge, mark};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use lateen_model::matching::{Pattern, StringMatch};
use lateen_model::route::CorsPolicy;
use std::time::Duration;

fn policy() -> CorsPolicy {
    CorsPolicy {
        allow_origins: vec![
            StringMatch::Exact("https://a.com".into()),
            StringMatch::Regex(Pattern::new(r"https://.*\.b\.com").expect("valid")),
        ],
        allow_methods: vec!["GET".into(), "PUT".into()],
        allow_headers: vec!["x-one".into(), "x-two".into()],
        expose_headers: vec!["x-out".into()],
        max_age: Some(Duration::from_secs(60)),
        allow_credentials: Some(true),
        forward_unmatched: true,
    }
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| {
        let name: HeaderName = name.parse().expect("name");
        (name, HeaderValue::from_str(value).expect("value"))
    };
    pairs.iter().map(pair).collect()
}

fn shown(headers: &HeaderMap) -> String {
    let text = |(name, value): (&HeaderName, &HeaderValue)| {
        let name = name.as_str().trim_start_matches("access-control-");
        format!("{name}={}", value.to_str().expect("text"))
    };
    let mut all: Vec<_> = headers.iter().map(text).collect();
    all.sort();
    all.join(" ")
}

/// `METHOD [origin] [wants=METHOD]` to `pass`, `mark HEADERS` or `answer HEADERS`.
#[track_caller]
fn check(policy: &CorsPolicy, cases: &[(&str, &str)]) {
    for (request, want) in cases {
        let words: Vec<_> = request.split(' ').collect();
        let mut pairs = Vec::new();
        for word in &words[1..] {
            match word.strip_prefix("wants=") {
                Some(method) => pairs.push(("access-control-request-method", method)),
                None => pairs.push(("origin", *word)),
            }
        }
        let method: Method = words[0].parse().expect("method");
        let got = match judge(policy, &method, &headers(&pairs)) {
            Verdict::Pass => "pass".to_owned(),
            Verdict::Mark(origin) => {
                let mut answer = headers(&[("access-control-allow-origin", "https://theirs")]);
                mark(policy, origin, &mut answer);
                format!("mark {}", shown(&answer))
            }
            Verdict::Answer(answer) => {
                assert_eq!(answer.status(), 200);
                format!("answer {}", shown(answer.headers()))
            }
        };
        assert_eq!(got.trim(), *want, "{request}");
    }
}

#[test]
fn a_full_policy() {
    let granted = "answer allow-credentials=true allow-headers=x-one,x-two allow-methods=GET,PUT \
                   allow-origin=https://a.com expose-headers=x-out max-age=60";
    check(
        &policy(),
        &[
            ("OPTIONS https://a.com wants=PUT", granted),
            // The preflight says what may be done, not whether this may.
            ("OPTIONS https://a.com wants=DELETE", granted),
            (
                "GET https://a.com",
                "mark allow-credentials=true allow-origin=https://a.com expose-headers=x-out",
            ),
            (
                "GET https://x.b.com",
                "mark allow-credentials=true allow-origin=https://x.b.com expose-headers=x-out",
            ),
            (
                "OPTIONS https://a.com",
                "mark allow-credentials=true allow-origin=https://a.com expose-headers=x-out",
            ),
            ("GET https://a.com.evil.org", "pass"),
            ("OPTIONS https://evil.org wants=GET", "pass"),
            ("GET", "pass"),
            ("OPTIONS wants=GET", "pass"),
        ],
    );
}

#[test]
fn origins_that_do_not_match_may_be_answered_here() {
    let policy = CorsPolicy {
        forward_unmatched: false,
        ..policy()
    };
    check(
        &policy,
        &[
            ("OPTIONS https://evil.org wants=GET", "answer"),
            ("GET https://evil.org", "pass"),
        ],
    );
}

#[test]
fn a_star_is_every_origin() {
    let policy = CorsPolicy {
        allow_origins: vec![StringMatch::Exact("*".into())],
        allow_methods: Vec::new(),
        allow_headers: Vec::new(),
        expose_headers: Vec::new(),
        max_age: None,
        allow_credentials: Some(false),
        forward_unmatched: true,
    };
    check(
        &policy,
        &[
            ("GET null", "mark allow-origin=null"),
            (
                "OPTIONS https://any wants=GET",
                "answer allow-origin=https://any",
            ),
        ],
    );
}
