//! What was revoked stays revoked, and what somebody damaged stops nothing.

use super::*;
use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use std::time::UNIX_EPOCH;

/// A CA with its files, and the key that can sign lists.
struct Made {
    params: CertificateParams,
    key: KeyPair,
    files: Files,
}

/// A CA that is valid from then on, for a year.
fn ca(name: &str, from: SystemTime) -> Made {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let since = from.duration_since(UNIX_EPOCH).expect("after 1970");
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since;
    params.not_after = params.not_before + YEAR;
    let key = KeyPair::generate().expect("a key");
    let cert = params.self_signed(&key).expect("signed").pem();
    let files = Files {
        key: key.serialize_pem(),
        chain: String::new(),
        root: cert.clone(),
        crl: String::new(),
        cert,
    };
    Made { params, key, files }
}

fn yesterday() -> SystemTime {
    SystemTime::now() - Duration::from_secs(24 * 3600)
}

impl Made {
    /// A list that revokes one serial number.
    fn revokes(&self, serial: u8) -> String {
        let at = rcgen::date_time_ymd(2026, 1, 1);
        let list = CertificateRevocationListParams {
            this_update: at,
            next_update: rcgen::date_time_ymd(2090, 1, 1),
            crl_number: SerialNumber::from_slice(&[serial]),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from_slice(&[serial]),
                revocation_time: at,
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let issuer = Issuer::from_params(&self.params, &self.key);
        let list = list.signed_by(&issuer).expect("a list");
        list.pem().expect("PEM")
    }

    fn secret(&self, crl: &str) -> Secret {
        let mut secret = self.files.secret("istio-system");
        secret.metadata.name = Some(PLUGGED.to_owned());
        if !crl.is_empty() {
            let data = secret.data.get_or_insert_default();
            data.insert("ca-crl.pem".to_owned(), ByteString(crl.as_bytes().to_vec()));
        }
        secret
    }
}

/// How many lists are published.
fn lists(running: &Running) -> usize {
    let crls = running.bundle().crls;
    assert_eq!(&*crls, &*running.trusted.borrow().crl);
    crls.matches("BEGIN X509 CRL").count()
}

#[tokio::test(start_paused = true)]
async fn lists_stay_through_a_rotation_and_a_restart_with_a_bad_secret() {
    let (old, new) = (ca("old", yesterday()), ca("new", yesterday()));
    let secret = old.secret(&old.revokes(7));
    let mut running = start_with(Settings::default(), vec![(PLUGGED, secret)]).await;
    running.signs(PLUGGED).await;
    assert_eq!(lists(&running), 1);
    running
        .vault
        .set(PLUGGED, Some(new.secret(&new.revokes(8))))
        .await;
    running.page(|page| states(page) == "signing coming").await;
    assert_eq!(lists(&running), 2, "the coming one revokes already");
    running.page(|page| states(page) == "signing going").await;
    assert_eq!(
        lists(&running),
        2,
        "certificates of the old CA are still around"
    );
    tokio::time::sleep(Duration::from_secs(5)).await;
    let record = running.vault.secret(RECORD).expect("recorded");

    let mut bad = new.secret("");
    bad.data.get_or_insert_default().remove("ca-key.pem");
    let secrets = vec![(PLUGGED, bad), (RECORD, record)];
    let mut again = start_with(Settings::default(), secrets).await;
    again.page(|page| page.error.is_some()).await;
    assert_eq!(lists(&again), 2);

    // The Secret alone decides on its own list; that of the old root goes with the record.
    again.vault.set(PLUGGED, Some(new.secret(""))).await;
    again.signs(PLUGGED).await;
    assert_eq!(lists(&again), 1);
    again.vault.set(RECORD, None).await;
    again.page(|page| states(page) == "signing").await;
    assert_eq!(lists(&again), 0);
}

#[tokio::test(start_paused = true)]
async fn lists_stay_when_the_self_signed_ca_takes_over() {
    let plugged = ca("plugged", yesterday());
    let secret = plugged.secret(&plugged.revokes(7));
    let mut running = start_with(Settings::default(), vec![(PLUGGED, secret)]).await;
    running.signs(PLUGGED).await;
    running.vault.set(PLUGGED, None).await;
    running.signs(SELF_SIGNED).await;
    assert_eq!(lists(&running), 1);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_record_costs_what_is_damaged() {
    let good = made(SELF_SIGNED);
    let root = Files::read(&good).expect("whole").root;
    let other = Files::read(&made(SELF_SIGNED)).expect("whole").root;
    let json = serde_json::json!({
        "active": [root, "nonsense"],
        "retiring": [
            { "root": other, "until": u64::MAX },
            { "root": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "until": 9_000_000_000_u64 },
        ],
        "revoked": [{ "root": other, "signer": "x", "crl": "nonsense" }],
        "longest": u64::MAX,
    });
    for text in [json.to_string(), "{".to_owned(), String::new()] {
        let mut record = made(RECORD);
        let data = [(
            "roots.json".to_owned(),
            ByteString(text.clone().into_bytes()),
        )];
        record.data = Some(data.into());
        let secrets = vec![(SELF_SIGNED, good.clone()), (RECORD, record.clone())];
        let mut running = start_with(Settings::default(), secrets).await;
        let page = running.signs(SELF_SIGNED).await;
        assert!(running.metrics.ca.load_errors.value() > 0, "{text}");
        let whole = text.len() > 1;
        let want = if whole { "signing going" } else { "signing" };
        assert_eq!(states(&page), want, "{text}");

        // While it runs, a damaged record changes nothing.
        let before = running.bundle();
        let data = [("roots.json".to_owned(), ByteString(b"[".to_vec()))];
        record.data = Some(data.into());
        running.vault.set(RECORD, Some(record)).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(running.bundle(), before);
        let mended = running.vault.secret(RECORD).expect("it is there");
        assert!(secret::record(&mended).is_ok(), "it is written anew");
    }
}

#[tokio::test(start_paused = true)]
async fn a_ca_that_is_valid_in_a_moment_signs_then() {
    let soon = ca("soon", SystemTime::now() + Duration::from_secs(2));
    let mut running = start_with(Settings::default(), vec![(PLUGGED, soon.secret(""))]).await;
    let page = running.page(|page| page.error.is_some()).await;
    let error = page.error.unwrap_or_default();
    assert!(error.contains("is valid from"), "{error}");
    let page = running.signs(PLUGGED).await;
    assert_eq!(page.error, None);
    assert_eq!(running.metrics.ca.load_errors.value(), 1, "told once");
}

#[tokio::test(start_paused = true)]
async fn a_self_signed_ca_that_has_expired_is_replaced() {
    let expired = made_ago(SELF_SIGNED, YEAR + Duration::from_secs(3600));
    let mut running = start_with(Settings::default(), vec![(SELF_SIGNED, expired.clone())]).await;
    let page = running.signs(SELF_SIGNED).await;
    assert_eq!(page.error, None);
    assert_ne!(running.vault.secret(SELF_SIGNED), Some(expired));
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_the_keeper_is_not_the_end_of_the_ca() {
    let mut running = start().await;
    running.signs(SELF_SIGNED).await;
    let before = running.bundle();
    running.vault.broken.store(true, Ordering::Relaxed);
    running.vault.set(SELF_SIGNED, None).await;
    running.page(|page| states(page) == "signing going").await;
    assert!(
        !running.vault.broken.load(Ordering::Relaxed),
        "it has failed"
    );
    assert!(running.bundle().roots.contains(&*before.roots));
}

#[tokio::test(start_paused = true)]
async fn a_new_trust_domain_comes_with_one_change() {
    let mut running = start().await;
    running.signs(SELF_SIGNED).await;
    let before = running.store.generation();
    running.domains.send_replace(Some(domains("corp")));
    running.page(|page| page.trust_domain == "corp").await;
    assert_eq!(running.store.generation(), before + 1);
}
