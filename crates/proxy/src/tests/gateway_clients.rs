//! Clients of a gateway that show certificates, looked at again when its settings change, and left alone when they do not.

use super::gateway_tls::*;
use super::member::*;
use super::*;
use lateen_identity::svid::Svid;
use lateen_identity::tls::{MeshAlpn, OriginOptions, origin_client};
use lateen_model::tls::{ServerTls, ServerTlsMode};
use lateen_net::stream::Stream;

/// A gateway's own certificates, and those of its clients.
struct Shop {
    gateway: Member,
    port: u16,
    /// What the gateway shows.
    ca: Ca,
}

impl Shop {
    async fn open(mode: ServerTlsMode) -> Self {
        let ca = Ca(outside());
        let shown = serving(&ca.0, &[HOST]);
        let secrets = vec![secret("shop", Some(&shown), ca.0.root_pem())];
        let (gateway, port) = gateway_of(
            &Ca::new(),
            server_tls(mode, "shop"),
            schemes().await,
            secrets,
        )
        .await;
        Self { gateway, port, ca }
    }

    /// A connection, with a certificate where there is one.
    async fn client(&self, svid: Option<&Svid>) -> Result<Stream, String> {
        let pem = svid.map(|svid| (svid.chain_pem(), svid.key_pem()));
        let (config, _) = origin_client(&OriginOptions {
            ca: Some(self.ca.0.root_pem()),
            certificate: pem.as_ref().map(|(chain, key)| (&**chain, &**key)),
            alpn: &["http/1.1"],
            ..OriginOptions::default()
        })
        .unwrap();
        let mut stream = connect(self.port, config).await?;
        request(&mut stream, "keep-alive").await?;
        Ok(stream)
    }

    /// Replaces the gateway's secret.
    async fn secret(&self, ca: &str, crl: &str) {
        let shown = serving(&self.ca.0, &[HOST]);
        let Resource::Credential(credential) = secret("shop", Some(&shown), ca) else {
            unreachable!("it is a credential");
        };
        let changed = lateen_model::security::Credential {
            crl: crl.into(),
            ..credential
        };
        self.gateway
            .apply(vec![Resource::Credential(changed)])
            .await;
    }
}

/// A connection that is served.
async fn assert_serves(stream: &mut Stream) {
    let answer = request(stream, "keep-alive").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// A connection that the gateway ends, without a word of ours.
async fn assert_ends(stream: &mut Stream) {
    let got = stream.read_more(&mut bytes::BytesMut::new()).await;
    assert!(got.is_err(), "{got:?}");
}

#[test]
fn they_stay_when_the_gateway_renews_its_certificate_of_the_mesh() {
    run(async {
        for mode in [ServerTlsMode::Mutual, ServerTlsMode::OptionalMutual] {
            let shop = Shop::open(mode).await;
            let mut client = shop.client(Some(&shop.ca.svid("x"))).await.unwrap();
            for generation in 2..4 {
                shop.gateway
                    .certificate
                    .send_replace(Ca::new().state("sleep"));
                shop.gateway.generation(generation).await;
                assert_serves(&mut client).await;
            }
        }
    });
}

#[test]
fn they_stay_when_the_gateway_shows_another_certificate() {
    run(async {
        let shop = Shop::open(ServerTlsMode::Mutual).await;
        let mut client = shop.client(Some(&shop.ca.svid("x"))).await.unwrap();
        let root = shop.ca.0.root_pem().to_owned();
        for _ in 0..3 {
            shop.secret(&root, "").await;
            assert_serves(&mut client).await;
        }
    });
}

#[test]
fn they_end_when_their_certificate_is_revoked_or_their_authority_is_gone() {
    run(async {
        for mode in [ServerTlsMode::Mutual, ServerTlsMode::OptionalMutual] {
            let shop = Shop::open(mode).await;
            let (bad, good) = (shop.ca.svid("bad"), shop.ca.svid("good"));
            let mut bad_one = shop.client(Some(&bad)).await.unwrap();
            let mut good_one = shop.client(Some(&good)).await.unwrap();
            let root = shop.ca.0.root_pem().to_owned();
            shop.secret(&root, &shop.ca.revokes(&bad)).await;
            assert_ends(&mut bad_one).await;
            assert_serves(&mut good_one).await;
            shop.secret(outside().root_pem(), "").await;
            assert_ends(&mut good_one).await;
        }
    });
}

#[test]
fn they_end_when_the_server_asks_for_more() {
    run(async {
        for mode in [ServerTlsMode::Mutual, ServerTlsMode::IstioMutual] {
            let shop = Shop::open(ServerTlsMode::Simple).await;
            let mut client = shop.client(None).await.unwrap();
            let stays = edge(shop.port, server_tls(ServerTlsMode::OptionalMutual, "shop"));
            shop.gateway.apply(vec![stays]).await;
            assert_serves(&mut client).await;
            let more = edge(shop.port, server_tls(mode, "shop"));
            shop.gateway.apply(vec![more]).await;
            assert_ends(&mut client).await;
        }
    });
}

#[test]
fn members_of_the_mesh_must_be_among_the_names_that_the_server_takes() {
    run(async {
        let ca = Ca::new();
        let tls = |account: &str| ServerTls {
            sans: vec![id(account).uri().into()],
            ..server_tls(ServerTlsMode::IstioMutual, "unused")
        };
        let (gateway, port) = gateway_of(&ca, tls("good"), schemes().await, Vec::new()).await;
        let client = async |account: &str| {
            let config = ca.tls(&ca.svid(account)).client(MeshAlpn::Http1);
            let mut stream = connect(port, config).await?;
            request(&mut stream, "keep-alive")
                .await
                .map(|answer| (stream, answer))
        };
        let refused = client("bad").await.map(|(_, answer)| answer);
        assert!(
            !refused.clone().is_ok_and(|a| a.starts_with("HTTP")),
            "{refused:?}"
        );
        let (mut stream, answer) = client("good").await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        gateway.apply(vec![edge(port, tls("other"))]).await;
        assert_ends(&mut stream).await;
    });
}

#[test]
fn members_of_the_mesh_have_a_principal_wherever_they_show_it() {
    run(async {
        for mode in [ServerTlsMode::Mutual, ServerTlsMode::OptionalMutual] {
            let ca = Ca::new();
            let edge_ca = outside();
            let shown = serving(&edge_ca, &[HOST]);
            let secrets = vec![
                secret("shop", Some(&shown), ca.0.root_pem()),
                allow("friend"),
            ];
            let (_gateway, port) =
                gateway_of(&ca, server_tls(mode, "shop"), schemes().await, secrets).await;
            for (account, status) in [("friend", "HTTP/1.1 200"), ("stranger", "HTTP/1.1 403")] {
                let svid = ca.svid(account);
                let (chain, key) = (svid.chain_pem(), svid.key_pem());
                let options = OriginOptions {
                    ca: Some(edge_ca.root_pem()),
                    certificate: Some((&chain, &key)),
                    alpn: &["http/1.1"],
                    ..OriginOptions::default()
                };
                let answer = ask(port, &options).await.unwrap();
                assert!(answer.starts_with(status), "{mode:?} {account}: {answer}");
            }
        }
    });
}

#[test]
fn one_usable_secret_of_several_is_enough() {
    run(async {
        let ca = outside();
        let tls = ServerTls {
            credentials: vec!["gone".into(), "one".into()],
            ..server_tls(ServerTlsMode::Simple, "unused")
        };
        let shown = serving(&ca, &[HOST]);
        let secrets = vec![secret("one", Some(&shown), "")];
        let (gateway, port) = gateway_of(&Ca::new(), tls, schemes().await, secrets).await;
        let options = OriginOptions {
            ca: Some(ca.root_pem()),
            alpn: &["http/1.1"],
            ..OriginOptions::default()
        };
        ask(port, &options).await.unwrap();
        // And none is not, whatever was there before.
        let gone = secret("one", Some(&shown), "");
        gateway.change(Vec::new(), vec![gone]).await;
        while ask(port, &options).await.is_ok() {}
    });
}
