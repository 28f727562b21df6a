//! Connections that are not HTTP, and the telling apart.

use super::mesh::{pod, registry_only, service};
use super::*;
use lateen_model::service::Protocol;

const DB: &str = "10.96.0.3:3307";

async fn mesh(protocol: Protocol, address: SocketAddr) -> Bench {
    Bench::sidecar(
        DB,
        vec![
            service("db", "10.96.0.3", 3307, protocol),
            pod("db", "v1", 3307, address),
        ],
    )
    .await
}

async fn read(stream: &mut TcpStream, length: usize) -> String {
    let mut got = vec![0; length];
    stream.read_exact(&mut got).await.unwrap();
    String::from_utf8(got).unwrap()
}

/// A client that says `words` is answered with a reset, which it may see at any step.
async fn assert_reset(bench: &Bench, words: &[u8]) {
    let address = bench.proxy.addresses().outbound.unwrap();
    let talk = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(words).await?;
        stream.read_u8().await
    };
    let kind = talk.await.unwrap_err().kind();
    assert!(
        matches!(
            kind,
            std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe
        ),
        "{kind}"
    );
}

/// Greets, then echoes.
async fn greeter(ip: &str) -> SocketAddr {
    server(ip, |mut stream, _| async move {
        stream.write_all(b"5.7-mysql").await.unwrap();
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await
}

#[test]
fn the_server_may_speak_first() {
    run(async {
        for protocol in [Protocol::Detect, Protocol::Tcp] {
            let bench = mesh(protocol, greeter("127.1.0.1").await).await;
            let mut stream = bench.outbound().await;
            assert_eq!(
                read(&mut stream, 9).await,
                "5.7-mysql",
                "{protocol:?}: no byte was sent before"
            );
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            assert_eq!(
                read(&mut stream, 18).await,
                "GET / HTTP/1.1\r\n\r\n",
                "bytes stay bytes"
            );
        }
    });
}

#[test]
fn undeclared_ports_speak_http_too() {
    run(async {
        let bench = mesh(Protocol::Detect, web("127.1.0.1", "hello").await).await;
        // Both at once, and after a silence in which the endpoint was already called.
        let answer = bench.ask("GET / HTTP/1.1\r\nhost: db:3307\r\n\r\n").await;
        assert!(
            answer.ends_with("hello") && answer.contains("x-envoy-upstream-service-time"),
            "{answer}"
        );
        let mut stream = bench.outbound().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        stream.write_all(b"GE").await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        let answer = exchange(&mut stream, "T / HTTP/1.1\r\nhost: db:3307\r\n\r\n").await;
        assert!(
            answer.ends_with("hello") && answer.contains("x-envoy-upstream-service-time"),
            "{answer}"
        );
    });
}

#[test]
fn other_bytes_are_copied_with_their_half_close() {
    run(async {
        let address = server("127.1.0.1", |mut stream, _| async move {
            let mut got = Vec::new();
            stream.read_to_end(&mut got).await.unwrap();
            got.reverse();
            stream.write_all(&got).await.unwrap();
        })
        .await;
        for protocol in [Protocol::Detect, Protocol::Tcp] {
            let bench = mesh(protocol, address).await;
            let mut stream = bench.outbound().await;
            stream.write_all(b"\x01abc").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer, "cba\x01");
            let line = bench.log.lines(1).await.remove(0);
            assert!(line.contains("] \"- - -\" 0 - - - \"-\" 4 4 "), "{line}");
            assert!(
                line.contains(" outbound|3307||db.default.svc.cluster.local "),
                "{line}"
            );
        }
    });
}

#[test]
fn dead_endpoints_are_passed_over_and_the_end_is_a_reset() {
    run(async {
        let dead = nobody("127.1.0.2").await;
        let bench = Bench::sidecar(
            DB,
            vec![
                service("db", "10.96.0.3", 3307, Protocol::Tcp),
                pod("db", "v1", 3307, dead),
                pod("db", "v2", 3307, greeter("127.1.0.1").await),
            ],
        )
        .await;
        for _ in 0..10 {
            assert_eq!(read(&mut bench.outbound().await, 9).await, "5.7-mysql");
        }
        let bench = mesh(Protocol::Tcp, dead).await;
        assert_reset(&bench, b"").await;
        assert!(
            bench.log.lines(1).await[0]
                .contains(" 0 UF - - \"delayed connect error: Connection refused\" ")
        );
    });
}

#[test]
fn unknown_destinations_are_passed_on_or_reset() {
    run(async {
        let address = greeter("127.1.0.1").await;
        let bench = Bench::sidecar(&address.to_string(), Vec::new()).await;
        assert_eq!(read(&mut bench.outbound().await, 9).await, "5.7-mysql");
        assert!(bench.log.lines(1).await[0].contains(" PassthroughCluster "));
        let bench = Bench::sidecar(&address.to_string(), vec![registry_only()]).await;
        assert_reset(&bench, b"\x00\x01").await;
        let line = bench.log.lines(1).await.remove(0);
        let wanted = line.contains(" 0 UH - - ") && line.contains(" BlackHoleCluster ");
        assert!(wanted, "{line}");
    });
}

/// A ClientHello with this server name, of at most a hundred letters, and nothing else.
pub(super) fn hello(name: &str) -> Vec<u8> {
    let mut hello = vec![3, 3];
    hello.extend([9; 32]);
    let n = name.len() as u8;
    hello.extend([0, 0, 2, 0x13, 1, 1, 0]);
    hello.extend([0, n + 9, 0, 0, 0, n + 5, 0, n + 3, 0, 0, n]);
    hello.extend(name.as_bytes());
    let length = hello.len() as u8;
    let mut bytes = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    bytes.extend(&hello);
    bytes
}

#[test]
fn tls_is_passed_through_by_its_server_name() {
    run(async {
        let bytes = hello("db");
        let address = server("127.1.0.1", |mut stream, _| async move {
            let mut first = [0; 3];
            stream.read_exact(&mut first).await.unwrap();
            stream.write_all(&first).await.unwrap();
        })
        .await;
        for protocol in [Protocol::Tls, Protocol::Detect] {
            let bench = mesh(protocol, address).await;
            let mut stream = bench.outbound().await;
            stream.write_all(&bytes).await.unwrap();
            let mut got = [0; 3];
            stream.read_exact(&mut got).await.unwrap();
            assert_eq!(got, [22, 3, 1]);
            drop(stream);
            assert!(
                bench.log.lines(1).await[0].contains(" db -"),
                "the server name is logged"
            );
        }
    });
}
