//! Same key, same endpoint; near endpoints first.

use super::mesh::{pod, policy, retries, routes, rule, service};
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

#[test]
fn retries_go_to_other_localities_where_the_rule_says_so() {
    run(async {
        let refuses = |ip: &'static str| async move {
            server(ip, |mut stream, _| async move {
                while read_head(&mut stream).await.is_some() {
                    let answer = b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy";
                    let _ = stream.write_all(answer).await;
                }
            })
            .await
        };
        let placed = |name: &str, zone: &str, address: SocketAddr| {
            let Resource::Workload(mut workload) = pod("a", name, 80, address) else {
                unreachable!("it is a workload");
            };
            workload.locality = format!("region/{zone}/").into();
            Resource::Workload(workload)
        };
        let near = [refuses("127.1.0.1").await, refuses("127.1.0.2").await];
        let far = web("127.1.0.3", "far").await;
        for (remote, want) in [(true, true), (false, false)] {
            let mut rule = rule(&[("a", 1)]);
            rule.retries = retries(1, &["503"]).map(|policy| lateen_model::route::RetryPolicy {
                remote_localities: remote,
                ..policy
            });
            let bench = Bench::sidecar(
                A,
                vec![
                    service("a", "10.96.0.1", 80, Protocol::Http),
                    placed("one", "here", near[0]),
                    placed("two", "here", near[1]),
                    placed("three", "there", far),
                    routes("a", vec![rule]),
                ],
            )
            .await;
            let mut all = true;
            for _ in 0..40 {
                let answer = bench.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
                all &= answer.ends_with("far");
            }
            assert_eq!(all, want, "remote localities: {remote}");
        }
    });
}
