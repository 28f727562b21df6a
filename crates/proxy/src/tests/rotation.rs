//! Certificates, roots and policies change under live connections: nothing good is lost, nothing bad stays.

use super::member::*;
use super::*;
use lateen_model::security::MtlsMode;
use lateen_model::service::Protocol;
use std::cell::{Cell, RefCell};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// Clients of [`load`].
const CLIENTS: u64 = 4;

/// What the clients have seen.
#[derive(Default)]
struct Seen {
    asked: Cell<u64>,
    failed: RefCell<Vec<String>>,
    stop: Cell<bool>,
}

impl Seen {
    /// Waits until every request that is under way now is over.
    async fn all_anew(&self) {
        let until = self.asked.get() + 2 * CLIENTS;
        while self.asked.get() < until {
            tokio::task::yield_now().await;
        }
    }
}

/// Asks without pause until told to stop.
async fn load(bench: &Bench, seen: &Seen) {
    let mut stream = bench.outbound().await;
    while !seen.stop.get() {
        let answer = exchange(&mut stream, GET).await;
        seen.asked.set(seen.asked.get() + 1);
        if !answer.ends_with("hello") {
            seen.failed.borrow_mut().push(answer);
            stream = bench.outbound().await;
        }
    }
}

#[test]
fn roots_and_certificates_rotate_under_load_without_a_failure() {
    run(async {
        for protocol in [Protocol::Http, Protocol::Http2] {
            let (old, new) = (Ca::new(), Ca::new());
            let app = match protocol {
                Protocol::Http => web("127.1.0.1", "hello").await,
                _ => web2("127.1.0.1", "hello").await,
            };
            let strict = vec![peer_mode(MtlsMode::Strict)];
            let pair = Pair::new(&old, protocol, app, strict).await;
            let seen = Seen::default();
            let rotate = async {
                let both = format!("{}{}", new.0.root_pem(), old.0.root_pem());
                let ends = [(&pair.client, "sleep"), (&pair.server, "a")];
                for (end, _) in ends {
                    end.apply(vec![trust(&both, "")]).await;
                    end.generation(2).await;
                }
                for (end, account) in ends {
                    end.certificate.send_replace(new.state(account));
                    end.generation(3).await;
                }
                // What began with the old certificates may end: authorities keep a root for that long.
                seen.all_anew().await;
                for (end, _) in ends {
                    end.apply(vec![new.trust()]).await;
                    end.generation(4).await;
                }
                // Plain renewals, one after the other.
                for turn in 5..10 {
                    for (end, account) in ends {
                        end.certificate.send_replace(new.state(account));
                        end.generation(turn).await;
                    }
                }
                seen.all_anew().await;
                seen.stop.set(true);
            };
            let clients = (0..CLIENTS).map(|_| load(&pair.client.bench, &seen));
            tokio::join!(futures::future::join_all(clients), rotate);
            let failed = seen.failed.take();
            assert!(failed.is_empty(), "{protocol:?}: {failed:?}");
        }
    });
}

/// A connection that stays: it echoes.
async fn talk(bench: &Bench) -> TcpStream {
    let mut stream = bench.outbound().await;
    stream.write_all(b"\x01abc").await.unwrap();
    let mut got = [0; 4];
    stream.read_exact(&mut got).await.unwrap();
    stream
}

async fn echo(ip: &str) -> SocketAddr {
    server(ip, |mut stream, _| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await
}

#[test]
fn revoked_peers_are_cut_off() {
    run(async {
        let ca = Ca::new();
        let pair = Pair::new(&ca, Protocol::Tcp, echo("127.1.0.1").await, Vec::new()).await;
        let mut stream = talk(&pair.client.bench).await;
        // Another certificate's revocation changes nothing.
        let other = ca.revokes(&ca.svid("sleep"));
        pair.server
            .apply(vec![trust(ca.0.root_pem(), &other)])
            .await;
        pair.server.generation(2).await;
        stream.write_all(b"more").await.unwrap();
        let mut got = [0; 4];
        stream.read_exact(&mut got).await.unwrap();
        let svid = pair.client.certificate.borrow().svid.clone().unwrap();
        let revoked = ca.revokes(&svid);
        pair.server
            .apply(vec![trust(ca.0.root_pem(), &revoked)])
            .await;
        assert!(stream.read_u8().await.is_err(), "reset");
        let line = pair.server.bench.log.lines(1).await.remove(0);
        assert!(line.contains("peer_no_longer_trusted"), "{line}");
        // And nobody with it comes in again.
        let mut stream = pair.client.bench.outbound().await;
        let _ = stream.write_all(b"\x01abc").await;
        assert!(stream.read_u8().await.is_err());
    });
}

#[test]
fn revoked_clients_lose_their_http_connections() {
    run(async {
        let ca = Ca::new();
        let app = web("127.1.0.1", "hello").await;
        let pair = Pair::new(&ca, Protocol::Http, app, Vec::new()).await;
        assert!(pair.client.bench.ask(GET).await.ends_with("hello"));
        let svid = pair.client.certificate.borrow().svid.clone().unwrap();
        let revoked = ca.revokes(&svid);
        pair.server
            .apply(vec![trust(ca.0.root_pem(), &revoked)])
            .await;
        pair.server.generation(2).await;
        while pair.client.bench.ask(GET).await.ends_with("hello") {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let answer = pair.client.bench.ask(GET).await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    });
}

#[test]
fn policies_reach_live_connections() {
    run(async {
        let ca = Ca::new();
        let pair = Pair::new(&ca, Protocol::Tcp, echo("127.1.0.1").await, Vec::new()).await;
        let mut stream = talk(&pair.client.bench).await;
        pair.server.apply(vec![deny("somebody-else")]).await;
        stream.write_all(b"more").await.unwrap();
        let mut got = [0; 4];
        stream.read_exact(&mut got).await.unwrap();
        pair.server.apply(vec![deny("sleep")]).await;
        assert!(stream.read_u8().await.is_err(), "reset");
        let line = pair.server.bench.log.lines(1).await.remove(0);
        assert!(
            line.contains("rbac_access_denied_matched_policy[ns[default]-policy[who]-rule[0]]"),
            "{line}"
        );
        // Plain connections end when a port becomes strict.
        let pair = Pair::new(&ca, Protocol::Tcp, echo("127.1.0.1").await, Vec::new()).await;
        let mut plain = pair.server.bench.inbound("127.1.0.9").await;
        plain.write_all(b"\x01abc").await.unwrap();
        plain.read_exact(&mut got).await.unwrap();
        pair.server.apply(vec![peer_mode(MtlsMode::Strict)]).await;
        assert!(plain.read_u8().await.is_err(), "reset");
    });
}
