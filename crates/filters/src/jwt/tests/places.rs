//! Where tokens are looked for, how they are taken out, and that logs do not show them.

use super::*;

#[test]
fn tokens_are_found_where_rules_say() {
    let token = token(&claims());
    let mut elsewhere = rule();
    elsewhere.from_headers = vec![TokenHeader {
        name: "x-token".into(),
        prefix: "jwt:".into(),
    }];
    elsewhere.from_params = vec!["t".into()];
    elsewhere.from_cookies = vec!["id".into()];
    let usual = rule();
    let bearer = format!("bearer {token}");
    let prefixed = format!("jwt:{token}");
    let cookie = format!("a=1; id={token}; b=2");
    let param = format!("/p?a=1&t={token}&b=2");
    let access = format!("/p?access_token={token}");
    type Case<'a> = (&'a JwtRule, &'a str, &'a [(&'a str, &'a str)], bool);
    let cases: [Case<'_>; 9] = [
        (&usual, "/", &[("authorization", &bearer)], true),
        (&usual, &access, &[], true),
        (&usual, "/", &[("authorization", "Basic YTpi")], false),
        (&usual, "/", &[("x-token", &prefixed)], false),
        (&elsewhere, "/", &[("authorization", &bearer)], false),
        (&elsewhere, "/", &[("x-token", &prefixed)], true),
        (&elsewhere, "/", &[("x-token", &token)], false),
        (&elsewhere, &param, &[], true),
        (&elsewhere, "/", &[("cookie", &cookie)], true),
    ];
    for (rule, target, headers, found) in cases {
        let mut request = request(target, headers);
        let got = ask(std::slice::from_ref(rule), &mut request).unwrap();
        assert_eq!(got.is_some(), found, "{target} {headers:?}");
        let all = format!("{request:?}");
        assert_eq!(
            all.contains(&token),
            !found && !headers.is_empty() && !headers[0].1.starts_with("Basic"),
            "{all}"
        );
    }
    let mut one = request(&param, &[("cookie", &cookie)]);
    ask(&[elsewhere], &mut one).unwrap();
    assert_eq!(one.uri, "/p?a=1&b=2");
    assert_eq!(one.headers["cookie"], "a=1; b=2");
}

#[test]
fn a_cookie_that_is_no_text_is_a_bad_token() {
    let mut rule = rule();
    rule.from_cookies = vec!["id".into()];
    let mine = token(&claims());
    let line = |bytes: &[u8]| {
        let mut request = request("/", &[]);
        let value = HeaderValue::from_bytes(bytes).unwrap();
        request.headers.append("cookie", value);
        request
    };
    let mut bad = line(b"a=1; id=\xff; b=2");
    assert_eq!(ask(&[rule.clone()], &mut bad), Err(JwtError::Form));
    // Neither is a token hidden by what stands beside it, nor is that lost.
    let mut beside = line(format!("a=\u{e9}; id=\"{mine}\"; id; b=2").as_bytes());
    assert!(ask(&[rule], &mut beside).unwrap().is_some());
    assert_eq!(
        beside.headers["cookie"].as_bytes(),
        "a=\u{e9}; b=2".as_bytes()
    );
}

#[test]
fn only_tokens_are_taken_out_of_their_header() {
    let bearer = format!("Bearer {}", token(&claims()));
    let both = [("authorization", "Basic YTpi"), ("authorization", &bearer)];
    let mut told = request("/", &both);
    assert!(ask(&[rule()], &mut told).unwrap().is_some());
    let left: Vec<_> = told.headers.get_all("authorization").iter().collect();
    assert_eq!(left, ["Basic YTpi"]);
}

#[test]
fn logs_show_no_tokens() {
    let mut rule = rule();
    rule.from_params = vec!["t".into(), "a b".into()];
    let authenticator = Authenticator::new(&[rule]);
    for (target, want) in [
        ("/t=1", "/t=1"),
        ("/p?x=1&y", "/p?x=1&y"),
        ("/p?t", "/p?t"),
        (
            "/p?x=1&t=ab=c&t=d&a+b=1&a%20b=2&%74=e",
            "/p?x=1&t=redacted&t=redacted&a+b=1&a%20b=redacted&%74=redacted",
        ),
    ] {
        assert_eq!(authenticator.redacted(target), want);
    }
    let none = Authenticator::new(&[]);
    assert_eq!(none.redacted("/p?access_token=a"), "/p?access_token=a");
}
