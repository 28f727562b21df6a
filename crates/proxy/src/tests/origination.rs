//! TLS that begins here as DestinationRules ask for: whose certificates it shows, and what ends it.

use super::gateway_tls::*;
use super::member::*;
use super::mesh::{origin, pod, service};
use super::*;
use lateen_identity::tls::{GatewayOptions, gateway_server};
use lateen_model::mesh::Role;
use lateen_model::name::Visibility;
use lateen_model::service::Protocol;
use lateen_model::tls::{CertificateFiles, ClientTls, ClientTlsMode, ServerTlsMode};
use lateen_model::traffic::{TrafficPolicy, TrafficSettings};
use lateen_net::stream::Stream;

/// A server that ends TLS and echoes.
async fn secured_echo(ip: &str, ca: &lateen_identity::ca::Authority) -> SocketAddr {
    let shown = serving(ca, &[HOST]);
    let (chain, key) = (shown.chain_pem(), shown.key_pem());
    let (config, _) = gateway_server(&GatewayOptions {
        tls: &server_tls(ServerTlsMode::Simple, "unused"),
        certificates: &[(&chain, &key)],
        ca: None,
        crl: "",
        alpn: &[],
    })
    .unwrap();
    server(ip, move |stream, _| {
        let config = Arc::clone(&config);
        async move {
            let stream = Stream::new(stream, bytes::Bytes::new());
            let Ok((mut stream, _)) = lateen_net::tls::accept(stream, config, PATIENCE).await
            else {
                return;
            };
            let mut got = bytes::BytesMut::new();
            while matches!(stream.read_more(&mut got).await, Ok(1..)) {
                if stream.write_all(&got.split()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

fn policy(mode: ClientTlsMode) -> Resource {
    Resource::TrafficPolicy(TrafficPolicy {
        origin: origin("DestinationRule", "a"),
        host: mesh::host("a"),
        visibility: Visibility::Public,
        workload_selector: Default::default(),
        settings: TrafficSettings {
            tls: Some(ClientTls {
                mode,
                sans: Vec::new(),
                sni: Some(HOST.into()),
                credential: Some("outside".into()),
                files: CertificateFiles::default(),
                skip_verify: false,
            }),
            ..TrafficSettings::default()
        },
        subsets: Vec::new(),
    })
}

async fn client(protocol: Protocol, app: SocketAddr, more: Vec<Resource>) -> Member {
    let mut config = Config::new(mesh::scope(Role::Sidecar));
    config.destinations = Destinations::Fixed(VIP.parse().unwrap());
    let mut resources = vec![
        service("a", "10.96.0.1", 80, protocol),
        pod("a", "v1", 80, app),
    ];
    resources.extend(more);
    let own = Ca::new();
    resources.push(own.trust());
    Member::start(config, own.state("sleep"), resources).await
}

#[test]
fn servers_outside_are_not_the_meshs_to_distrust() {
    run(async {
        let ca = outside();
        let app = secured_echo("127.1.0.1", &ca).await;
        let resources = vec![
            policy(ClientTlsMode::Simple),
            secret("outside", None, ca.root_pem()),
        ];
        let client = client(Protocol::Tcp, app, resources).await;
        let mut stream = client.bench.outbound().await;
        let mut got = [0; 4];
        for generation in 2..4 {
            stream.write_all(b"ping").await.unwrap();
            stream.read_exact(&mut got).await.unwrap();
            client.certificate.send_replace(Ca::new().state("sleep"));
            client.generation(generation).await;
        }
        stream.write_all(b"ping").await.unwrap();
        stream.read_exact(&mut got).await.unwrap();
    });
}

#[test]
fn a_secret_that_is_gone_is_used_no_more() {
    run(async {
        let ca = outside();
        let app = secured_echo("127.1.0.1", &ca).await;
        let roots = || secret("outside", None, ca.root_pem());
        let resources = vec![policy(ClientTlsMode::Simple), roots()];
        let client = client(Protocol::Tcp, app, resources).await;
        let mut stream = client.bench.outbound().await;
        let mut got = [0; 4];
        stream.write_all(b"ping").await.unwrap();
        stream.read_exact(&mut got).await.unwrap();
        client.change(Vec::new(), vec![roots()]).await;
        let address = client.bench.proxy.addresses().outbound.unwrap();
        // The reset may come at any step.
        let mut talk = async || {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(b"ping").await?;
            stream.read_exact(&mut got).await
        };
        while talk().await.is_ok() {}
    });
}

#[test]
fn a_secret_without_a_certificate_cannot_show_one() {
    run(async {
        let ca = outside();
        let app = secured_echo("127.1.0.1", &ca).await;
        let resources = vec![
            policy(ClientTlsMode::Mutual),
            secret("outside", None, ca.root_pem()),
        ];
        let client = client(Protocol::Http, app, resources).await;
        let answer = client.bench.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(
            answer.starts_with("HTTP/1.1 503") && answer.contains("secret outside has none"),
            "{answer}"
        );
    });
}
