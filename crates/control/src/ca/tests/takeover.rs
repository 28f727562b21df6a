//! One CA takes over from another while proxies are connected.

use super::*;

fn first_root(running: &Running) -> String {
    let roots = running.bundle().roots;
    let end = "-----END CERTIFICATE-----\n";
    let at = roots.find(end).expect("a certificate");
    roots[..at + end.len()].to_owned()
}

fn root_of(secret: &Secret) -> String {
    Files::read(secret).expect("whole").root
}

#[tokio::test(start_paused = true)]
async fn a_new_root_is_trusted_before_its_ca_signs_and_the_old_one_long_after() {
    let (old, new) = (made(SELF_SIGNED), made(SELF_SIGNED));
    let mut running = start_with(Settings::default(), vec![(SELF_SIGNED, old.clone())]).await;
    running.signs(SELF_SIGNED).await;
    running.vault.set(SELF_SIGNED, Some(new.clone())).await;
    let page = running.page(|page| page.roots.len() == 2).await;
    assert_eq!(states(&page), "signing coming");
    assert_eq!(first_root(&running), root_of(&old));
    assert!(running.trusted.borrow().roots.contains(&root_of(&new)));
    let page = running.page(|page| states(page) == "signing going").await;
    assert_eq!(first_root(&running), root_of(&new));
    assert!(page.roots[1].until.is_some());
    let both = running.trusted.borrow().roots.clone();
    assert!(
        both.contains(&root_of(&old)),
        "its certificates are still around"
    );

    // Another start knows of the old root.
    let record = running.vault.secret(RECORD).expect("recorded");
    let secrets = vec![(SELF_SIGNED, new), (RECORD, record)];
    let mut again = start_with(Settings::default(), secrets).await;
    let page = again.signs(SELF_SIGNED).await;
    assert_eq!(states(&page), "signing going");
    assert_eq!(again.trusted.borrow().roots, both);

    // Whoever takes the record away trusts the old root no more.
    again.vault.set(RECORD, None).await;
    again.page(|page| states(page) == "signing").await;
}

#[tokio::test(start_paused = true)]
async fn deleting_the_secret_means_a_new_root() {
    let mut running = start().await;
    running.signs(SELF_SIGNED).await;
    let old = first_root(&running);
    running.vault.set(SELF_SIGNED, None).await;
    running.page(|page| states(page) == "signing going").await;
    assert_ne!(first_root(&running), old);
    assert!(running.bundle().roots.contains(&old));
}

#[tokio::test(start_paused = true)]
async fn a_root_near_its_end_is_replaced() {
    let ends = made_ago(SELF_SIGNED, YEAR - Duration::from_secs(20 * 24 * 3600));
    let mut running = start_with(Settings::default(), vec![(SELF_SIGNED, ends.clone())]).await;
    running.page(|page| states(page) == "signing going").await;
    assert_ne!(first_root(&running), root_of(&ends));
    let left = running.metrics.ca.root_expiry.value() - page::seconds(SystemTime::now());
    assert!(left > 300 * 24 * 3600, "{left} s");
}

#[tokio::test(start_paused = true)]
async fn a_plugged_ca_takes_over_and_back() {
    let mut running = start().await;
    running.signs(SELF_SIGNED).await;
    let own = first_root(&running);
    let plugged = made(PLUGGED);
    running.vault.set(PLUGGED, Some(plugged.clone())).await;
    running.signs(PLUGGED).await;
    assert_eq!(first_root(&running), root_of(&plugged));

    // Deleting and creating it anew, as users replace it, is no end of it.
    running.vault.set(PLUGGED, None).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let next = made(PLUGGED);
    running.vault.set(PLUGGED, Some(next.clone())).await;
    running
        .page(|page| states(page) == "signing going going")
        .await;
    assert_eq!(first_root(&running), root_of(&next));

    running.vault.set(PLUGGED, None).await;
    running.signs(SELF_SIGNED).await;
    assert_eq!(first_root(&running), own);
}

#[tokio::test(start_paused = true)]
async fn a_ca_replaced_while_nobody_looked_signs_once_proxies_could_hear_of_it() {
    let (old, new) = (made(SELF_SIGNED), made(SELF_SIGNED));
    let mut running = start_with(Settings::default(), vec![(SELF_SIGNED, old.clone())]).await;
    running.signs(SELF_SIGNED).await;
    let record = running.vault.secret(RECORD);
    let record = match record {
        Some(record) => record,
        None => {
            tokio::time::sleep(Duration::from_secs(2)).await;
            running.vault.secret(RECORD).expect("recorded")
        }
    };
    let secrets = vec![(SELF_SIGNED, new.clone()), (RECORD, record)];
    let mut again = start_with(Settings::default(), secrets).await;
    let page = again.page(|page| !page.roots.is_empty()).await;
    assert_eq!(
        (states(&page).as_str(), page.secret),
        ("signing coming", None)
    );
    let page = again.signs(SELF_SIGNED).await;
    assert_eq!(states(&page), "signing going");
    assert_eq!(first_root(&again), root_of(&new));
}
