//! What the Secrets say and what becomes of it.

use super::*;
use k8s_openapi::ByteString;

#[tokio::test]
async fn without_a_secret_a_root_is_made_and_kept() {
    let mut running = start().await;
    let page = running.signs(SELF_SIGNED).await;
    assert_eq!(
        (page.trust_domain.as_str(), states(&page)),
        ("cluster.local", "signing".to_owned())
    );
    assert_eq!(page.error, None);
    let secret = running.vault.secret(SELF_SIGNED).expect("it is written");
    let files = Files::read(&secret).expect("it is whole");
    assert_eq!(&*running.bundle().roots, files.root);
    assert_eq!(&*running.trusted.borrow().roots, files.root);
    assert!(running.metrics.ca.root_expiry.value() > 0);

    let mut again = start_with(Settings::default(), vec![(SELF_SIGNED, secret)]).await;
    again.signs(SELF_SIGNED).await;
    assert_eq!(
        again.bundle(),
        running.bundle(),
        "a restart changes nothing"
    );
}

#[tokio::test]
async fn of_two_control_planes_one_makes_the_root() {
    let mut running = start().await;
    running.signs(SELF_SIGNED).await;
    let theirs = running.vault.secret(SELF_SIGNED).expect("written");
    let created = running.vault.create(&made(SELF_SIGNED)).await;
    assert_eq!(created, Ok(false));
    assert_eq!(running.vault.secret(SELF_SIGNED), Some(theirs));
}

#[tokio::test]
async fn the_trust_domain_is_that_of_the_mesh() {
    let mut running = start().await;
    running.signs(SELF_SIGNED).await;
    running.domains.send_replace(Some(domains("corp")));
    running.page(|page| page.trust_domain == "corp").await;
    assert_eq!(&*running.bundle().trust_domain, "corp");
}

/// Changes one value of a Secret; an empty text takes it out.
fn with(mut secret: Secret, key: &str, text: &str) -> Secret {
    let data = secret.data.get_or_insert_default();
    match text {
        "" => data.remove(key),
        text => data.insert(key.to_owned(), ByteString(text.as_bytes().to_vec())),
    };
    secret
}

fn text(secret: &Secret, key: &str) -> String {
    let data = secret.data.as_ref().expect("data");
    String::from_utf8(data[key].0.clone()).expect("text")
}

/// A Secret that cannot be used: the sentence says why, and the CA before it stays.
async fn check_refused(bad: Secret, part: &str) {
    let good = made(PLUGGED);
    let mut running = start_with(Settings::default(), vec![(PLUGGED, good)]).await;
    running.signs(PLUGGED).await;
    let before = running.bundle();
    running.vault.set(PLUGGED, Some(bad)).await;
    let page = running.page(|page| page.error.is_some()).await;
    let error = page.error.expect("an error");
    assert!(
        error.starts_with("secret istio-system/cacerts cannot be used: "),
        "{error}"
    );
    assert!(error.contains(part), "{part:?} is not in {error:?}");
    assert!(error.ends_with("the last good CA stays"), "{error}");
    assert_eq!(page.secret.as_deref(), Some(PLUGGED));
    assert_eq!(running.bundle(), before);
    assert_eq!(running.metrics.ca.load_errors.value(), 1);
    assert_eq!(
        running.vault.secret(SELF_SIGNED),
        None,
        "no other CA is made"
    );
}

#[tokio::test]
async fn what_cannot_be_used_is_named_and_changes_nothing() {
    let fresh = || made(PLUGGED);
    let other = made(PLUGGED);
    let key = text(&other, "ca-key.pem");
    let root = text(&other, "root-cert.pem");
    check_refused(with(fresh(), "ca-key.pem", &key), "not the private key").await;
    check_refused(with(fresh(), "root-cert.pem", &root), "not believed").await;
    check_refused(with(fresh(), "ca-key.pem", ""), "ca-key.pem is missing").await;
    check_refused(
        with(fresh(), "root-cert.pem", ""),
        "root-cert.pem is missing",
    )
    .await;
    check_refused(with(fresh(), "ca-cert.pem", "rubbish"), "ca-cert.pem").await;
    check_refused(with(fresh(), "ca-crl.pem", "rubbish"), "ca-crl.pem").await;
    check_refused(made_ago(PLUGGED, 2 * YEAR), "expired").await;
}

#[tokio::test]
async fn a_first_secret_that_cannot_be_used_opens_no_door() {
    let bad = with(made(PLUGGED), "ca-key.pem", "rubbish");
    let mut running = start_with(Settings::default(), vec![(PLUGGED, bad)]).await;
    let page = running.page(|page| page.error.is_some()).await;
    let error = page.error.expect("an error");
    assert!(
        error.ends_with("nothing can be signed until it is mended"),
        "{error}"
    );
    assert_eq!(running.vault.secret(SELF_SIGNED), None);
    assert!(running.store.debug_dump(Kind::TrustBundle).is_empty());
    running.vault.set(PLUGGED, Some(made(PLUGGED))).await;
    assert_eq!(running.signs(PLUGGED).await.error, None);
}
