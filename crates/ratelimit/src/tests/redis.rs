//! Counters in a real Redis on a port of its own. Where there is no `redis-server`, tests say so and pass.

use super::*;
use std::process::{Child, Command, Stdio};

struct Server {
    child: Child,
    port: u16,
    _home: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    listener.local_addr().expect("an address").port()
}

fn start(port: u16) -> Option<Server> {
    let home = tempfile::tempdir().expect("a folder");
    let child = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no", "--dir"])
        .arg(home.path())
        .stdout(Stdio::null())
        .spawn();
    match child {
        Ok(child) => Some(Server {
            child,
            port,
            _home: home,
        }),
        Err(error) => {
            println!("skipped: redis-server cannot be started: {error}");
            None
        }
    }
}

fn settings(port: u16) -> Settings {
    Settings {
        address: format!("127.0.0.1:{port}"),
        password: None,
        timeout: Duration::from_secs(10),
    }
}

/// A store whose Redis answers.
async fn connected(port: u16) -> Store {
    let store = Store::Redis(Redis::start(settings(port)));
    answers(&store).await;
    store
}

async fn answers(store: &Store) {
    let asking = async {
        while store
            .count(&[hit("none", 0, 1)], Duration::ZERO)
            .await
            .is_err()
        {
            tokio::task::yield_now().await;
        }
    };
    let waiting = tokio::time::timeout(Duration::from_secs(60), asking);
    waiting.await.expect("Redis answers");
}

fn hit(key: &str, hits: u64, limit: u64) -> store::Hit {
    store::Hit {
        key: key.to_owned(),
        hits,
        limit,
        end: 1000,
    }
}

#[tokio::test]
async fn two_servers_share_the_quota() {
    let Some(redis) = start(free_port()) else {
        return;
    };
    let mut clients = Vec::new();
    for _ in 0..2 {
        clients.push(client(engine(connected(redis.port).await, false)).await);
    }
    let mut granted = 0;
    for i in 0..20 {
        let code = code(&mut clients[i % 2], request(1, "ann")).await;
        granted += u32::from(code == Code::Ok);
    }
    assert_eq!(granted, 10);
    // A lease that is too large for what is left leaves it.
    assert_eq!(code(&mut clients[0], request(7, "bob")).await, Code::Ok);
    assert_eq!(
        code(&mut clients[1], request(5, "bob")).await,
        Code::OverLimit
    );
    assert_eq!(code(&mut clients[0], request(3, "bob")).await, Code::Ok);
    assert_eq!(
        code(&mut clients[1], request(1, "bob")).await,
        Code::OverLimit
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_at_once_never_pass_the_limit() {
    let Some(redis) = start(free_port()) else {
        return;
    };
    let stores: Vec<Arc<Store>> = vec![
        Arc::new(connected(redis.port).await),
        Arc::new(connected(redis.port).await),
    ];
    let asking: Vec<_> = (0..200u64)
        .map(|i| {
            let store = Arc::clone(&stores[(i % 2) as usize]);
            tokio::spawn(async move {
                let hits = 1 + i % 7;
                let counted = store.count(&[hit("k", hits, 300)], Duration::ZERO).await;
                if counted.expect("counted")[0].granted {
                    hits
                } else {
                    0
                }
            })
        })
        .collect();
    let mut granted = 0;
    for one in asking {
        granted += one.await.expect("done");
    }
    assert!(granted <= 300 && granted > 200, "{granted}");
    let ended = stores[0]
        .count(&[hit("k", 1, 300)], Duration::from_secs(1000))
        .await;
    ended.expect("counted");
}

#[tokio::test]
async fn hits_pass_or_fail_while_redis_is_away_and_are_counted_again_after() {
    let port = free_port();
    let Some(redis) = start(port) else { return };
    let open = engine(connected(port).await, true);
    let closed = engine(connected(port).await, false);
    drop(redis);
    let (mut passing, mut failing) = (client(Arc::clone(&open)).await, client(closed).await);
    for _ in 0..20 {
        assert_eq!(code(&mut passing, request(1, "ann")).await, Code::Ok);
        let failed = failing.should_rate_limit(request(1, "ann")).await;
        assert_eq!(failed.expect_err("away").code(), tonic::Code::Unavailable);
    }
    assert!(
        open.metrics()
            .contains("ratelimit_service_store_failures 20\n")
    );
    let _redis = start(port).expect("it started before");
    let back = async {
        while failing.should_rate_limit(request(1, "bob")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        while code(&mut passing, request(1, "bob")).await == Code::Ok {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let waiting = tokio::time::timeout(Duration::from_secs(60), back);
    waiting.await.expect("counted again");
}
