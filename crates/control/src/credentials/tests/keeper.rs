//! What proxies are given while Secrets, their companions and rights change.

use super::*;
use crate::credentials::access::Access;
use crate::credentials::watch::Kind;
use crate::credentials::{Found, GONE_GRACE, Keeper, Needs};
use crate::source::Delta;
use http::Request;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// An API server that lets every account read Secrets but `stranger`.
async fn api(request: Request<Incoming>) -> crate::http::Answer {
    let body = crate::http::body(request).await.expect("a body");
    let review: Value = serde_json::from_slice(&body).expect("JSON");
    let user = review["spec"]["user"].as_str().unwrap_or_default();
    let allowed = !user.ends_with(":stranger");
    crate::http::json(&json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {}, "spec": {},
        "status": { "allowed": allowed },
    }))
}

struct Desk {
    keeper: Keeper,
    reports: mpsc::Receiver<Delta<Found>>,
    needs: Needs,
    shutdown: CancellationToken,
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

const NAMESPACE: &str = "edge";

/// Needs of these accounts for the credential `shop`.
async fn desk(accounts: &[&str]) -> Desk {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let shutdown = CancellationToken::new();
    tokio::spawn(crate::http::serve(listener, None, api, shutdown.clone()));
    let config = kube::Config::new(format!("http://{address}").parse().expect("a URL"));
    let client = kube::Client::try_from(config).expect("a client");
    let (sender, reports) = mpsc::channel(16);
    let accounts = accounts.iter().map(|&account| account.into()).collect();
    let mut desk = Desk {
        keeper: Keeper::new(Access::new(client), sender),
        reports,
        needs: Needs::from([(Id::new(NAMESPACE, "shop"), accounts)]),
        shutdown,
    };
    for kind in [Kind::Secret, Kind::ConfigMap] {
        let nothing = Delta::Replace(Vec::new());
        desk.keeper.take((NAMESPACE.into(), kind, nothing));
    }
    desk
}

impl Desk {
    /// Sets a Secret, or deletes it when it has no fields.
    fn set(&mut self, name: &str, fields: &[(&str, &str)]) {
        let id = Id::new(NAMESPACE, name);
        let delta = match fields {
            [] => Delta::Remove(id),
            fields => Delta::Set(
                id,
                Content::of_secret(&secret(fields)).expect("certificates"),
            ),
        };
        self.keeper.take((NAMESPACE.into(), Kind::Secret, delta));
    }

    /// What is reported now.
    async fn found(&mut self) -> Found {
        let needs = self.needs.clone();
        self.keeper.answer(&needs).await;
        match self.reports.try_recv() {
            Ok(Delta::Set(_, found)) => found,
            _ => panic!("nothing is reported"),
        }
    }
}

fn problem(found: &Found) -> &str {
    found.problem.as_deref().unwrap_or("none")
}

#[tokio::test]
async fn the_companion_says_whom_clients_are_verified_with() {
    let mut desk = desk(&["gw"]).await;
    let (chain, key) = pair(2090);
    let (own, companion) = (pair(2090).0, pair(2090).0);
    let fields = [("tls.crt", &*chain), ("tls.key", &*key), ("ca.crt", &*own)];
    desk.set("shop", &fields);
    let found = desk.found().await.credential.expect("given");
    assert_eq!(&*found.ca, own);
    desk.set("shop-cacert", &[("cacert", &companion), ("ca.crt", &own)]);
    let found = desk.found().await.credential.expect("given");
    assert_eq!((&*found.chain, &*found.ca), (&*chain, &*companion));

    // A broken companion keeps what it held; the certificate is renewed all the same.
    desk.set("shop-cacert", &[("cacert", "nonsense")]);
    let (next, next_key) = pair(2091);
    desk.set("shop", &[("tls.crt", &next), ("tls.key", &next_key)]);
    let found = desk.found().await;
    assert!(
        problem(&found).contains("-cacert: cacert is not PEM"),
        "{found:?}"
    );
    let kept = found.credential.expect("given");
    assert_eq!((&*kept.chain, &*kept.ca), (&*next, &*companion));
    desk.set("shop-cacert", &[]);
    let found = desk.found().await.credential.expect("given");
    assert_eq!(&*found.ca, "");
}

#[tokio::test]
async fn a_companion_that_was_never_good_closes_no_simple_server() {
    let mut desk = desk(&["gw"]).await;
    let (chain, key) = pair(2090);
    let own = pair(2090).0;
    desk.set("shop-cacert", &[("cacert", "nonsense")]);
    let fields = [("tls.crt", &*chain), ("tls.key", &*key), ("ca.crt", &*own)];
    desk.set("shop", &fields);
    let found = desk.found().await;
    assert!(problem(&found).contains("stay closed"), "{found:?}");
    let given = found.credential.expect("given");
    assert_eq!(
        (&*given.chain, &*given.ca),
        (&*chain, ""),
        "its own CA may let in others"
    );
}

#[tokio::test]
async fn a_companion_alone_is_a_ca() {
    let mut desk = desk(&["gw"]).await;
    let ca = pair(2090).0;
    desk.set("shop-cacert", &[("cacert", &ca)]);
    let found = desk.found().await;
    assert_eq!(problem(&found), "none");
    assert_eq!(&*found.credential.expect("given").ca, ca);
}

#[tokio::test]
async fn only_accounts_that_may_read_the_secret_get_it() {
    let mut desk = desk(&["gw", "stranger"]).await;
    let (chain, key) = pair(2090);
    desk.set("shop", &[("tls.crt", &chain), ("tls.key", &key)]);
    let found = desk.found().await;
    assert!(problem(&found).contains("account stranger of"), "{found:?}");
    let readers = found.credential.expect("given").readers;
    assert_eq!(readers, ["gw".into()]);
    let alone = BTreeSet::from(["stranger".into()]);
    desk.needs = Needs::from([(Id::new(NAMESPACE, "shop"), alone)]);
    assert_eq!(desk.found().await.credential, None);
}

#[tokio::test]
async fn what_was_good_stays_while_its_secret_is_bad_and_for_a_while_when_it_is_gone() {
    let mut desk = desk(&["gw"]).await;
    let (chain, key) = pair(2090);
    desk.set("shop", &[("tls.crt", &chain), ("tls.key", &key)]);
    desk.found().await;
    desk.set("shop", &[("tls.crt", &chain), ("tls.key", "nonsense")]);
    let found = desk.found().await;
    assert!(problem(&found).ends_with("stays in use"), "{found:?}");
    assert_eq!(&*found.credential.expect("kept").chain, chain);
    desk.set("shop", &[]);
    let found = desk.found().await;
    assert!(problem(&found).contains("does not exist"), "{found:?}");
    assert_eq!(&*found.credential.expect("kept").chain, chain);
    tokio::time::pause();
    tokio::time::advance(GONE_GRACE).await;
    tokio::time::resume();
    assert_eq!(desk.found().await.credential, None);
}
