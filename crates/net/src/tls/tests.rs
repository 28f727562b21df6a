//! Our two ends against each other and against an independent client, over real sockets.

mod records;

use super::*;
use crate::copy::{Counts, streams};
use bytes::{Bytes, BytesMut};
use rustls::client::WantsClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ConfigBuilder, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const LIMIT: Duration = Duration::from_secs(5);

/// A certificate for `mesh.test`, trusted and used by both sides.
struct Mesh {
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn mesh() -> Mesh {
    let made = rcgen::generate_simple_self_signed(vec!["mesh.test".to_owned()]).unwrap();
    let chain = vec![made.cert.der().clone()];
    let key = made.signing_key.serialize_der();
    let mut roots = RootCertStore::empty();
    roots.add(chain[0].clone()).unwrap();
    let roots = Arc::new(roots);
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider());
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain.clone(), own(&key))
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec(), b"istio".to_vec()];
    server.enable_secret_extraction = true;
    let client = client(&roots, rustls::ALL_VERSIONS)
        .with_client_auth_cert(chain.clone(), own(&key))
        .unwrap();
    let client = with_alpn(client);
    Mesh {
        roots,
        chain,
        key,
        server: Arc::new(server),
        client,
    }
}

fn own(key: &[u8]) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key.to_vec()).into()
}

fn with_alpn(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.enable_secret_extraction = true;
    config.alpn_protocols = vec![b"istio".to_vec()];
    Arc::new(config)
}

fn client(
    roots: &Arc<RootCertStore>,
    versions: &[&'static SupportedProtocolVersion],
) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(Arc::clone(roots))
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (a, b) = tokio::join!(
        TcpStream::connect(listener.local_addr().unwrap()),
        listener.accept()
    );
    (a.unwrap(), b.unwrap().0)
}

fn plain(tcp: TcpStream) -> Stream {
    Stream::new(tcp, Bytes::new())
}

fn name() -> ServerName<'static> {
    ServerName::try_from("mesh.test").unwrap()
}

/// Both ends of a TLS connection.
async fn secured(mesh: &Mesh) -> ((Stream, Handshake), (Stream, Handshake)) {
    let (client, server) = pair().await;
    let (client, server) = tokio::join!(
        connect(plain(client), name(), Arc::clone(&mesh.client), LIMIT),
        accept(plain(server), Arc::clone(&mesh.server), LIMIT)
    );
    (client.unwrap(), server.unwrap())
}

#[tokio::test]
async fn both_ends_learn_whom_they_speak_to_and_sessions_are_resumed() {
    let mesh = mesh();
    for resumed in [false, true] {
        let ((mut client, at_client), (mut server, at_server)) = secured(&mesh).await;
        assert_eq!(at_server.server_name.as_deref(), Some("mesh.test"));
        for shake in [&at_client, &at_server] {
            assert_eq!(shake.alpn.as_deref(), Some("istio"));
            assert_eq!((shake.version, shake.resumed), ("TLSv1.3", resumed));
            assert_eq!(shake.peer_certificates.len(), 1);
            assert!(shake.cipher.starts_with("TLS13_"), "{}", shake.cipher);
        }
        // The tickets come with the first bytes.
        server.write_all(b"hello").await.unwrap();
        let mut got = BytesMut::new();
        assert_eq!(client.read_more(&mut got).await.unwrap(), 5);
    }
}

#[tokio::test]
async fn ends_and_resets_differ() {
    let mesh = mesh();
    let ((mut client, _), (mut server, _)) = secured(&mesh).await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut question = String::new();
    server.read_to_string(&mut question).await.unwrap();
    // The other half is still open.
    server.write_all(b"answer").await.unwrap();
    server.shutdown().await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!((&*question, &*answer), ("question", "answer"));

    for (reset, kind) in [
        (false, io::ErrorKind::UnexpectedEof),
        (true, io::ErrorKind::ConnectionReset),
    ] {
        let ((mut client, _), (server, _)) = secured(&mesh).await;
        if reset {
            server.reset_on_close();
        }
        drop(server);
        assert_eq!(client.read(&mut [0; 9]).await.unwrap_err().kind(), kind);
    }
}

#[tokio::test]
async fn an_idle_connection_is_spent_by_words_and_ends_but_not_by_tickets() {
    let mesh = mesh();
    let ((client, _), (mut server, _)) = secured(&mesh).await;
    let watch = client.watch();
    // TLS 1.3 tickets are on their way or there already.
    watch.tcp().readable().await.unwrap();
    assert!(!watch.is_spent());
    server.write_all(b"unasked").await.unwrap();
    client.readable().await;
    assert!(watch.is_spent());

    let ((client, _), (server, _)) = secured(&mesh).await;
    let watch = client.watch();
    drop(server);
    client.readable().await;
    assert!(watch.is_spent() && watch.has_ended());
}

#[tokio::test]
async fn who_may_not_come_in_is_told_why() {
    let mesh = mesh();
    let (caller, server) = pair().await;
    let stranger = with_alpn(client(&mesh.roots, rustls::ALL_VERSIONS).with_no_client_auth());
    let (client, server) = tokio::join!(
        connect(plain(caller), name(), stranger, LIMIT),
        accept(plain(server), Arc::clone(&mesh.server), LIMIT)
    );
    let refused = server.unwrap_err().to_string();
    assert!(refused.contains("peer sent no certificates"), "{refused}");
    // In TLS 1.3 the client is done before the server has looked.
    let told = client.unwrap().0.read(&mut [0; 1]).await.unwrap_err();
    assert!(told.to_string().contains("CertificateRequired"), "{told}");

    let (client, server) = pair().await;
    let other = ServerName::try_from("other.test").unwrap();
    let (client, server) = tokio::join!(
        connect(plain(client), other, Arc::clone(&mesh.client), LIMIT),
        accept(plain(server), Arc::clone(&mesh.server), LIMIT)
    );
    let reason = client.unwrap_err().transport_reason();
    assert!(reason.contains("not valid for name"), "{reason}");
    assert!(matches!(server.unwrap_err(), TlsFailure::Refused(_)));
}

#[tokio::test]
async fn handshakes_are_bounded() {
    let mesh = mesh();
    let try_with = async |bytes: &[u8], end: bool| {
        let (mut client, server) = pair().await;
        client.write_all(bytes).await.unwrap();
        if end {
            client.shutdown().await.unwrap();
        }
        let limit = Duration::from_millis(100);
        accept(plain(server), Arc::clone(&mesh.server), limit)
            .await
            .unwrap_err()
    };
    assert!(matches!(try_with(b"", false).await, TlsFailure::Timeout(_)));
    assert!(matches!(
        try_with(b"\x16\x03\x01", false).await,
        TlsFailure::Timeout(_)
    ));
    assert!(matches!(
        try_with(b"\x16\x03\x01", true).await,
        TlsFailure::Closed
    ));
    assert!(matches!(
        try_with(b"GET / HTTP/1.1\r\n\r\n", false).await,
        TlsFailure::Refused(_)
    ));
    // A hello of 60 KiB that never ends.
    let mut huge = Vec::new();
    for part in 0..4 {
        huge.extend([0x16, 3, 1, 0x3c, 0]);
        let head: &[u8] = if part == 0 { &[1, 0, 0xf0, 0] } else { &[] };
        huge.extend(head);
        huge.resize((part + 1) * (5 + 0x3c00), 0);
    }
    assert!(matches!(
        try_with(&huge, false).await,
        TlsFailure::TooLarge(_)
    ));
}

#[tokio::test]
async fn much_is_copied_between_plain_and_tls_and_ends_reach_the_other_side() {
    let mesh = mesh();
    let ((mut client, _), (mut near, _)) = secured(&mesh).await;
    let (far, mut origin) = pair().await;
    let mut far = plain(far);
    near.unread(Bytes::from_static(b"first "));
    let counts = Counts::default();
    let sent: Vec<u8> = (0..5_000_000u32).map(|i| (i / 7) as u8).collect();
    let talk = async {
        let upload = async {
            AsyncWriteExt::write_all(&mut client, &sent).await.unwrap();
            client.shutdown().await.unwrap();
            let mut echoed = Vec::new();
            client.read_to_end(&mut echoed).await.unwrap();
            assert!(
                echoed
                    == b"first "[..]
                        .iter()
                        .chain(&sent)
                        .copied()
                        .collect::<Vec<_>>()
            );
        };
        let echo = async {
            let mut all = Vec::new();
            origin.read_to_end(&mut all).await.unwrap();
            AsyncWriteExt::write_all(&mut origin, &all).await.unwrap();
            origin.shutdown().await.unwrap();
        };
        tokio::join!(upload, echo)
    };
    let (done, _) = tokio::join!(streams(&mut near, &mut far, &counts), talk);
    done.unwrap();
    assert_eq!(
        (counts.forward.get(), counts.back.get()),
        (5_000_006, 5_000_006)
    );
}

#[tokio::test]
async fn a_connection_that_is_cut_is_passed_on_as_a_reset() {
    let mesh = mesh();
    let ((client, _), (mut near, _)) = secured(&mesh).await;
    let (far, mut origin) = pair().await;
    let mut far = plain(far);
    drop(client);
    assert!(
        streams(&mut near, &mut far, &Counts::default())
            .await
            .is_err()
    );
    drop((near, far));
    let error = origin.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_peer_that_does_not_read_holds_its_writer_back() {
    let mesh = mesh();
    let ((mut client, _), (mut server, _)) = secured(&mesh).await;
    let watch = server.watch();
    let mut written = 0;
    let block = [7; 100_000];
    let parts = [IoSlice::new(&block[..10]), IoSlice::new(&block[10..])];
    let ten = Duration::from_millis(100);
    while let Ok(wrote) = tokio::time::timeout(ten, server.write_vectored(&parts)).await {
        written += wrote.unwrap();
    }
    assert!(watch.is_blocked() && written < 50_000_000, "{written}");
    let reading = async {
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        all.len()
    };
    let (read, ()) = tokio::join!(reading, async { server.shutdown().await.unwrap() });
    assert_eq!(read, written);
    assert!(!watch.is_blocked() && watch.bytes_written() > written as u64);
}

#[tokio::test]
async fn an_independent_client_is_served_within_tls_1_2_and_1_3() {
    let mesh = mesh();
    for (version, name_of) in [
        (&rustls::version::TLS12, "TLSv1.2"),
        (&rustls::version::TLS13, "TLSv1.3"),
    ] {
        let (caller, server) = pair().await;
        let serve = async {
            let (mut server, shake) = accept(plain(server), Arc::clone(&mesh.server), LIMIT)
                .await
                .unwrap();
            let mut said = [0; 70_000];
            server.read_exact(&mut said).await.unwrap();
            server.write_all(&said).await.unwrap();
            server.shutdown().await.unwrap();
            shake.version
        };
        let mut config = client(&mesh.roots, &[version])
            .with_client_auth_cert(mesh.chain.clone(), own(&mesh.key))
            .unwrap();
        config.max_fragment_size = Some(512);
        let talk = async {
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            let mut client = connector.connect(name(), caller).await.unwrap();
            client.write_all(&[9; 70_000]).await.unwrap();
            client.flush().await.unwrap();
            let mut all = Vec::new();
            client.read_to_end(&mut all).await.unwrap();
            assert!(all == [9; 70_000]);
        };
        let (spoken, ()) = tokio::join!(serve, talk);
        assert_eq!(spoken, name_of);
    }
}

/// Run by hand: `cargo test -p lateen-net held_by_idle -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement"]
async fn memory_held_by_idle_connections() {
    const PAIRS: usize = 400;
    let mesh = mesh();
    let mut kept = vec![secured(&mesh).await];
    let before = crate::memory::pressure::resident().unwrap();
    for _ in 0..PAIRS {
        let ((mut client, a), (mut server, b)) = secured(&mesh).await;
        // Something was said in both directions, and a ticket came.
        server.write_all(&[1; 20_000]).await.unwrap();
        client.write_all(&[1; 20_000]).await.unwrap();
        let mut read = vec![0; 20_000];
        client.read_exact(&mut read).await.unwrap();
        server.read_exact(&mut read).await.unwrap();
        kept.push(((client, a), (server, b)));
    }
    crate::memory::release_free_heap();
    let held = crate::memory::pressure::resident().unwrap() - before;
    println!(
        "{} bytes for each end of {} connections",
        held / PAIRS as u64 / 2,
        kept.len()
    );
    println!(
        "{} and {} bytes of state",
        size_of::<Session>(),
        size_of::<Stream>()
    );
}
