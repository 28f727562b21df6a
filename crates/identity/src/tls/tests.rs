//! Handshakes in memory between members of the mesh.

mod outside;

use super::*;
use crate::ca::Authority;
use crate::fixture::*;
use crate::trust::{TrustBundles, peer_id};
use lateen_model::identity::SpiffeId;
use rustls::ClientConfig;

const SNI: &str = "outbound_.9080_._.reviews.default.svc.cluster.local";

fn member(authority: &Authority, account: &str, min: TlsVersion) -> Arc<MeshTls> {
    let id = SpiffeId::of_account("cluster.local", "default", account).expect("an id");
    let bundles = bundles(&[("cluster.local", authority)]);
    MeshTls::new(&svid(authority, &id, HOUR), &bundles, min).expect("settings")
}

#[track_caller]
fn assert_has(text: &str, part: &str) {
    assert!(text.contains(part), "{text:?} should have {part:?}");
}

#[tokio::test]
async fn members_meet_with_post_quantum_keys_and_know_each_other() {
    let ca = authority("cluster.local");
    let (sleep, reviews) = (
        member(&ca, "sleep", TlsVersion::V1_2),
        member(&ca, "reviews", TlsVersion::V1_2),
    );
    for (alpn, agreed) in [
        (MeshAlpn::Http1, "istio-http/1.1"),
        (MeshAlpn::Http2, "istio-h2"),
        (MeshAlpn::Tcp, "istio"),
    ] {
        let met = meet(sleep.client(alpn), reviews.server(), SNI).await;
        let met = met.expect("a handshake");
        assert_eq!(met.alpn.as_deref(), Some(agreed));
        assert_eq!(met.version, "TLSv1_3");
        assert_eq!(met.group, "X25519MLKEM768");
        assert_eq!(peer_id(&met.server).as_ref(), Ok(reviews.id()));
        assert_eq!(
            sleep.peer(&met.server, false, now()).as_ref(),
            Ok(reviews.id())
        );
        assert_eq!(peer_id(&met.client).as_ref(), Ok(sleep.id()));
    }
    assert!(Arc::ptr_eq(
        &sleep.client(MeshAlpn::Tcp),
        &sleep.client(MeshAlpn::Tcp)
    ));
}

/// The client's settings with one thing changed.
fn changed(config: &ClientConfig, change: impl FnOnce(&mut ClientConfig)) -> Arc<ClientConfig> {
    let mut config = config.clone();
    change(&mut config);
    Arc::new(config)
}

#[tokio::test]
async fn clients_of_others_are_understood() {
    let ca = authority("cluster.local");
    let (sleep, reviews) = (
        member(&ca, "sleep", TlsVersion::V1_2),
        member(&ca, "reviews", TlsVersion::V1_2),
    );
    let agreed = async |offered: &[&str]| {
        let client = changed(&sleep.client(MeshAlpn::Tcp), |config| {
            config.alpn_protocols = protocols(offered);
        });
        let met = meet(client, reviews.server(), SNI).await;
        met.map(|met| met.alpn.unwrap_or_default())
    };
    let envoy = ["istio-peer-exchange", "istio"];
    assert_eq!(agreed(&envoy).await.as_deref(), Ok("istio"));
    let envoy = ["istio-peer-exchange", "istio", "h2"];
    assert_eq!(agreed(&envoy).await.as_deref(), Ok("istio"));
    assert_eq!(
        agreed(&["istio-http/1.0", "istio"]).await.as_deref(),
        Ok("istio-http/1.0")
    );
    assert_eq!(agreed(&["h2"]).await.as_deref(), Ok("h2"));
    assert_eq!(agreed(&[]).await.as_deref(), Ok(""));
    let (_, server) = agreed(&["spdy"]).await.expect_err("nothing in common");
    assert_has(&server, "doesn't support any known protocol");
}

#[tokio::test]
async fn strangers_are_refused_at_both_ends() {
    let (ca, other) = (authority("cluster.local"), authority("cluster.local"));
    let (sleep, stranger) = (
        member(&ca, "sleep", TlsVersion::V1_2),
        member(&other, "sleep", TlsVersion::V1_2),
    );
    let refused = async |client: &MeshTls, server: &MeshTls| {
        let met = meet(client.client(MeshAlpn::Tcp), server.server(), SNI).await;
        met.expect_err("no handshake")
    };
    let (client, _) = refused(&sleep, &stranger).await;
    assert_has(&client, "not signed by a root");
    let bundles = bundles(&[("cluster.local", &other)]);
    let naive = MeshTls::new(&svid(&ca, &sleep_id(), HOUR), &bundles, TlsVersion::V1_2);
    let (_, server) = refused(&naive.expect("settings"), &stranger).await;
    assert_has(&server, "not signed by a root");
    let alone = TrustBundles::default();
    let alone = MeshTls::new(&svid(&ca, &sleep_id(), HOUR), &alone, TlsVersion::V1_2);
    let (client, _) = refused(&alone.expect("settings"), &sleep).await;
    assert_has(&client, "there are no roots at all");
    let (nobody, _) = origin_client(&OriginOptions {
        skip_verify: true,
        ..OriginOptions::default()
    })
    .expect("settings");
    let met = meet(nobody, sleep.server(), SNI).await;
    assert_has(&met.expect_err("no certificate").1, "showed no certificate");
}

#[tokio::test]
async fn the_lowest_version_is_kept() {
    let ca = authority("cluster.local");
    let (new, any) = (
        member(&ca, "new", TlsVersion::V1_3),
        member(&ca, "any", TlsVersion::V1_2),
    );
    let old = |of: &MeshTls| {
        let options = ClientConfig::builder_with_provider(provider().clone())
            .with_protocol_versions(&[&rustls::version::TLS12])
            .expect("settings")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verify::MemberVerifier::required(bundles(
                &[("cluster.local", &ca)],
            ))))
            .with_client_cert_resolver(of.client(MeshAlpn::Tcp).client_auth_cert_resolver.clone());
        Arc::new(options)
    };
    let met = meet(old(&any), any.server(), SNI).await.expect("TLS 1.2");
    assert_eq!(met.version, "TLSv1_2");
    assert_eq!(peer_id(&met.client).as_ref(), Ok(any.id()));
    assert!(meet(old(&any), new.server(), SNI).await.is_err());
}

#[tokio::test]
async fn sessions_are_resumed_within_the_same_settings_only() {
    let ca = authority("cluster.local");
    let (sleep, reviews) = (
        member(&ca, "sleep", TlsVersion::V1_2),
        member(&ca, "reviews", TlsVersion::V1_2),
    );
    let resumed = async |client: &MeshTls, server: &MeshTls| {
        let met = meet(client.client(MeshAlpn::Http2), server.server(), SNI).await;
        let met = met.expect("a handshake");
        assert_eq!(peer_id(&met.server).as_ref(), Ok(server.id()));
        assert_eq!(peer_id(&met.client).as_ref(), Ok(client.id()));
        met.resumed
    };
    assert!(!resumed(&sleep, &reviews).await);
    assert!(resumed(&sleep, &reviews).await);
    assert!(resumed(&sleep, &reviews).await);
    let renewed = member(&ca, "reviews", TlsVersion::V1_2);
    assert!(
        !resumed(&sleep, &renewed).await,
        "the server has new settings"
    );
    let renewed = member(&ca, "sleep", TlsVersion::V1_2);
    assert!(
        !resumed(&renewed, &reviews).await,
        "the client has new settings"
    );
    let bundles = bundles(&[("cluster.local", &ca)]);
    let svid = svid(&ca, &sleep_id(), HOUR);
    let forgetful = MeshTls::remembering(&svid, &bundles, TlsVersion::V1_2, Some(0));
    let forgetful = forgetful.expect("settings");
    assert!(!resumed(&forgetful, &reviews).await);
    assert!(
        !resumed(&forgetful, &reviews).await,
        "the client remembers none"
    );
}

#[tokio::test]
async fn resumed_sessions_are_verified_to_the_root() {
    let root = Workshop::root("short");
    let ca = root.plugged(&root.pem(), "").expect("an authority");
    let (sleep, reviews) = (
        member(&ca, "sleep", TlsVersion::V1_2),
        member(&ca, "reviews", TlsVersion::V1_2),
    );
    for resumed in [false, true] {
        let met = meet(sleep.client(MeshAlpn::Http2), reviews.server(), SNI).await;
        let met = met.expect("a handshake");
        assert_eq!(met.resumed, resumed);
        assert!(sleep.peer(&met.server, resumed, now()).is_ok());
        // An hour later the certificates are over; ten years later the root is.
        let later = |time| sleep.peer(&met.server, resumed, now() + time);
        assert_eq!(later(2 * HOUR).is_err(), resumed);
        let told = later(3700 * DAY).map_err(|error| error.to_string());
        if resumed {
            assert_has(&told.expect_err("refused"), "every root");
        }
    }
}
