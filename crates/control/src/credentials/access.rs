//! Which service accounts may read a Secret, by the API server's own judgement (SubjectAccessReview).

use crate::source::Id;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::Client;
use kube::api::{Api, PostParams};
use lateen_base::Str;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// How long a verdict holds.
pub(super) const CHECK_AGAIN: Duration = Duration::from_secs(60);
/// Verdicts kept; more than any mesh has gateways.
const MOST_VERDICTS: usize = 10_000;
/// Bound on one question.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks and remembers.
pub(super) struct Access {
    client: Client,
    verdicts: BTreeMap<(Id, Str), (bool, Instant)>,
}

impl Access {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            verdicts: BTreeMap::new(),
        }
    }

    /// Those of `accounts` (of the Secret's namespace) that may read it. An API server that does not answer leaves
    /// the last verdict in force; without one the answer is no.
    pub(super) async fn readers(&mut self, secret: &Id, accounts: &BTreeSet<Str>) -> Vec<Str> {
        let mut readers = Vec::new();
        for account in accounts {
            let key = (secret.clone(), Str::clone(account));
            let known = self.verdicts.get(&key).copied();
            let fresh = known.filter(|(_, at)| at.elapsed() < CHECK_AGAIN);
            let allowed = match fresh {
                Some((allowed, _)) => allowed,
                None => match self.ask(secret, account).await {
                    Some(allowed) => {
                        if self.verdicts.len() >= MOST_VERDICTS {
                            self.verdicts.clear();
                        }
                        self.verdicts.insert(key, (allowed, Instant::now()));
                        allowed
                    }
                    None => known.is_some_and(|(allowed, _)| allowed),
                },
            };
            if allowed {
                readers.push(Str::clone(account));
            }
        }
        readers
    }

    async fn ask(&self, secret: &Id, account: &str) -> Option<bool> {
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let question = question(secret, account);
        let parameters = PostParams::default();
        let answer = reviews.create(&parameters, &question);
        match tokio::time::timeout(PATIENCE, answer).await.ok()? {
            Ok(review) => Some(review.status?.allowed),
            Err(e) => {
                tracing::warn!(
                    "whether {account} may read secret {secret} cannot be found out: {e}"
                );
                None
            }
        }
    }
}

/// May this service account `get` this Secret?
fn question(secret: &Id, account: &str) -> SubjectAccessReview {
    let namespace = &secret.namespace;
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(format!("system:serviceaccount:{namespace}:{account}")),
            groups: Some(vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".to_owned(),
            ]),
            resource_attributes: Some(ResourceAttributes {
                namespace: Some(namespace.to_string()),
                verb: Some("get".to_owned()),
                resource: Some("secrets".to_owned()),
                name: Some(secret.name.to_string()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}
