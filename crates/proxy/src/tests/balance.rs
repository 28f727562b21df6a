//! Same key, same endpoint; near endpoints first.

use super::mesh::{pod, policy, service};
use super::*;
use lateen_model::service::Protocol;
use lateen_model::traffic::{
    Balancer, ConsistentHash, HashCookie, HashKey, HashTable, LoadBalancer, TrafficSettings,
};
use std::collections::HashSet;

const A: &str = "10.96.0.1:80";

/// A service with four endpoints that say who they are.
async fn bench(key: HashKey, table: HashTable) -> Bench {
    let settings = TrafficSettings {
        balancer: Some(LoadBalancer {
            algorithm: Balancer::ConsistentHash(ConsistentHash { key, table }),
            ..LoadBalancer::default()
        }),
        ..TrafficSettings::default()
    };
    let mut resources = vec![
        service("a", "10.96.0.1", 80, Protocol::Http),
        policy("a", settings),
    ];
    let names = ["one", "two", "three", "four"];
    for (at, name) in names.into_iter().enumerate() {
        let address = web(&format!("127.1.0.{}", at + 1), name).await;
        resources.push(pod("a", name, 80, address));
    }
    Bench::sidecar(A, resources).await
}

fn body(answer: &str) -> String {
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer.rsplit("\r\n").next().unwrap().to_owned()
}

#[test]
fn a_header_leads_to_one_endpoint() {
    run(async {
        for table in [
            HashTable::Ring { minimum: 1024 },
            HashTable::Maglev { size: 65537 },
        ] {
            let bench = bench(HashKey::Header("x-user".into()), table).await;
            let mut all = HashSet::new();
            for user in 0..20 {
                let get = format!("GET / HTTP/1.1\r\nhost: a\r\nx-user: {user}\r\n\r\n");
                let first = body(&bench.ask(&get).await);
                for _ in 0..3 {
                    assert_eq!(body(&bench.ask(&get).await), first);
                }
                all.insert(first);
            }
            assert!(all.len() > 1, "users are spread: {all:?}");
        }
    });
}

#[test]
fn a_cookie_is_made_and_leads_back() {
    run(async {
        let cookie = HashKey::Cookie(HashCookie {
            name: "stay".into(),
            path: "/".into(),
            ttl: Some(Duration::from_secs(60)),
            attributes: vec![("SameSite".into(), "Strict".into())],
        });
        let bench = bench(cookie, HashTable::Ring { minimum: 1024 }).await;
        let answer = bench.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let first = body(&answer);
        let made = answer
            .lines()
            .find_map(|line| line.strip_prefix("set-cookie: "))
            .expect("a cookie");
        assert!(
            made.starts_with("stay=\"")
                && made.ends_with("; Max-Age=60; Path=/; SameSite=Strict; HttpOnly"),
            "{made}"
        );
        let cookie = made.split(';').next().unwrap();
        for _ in 0..5 {
            let get = format!("GET / HTTP/1.1\r\nhost: a\r\ncookie: x=y; {cookie}\r\n\r\n");
            let answer = bench.ask(&get).await;
            assert_eq!(body(&answer), first);
            assert!(!answer.contains("set-cookie"), "{answer}");
        }
    });
}

#[test]
fn the_clients_address_leads_to_one_endpoint() {
    run(async {
        let bench = bench(HashKey::SourceIp, HashTable::Ring { minimum: 1024 }).await;
        let get = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        let first = body(&bench.ask(get).await);
        for _ in 0..10 {
            assert_eq!(body(&bench.ask(get).await), first);
        }
    });
}
