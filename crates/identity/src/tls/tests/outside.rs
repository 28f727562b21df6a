//! Handshakes in memory with outside servers, at gateways, and with the control plane.

use super::{assert_has, changed};
use crate::fixture::*;
use crate::pem;
use crate::svid::Svid;
use crate::tls::outside::{Outside, OutsideServer, Peers};
use crate::tls::*;
use lateen_model::tls::{ServerTls, ServerTlsMode};
use rcgen::{CertificateParams, SanType};
use rustls::{ClientConfig, ServerConfig};

/// A server with the names, signed by `root`.
fn shop(root: &Workshop, names: &[&str]) -> (String, String) {
    let (leaf, key) = root.leaf(&[], |params: &mut CertificateParams| {
        let plain =
            CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
        params.subject_alt_names = plain.expect("names").subject_alt_names;
        if let Some(uri) = names.iter().find(|name| name.contains("://")) {
            params.subject_alt_names = vec![SanType::URI((*uri).try_into().expect("text"))];
        }
    });
    (pem::encode("CERTIFICATE", &leaf), pem::encode_key(&key))
}

fn simple() -> ServerTls {
    ServerTls {
        mode: ServerTlsMode::Simple,
        credentials: Vec::new(),
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

fn gateway(
    tls: &ServerTls,
    certificates: &[(String, String)],
    ca: Option<&str>,
) -> Result<(Arc<ServerConfig>, Vec<String>), TlsError> {
    let pairs: Vec<(&str, &str)> = certificates.iter().map(|(a, b)| (&**a, &**b)).collect();
    gateway_server(&GatewayOptions {
        tls,
        certificates: &pairs,
        ca,
        crl: "",
        alpn: &["h2", "http/1.1"],
    })
}

#[tokio::test]
async fn outside_servers_must_carry_the_name() {
    let root = Workshop::root("public");
    let ca = root.pem();
    let call = async |carried: &[&str], sni: &str, sans: &[&str]| {
        let pair = shop(&root, carried);
        let (server, _) = gateway(&simple(), &[pair], None).expect("a server");
        let sans: Vec<lateen_base::Str> = sans.iter().map(|san| (*san).into()).collect();
        let (client, _) = origin_client(&OriginOptions {
            ca: Some(&ca),
            sans: &sans,
            alpn: &["h2", "http/1.1"],
            ..OriginOptions::default()
        })
        .expect("a client");
        match meet(client, server, sni).await {
            Ok(met) => met.alpn.unwrap_or_default(),
            Err((client, _)) => client,
        }
    };
    assert_eq!(call(&["shop.example"], "shop.example", &[]).await, "h2");
    assert_eq!(call(&["*.shop.example"], "a.shop.example", &[]).await, "h2");
    assert_eq!(call(&["127.0.0.1"], "127.0.0.1", &[]).await, "h2");
    assert_has(
        &call(&["shop.example"], "bank.example", &[]).await,
        "none of the names bank.example; it carries shop.example",
    );
    let sans = ["other.example", "shop.example"];
    assert_eq!(call(&["shop.example"], "bank.example", &sans).await, "h2");
    let uri = "spiffe://cluster.local/ns/a/sa/b";
    assert_eq!(call(&[uri], "bank.example", &[uri]).await, "h2");
    assert_has(
        &call(&["bank.example"], "bank.example", &["shop.example"]).await,
        "none of the names shop.example",
    );
}

#[tokio::test]
async fn outside_servers_are_verified_unless_told_otherwise() {
    let (root, other) = (Workshop::root("public"), Workshop::root("other"));
    let pair = shop(&root, &["shop.example"]);
    let (server, _) = gateway(&simple(), std::slice::from_ref(&pair), None).expect("a server");
    let call = async |options: OriginOptions<'_>| {
        let (client, _) = origin_client(&options).expect("a client");
        let met = meet(client, server.clone(), "shop.example").await;
        met.map_or_else(|(client, _)| client, |_| "met".to_owned())
    };
    let (good, bad) = (root.pem(), other.pem());
    let of = |ca| OriginOptions {
        ca: Some(ca),
        ..OriginOptions::default()
    };
    assert_eq!(call(of(&good)).await, "met");
    assert_has(&call(of(&bad)).await, "not signed by a root");
    assert_eq!(
        call(of(&pair.0)).await,
        "met",
        "the very certificate is a root"
    );
    let skip = OriginOptions {
        skip_verify: true,
        ..of(&bad)
    };
    assert_eq!(call(skip).await, "met");
    let serial = crate::certificate::Facts::of(&pem::certificates(&pair.0).expect("PEM")[0]);
    let crl = root.revokes(&serial.expect("readable").serial);
    let revoked = OriginOptions {
        crl: &crl,
        ..of(&good)
    };
    assert_has(&call(revoked).await, "revoked");
}

// === gateways ===

#[tokio::test]
async fn gateways_ask_clients_as_their_mode_says() {
    let (root, clients) = (Workshop::root("public"), Workshop::root("clients"));
    let (ca, client_ca) = (root.pem(), clients.pem());
    let pair = shop(&root, &["shop.example"]);
    let buyer = shop(&clients, &["buyer.example"]);
    let thief = shop(&root, &["buyer.example"]);
    let call = async |tls: &ServerTls, shown: Option<&(String, String)>| {
        let (server, _) =
            gateway(tls, std::slice::from_ref(&pair), Some(&client_ca)).expect("a server");
        let (client, _) = origin_client(&OriginOptions {
            ca: Some(&ca),
            certificate: shown.map(|(chain, key)| (&**chain, &**key)),
            ..OriginOptions::default()
        })
        .expect("a client");
        let met = meet(client, server, "shop.example").await;
        met.map_or_else(|(_, server)| server, |met| met.client.len().to_string())
    };
    let mode = |mode| ServerTls { mode, ..simple() };
    let (mutual, optional) = (
        mode(ServerTlsMode::Mutual),
        mode(ServerTlsMode::OptionalMutual),
    );
    assert_eq!(call(&simple(), Some(&buyer)).await, "0", "not asked");
    assert_eq!(call(&mutual, Some(&buyer)).await, "1");
    assert_has(&call(&mutual, None).await, "showed no certificate");
    assert_has(&call(&mutual, Some(&thief)).await, "not signed by a root");
    assert_eq!(call(&optional, None).await, "0");
    assert_eq!(call(&optional, Some(&buyer)).await, "1");
    assert_has(&call(&optional, Some(&thief)).await, "not signed by a root");
    let skip = ServerTls {
        skip_verify: true,
        ..mutual.clone()
    };
    assert_eq!(call(&skip, Some(&thief)).await, "1");
    let named = |name: &str| ServerTls {
        sans: vec![name.into()],
        ..mutual.clone()
    };
    assert_eq!(call(&named("buyer.example"), Some(&buyer)).await, "1");
    assert_has(
        &call(&named("other.example"), Some(&buyer)).await,
        "none of the names",
    );
    let der = pem::certificates(&buyer.0).expect("PEM").remove(0);
    let hash: String = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der)
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let hashed = |hash: &str| ServerTls {
        hashes: vec![hash.into()],
        ..mutual.clone()
    };
    assert_eq!(call(&hashed(&hash), Some(&buyer)).await, "1");
    assert_has(
        &call(&hashed("00"), Some(&buyer)).await,
        "none of the hashes",
    );
}

#[tokio::test]
async fn gateways_show_the_certificate_that_the_client_can_verify() {
    let root = Workshop::root("public");
    let ecdsa = shop(&root, &["shop.example"]);
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("a key");
    let params = CertificateParams::new(vec!["shop.example".to_owned()]).expect("names");
    let rsa = params
        .signed_by(&key, &root.issuer())
        .expect("a certificate");
    let rsa = (rsa.pem(), key.serialize_pem());
    let tls = ServerTls {
        max: TlsVersion::V1_2,
        ..simple()
    };
    let (server, warnings) = gateway(&tls, &[ecdsa.clone(), rsa.clone()], None).expect("a server");
    assert_eq!(warnings, Vec::<String>::new());
    let ca = root.pem();
    let shown = async |suite: Option<&str>| {
        let (client, _) = origin_client(&OriginOptions {
            ca: Some(&ca),
            ..OriginOptions::default()
        })
        .expect("a client");
        let client = changed(&client, |config| {
            let mut provider = CryptoProvider::clone(config.crypto_provider());
            if let Some(part) = suite {
                let wanted = |s: &rustls::SupportedCipherSuite| format!("{s:?}").contains(part);
                provider.cipher_suites.retain(wanted);
            }
            let verifier = OutsideServer(
                Outside::new(
                    Peers {
                        roots: Some(&ca),
                        ..Peers::default()
                    },
                    &mut Vec::new(),
                )
                .expect("roots"),
            );
            *config = ClientConfig::builder_with_provider(Arc::new(provider))
                .with_protocol_versions(&[&rustls::version::TLS12])
                .expect("settings")
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
                .with_no_client_auth();
        });
        let met = meet(client, server.clone(), "shop.example").await;
        let met = met.expect("a handshake");
        pem::encode("CERTIFICATE", &met.server[0])
    };
    assert_eq!(shown(None).await, ecdsa.0);
    let rsa_pem = pem::certificates(&rsa.0).expect("PEM").remove(0);
    assert_eq!(
        shown(Some("ECDHE_RSA")).await,
        pem::encode("CERTIFICATE", &rsa_pem)
    );
}

#[test]
fn bad_settings_of_gateways_are_told_apart() {
    let root = Workshop::root("public");
    let (one, two) = (shop(&root, &["a.example"]), shop(&root, &["b.example"]));
    let ca = root.pem();
    let check = |tls: &ServerTls, pair: (&str, &str), ca: Option<&str>| {
        let pairs = [(pair.0.to_owned(), pair.1.to_owned())];
        match gateway(tls, &pairs, ca) {
            Ok((_, warnings)) => format!("warnings: {}", warnings.join(" ")),
            Err(error) => error.to_string(),
        }
    };
    let good = (&*one.0, &*one.1);
    assert_eq!(check(&simple(), good, None), "warnings: ");
    assert_has(
        &check(&simple(), ("", &one.1), None),
        "the certificate: there is no certificate",
    );
    assert_has(
        &check(&simple(), (&one.0, "x"), None),
        "the private key: there is no private key",
    );
    assert_has(
        &check(&simple(), (&one.0, &two.1), None),
        "does not belong to the certificate",
    );
    let mutual = ServerTls {
        mode: ServerTlsMode::Mutual,
        ..simple()
    };
    assert_has(&check(&mutual, good, None), "no CA to verify clients with");
    assert_has(&check(&mutual, good, Some("nonsense")), "cannot be used");
    assert_eq!(check(&mutual, good, Some(&ca)), "warnings: ");
    let ciphers = |names: &[&str]| ServerTls {
        ciphers: names.iter().map(|name| (*name).into()).collect(),
        ..simple()
    };
    let some = ciphers(&["ECDHE-RSA-AES128-GCM-SHA256", "AES128-SHA"]);
    assert_has(
        &check(&some, good, None),
        "warnings: the cipher suite AES128-SHA is not supported",
    );
    assert_has(
        &check(&ciphers(&["AES128-SHA"]), good, None),
        "none of the cipher suites AES128-SHA",
    );
    let upside = ServerTls {
        min: TlsVersion::V1_3,
        max: TlsVersion::V1_2,
        ..simple()
    };
    assert_has(&check(&upside, good, None), "lowest TLS version is above");
    let (leaf, key) = root.leaf(&[], |params| within(params, now() - DAY, now() - HOUR));
    let expired = (pem::encode("CERTIFICATE", &leaf), pem::encode_key(&key));
    let said = check(&simple(), (&expired.0, &expired.1), None);
    assert_has(&said, "warnings: the certificate expired at");
    let none = gateway(&simple(), &[], None).map(|_| ());
    assert_eq!(
        none,
        Err(TlsError::Missing("the server has no certificate"))
    );
}

// === the control plane ===

#[tokio::test]
async fn the_control_plane_is_known_by_name_and_knows_members() {
    let (ca, other) = (authority("cluster.local"), authority("cluster.local"));
    let names = vec!["istiod.istio-system.svc".to_owned()];
    let serving = ca
        .serve_certificate(&names, None, HOUR, now())
        .expect("a certificate");
    let server = control_server(&serving, &bundles(&[("cluster.local", &ca)])).expect("settings");
    let call = async |roots: &str, names: &[String], svid: Option<&Svid>| {
        let client = control_client(&ControlPlane { roots, names, svid }).expect("settings");
        match meet(client, server.clone(), "istiod.istio-system.svc").await {
            Ok(met) => format!("{} {}", met.alpn.unwrap_or_default(), met.client.len()),
            Err((client, server)) => format!("{client}; {server}"),
        }
    };
    let (ours, strange) = (
        svid(&ca, &sleep_id(), HOUR),
        svid(&other, &sleep_id(), HOUR),
    );
    assert_eq!(call(ca.root_pem(), &names, None).await, "h2 0");
    assert_eq!(call(ca.root_pem(), &names, Some(&ours)).await, "h2 1");
    assert_has(
        &call(ca.root_pem(), &names, Some(&strange)).await,
        "not signed by a root",
    );
    assert_has(
        &call(other.root_pem(), &names, None).await,
        "not signed by a root",
    );
    let wrong = ["istiod.elsewhere.svc".to_owned()];
    assert_has(
        &call(ca.root_pem(), &wrong, None).await,
        "none of the names istiod.elsewhere.svc",
    );
}
