//! Who calls on the secured port: by the certificate that the connection showed, or by a service account's token.
//!
//! A certificate is taken as it comes in the handshake (the key behind it is proved there) and verified here, for each
//! call anew: so a peer whose certificate has expired can still use its token, a refusal is a sentence and no TLS
//! alert, and what was revoked since is refused.

use crate::ca::queue::Urgency;
use crate::ca::tokens::{TokenError, Tokens};
use crate::metrics::Metrics;
use crate::places::Place;
use lateen_identity::trust::{TrustBundles, TrustError};
use lateen_xds::server::{Gate, Identity};
use rustls_pki_types::CertificateDer;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;
use tokio::sync::watch;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Status};

/// What a connection is known by.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Where it comes from.
    pub(crate) address: IpAddr,
    /// Certificates as shown, leaf first; empty: none. Not verified.
    pub(crate) chain: Arc<Vec<CertificateDer<'static>>>,
    /// Whether a call on it was admitted.
    pub(crate) admitted: Arc<AtomicBool>,
    /// Its place among the connections; absent where there are none.
    pub(crate) place: Option<Arc<Place>>,
}

/// A caller that proved who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) identity: Identity,
    pub(crate) urgency: Urgency,
    /// Where it calls from.
    pub(crate) address: Option<IpAddr>,
}

/// Tells callers apart; the gate of xDS.
pub(crate) struct Doorkeeper {
    tokens: Tokens,
    trust: watch::Receiver<TrustBundles>,
    metrics: Arc<Metrics>,
}

impl Doorkeeper {
    pub(crate) fn new(
        tokens: Tokens,
        trust: watch::Receiver<TrustBundles>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            tokens,
            trust,
            metrics,
        }
    }

    /// Who calls.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` when neither certificate nor token proves anything, `UNAVAILABLE` when a token cannot be
    /// verified now.
    pub(crate) async fn caller(
        &self,
        metadata: &MetadataMap,
        extensions: &Extensions,
    ) -> Result<Caller, Status> {
        let peer = extensions.get::<Peer>();
        let found = self.find(metadata, peer).await;
        match (&found, peer) {
            (Ok(_), Some(peer)) => {
                if !peer.admitted.swap(true, Ordering::Relaxed)
                    && let Some(place) = &peer.place
                {
                    place.settle();
                }
            }
            (Ok(_), None) => {}
            (Err(status), peer) => {
                self.metrics.ca.authentication_failures.add(1);
                let from = peer.map_or_else(|| "?".to_owned(), |peer| peer.address.to_string());
                tracing::warn!("a call from {from} is refused: {}", status.message());
            }
        }
        found
    }

    async fn find(&self, metadata: &MetadataMap, peer: Option<&Peer>) -> Result<Caller, Status> {
        let address = peer.map(|peer| peer.address);
        let shown = peer.filter(|peer| !peer.chain.is_empty());
        let by_certificate = shown.map(|peer| self.by_certificate(&peer.chain));
        let refused = match by_certificate {
            Some(Ok((identity, until))) => {
                return Ok(Caller {
                    identity,
                    urgency: Urgency::Until(until),
                    address,
                });
            }
            Some(Err(why)) => Some(why),
            None => None,
        };
        match (bearer(metadata)?, refused) {
            (Some(token), _) => {
                let account = self.tokens.account(token, address).await;
                let identity = account.map_err(|e| match e {
                    TokenError::Refused(_) => Status::unauthenticated(e.to_string()),
                    TokenError::Unavailable(_) => Status::unavailable(e.to_string()),
                })?;
                Ok(Caller {
                    identity,
                    urgency: Urgency::Without,
                    address,
                })
            }
            (None, Some(why)) => Err(Status::unauthenticated(format!(
                "the client certificate is refused: {why}"
            ))),
            (None, None) => Err(Status::unauthenticated(
                "neither a service account token (authorization: Bearer …) nor a client certificate was shown; is the \
                 token of audience istio-ca mounted at /var/run/secrets/tokens/istio-token?",
            )),
        }
    }

    /// Whom a chain belongs to and until when its leaf is valid.
    fn by_certificate(
        &self,
        chain: &[CertificateDer<'static>],
    ) -> Result<(Identity, SystemTime), String> {
        let trust = self.trust.borrow().clone();
        let failed = |e: TrustError| e.to_string();
        let id = trust.verify(chain, SystemTime::now()).map_err(failed)?;
        let (Some(namespace), Some(account)) = (id.namespace(), id.service_account()) else {
            return Err(format!(
                "{id} is no service account (spiffe://<trust domain>/ns/<namespace>/sa/<name>)"
            ));
        };
        let identity = Identity {
            namespace: namespace.into(),
            service_account: account.into(),
        };
        let until = lateen_identity::trust::not_after(chain).map_err(failed)?;
        Ok((identity, until))
    }
}

#[tonic::async_trait]
impl Gate for Doorkeeper {
    async fn admit(
        &self,
        metadata: &MetadataMap,
        extensions: &Extensions,
    ) -> Result<Option<Identity>, Status> {
        let caller = self.caller(metadata, extensions).await?;
        Ok(Some(caller.identity))
    }
}

/// The token of `authorization: Bearer …`.
fn bearer(metadata: &MetadataMap) -> Result<Option<&str>, Status> {
    let mut all = metadata.get_all("authorization").iter();
    let Some(value) = all.next() else {
        return Ok(None);
    };
    let bad = || {
        Status::unauthenticated(
            "the header authorization must be there once and read `Bearer <service account token>`",
        )
    };
    if all.next().is_some() {
        return Err(bad());
    }
    let text = value.to_str().map_err(|_| bad())?;
    let (scheme, token) = text.split_once(' ').ok_or_else(bad)?;
    match scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() {
        true => Ok(Some(token.trim())),
        false => Err(bad()),
    }
}
