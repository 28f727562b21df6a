//! Requests in, keys out.

use super::*;
use lateen_model::decide::plan::Direction;
use lateen_model::traffic::{ConsistentHash, HashTable};
use std::time::Duration;

fn facts(source: &str) -> ConnectionFacts {
    ConnectionFacts {
        direction: Direction::Outbound,
        source: source.parse().unwrap(),
        destination: "10.96.0.1:80".parse().unwrap(),
    }
}

fn by(key: HashKey) -> Balancer {
    Balancer::ConsistentHash(ConsistentHash {
        key,
        table: HashTable::Ring { minimum: 1024 },
    })
}

fn head(path: &str, headers: &[(&str, &str)]) -> request::Parts {
    let mut request = http::Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

/// The key's hash as if it was this text.
fn text(value: &str) -> Option<u64> {
    Some(xxh64(value.as_bytes(), 0))
}

#[test]
fn headers_parameters_and_addresses() {
    let one = facts("10.0.0.1:1000");
    let of = |key: HashKey, head: &request::Parts| of_request(&by(key), head, &one).0;
    let asked = head("/p?a=1&user=me&user=you&flag", &[("x-user", "jo")]);
    assert_eq!(of(HashKey::Header("x-user".into()), &asked), text("jo"));
    assert_eq!(of(HashKey::Header("x-other".into()), &asked), None);
    assert_eq!(
        of(HashKey::QueryParameter("user".into()), &asked),
        text("me")
    );
    assert_eq!(of(HashKey::QueryParameter("flag".into()), &asked), text(""));
    assert_eq!(of(HashKey::QueryParameter("b".into()), &asked), None);
    assert_eq!(of(HashKey::SourceIp, &asked), text("10.0.0.1"));
    assert_eq!(
        of_connection(&by(HashKey::SourceIp), &one),
        text("10.0.0.1")
    );
    assert_eq!(of_connection(&Balancer::Random, &one), None);
}

#[test]
fn headers_that_are_given_twice_count_in_any_order() {
    let of = |headers: &[(&str, &str)]| {
        let key = HashKey::Header("k".into());
        of_request(&by(key), &head("/", headers), &facts("10.0.0.1:1")).0
    };
    assert_eq!(of(&[("k", "a"), ("k", "b")]), of(&[("k", "b"), ("k", "a")]));
    assert_ne!(of(&[("k", "a"), ("k", "b")]), of(&[("k", "a")]));
}

#[test]
fn a_cookie_is_made_where_it_has_a_lifetime() {
    let cookie = |ttl: Option<u64>| HashCookie {
        name: "user".into(),
        path: "/p".into(),
        ttl: ttl.map(Duration::from_secs),
        attributes: vec![
            ("SameSite".into(), "Lax".into()),
            ("Secure".into(), "".into()),
        ],
    };
    let of = |ttl, headers: &[(&str, &str)]| {
        let balancer = by(HashKey::Cookie(cookie(ttl)));
        of_request(&balancer, &head("/", headers), &facts("10.0.0.1:1000"))
    };
    let (hash, made) = of(Some(60), &[("cookie", "a=b; user=\"me\"")]);
    assert_eq!((hash, made), (text("me"), None));
    assert_eq!(of(None, &[]), (None, None));
    let (hash, made) = of(Some(60), &[("cookie", "users=x")]);
    let made = made.unwrap().to_str().unwrap().to_owned();
    let value = made.split('"').nth(1).unwrap();
    assert_eq!(hash, text(value));
    let rest = "; Max-Age=60; Path=/p; SameSite=Lax; Secure; HttpOnly";
    assert_eq!(made, format!("user=\"{value}\"{rest}"));
    let (again, _) = of(Some(60), &[]);
    assert_eq!(again, hash, "the same for all requests of a connection");
    let (_, session) = of(Some(0), &[]);
    assert!(!session.unwrap().to_str().unwrap().contains("Max-Age"));
}
