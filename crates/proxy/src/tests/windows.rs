//! What may not slip through while something changes: before the first configuration, while a client is silent, and
//! while it has only shaken hands.

use super::member::*;
use super::mesh::service;
use super::*;
use lateen_identity::svid::Svid;
use lateen_identity::tls::MeshAlpn;
use lateen_model::mesh::{MeshSettings, Role};
use lateen_model::security::MtlsMode;
use lateen_model::service::Protocol;
use lateen_net::stream::Stream;
use lateen_xds::client::Update;
use std::cell::Cell;
use std::rc::Rc;
use tokio::sync::Notify;

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// A client of the mesh in the test's own hands, after its handshake.
async fn meet(ca: &Ca, svid: &Svid, tcp: TcpStream, alpn: MeshAlpn) -> Result<Stream, String> {
    let stream = Stream::new(tcp, bytes::Bytes::new());
    let name = "outbound_.80_._.a.default.svc.cluster.local"
        .try_into()
        .unwrap();
    let config = ca.tls(svid).client(alpn);
    let patience = Duration::from_secs(5);
    let met = lateen_net::tls::connect(stream, name, config, patience).await;
    Ok(met.map_err(|error| error.to_string())?.0)
}

/// What comes back for a request, until the end.
async fn answer(stream: &mut Stream) -> Result<String, String> {
    let told = |error: std::io::Error| error.to_string();
    stream.write_all(GET.as_bytes()).await.map_err(told)?;
    let mut got = bytes::BytesMut::new();
    while !is_whole(&got) && stream.read_more(&mut got).await.map_err(told)? > 0 {}
    Ok(String::from_utf8(got.to_vec()).unwrap())
}

/// An echo that counts its connections.
async fn counted(ip: &str) -> (SocketAddr, Rc<Cell<usize>>) {
    let count = Rc::new(Cell::new(0));
    let counts = Rc::clone(&count);
    let address = server(ip, move |mut stream, _| {
        counts.set(counts.get() + 1);
        async move {
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        }
    })
    .await;
    (address, count)
}

#[test]
fn nobody_is_served_before_the_first_configuration() {
    run(async {
        let ca = Ca::new();
        let (app, count) = counted("127.1.0.1").await;
        let (mut config, mut resources) = at_server(Protocol::Tcp, app);
        config.identity = None;
        config.discovery = Some(nobody("127.0.0.1").await.to_string());
        let bench = Bench::launch(config);
        let mut early = bench.inbound("127.1.0.9").await;
        early.write_all(b"\x01abc").await.unwrap();
        let mut out = bench.outbound().await;
        out.write_all(GET.as_bytes()).await.unwrap();
        // The proxy is alive: it answers that it is not ready.
        let ready = bench.proxy.addresses().ready;
        for _ in 0..20 {
            let answer = bench.get(ready, "/healthz/ready").await;
            assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        }
        assert_eq!(count.get(), 0, "the application was not called");
        resources.extend([ca.trust(), peer_mode(MtlsMode::Strict)]);
        let changed = Update::Changed {
            changed: resources,
            removed: Vec::new(),
        };
        bench.proxy.feed.send(changed).await.unwrap();
        bench.proxy.feed.send(Update::Synced).await.unwrap();
        assert!(early.read_u8().await.is_err(), "reset");
        assert_eq!(count.get(), 0, "the application was not called");
    });
}

/// Waits until plain text is refused.
async fn strict(server: &Member) {
    server.apply(vec![peer_mode(MtlsMode::Strict)]).await;
    loop {
        let mut plain = server.bench.inbound("127.1.0.9").await;
        let _ = plain.write_all(b"\x01abc").await;
        if plain.read_u8().await.is_err() {
            return;
        }
    }
}

#[test]
fn who_was_silent_until_the_port_was_strict_is_refused() {
    run(async {
        let ca = Ca::new();
        for protocol in [Protocol::Http, Protocol::Detect, Protocol::Tcp] {
            let (app, _) = counted("127.1.0.1").await;
            let pair = Pair::new(&ca, protocol, app, Vec::new()).await;
            let mut silent = pair.server.bench.inbound("127.1.0.9").await;
            // It is accepted, as the one after it was.
            let mut other = pair.server.bench.inbound("127.1.0.9").await;
            let _ = other.write_all(b"\x01abc").await;
            let _ = other.read_u8().await;
            strict(&pair.server).await;
            let _ = silent.write_all(GET.as_bytes()).await;
            let got = silent.read_u8().await;
            assert!(got.is_err(), "{protocol:?}: {got:?}");
        }
    });
}

#[test]
fn who_was_silent_after_the_handshake_is_refused_once_revoked() {
    run(async {
        let ca = Ca::new();
        let app = web("127.1.0.1", "hello").await;
        for alpn in [MeshAlpn::Http1, MeshAlpn::Http2] {
            let pair = Pair::new(&ca, Protocol::Http, app, Vec::new()).await;
            let (bad, good) = (ca.svid("bad"), ca.svid("good"));
            let inbound = || pair.server.bench.inbound("127.1.0.9");
            let mut bad_one = meet(&ca, &bad, inbound().await, alpn).await.unwrap();
            let mut good_one = meet(&ca, &good, inbound().await, MeshAlpn::Http1)
                .await
                .unwrap();
            let revoked = trust(ca.0.root_pem(), &ca.revokes(&bad));
            pair.server.apply(vec![revoked]).await;
            pair.server.generation(2).await;
            let got = answer(&mut bad_one).await;
            assert!(got.is_err(), "{got:?}");
            let got = answer(&mut good_one).await.unwrap();
            assert!(got.ends_with("hello"), "{got}");
        }
    });
}

#[test]
fn an_application_that_greets_waits_for_clients_of_the_mesh() {
    run(async {
        let ca = Ca::new();
        let greeted = Rc::new(Notify::new());
        let greets = Rc::clone(&greeted);
        let app = server("127.1.0.1", move |mut stream, _| {
            let greets = Rc::clone(&greets);
            async move {
                let _ = stream.write_all(b"hello").await;
                greets.notify_one();
                let _ = stream.read_u8().await;
            }
        })
        .await;
        // The client's address is that of a workload that takes mutual TLS, and so brings it.
        let (config, mut resources) = at_server(Protocol::Tcp, app);
        let client = "127.1.0.9:80".parse().unwrap();
        resources.extend([ca.trust(), member("sleep", 80, client)]);
        let server = Member::start(config, ca.state("a"), resources).await;
        for _ in 0..5 {
            let tcp = server.bench.inbound("127.1.0.9").await;
            greeted.notified().await;
            let svid = ca.svid("sleep");
            let mut stream = meet(&ca, &svid, tcp, MeshAlpn::Tcp).await.unwrap();
            let mut got = bytes::BytesMut::new();
            while got.len() < 5 {
                assert!(stream.read_more(&mut got).await.unwrap() > 0);
            }
            assert_eq!(&got[..], b"hello");
        }
    });
}

#[test]
fn own_ports_are_called_for_nobody() {
    run(async {
        let bench = Bench::sidecar(VIP, vec![service("a", "10.96.0.1", 80, Protocol::Http)]).await;
        let addresses = bench.proxy.addresses();
        for own in [addresses.admin, addresses.ready, addresses.metrics] {
            let changed = Update::Changed {
                changed: vec![mesh::pod("a", "v1", 80, own)],
                removed: Vec::new(),
            };
            bench.proxy.feed.send(changed).await.unwrap();
            let answer = loop {
                let answer = bench.ask(GET).await;
                if !answer.contains("no healthy upstream") {
                    break answer;
                }
            };
            assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
            let gone = Update::Changed {
                changed: Vec::new(),
                removed: vec![mesh::pod("a", "v1", 80, own).key()],
            };
            bench.proxy.feed.send(gone).await.unwrap();
        }
    });
}

#[test]
fn accounts_are_the_same_under_every_name_of_the_trust_domain() {
    run(async {
        let ca = Ca::new();
        let app = web("127.1.0.1", "hello").await;
        let settings = Resource::MeshSettings(MeshSettings {
            trust_domain_aliases: vec!["old.local".into()],
            ..MeshSettings::default()
        });
        let strict = peer_mode(MtlsMode::Strict);
        let pair = Pair::new(&ca, Protocol::Http, app, vec![settings, strict]).await;
        let of = |domain: &str, account: &str| {
            let id = lateen_model::identity::SpiffeId::of_account(domain, "default", account);
            lateen_identity::source::State {
                svid: Some(ca.svid_of(&id.unwrap())),
                ..Default::default()
            }
        };
        pair.server.certificate.send_replace(of("old.local", "a"));
        pair.server.generation(2).await;
        let answer = pair.client.bench.ask(GET).await;
        assert!(answer.ends_with("hello"), "{answer}");
        for (at, (domain, account)) in [("old.local", "b"), ("new.local", "a")].iter().enumerate() {
            pair.server.certificate.send_replace(of(domain, account));
            pair.server.generation(3 + at as u64).await;
            // Connections that are open already go on: new certificates of its own make the client open new ones.
            pair.client.certificate.send_replace(ca.state("sleep"));
            pair.client.generation(2 + at as u64).await;
            let answer = pair.client.bench.ask(GET).await;
            assert!(
                answer.starts_with("HTTP/1.1 503"),
                "{domain} {account}: {answer}"
            );
        }
    });
}

#[test]
fn endpoints_of_unknown_accounts_are_called_by_mutual_tls() {
    run(async {
        let ca = Ca::new();
        let app = web("127.1.0.1", "hello").await;
        let pair = Pair::new(&ca, Protocol::Http, app, vec![peer_mode(MtlsMode::Strict)]).await;
        let mut config = Config::new(mesh::scope(Role::Sidecar));
        config.destinations = Destinations::Fixed(VIP.parse().unwrap());
        let unknown = match member("a", 80, pair.server.inbound()) {
            Resource::Workload(workload) => Resource::Workload(lateen_model::workload::Workload {
                service_account: "".into(),
                ..workload
            }),
            other => other,
        };
        let resources = vec![
            service("a", "10.96.0.1", 80, Protocol::Http),
            unknown,
            ca.trust(),
        ];
        let client = Member::start(config, ca.state("sleep"), resources).await;
        let answer = client.bench.ask(GET).await;
        assert!(answer.ends_with("hello"), "{answer}");
        // Somebody who is of no mesh will not do.
        pair.server.certificate.send_replace(Ca::new().state("a"));
        pair.server.generation(2).await;
        client.certificate.send_replace(ca.state("sleep"));
        client.generation(2).await;
        let answer = client.bench.ask(GET).await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    });
}

#[test]
fn roots_of_the_workload_api_count_beside_those_of_configuration() {
    run(async {
        let (ca, spire) = (Ca::new(), Ca::new());
        let app = web("127.1.0.1", "hello").await;
        let strict = vec![peer_mode(MtlsMode::Strict)];
        let pair = Pair::new(&ca, Protocol::Http, app, strict).await;
        let bundles = || vec![Arc::new(spire.0.bundle(DOMAIN))];
        for (end, account, certificate) in
            [(&pair.client, "sleep", &ca), (&pair.server, "a", &spire)]
        {
            end.certificate
                .send_replace(lateen_identity::source::State {
                    bundles: bundles(),
                    ..certificate.state(account)
                });
            end.generation(2).await;
        }
        let answer = pair.client.bench.ask(GET).await;
        assert!(answer.ends_with("hello"), "{answer}");
    });
}

#[test]
fn roots_that_cannot_be_read_leave_the_last_good_in_force() {
    run(async {
        let ca = Ca::new();
        let app = web("127.1.0.1", "hello").await;
        let strict = vec![peer_mode(MtlsMode::Strict)];
        let pair = Pair::new(&ca, Protocol::Http, app, strict).await;
        for (at, bad) in [trust("no roots", ""), trust(ca.0.root_pem(), "no list")]
            .into_iter()
            .enumerate()
        {
            for end in [&pair.client, &pair.server] {
                end.apply(vec![bad.clone()]).await;
                end.generation(2 + at as u64).await;
            }
            let answer = pair.client.bench.ask(GET).await;
            assert!(answer.ends_with("hello"), "{answer}");
        }
    });
}

#[test]
fn a_certificate_near_its_end_is_an_alarm() {
    run(async {
        let ca = Ca::new();
        let app = web("127.1.0.1", "hello").await;
        let pair = Pair::new(&ca, Protocol::Http, app, Vec::new()).await;
        let alarm = "lateen_certificate_alarm";
        assert_eq!(
            pair.client.bench.metrics(alarm).await,
            [format!("{alarm} 0")]
        );
        let request = lateen_identity::ca::Request::new(Default::default(), None).unwrap();
        let hour = Duration::from_secs(3600);
        let early = std::time::SystemTime::now() - hour.mul_f64(0.8);
        let chain = ca.0.sign(request.pem(), &id("sleep"), hour, early).unwrap();
        let svid = request.answered(&chain.concat()).unwrap();
        pair.client
            .certificate
            .send_replace(lateen_identity::source::State {
                svid: Some(Arc::new(svid)),
                ..Default::default()
            });
        pair.client.generation(2).await;
        assert_eq!(
            pair.client.bench.metrics(alarm).await,
            [format!("{alarm} 1")]
        );
    });
}
