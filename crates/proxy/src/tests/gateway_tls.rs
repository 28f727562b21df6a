//! TLS that ends at a gateway, and TLS towards servers outside of the mesh: secrets in, bytes out.

use super::member::*;
use super::mesh::{origin, pod, routes_at, rule, service};
use super::*;
use lateen_base::Str;
use lateen_identity::ca::{Authority, Serving};
use lateen_identity::tls::{GatewayOptions, OriginOptions, gateway_server, origin_client};
use lateen_model::gateway::{Gateway, Server, ServerHost, ServerProtocol};
use lateen_model::mesh::Role;
use lateen_model::name::Visibility;
use lateen_model::security::{Credential, Secret};
use lateen_model::service::Protocol;
use lateen_model::tls::{
    CertificateFiles, ClientTls, ClientTlsMode, ServerTls, ServerTlsMode, TlsVersion,
};
use lateen_model::traffic::{TrafficPolicy, TrafficSettings};
use lateen_net::stream::Stream;
use std::time::SystemTime;

pub(super) const HOST: &str = "shop.example.com";
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// A CA of the outside world.
pub(super) fn outside() -> Authority {
    let day = Duration::from_secs(24 * 3600);
    Authority::self_signed("example.com", day, SystemTime::now()).unwrap()
}

pub(super) fn serving(ca: &Authority, names: &[&str]) -> Serving {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let hour = Duration::from_secs(3600);
    ca.serve_certificate(&names, None, hour, SystemTime::now())
        .unwrap()
}

pub(super) fn secret(name: &str, shown: Option<&Serving>, ca: &str) -> Resource {
    Resource::Credential(Credential {
        origin: origin("Secret", name),
        chain: shown.map_or_else(String::new, Serving::chain_pem).into(),
        key: Secret::new(&shown.map_or_else(String::new, Serving::key_pem)),
        ca: ca.into(),
        crl: "".into(),
        readers: vec!["sleep".into()],
    })
}

pub(super) fn server_tls(mode: ServerTlsMode, credential: &str) -> ServerTls {
    ServerTls {
        mode,
        credentials: vec![credential.into()],
        ca_credential: None,
        files: Vec::new(),
        sans: Vec::new(),
        spki: Vec::new(),
        hashes: Vec::new(),
        min: TlsVersion::V1_2,
        max: TlsVersion::V1_3,
        ciphers: Vec::new(),
        curves: Vec::new(),
        skip_verify: false,
    }
}

/// A Gateway with one TLS server.
pub(super) fn edge(port: u16, tls: ServerTls) -> Resource {
    Resource::Gateway(Gateway {
        origin: origin("Gateway", "edge"),
        selector: [(Str::from("istio"), Str::from("ingressgateway"))].into(),
        servers: vec![Server {
            name: "https".into(),
            port,
            port_name: "https".into(),
            protocol: ServerProtocol::Https,
            hosts: vec![ServerHost {
                namespace: None,
                host: HOST.into(),
            }],
            https_redirect: false,
            bind: None,
            tls: Some(tls),
        }],
    })
}

/// A gateway with one TLS server on a port that is free, and a route to service `a`.
async fn gateway(tls: ServerTls, app: SocketAddr, more: Vec<Resource>) -> (Member, u16) {
    gateway_of(&Ca::new(), tls, app, more).await
}

/// The same, of this mesh.
pub(super) async fn gateway_of(
    ca: &Ca,
    tls: ServerTls,
    app: SocketAddr,
    more: Vec<Resource>,
) -> (Member, u16) {
    let port = nobody("127.0.0.1").await.port();
    let mut resources = vec![
        edge(port, tls),
        routes_at("default/edge", HOST, vec![rule(&[("a", 1)])]),
        service("a", "10.96.0.1", 80, Protocol::Http),
        pod("a", "v1", 80, app),
    ];
    resources.extend(more);
    resources.push(ca.trust());
    let config = Config::new(mesh::scope(Role::Gateway));
    (
        Member::start(config, ca.state("sleep"), resources).await,
        port,
    )
}

/// One request over TLS; the answer, or why there is none.
pub(super) async fn ask(port: u16, options: &OriginOptions<'_>) -> Result<String, String> {
    let (config, _) = origin_client(options).unwrap();
    request(&mut connect(port, config).await?, "close").await
}

/// A connection to the gateway.
pub(super) async fn connect(
    port: u16,
    config: Arc<rustls::ClientConfig>,
) -> Result<Stream, String> {
    let tcp = loop {
        if let Ok(tcp) = TcpStream::connect(("127.0.0.1", port)).await {
            break tcp;
        }
    };
    let stream = Stream::new(tcp, bytes::Bytes::new());
    let name = HOST.try_into().unwrap();
    let connected = lateen_net::tls::connect(stream, name, config, PATIENCE).await;
    Ok(connected.map_err(|e| e.to_string())?.0)
}

/// One request; the answer, or why there is none.
pub(super) async fn request(stream: &mut Stream, connection: &str) -> Result<String, String> {
    let request = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\nconnection: {connection}\r\n\r\n");
    let told = |e: std::io::Error| e.to_string();
    stream.write_all(request.as_bytes()).await.map_err(told)?;
    let mut got = bytes::BytesMut::new();
    while !is_whole(&got) {
        if stream.read_more(&mut got).await.map_err(told)? == 0 {
            break;
        }
    }
    Ok(String::from_utf8(got.to_vec()).unwrap())
}

/// An application that answers with the scheme that it was told of.
pub(super) async fn schemes() -> SocketAddr {
    server("127.1.0.1", |mut stream, _| async move {
        while let Some(head) = read_head(&mut stream).await {
            let scheme = head
                .lines()
                .find_map(|l| l.strip_prefix("x-forwarded-proto: "));
            let body = scheme.unwrap_or("none");
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await
}

#[test]
fn https_ends_at_the_gateway_and_certificates_reload() {
    run(async {
        let (one, two) = (outside(), outside());
        let app = schemes().await;
        let shown = serving(&one, &[HOST]);
        let tls = server_tls(ServerTlsMode::Simple, "shop");
        let (gateway, port) = gateway(tls, app, vec![secret("shop", Some(&shown), "")]).await;
        let believing = |ca: &Authority| ca.root_pem().to_owned();
        let (first, second) = (believing(&one), believing(&two));
        let options = |ca| OriginOptions {
            ca: Some(ca),
            alpn: &["http/1.1"],
            ..OriginOptions::default()
        };
        let answer = ask(port, &options(&first)).await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("https"),
            "{answer}"
        );
        ask(port, &options(&second)).await.unwrap_err();
        // A connection that is open stays through a reload.
        let (config, _) = origin_client(&options(&first)).unwrap();
        let tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let stream = Stream::new(tcp, bytes::Bytes::new());
        let name = HOST.try_into().unwrap();
        let connected = lateen_net::tls::connect(stream, name, config, PATIENCE).await;
        let (mut old, _) = connected.unwrap();
        let new = serving(&two, &[HOST]);
        gateway.apply(vec![secret("shop", Some(&new), "")]).await;
        while ask(port, &options(&second)).await.is_err() {}
        old.write_all(format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut got = bytes::BytesMut::new();
        while !is_whole(&got) {
            assert!(old.read_more(&mut got).await.unwrap() > 0);
        }
        assert!(got.starts_with(b"HTTP/1.1 200"));
        // What cannot be used leaves the last one in force.
        let broken = Resource::Credential(Credential {
            origin: origin("Secret", "shop"),
            chain: "no certificate".into(),
            key: Secret::new("no key"),
            ca: "".into(),
            crl: "".into(),
            readers: vec!["sleep".into()],
        });
        gateway.apply(vec![broken]).await;
        for _ in 0..3 {
            ask(port, &options(&second)).await.unwrap();
        }
    });
}

#[test]
fn clients_show_certificates_where_the_server_wants_them() {
    run(async {
        let ca = outside();
        let app = schemes().await;
        let shown = serving(&ca, &[HOST]);
        for (mode, without) in [
            (ServerTlsMode::Mutual, false),
            (ServerTlsMode::OptionalMutual, true),
        ] {
            let secrets = vec![
                secret("shop", Some(&shown), ""),
                secret("shop-cacert", None, ca.root_pem()),
            ];
            let (_gateway, port) = gateway(server_tls(mode, "shop"), app, secrets).await;
            let client = serving(&ca, &["client.example.com"]);
            let (chain, key) = (client.chain_pem(), client.key_pem());
            let root = ca.root_pem().to_owned();
            let options = |certificate| OriginOptions {
                ca: Some(&root),
                certificate,
                alpn: &["http/1.1"],
                ..OriginOptions::default()
            };
            let answer = ask(port, &options(Some((&chain, &key)))).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{mode:?}: {answer}");
            let answer = ask(port, &options(None)).await;
            assert_eq!(answer.is_ok(), without, "{mode:?}: {answer:?}");
            let stranger = serving(&outside(), &["client.example.com"]);
            let (chain, key) = (stranger.chain_pem(), stranger.key_pem());
            let answer = ask(port, &options(Some((&chain, &key)))).await;
            assert!(answer.is_err(), "{mode:?}: {answer:?}");
        }
    });
}

#[test]
fn a_secret_that_is_missing_closes_its_server_until_it_comes() {
    run(async {
        let ca = outside();
        let tls = server_tls(ServerTlsMode::Simple, "shop");
        let (gateway, port) = gateway(tls, schemes().await, Vec::new()).await;
        let root = ca.root_pem().to_owned();
        let options = OriginOptions {
            ca: Some(&root),
            alpn: &["http/1.1"],
            ..OriginOptions::default()
        };
        ask(port, &options).await.unwrap_err();
        let shown = serving(&ca, &[HOST]);
        gateway.apply(vec![secret("shop", Some(&shown), "")]).await;
        while ask(port, &options).await.is_err() {}
    });
}

#[test]
fn simple_tls_is_begun_towards_outside_servers() {
    run(async {
        let ca = outside();
        let shown = serving(&ca, &["a.default.svc.cluster.local"]);
        let tls = server_tls(ServerTlsMode::Simple, "unused");
        let (chain, key) = (shown.chain_pem(), shown.key_pem());
        let (config, _) = gateway_server(&GatewayOptions {
            tls: &tls,
            certificates: &[(&chain, &key)],
            ca: None,
            crl: "",
            alpn: &["http/1.1"],
        })
        .unwrap();
        let app = server("127.1.0.1", move |stream, _| {
            let config = Arc::clone(&config);
            async move {
                let stream = Stream::new(stream, bytes::Bytes::new());
                let accepted = lateen_net::tls::accept(stream, config, PATIENCE).await;
                let Ok((mut stream, handshake)) = accepted else {
                    return;
                };
                let mut got = bytes::BytesMut::new();
                while !got.ends_with(b"\r\n\r\n") {
                    if !matches!(stream.read_more(&mut got).await, Ok(1..)) {
                        return;
                    }
                }
                let name = handshake.server_name.unwrap_or_default();
                let length = name.len();
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{name}");
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.read_more(&mut got).await;
            }
        })
        .await;
        let policy = |sans: Vec<Str>| {
            let settings = TrafficSettings {
                tls: Some(ClientTls {
                    mode: ClientTlsMode::Simple,
                    sans,
                    sni: Some("a.default.svc.cluster.local".into()),
                    credential: Some("roots".into()),
                    files: CertificateFiles::default(),
                    skip_verify: false,
                }),
                ..TrafficSettings::default()
            };
            Resource::TrafficPolicy(TrafficPolicy {
                origin: origin("DestinationRule", "a"),
                host: mesh::host("a"),
                visibility: Visibility::Public,
                workload_selector: Default::default(),
                settings,
                subsets: Vec::new(),
            })
        };
        let mut config = Config::new(mesh::scope(Role::Sidecar));
        config.destinations = Destinations::Fixed(VIP.parse().unwrap());
        let resources = vec![
            service("a", "10.96.0.1", 80, Protocol::Http),
            pod("a", "v1", 80, app),
            secret("roots", None, ca.root_pem()),
            policy(Vec::new()),
        ];
        let own = Ca::new();
        let client = Member::start(config, own.state("sleep"), resources).await;
        let get = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        let answer = client.bench.ask(get).await;
        assert!(answer.ends_with("a.default.svc.cluster.local"), "{answer}");
        client
            .apply(vec![policy(vec!["other.example.com".into()])])
            .await;
        loop {
            let answer = client.bench.ask(get).await;
            if answer.starts_with("HTTP/1.1 503") {
                assert!(answer.contains("TLS_error"), "{answer}");
                break;
            }
        }
    });
}
