//! Mutual TLS between two sidecars: what meets, what is refused, and what the logs and metrics say of it.

use super::member::*;
use super::mesh::service;
use super::*;
use lateen_model::mesh::Role;
use lateen_model::security::MtlsMode;
use lateen_model::service::Protocol;

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

async fn read(stream: &mut TcpStream, length: usize) -> String {
    let mut got = vec![0; length];
    stream.read_exact(&mut got).await.unwrap();
    String::from_utf8(got).unwrap()
}

/// Greets, then echoes.
async fn greeter(ip: &str) -> SocketAddr {
    server(ip, |mut stream, _| async move {
        if stream.write_all(b"hello").await.is_err() {
            return;
        }
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await
}

#[test]
fn two_sidecars_meet_by_mutual_tls_and_count_each_other() {
    run(async {
        let ca = Ca::new();
        for protocol in [Protocol::Http, Protocol::Http2, Protocol::Detect] {
            let app = if protocol == Protocol::Http2 {
                web2("127.1.0.1", "hello").await
            } else {
                web("127.1.0.1", "hello").await
            };
            let strict = vec![peer_mode(MtlsMode::Strict)];
            let pair = Pair::new(&ca, protocol, app, strict).await;
            let answer = pair.client.bench.ask(GET).await;
            assert!(answer.ends_with("hello"), "{protocol:?}: {answer}");
            let counted = pair.server.bench.metrics("istio_requests_total{").await;
            for label in [
                "reporter=\"destination\"",
                "source_principal=\"spiffe://cluster.local/ns/default/sa/sleep\"",
                "destination_principal=\"spiffe://cluster.local/ns/default/sa/a\"",
                "connection_security_policy=\"mutual_tls\"",
            ] {
                assert!(counted[0].contains(label), "{label}: {}", counted[0]);
            }
            let counted = pair.client.bench.metrics("istio_requests_total{").await;
            for label in [
                "source_principal=\"spiffe://cluster.local/ns/default/sa/sleep\"",
                "destination_principal=\"spiffe://cluster.local/ns/default/sa/a\"",
                "connection_security_policy=\"unknown\"",
            ] {
                assert!(counted[0].contains(label), "{label}: {}", counted[0]);
            }
            let line = pair.server.bench.log.lines(1).await.remove(0);
            assert!(
                line.contains(" outbound_.80_._.a.default.svc.cluster.local "),
                "{line}"
            );
        }
    });
}

#[test]
fn bytes_pass_and_the_server_may_speak_first() {
    run(async {
        let ca = Ca::new();
        for mode in [MtlsMode::Permissive, MtlsMode::Strict] {
            for protocol in [Protocol::Tcp, Protocol::Detect] {
                let app = greeter("127.1.0.1").await;
                let pair = Pair::new(&ca, protocol, app, vec![peer_mode(mode)]).await;
                let mut stream = pair.client.bench.outbound().await;
                assert_eq!(read(&mut stream, 5).await, "hello", "{protocol:?}");
                stream.write_all(b"\x01abc").await.unwrap();
                stream.shutdown().await.unwrap();
                assert_eq!(read(&mut stream, 4).await, "\x01abc", "{protocol:?}");
                assert_eq!(
                    stream.read(&mut [0]).await.unwrap(),
                    0,
                    "the end is passed on"
                );
                let counted = pair
                    .server
                    .bench
                    .metrics("istio_tcp_connections_closed_total{")
                    .await;
                assert!(counted[0].contains("connection_security_policy=\"mutual_tls\""));
            }
        }
    });
}

#[test]
fn plain_text_meets_permissive_ports_and_no_strict_ones() {
    run(async {
        let ca = Ca::new();
        for (mode, passes) in [
            (MtlsMode::Permissive, true),
            (MtlsMode::Disable, true),
            (MtlsMode::Strict, false),
        ] {
            for protocol in [Protocol::Http, Protocol::Detect] {
                let app = web("127.1.0.1", "hello").await;
                let pair = Pair::new(&ca, protocol, app, vec![peer_mode(mode)]).await;
                let mut plain = pair.server.bench.inbound("127.1.0.9").await;
                let sent = plain.write_all(GET.as_bytes()).await;
                let answer = response(&mut plain).await;
                assert_eq!(
                    answer.ends_with("hello"),
                    passes,
                    "{mode:?} {protocol:?}: {answer}"
                );
                assert!(passes || answer.is_empty() && sent.is_ok(), "{answer}");
                // Where mutual TLS is off, our own clients do without.
                let answer = pair.client.bench.ask(GET).await;
                assert!(answer.ends_with("hello"), "{mode:?} {protocol:?}: {answer}");
            }
        }
    });
}

#[test]
fn plain_clients_of_permissive_ports_hear_the_server_first() {
    run(async {
        let ca = Ca::new();
        for protocol in [Protocol::Tcp, Protocol::Detect] {
            let app = greeter("127.1.0.1").await;
            let pair = Pair::new(&ca, protocol, app, Vec::new()).await;
            let mut plain = pair.server.bench.inbound("127.1.0.9").await;
            assert_eq!(read(&mut plain, 5).await, "hello", "{protocol:?}");
            // Who is not admitted hears nothing: the application is not even called.
            let app = greeter("127.1.0.1").await;
            let pair = Pair::new(&ca, protocol, app, vec![allow("sleep")]).await;
            let mut plain = pair.server.bench.inbound("127.1.0.9").await;
            plain.write_all(b"\x01").await.unwrap();
            assert!(plain.read_u8().await.is_err(), "reset");
            let line = pair.server.bench.log.lines(1).await.remove(0);
            assert!(
                line.contains("rbac_access_denied_matched_policy[none]"),
                "{line}"
            );
            let mut stream = pair.client.bench.outbound().await;
            assert_eq!(read(&mut stream, 5).await, "hello", "{protocol:?}");
        }
    });
}

#[test]
fn somebody_elses_certificate_is_refused() {
    run(async {
        let ca = Ca::new();
        let app = web("127.1.0.1", "hello").await;
        let pair = Pair::new(&ca, Protocol::Http, app, Vec::new()).await;
        pair.server.certificate.send_replace(ca.state("mallory"));
        pair.server.generation(2).await;
        let answer = pair.client.bench.ask(GET).await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(
            answer.contains("TLS_error:the identity of")
                && answer.contains("/sa/mallory, wanted spiffe://cluster.local/ns/default/sa/a"),
            "{answer}"
        );
        assert!(pair.client.bench.log.lines(1).await[0].contains(" 503 UF,URX "));
    });
}

#[test]
fn certificates_of_another_root_are_refused_on_both_sides() {
    run(async {
        let (ca, other) = (Ca::new(), Ca::new());
        let app = web("127.1.0.1", "hello").await;
        let strict = vec![peer_mode(MtlsMode::Strict)];
        let pair = Pair::new(&ca, Protocol::Http, app, strict).await;
        pair.client.certificate.send_replace(other.state("sleep"));
        pair.client.generation(2).await;
        let answer = pair.client.bench.ask(GET).await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        pair.client.certificate.send_replace(ca.state("sleep"));
        pair.client.generation(3).await;
        assert!(pair.client.bench.ask(GET).await.ends_with("hello"));
        pair.server.certificate.send_replace(other.state("a"));
        pair.server.generation(2).await;
        pair.client.certificate.send_replace(ca.state("sleep"));
        pair.client.generation(4).await;
        let answer = pair.client.bench.ask(GET).await;
        assert!(
            answer.starts_with("HTTP/1.1 503") && answer.contains("TLS_error"),
            "{answer}"
        );
    });
}

#[test]
fn without_a_certificate_nothing_is_said_in_plain_text() {
    run(async {
        let ca = Ca::new();
        let app = web("127.1.0.1", "hello").await;
        let pair = Pair::new(&ca, Protocol::Http, app, Vec::new()).await;
        let mut config = Config::new(mesh::scope(Role::Sidecar));
        config.destinations = Destinations::Fixed(VIP.parse().unwrap());
        let resources = vec![
            service("a", "10.96.0.1", 80, Protocol::Http),
            member("a", 80, pair.server.inbound()),
            ca.trust(),
        ];
        // Without any identity: a proxy that waits for one is not ready at all.
        let bench = Bench::with(config, resources).await;
        let answer = bench.ask(GET).await;
        assert!(
            answer.starts_with("HTTP/1.1 503") && answer.contains("no certificate of the mesh"),
            "{answer}"
        );
    });
}

#[test]
fn applications_own_tls_passes_permissive_ports_untouched() {
    run(async {
        let ca = Ca::new();
        let app = server("127.1.0.1", |mut stream, _| async move {
            let mut first = [0; 3];
            stream.read_exact(&mut first).await.unwrap();
            stream.write_all(&first).await.unwrap();
        })
        .await;
        for protocol in [Protocol::Tls, Protocol::Detect, Protocol::Http] {
            let pair = Pair::new(&ca, protocol, app, Vec::new()).await;
            let mut plain = pair.server.bench.inbound("127.1.0.9").await;
            plain.write_all(&tcp::hello("db")).await.unwrap();
            let mut got = [0; 3];
            plain.read_exact(&mut got).await.unwrap();
            assert_eq!(got, [22, 3, 1], "{protocol:?}");
        }
    });
}

#[test]
fn pods_called_by_address_are_members_too() {
    run(async {
        let ca = Ca::new();
        let app = web("127.1.0.1", "hello").await;
        let strict = vec![peer_mode(MtlsMode::Strict)];
        let pair = Pair::new(&ca, Protocol::Http, app, strict.clone()).await;
        let mut config = Config::new(mesh::scope(Role::Sidecar));
        config.destinations = Destinations::Fixed(pair.server.inbound());
        let mut resources = vec![member("a", 80, pair.server.inbound()), ca.trust()];
        resources.extend(strict);
        let client = Member::start(config, ca.state("sleep"), resources).await;
        let answer = client.bench.ask(GET).await;
        assert!(answer.ends_with("hello"), "{answer}");
        let line = client.bench.log.lines(1).await.remove(0);
        assert!(line.contains(" PassthroughCluster "), "{line}");
    });
}

#[test]
fn the_certs_page_shows_the_certificate_and_no_key() {
    run(async {
        let ca = Ca::new();
        let app = web("127.1.0.1", "hello").await;
        let pair = Pair::new(&ca, Protocol::Http, app, Vec::new()).await;
        let admin = pair.client.bench.proxy.addresses().admin;
        let page = pair.client.bench.get(admin, "/certs").await;
        assert!(
            page.contains("\"uri\": \"spiffe://cluster.local/ns/default/sa/sleep\""),
            "{page}"
        );
        assert!(page.contains("\"days_until_expiration\": \"0\""), "{page}");
        let dump = pair.client.bench.get(admin, "/config_dump").await;
        assert!(!dump.contains("PRIVATE KEY"), "{dump}");
        let until = pair
            .client
            .bench
            .metrics("lateen_certificate_expiration_timestamp_seconds")
            .await;
        assert!(until[0].contains("sa/sleep"), "{until:?}");
    });
}
