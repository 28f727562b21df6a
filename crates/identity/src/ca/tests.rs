//! What the authority signs, and what it refuses to be made of.

use super::*;
use crate::fixture::*;
use crate::svid::{Svid, SvidError};
use rcgen::CertificateParams as Params;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;

fn error<T>(result: Result<T, CaError>) -> String {
    match result {
        Ok(_) => "no error".into(),
        Err(error) => error.to_string(),
    }
}

#[track_caller]
fn assert_has(text: &str, part: &str) {
    assert!(text.contains(part), "{text:?} should have {part:?}");
}

#[test]
fn what_it_signs_is_believed_and_says_what_istio_says() {
    let ca = authority("cluster.local");
    assert!(ca.is_root());
    let svid = svid(&ca, &sleep_id(), Duration::ZERO);
    assert_eq!(svid.id, sleep_id());
    assert_eq!(svid.not_after, now() + DEFAULT_LIFETIME);
    assert_eq!(svid.not_before, now() - SKEW);
    assert_eq!(svid.chain.len(), 1);
    let believed = bundles(&[("cluster.local", &ca)]);
    assert_eq!(believed.verify(&svid.chain, now()), Ok(sleep_id()));
    let leaf = parse(&svid.chain[0]).expect("readable");
    let names = leaf
        .subject_alternative_name()
        .expect("once")
        .expect("there");
    assert!(names.critical);
    assert_eq!(leaf.subject().to_string(), "");
    let other = svid_again(&ca);
    assert_ne!(svid.serial, other.serial);
    assert_eq!(svid.serial.len(), 32);
}

fn svid_again(ca: &Authority) -> Svid {
    svid(ca, &sleep_id(), Duration::ZERO)
}

#[test]
fn of_a_request_only_the_key_counts() {
    let ca = authority("cluster.local");
    let mut params = Params::default();
    params.subject_alt_names = vec![SanType::URI(
        "spiffe://cluster.local/ns/kube-system/sa/admin"
            .try_into()
            .expect("text"),
    )];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "kubernetes-admin");
    let key = KeyPair::generate().expect("a key");
    let csr = params.serialize_request(&key).expect("a request");
    let csr = csr.pem().expect("PEM");
    let chain = ca.sign(&csr, &sleep_id(), HOUR, now()).expect("signed");
    let text = chain.join("") + &key.serialize_pem();
    let svid = Svid::from_pem(&text).expect("an SVID");
    assert_eq!(svid.id, sleep_id());
    let leaf = parse(&svid.chain[0]).expect("readable");
    assert!(!leaf.is_ca());
    assert_eq!(leaf.subject().to_string(), "");
}

#[test]
fn keys_of_every_strong_kind_are_signed() {
    let ca = authority("cluster.local");
    for kind in [KeyKind::EcdsaP256, KeyKind::EcdsaP384, KeyKind::Rsa2048] {
        let request = Request::new(kind, Some(sleep_id().uri())).expect("a request");
        let chain = ca.sign(request.pem(), &sleep_id(), HOUR, now());
        let svid = request.answered(&chain.expect("signed").join(""));
        assert_eq!(svid.expect("an SVID").id, sleep_id(), "{kind:?}");
    }
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    let csr = Params::default()
        .serialize_request(&key)
        .expect("a request");
    assert!(
        ca.sign(&csr.pem().expect("PEM"), &sleep_id(), HOUR, now())
            .is_ok()
    );
}

/// A request that the real `openssl` makes; absent where it is not installed.
fn openssl(arguments: &str) -> Option<String> {
    let dir = tempfile::tempdir().expect("a directory");
    let (key, csr) = (dir.path().join("key.pem"), dir.path().join("csr.pem"));
    let done = std::process::Command::new("openssl")
        .args(["req", "-new", "-nodes", "-subj", "/CN=x", "-keyout"])
        .args([&key, std::path::Path::new("-out"), &csr])
        .args(arguments.split_whitespace())
        .output()
        .ok()?;
    assert!(done.status.success(), "{done:?}");
    std::fs::read_to_string(csr).ok()
}

#[test]
fn requests_of_openssl_are_signed_when_strong() {
    let ca = authority("cluster.local");
    let sign = |arguments| {
        let csr = openssl(arguments)?;
        Some(error(ca.sign(&csr, &sleep_id(), HOUR, now())))
    };
    let strong = [
        "-newkey rsa:2048",
        "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1",
        "-newkey ec -pkeyopt ec_paramgen_curve:secp384r1",
        "-newkey ed25519",
    ];
    for arguments in strong {
        let Some(said) = sign(arguments) else { return };
        assert_eq!(said, "no error", "{arguments}");
    }
    let weak = sign("-newkey rsa:1024").expect("openssl is there");
    assert_has(&weak, "RSA of 1024 bits");
    let odd = sign("-newkey ec -pkeyopt ec_paramgen_curve:secp256k1").expect("openssl is there");
    assert_has(&odd, "a kind that is not signed");
}

#[test]
fn openssl_believes_what_it_signs() {
    let root = Workshop::root("corporate");
    let plugged = root.intermediate("ours").plugged(&root.pem(), "");
    for ca in [authority("cluster.local"), plugged.expect("an authority")] {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let request = Request::new(KeyKind::EcdsaP256, None).expect("a request");
        let chain = ca.sign(request.pem(), &sleep_id(), HOUR, now());
        let chain = chain.expect("signed");
        let between = chain[1..chain.len() - 1].join("") + ca.root_pem();
        let done = std::process::Command::new("openssl")
            .args(["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile"])
            .arg(write("root.pem", ca.root_pem()))
            .arg("-untrusted")
            .arg(write("between.pem", &between))
            .arg(write("leaf.pem", &chain[0]))
            .output();
        let Ok(done) = done else { return };
        assert!(done.status.success(), "{done:?}");
    }
}

#[test]
fn bad_requests_are_told_apart() {
    let ca = authority("cluster.local");
    let sign = |csr: &str| error(ca.sign(csr, &sleep_id(), HOUR, now()));
    assert_has(&sign(""), "cannot be read");
    assert_has(&sign(&"x".repeat(100_000)), "longer than");
    assert_has(
        &sign("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"),
        "cannot be read",
    );
    let request = Request::new(KeyKind::EcdsaP256, None).expect("a request");
    let der = CertificateSigningRequestDer::from_pem_slice(request.pem().as_bytes());
    let mut der = der.expect("a request").to_vec();
    let last = der.len() - 1;
    der[last] ^= 1;
    assert_has(
        &sign(&pem::encode("CERTIFICATE REQUEST", &der)),
        "not signed with its own key",
    );
}

#[test]
fn nothing_outlives_the_authority() {
    let ca = Authority::self_signed("cluster.local", 10 * DAY, now()).expect("an authority");
    assert_eq!(ca.not_after(), now() + 10 * DAY);
    let leaf = svid(&ca, &sleep_id(), 365 * DAY);
    assert_eq!(leaf.not_after, ca.not_after());
    let long = svid(&authority("cluster.local"), &sleep_id(), 365 * DAY);
    assert_eq!(long.not_after, now() + MAX_LIFETIME);
    let request = Request::new(KeyKind::EcdsaP256, None).expect("a request");
    let late = ca.sign(request.pem(), &sleep_id(), HOUR, now() + 11 * DAY);
    assert_has(&error(late), "expired at");
}

#[test]
fn a_root_survives_being_stored() {
    let ca = authority("cluster.local");
    let files = (ca.cert_pem(), ca.key_pem(), ca.root_pem().to_owned());
    let again = Authority::from_pem(
        &Files {
            cert: &files.0,
            key: &files.1,
            root: &files.2,
            chain: &files.0,
            ..Files::default()
        },
        now(),
    )
    .expect("the same");
    let leaf = svid(&again, &sleep_id(), HOUR);
    let believed = bundles(&[("cluster.local", &ca)]);
    assert_eq!(believed.verify(&leaf.chain, now()), Ok(sleep_id()));
    assert_has(
        &error(Authority::self_signed("Not A Domain", DAY, now())),
        "is not a SPIFFE id",
    );
}

#[test]
fn a_plugged_in_intermediate_signs_below_its_root() {
    let root = Workshop::root("corporate");
    let upper = root.intermediate("upper");
    let lower = upper.intermediate("lower");
    let chain = lower.pem() + &upper.pem() + &root.pem();
    let files = (lower.pem(), lower.key.serialize_pem(), root.pem());
    let plug = |chain: &str| {
        let files = Files {
            cert: &files.0,
            key: &files.1,
            chain,
            root: &files.2,
            crl: "",
        };
        Authority::from_pem(&files, now())
    };
    let ca = plug(&chain).expect("an authority");
    assert!(!ca.is_root());
    let request = Request::new(KeyKind::EcdsaP256, None).expect("a request");
    let signed = ca
        .sign(request.pem(), &sleep_id(), HOUR, now())
        .expect("signed");
    assert_eq!(signed.len(), 4, "leaf, two between, root");
    assert_eq!(signed[1..].join(""), chain);
    let svid = request.answered(&signed.join("")).expect("an SVID");
    assert_eq!(svid.chain.len(), 3, "the root is not shown");
    let (trusted, _) = TrustBundles::of(&[root.bundle("cluster.local", "")], "cluster.local", &[]);
    assert_eq!(trusted.verify(&svid.chain, now()), Ok(sleep_id()));
    assert_has(
        &error(plug("")),
        "is not believed by who trusts root-cert.pem",
    );
}

#[test]
fn broken_secrets_are_told_apart() {
    let (root, other) = (Workshop::root("root"), Workshop::root("other"));
    let (leaf, leaf_key) = root.leaf(&[sleep_id().uri()], |_| {});
    let leaf = (
        pem::encode("CERTIFICATE", &leaf),
        pem::encode_key(&leaf_key),
    );
    let (cert, key) = (root.pem(), root.key.serialize_pem());
    let check = |cert: &str, key: &str, root: &str, crl: &str, part: &str| {
        let files = Files {
            cert,
            key,
            root,
            crl,
            chain: "",
        };
        assert_has(&error(Authority::from_pem(&files, now())), part);
    };
    check(&cert, &key, &cert, "", "no error");
    check(
        "",
        &key,
        "",
        "",
        "ca-cert.pem: there is no certificate in it",
    );
    check(
        &cert,
        "",
        "",
        "",
        "ca-key.pem: there is no private key in it",
    );
    check(
        &cert,
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        "",
        "",
        "ca-key.pem: ",
    );
    check(
        &cert,
        &other.key.serialize_pem(),
        "",
        "",
        "not the private key of ca-cert.pem",
    );
    check(&leaf.0, &leaf.1, "", "", "may not sign");
    check(&cert, &key, &other.pem(), "", "is not believed by");
    check(&cert, &key, "nonsense", "", "root-cert.pem: ");
    check(&cert, &key, "", "nonsense", "ca-crl.pem: ");
    check(&cert, &key, "", &other.revokes("42"), "no error");
    let late = Files {
        cert: &cert,
        key: &key,
        ..Files::default()
    };
    assert_has(
        &error(Authority::from_pem(&late, now() + 4000 * DAY)),
        "expired at",
    );
    assert_has(
        &error(Authority::from_pem(&late, now() - DAY)),
        "compare the clocks",
    );
}

#[test]
fn a_revoked_signer_is_noticed_at_once() {
    let root = Workshop::root("root");
    let middle = root.intermediate("middle");
    let serial = Facts::of(&middle.der).expect("readable").serial;
    let said = error(middle.plugged(&root.pem(), &root.revokes(&serial)));
    assert_has(&said, "revoked");
    assert!(middle.plugged(&root.pem(), &root.revokes("7b7b")).is_ok());
}

#[test]
fn an_answer_for_another_key_is_refused() {
    let ca = authority("cluster.local");
    let (one, two) = (
        Request::new(KeyKind::EcdsaP256, None).expect("a request"),
        Request::new(KeyKind::EcdsaP256, None).expect("a request"),
    );
    let chain = ca
        .sign(one.pem(), &sleep_id(), HOUR, now())
        .expect("signed");
    let said = two.answered(&chain.join("")).map(|_| ());
    assert_eq!(said, Err(SvidError::Mismatch));
}

#[test]
fn servers_of_the_control_plane_get_names() {
    let ca = authority("cluster.local");
    let names = ["istiod.istio-system.svc".to_owned(), "10.96.0.7".to_owned()];
    let serving = ca.serve_certificate(&names, Some(&sleep_id()), HOUR, now());
    let serving = serving.expect("a certificate");
    assert_eq!(serving.not_after, now() + HOUR);
    let text = serving.chain_pem() + &serving.key_pem();
    assert_eq!(Svid::from_pem(&text).expect("a pair").id, sleep_id());
    let bad = ca.serve_certificate(&["no name".to_owned()], None, HOUR, now());
    assert_has(&error(bad), "\"no name\" cannot be put into a certificate");
}

/// Runs the real `openssl` in a directory; absent where it is not installed.
fn run(dir: &std::path::Path, arguments: &str) -> Option<()> {
    let done = std::process::Command::new("openssl")
        .current_dir(dir)
        .args(arguments.split_whitespace())
        .output()
        .ok()?;
    assert!(done.status.success(), "{arguments}: {done:?}");
    Some(())
}

/// An authority made by `openssl` with this subject and key.
fn made_by_openssl(subject: &str, key: &str) -> Option<(tempfile::TempDir, String)> {
    let dir = tempfile::tempdir().expect("a directory");
    run(dir.path(), &format!("{key} -out ca.key"))?;
    run(
        dir.path(),
        &format!(
            "req -x509 -new -key ca.key -sha256 -days 30 -multivalue-rdn -out ca.pem -subj {subject} \
             -addext keyUsage=critical,keyCertSign,cRLSign"
        ),
    )?;
    let cert = std::fs::read_to_string(dir.path().join("ca.pem")).expect("written");
    Some((dir, cert))
}

#[test]
fn names_with_repeated_and_joined_parts_are_kept_as_they_are() {
    let key = "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256";
    for subject in [
        "/DC=example/DC=corp/CN=Corp_Issuing_CA_1",
        "/C=US+O=Example/OU=a/OU=b/CN=x+serialNumber=7",
    ] {
        let Some((dir, cert)) = made_by_openssl(subject, key) else {
            return;
        };
        let key = std::fs::read_to_string(dir.path().join("ca.key")).expect("written");
        let files = Files {
            cert: &cert,
            key: &key,
            ..Files::default()
        };
        let now = SystemTime::now();
        let ca = Authority::from_pem(&files, now).expect("an authority");
        let request = Request::new(KeyKind::EcdsaP256, None).expect("a request");
        let chain = ca.sign(request.pem(), &sleep_id(), HOUR, now);
        let chain = chain.expect("signed");
        let svid = request.answered(&chain.concat()).expect("an SVID");
        assert_eq!(
            bundles(&[("cluster.local", &ca)]).verify(&svid.chain, now),
            Ok(sleep_id())
        );
        let (leaf, root) = (parse(&svid.chain[0]), &ca.root);
        let root = parse(root).expect("readable");
        let leaf = leaf.expect("readable");
        assert_eq!(leaf.issuer().as_raw(), root.subject().as_raw());
        std::fs::write(dir.path().join("leaf.pem"), &chain[0]).expect("written");
        run(
            dir.path(),
            "verify -x509_strict -purpose sslclient -CAfile ca.pem leaf.pem",
        );
    }
}

#[test]
fn keys_of_every_form_sign() {
    for (make, convert) in [
        ("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048", ""),
        (
            "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072",
            "rsa -in ca.key -traditional -out ca.key",
        ),
        (
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384",
            "ec -in ca.key -out ca.key",
        ),
        ("ecparam -name prime256v1 -genkey", ""),
    ] {
        let Some((dir, cert)) = made_by_openssl("/CN=root", make) else {
            return;
        };
        if !convert.is_empty() {
            run(dir.path(), convert);
        }
        let key = std::fs::read_to_string(dir.path().join("ca.key")).expect("written");
        let files = Files {
            cert: &cert,
            key: &key,
            ..Files::default()
        };
        let now = SystemTime::now();
        let ca =
            Authority::from_pem(&files, now).unwrap_or_else(|e| panic!("{make} {convert}: {e}"));
        let request = Request::new(KeyKind::EcdsaP256, None).expect("a request");
        let chain = ca
            .sign(request.pem(), &sleep_id(), HOUR, now)
            .expect("signed");
        let svid = request.answered(&chain.concat()).expect("an SVID");
        assert_eq!(
            bundles(&[("cluster.local", &ca)]).verify(&svid.chain, now),
            Ok(sleep_id())
        );
    }
}

#[test]
fn the_end_is_that_of_its_own_root() {
    let own = Workshop::ending("own", 10 * DAY);
    let other = Workshop::root("other");
    let middle = own.intermediate("middle");
    let ca = middle
        .plugged(&(other.pem() + &own.pem()), "")
        .expect("an authority");
    assert_eq!(ca.not_after(), now() + 10 * DAY);
}

#[test]
fn the_kind_of_key_is_what_istios_variables_say() {
    let check = |said: [&str; 3], want: Result<KeyKind, &str>| {
        let [ecc, curve, rsa] = said;
        match (KeyKind::of_istio(ecc, curve, rsa), want) {
            (Ok(kind), Ok(want)) => assert_eq!(kind, want, "{said:?}"),
            (Err(why), Err(part)) => assert_has(&why, part),
            (got, _) => panic!("{said:?}: {got:?}"),
        }
    };
    check(["", "", ""], Ok(KeyKind::EcdsaP256));
    check(["", "", "2048"], Ok(KeyKind::Rsa2048));
    check(["", "", "4096"], Ok(KeyKind::Rsa4096));
    check(["ECDSA", "", "2048"], Ok(KeyKind::EcdsaP256));
    check(["ECDSA", "P384", ""], Ok(KeyKind::EcdsaP384));
    check(["ECDSA", "P521", ""], Err("ECC_CURVE is \"P521\""));
    check(["", "", "1024"], Err("WORKLOAD_RSA_KEY_SIZE is \"1024\""));
    check(["RSA", "", ""], Err("ECC_SIGNATURE_ALGORITHM is \"RSA\""));
}
