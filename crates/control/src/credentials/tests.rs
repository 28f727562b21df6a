//! What gateways get of Secrets.

mod keeper;

use super::content::{Content, ContentError};
use super::needs;
use crate::source::Id;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use lateen_model::gateway::{Gateway, Server, ServerProtocol};
use lateen_model::name::Origin;
use lateen_model::resource::Resource;
use lateen_model::tls::{ServerTls, ServerTlsMode, TlsVersion};
use lateen_translate::pod::{Pod, Words};
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

/// A certificate and its key as PEM, valid until a year.
fn pair(until: i32) -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec!["shop.example".to_owned()]).expect("valid");
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    let certificate = params.self_signed(&key).expect("signed");
    (certificate.pem(), key.serialize_pem())
}

fn secret(fields: &[(&str, &str)]) -> Secret {
    let data = fields
        .iter()
        .map(|(name, text)| ((*name).to_owned(), ByteString(text.as_bytes().to_vec())));
    Secret {
        data: Some(data.collect()),
        ..Secret::default()
    }
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000)
}

/// `chain key ca crl` as far as they are there, or what is wrong.
fn check(fields: &[(&str, &str)], expected: Result<&str, &str>) {
    let read = match Content::of_secret(&secret(fields)) {
        Some(content) => content.read(now()),
        None => Err(ContentError::Empty),
    };
    let read = match read {
        Ok(reading) => match (reading.flaw, reading.expired) {
            (Some(flaw), _) => Err(flaw.to_string()),
            (None, Some(at)) => Err(format!("expired at {at}")),
            (None, None) => Ok(reading.material),
        },
        Err(error) => Err(error.to_string()),
    };
    let names: Vec<&str> = fields.iter().map(|f| f.0).collect();
    match (read, expected) {
        (Ok(material), Ok(expected)) => {
            let parts = [
                ("chain", !material.chain.is_empty()),
                ("key", material.key.is_some()),
                ("ca", !material.ca.is_empty()),
                ("crl", !material.crl.is_empty()),
            ];
            let there: Vec<&str> = parts.iter().filter(|p| p.1).map(|p| p.0).collect();
            assert_eq!(there.join(" "), expected, "{names:?}");
        }
        (Err(error), Err(part)) => assert!(error.contains(part), "{names:?}: {error}"),
        (got, _) => panic!("{names:?}: {got:?}"),
    }
}

#[test]
fn both_forms_of_secrets_are_read() {
    let (certificate, key) = pair(2090);
    let (ca, _) = pair(2090);
    check(
        &[("tls.crt", &certificate), ("tls.key", &key)],
        Ok("chain key"),
    );
    check(
        &[("cert", &certificate), ("key", &key), ("cacert", &ca)],
        Ok("chain key ca"),
    );
    check(
        &[
            ("tls.crt", &certificate),
            ("tls.key", &key),
            ("ca.crt", &ca),
        ],
        Ok("chain key ca"),
    );
    check(&[("ca.crt", &ca), ("unrelated", "x")], Ok("ca"));
}

#[test]
fn the_generic_form_comes_first_and_forms_are_not_mixed() {
    let ((one, one_key), (two, two_key)) = (pair(2090), pair(2090));
    let (ca, other) = (pair(2090).0, pair(2090).0);
    let read = |fields: &[(&str, &str)]| {
        let content = Content::of_secret(&secret(fields)).expect("certificates");
        content.read(now()).expect("good").material
    };
    let both = read(&[
        ("tls.crt", &two),
        ("tls.key", &two_key),
        ("ca.crt", &other),
        ("cert", &one),
        ("key", &one_key),
        ("cacert", &ca),
    ]);
    assert_eq!((&*both.chain, &*both.ca), (&*one, &*ca));
    // Half a generic pair beside a whole one.
    let half = read(&[("cert", &one), ("tls.crt", &two), ("tls.key", &two_key)]);
    assert_eq!(&*half.chain, two);
    check(
        &[("cert", &one), ("tls.key", &one_key)],
        Err("cert is there and key is not"),
    );
}

#[test]
fn what_a_gateway_could_not_use_is_named() {
    let (certificate, key) = pair(2090);
    let (other, other_key) = pair(2090);
    let (old, old_key) = pair(2020);
    check(&[("password", "x")], Err("none of tls.crt"));
    check(&[("tls.crt", ""), ("tls.key", "")], Err("none of tls.crt"));
    check(
        &[("tls.crt", &certificate)],
        Err("tls.crt is there and tls.key is not"),
    );
    check(&[("key", &key)], Err("key is there and cert is not"));
    check(
        &[("tls.crt", &certificate), ("tls.key", &other_key)],
        Err("tls.key is not the key"),
    );
    check(
        &[("tls.crt", "garbage"), ("tls.key", &key)],
        Err("tls.crt is not PEM"),
    );
    check(
        &[("tls.crt", &other), ("tls.key", "garbage")],
        Err("tls.key is not PEM"),
    );
    check(
        &[
            ("tls.crt", &certificate),
            ("tls.key", &key),
            ("ca.crt", "x"),
        ],
        Err("ca.crt is not PEM"),
    );
    check(
        &[
            ("tls.crt", &certificate),
            ("tls.key", &key),
            ("ca.crl", "x"),
        ],
        Err("ca.crl is not PEM"),
    );
    check(
        &[("tls.crt", &old), ("tls.key", &old_key)],
        Err("expired at 2020-01-01"),
    );
    let broken = certificate.replace("MII", "AAA");
    check(
        &[("tls.crt", &broken), ("tls.key", &key)],
        Err("tls.crt is not PEM of certificates"),
    );
}

#[test]
fn keys_do_not_show() {
    let (certificate, key) = pair(2090);
    let content = Content::of_secret(&secret(&[("tls.crt", &certificate), ("tls.key", &key)]));
    let content = content.expect("certificates");
    let material = content.read(now()).expect("good").material;
    let shown = format!("{content:?} {material:?}");
    assert!(!shown.contains("PRIVATE KEY"), "{shown}");
}

fn gateway(credentials: &[&str]) -> Resource {
    Resource::Gateway(Gateway {
        origin: Origin {
            kind: "Gateway".into(),
            namespace: "shop".into(),
            name: "gw".into(),
            created: 0,
        },
        selector: BTreeMap::from([("istio".into(), "ingressgateway".into())]),
        servers: vec![Server {
            name: "".into(),
            port: 443,
            port_name: "https".into(),
            protocol: ServerProtocol::Https,
            hosts: Vec::new(),
            https_redirect: false,
            bind: None,
            tls: Some(ServerTls {
                mode: ServerTlsMode::Simple,
                credentials: credentials.iter().map(|&name| name.into()).collect(),
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
            }),
        }],
    })
}

#[test]
fn only_pods_that_a_gateway_selects_need_its_credentials() {
    let ask = needs::ask(&gateway(&["shop-cert", "old-cert"])).expect("a gateway asks");
    let pod = |namespace: &str, label: &str, account: Option<&str>| {
        let pod = serde_json::from_value(json!({
            "metadata": { "namespace": namespace, "name": "p", "labels": { "istio": label } },
            "spec": { "containers": [], "serviceAccountName": account },
        }))
        .expect("a pod");
        let pod = Pod::of(&pod, &mut Words::default());
        (Id::new(namespace, "p"), pod)
    };
    let pods = [
        pod("istio-system", "ingressgateway", Some("gw")),
        pod("edge", "ingressgateway", None),
        pod("shop", "other", Some("gw")),
    ];
    let meant = ask.pods().expect("its own pods");
    let pods = pods.iter().filter(|(_, pod)| meant(pod));
    let needs = needs::of(&ask, pods.map(|(id, pod)| (id, pod)));
    let shown: Vec<String> = needs
        .iter()
        .map(|(id, accounts)| format!("{id} {accounts:?}"))
        .collect();
    assert_eq!(
        shown,
        [
            "edge/old-cert {\"default\"}",
            "edge/shop-cert {\"default\"}",
            "istio-system/old-cert {\"gw\"}",
            "istio-system/shop-cert {\"gw\"}",
        ]
    );
}
