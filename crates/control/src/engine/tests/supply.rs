//! Keys and credentials on their way through the engine to the store.

use super::*;
use lateen_model::name::Origin;
use lateen_model::resource::{Key, Kind, Resource};
use lateen_model::security::{Credential, JwtKeys, Secret};

#[tokio::test(start_paused = true)]
async fn keys_and_credentials_reach_the_store() {
    let running = Running::start();
    running.sync().await;
    let uri = "https://me.example/keys";
    let written = slim::written(json!({
        "apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication",
        "metadata": { "name": "jwt", "namespace": "shop" },
        "spec": { "jwtRules": [{ "issuer": "me", "jwksUri": uri }] },
    }));
    let delta = Delta::Set(Id::new("shop", "jwt"), (written, Books::default()));
    let kind = IstioKind::RequestAuthentication;
    running.send(Event::Istio(kind, Box::new(delta))).await;
    let mut wanted = running.views.wanted_keys.clone();
    let asked = wanted.wait_for(|uris| uris.iter().any(|one| &**one == uri));
    asked.await.expect("the engine runs");

    let (keys, credentials) = &running.reports;
    let found = Keys {
        set: Some("{}".into()),
        problem: None,
    };
    let sent = keys.send(Delta::Set(Id::new("", uri), found)).await;
    sent.expect("the engine runs");
    let credential = Credential {
        origin: Origin {
            kind: "Secret".into(),
            namespace: "edge".into(),
            name: "shop".into(),
            created: 0,
        },
        chain: "C".into(),
        key: Secret::new("K"),
        ca: "".into(),
        crl: "".into(),
        readers: vec!["gw".into()],
    };
    let id = Id::new("edge", "shop");
    let found = Found {
        credential: Some(credential.clone()),
        problem: None,
    };
    let sent = credentials.send(Delta::Set(id.clone(), found)).await;
    sent.expect("the engine runs");
    let credential = Resource::Credential(credential);
    running
        .stored(&credential.key(), |stored| *stored == credential)
        .await;
    let policy = Key {
        kind: Kind::RequestAuthentication,
        name: "shop/jwt".into(),
    };
    running
        .stored(&policy, |stored| match stored {
            Resource::RequestAuthentication(policy) => {
                matches!(&policy.rules[0].keys, JwtKeys::Inline(set) if &**set == "{}")
            }
            _ => false,
        })
        .await;
}

impl Running {
    /// Waits until the store's resource is so.
    async fn stored(&self, key: &Key, so: impl Fn(&Resource) -> bool) {
        let mut changes = self.store.changes();
        while !self
            .store
            .resource(key)
            .is_some_and(|resource| so(&resource))
        {
            changes.changed().await.expect("the store is there");
        }
    }
}
