//! Who may see debug pages: whoever is in the control plane's own pod, service accounts of its namespace, and
//! service accounts of other namespaces for what concerns their own proxies. Istio: debug endpoints with a token.

use crate::ca::limit::Limit;
use http::header::AUTHORIZATION;
use http::{Extensions, HeaderMap, StatusCode};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use kube::Client;
use kube::api::{Api, PostParams};
use lateen_base::Str;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Audience of the tokens that proxies have (Istio: `istio-ca`).
const PROXY_AUDIENCE: &str = "istio-ca";
/// Longest token looked at.
const MOST_TOKEN: usize = 16 << 10;
/// How long a verdict on a token holds.
const HOLDS: Duration = Duration::from_secs(30);
/// Verdicts kept.
const MOST_VERDICTS: usize = 1000;
/// Tokens that are not known yet, of one address at once, and how many more each second.
const BURST: u32 = 20;
const RATE: f64 = 1.0;
/// Bound on asking the API server.
const PATIENCE: Duration = Duration::from_secs(5);

/// The other end of a connection, as the server puts it into a request's extensions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// What somebody may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum View {
    /// Everything.
    All,
    /// What concerns the proxies of one namespace.
    Namespace(Str),
}

/// Nothing may be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error(
        "debug pages need a service account's token: send `Authorization: Bearer …`, or ask from inside the pod \
         (kubectl port-forward)"
    )]
    NoToken,
    #[error("the token is not valid: it is not one of this cluster, has expired or was withdrawn")]
    BadToken,
    #[error("the API server cannot be asked about the token; try again")]
    Unknown,
    #[error("too many tokens come from this address; try again later")]
    TooMany,
    #[error("only service accounts may see debug pages; this token is of another user")]
    NotAnAccount,
}

impl Refusal {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::NoToken | Self::BadToken => StatusCode::UNAUTHORIZED,
            Self::Unknown => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::NotAnAccount => StatusCode::FORBIDDEN,
        }
    }
}

/// What was decided about a token, and when.
type Verdict = (Result<View, Refusal>, Instant);

/// Decides who sees what. Clones share what they know.
#[derive(Clone)]
pub(crate) struct Guard {
    client: Client,
    root_namespace: Str,
    /// Verdicts by a keyed hash of the token: tokens themselves are not kept.
    verdicts: Arc<Mutex<HashMap<[u64; 2], Verdict>>>,
    keys: Arc<[RandomState; 2]>,
    limit: Arc<Limit<IpAddr>>,
}

impl Guard {
    pub(crate) fn new(client: Client, root_namespace: &str) -> Self {
        Self {
            client,
            root_namespace: root_namespace.into(),
            verdicts: Arc::default(),
            keys: Arc::new([RandomState::new(), RandomState::new()]),
            limit: Arc::new(Limit::new(BURST, RATE)),
        }
    }

    /// What the sender of a request may see.
    pub(super) async fn admit(
        &self,
        extensions: &Extensions,
        headers: &HeaderMap,
    ) -> Result<View, Refusal> {
        let peer = extensions.get::<Peer>();
        let source = peer.map(|peer| peer.0.ip().to_canonical());
        if source.is_some_and(|source| source.is_loopback()) {
            return Ok(View::All);
        }
        let token = bearer(headers).ok_or(Refusal::NoToken)?;
        if token.len() > MOST_TOKEN {
            return Err(Refusal::BadToken);
        }
        let key = [0, 1].map(|i| BuildHasher::hash_one(&self.keys[i], token));
        let known = self.verdicts.lock().get(&key).cloned();
        if let Some((verdict, at)) = known
            && at.elapsed() < HOLDS
        {
            return verdict;
        }
        if source.is_some_and(|source| !self.limit.allows(source, Instant::now())) {
            return Err(Refusal::TooMany);
        }
        let verdict = self.review(token).await;
        if verdict != Err(Refusal::Unknown) {
            self.remember(key, &verdict);
        }
        verdict
    }

    /// Refusals make room for what is good, never the other way round.
    fn remember(&self, key: [u64; 2], verdict: &Result<View, Refusal>) {
        let mut verdicts = self.verdicts.lock();
        if verdicts.len() >= MOST_VERDICTS {
            verdicts.retain(|_, (_, at)| at.elapsed() < HOLDS);
        }
        if verdicts.len() >= MOST_VERDICTS && verdict.is_ok() {
            verdicts.retain(|_, (verdict, _)| verdict.is_ok());
        }
        if verdicts.len() < MOST_VERDICTS {
            verdicts.insert(key, (verdict.clone(), Instant::now()));
        }
    }

    /// The view of a token's owner. Tokens for the API server and those of proxies count.
    async fn review(&self, token: &str) -> Result<View, Refusal> {
        for audience in [None, Some(PROXY_AUDIENCE)] {
            let audiences = audience.map(|audience| vec![audience.to_owned()]);
            let reviews: Api<TokenReview> = Api::all(self.client.clone());
            let review = TokenReview {
                spec: TokenReviewSpec {
                    token: Some(token.to_owned()),
                    audiences,
                },
                ..TokenReview::default()
            };
            let parameters = PostParams::default();
            let asked = tokio::time::timeout(PATIENCE, reviews.create(&parameters, &review)).await;
            let status = match asked {
                Ok(Ok(review)) => review.status.unwrap_or_default(),
                Ok(Err(e)) => {
                    tracing::warn!("a token for debug pages cannot be reviewed: {e}");
                    return Err(Refusal::Unknown);
                }
                Err(_) => return Err(Refusal::Unknown),
            };
            // A server that does not understand audiences leaves the list out: that must not pass for consent.
            let mut meant = status.audiences.iter().flatten();
            let is_meant = audience.is_none_or(|audience| meant.any(|one| one == audience));
            if status.authenticated == Some(true) && is_meant {
                return self.view(&status.user.unwrap_or_default());
            }
        }
        Err(Refusal::BadToken)
    }

    fn view(&self, user: &UserInfo) -> Result<View, Refusal> {
        let name = user.username.as_deref().unwrap_or_default();
        let account = name.strip_prefix("system:serviceaccount:");
        let (namespace, _) = account
            .and_then(|account| account.split_once(':'))
            .ok_or(Refusal::NotAnAccount)?;
        Ok(match namespace == &*self.root_namespace {
            true => View::All,
            false => View::Namespace(namespace.into()),
        })
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
