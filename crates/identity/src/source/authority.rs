//! Certificates from the mesh's CA: asked for with a token or the current certificate, renewed well before they end.

use super::cache::Cache;
use super::{Clock, State, renewal_delay};
use crate::ca::{KeyKind, Request};
use crate::istiod::Connector;
use crate::svid::Svid;
use crate::trust::TrustBundles;
use lateen_base::backoff::Backoff;
use lateen_proto::ca::IstioCertificateRequest;
use lateen_proto::ca::istio_certificate_service_client::IstioCertificateServiceClient;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Bound on one request, connecting included.
const ASK_TIMEOUT: Duration = Duration::from_secs(20);
/// First delay after a failure.
const FIRST_DELAY: Duration = Duration::from_millis(500);
/// Longest delay after a failure; shorter for certificates that live shortly.
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// Least time between two renewals because the certificate is not believed; it doubles up to [`LONGEST_DISBELIEF`].
const DISBELIEF: Duration = Duration::from_secs(2);
/// Longest such time. Whose renewals help is asked at once again when that much has passed.
const LONGEST_DISBELIEF: Duration = Duration::from_secs(600);
/// How often the token file is looked at while there is no certificate, and the time of day while there is one.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_RARELY: Duration = Duration::from_secs(30);
/// Most certificates, and longest text of each, that the CA may send.
const MOST: usize = 12;
const LONGEST: usize = 64 << 10;

/// How the CA is asked.
pub struct AuthorityOptions {
    /// The way there. Its `client` should tell the certificate that [`super::run`] publishes.
    pub connector: Connector,
    /// File with the service account's token, read anew for each request; absent: the certificate alone authenticates.
    pub token: Option<PathBuf>,
    /// Lifetime to ask for; zero: the CA's default.
    pub lifetime: Duration,
    /// Kind of key to make.
    pub key: KeyKind,
}

/// What the CA is asked.
pub(super) struct Question {
    pub(super) csr: String,
    pub(super) lifetime: Duration,
    pub(super) token: Option<String>,
}

/// The CA's answer: PEM certificates, or a sentence.
pub(super) type Answer = Result<Vec<String>, String>;

/// Asks the CA.
pub(super) type Ask =
    Box<dyn Fn(Question) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>;

/// Asks over the network.
pub(super) fn over(connector: Connector) -> Ask {
    Box::new(move |question| {
        let connector = connector.clone();
        Box::pin(async move { ask(&connector, question).await })
    })
}

async fn ask(connector: &Connector, question: Question) -> Answer {
    let seconds = question.lifetime.as_secs().try_into().unwrap_or(i64::MAX);
    let mut message = tonic::Request::new(IstioCertificateRequest {
        csr: question.csr,
        validity_duration: seconds,
        metadata: None,
    });
    if let Some(token) = question.token {
        let bearer = format!("Bearer {}", token.trim())
            .parse()
            .map_err(|_| "the token file holds no token".to_owned())?;
        message.metadata_mut().insert("authorization", bearer);
    }
    let channel = connector.channel().await;
    let channel = channel.map_err(|error| format!("the CA cannot be reached: {error}"))?;
    let mut client =
        IstioCertificateServiceClient::new(channel).max_decoding_message_size(MOST * LONGEST);
    let answer = client.create_certificate(message).await;
    let answer = answer
        .map_err(|status| format!("the CA refused ({:?}): {}", status.code(), status.message()))?;
    Ok(answer.into_inner().cert_chain)
}

/// The loop.
pub(super) struct Renewal<'a> {
    pub(super) ask: Ask,
    pub(super) token: Option<PathBuf>,
    pub(super) lifetime: Duration,
    pub(super) key: KeyKind,
    pub(super) cache: Option<Cache>,
    pub(super) renew: Arc<Notify>,
    pub(super) believed: Option<watch::Receiver<TrustBundles>>,
    pub(super) clock: Clock,
    pub(super) state: &'a watch::Sender<State>,
}

/// Bounds renewals of certificates that are not believed: roots that change without end, or contradict the CA, must not
/// make a load of requests.
struct Calm {
    until: Instant,
    backoff: Backoff,
}

impl Calm {
    fn new() -> Self {
        Self {
            until: Instant::now(),
            backoff: Backoff::new(DISBELIEF, LONGEST_DISBELIEF),
        }
    }

    /// Waits until the next renewal may be.
    async fn pass(&mut self) {
        if self.until.elapsed() > LONGEST_DISBELIEF {
            self.backoff.reset();
        }
        sleep_until(self.until).await;
        self.until = Instant::now() + self.backoff.next_delay();
    }
}

/// The token file as far as changes show.
type Seen = Option<(SystemTime, u64)>;

impl Renewal<'_> {
    pub(super) async fn run(mut self) {
        self.load();
        let mut backoff = Backoff::new(FIRST_DELAY, LONGEST_DELAY);
        let mut calm = Calm::new();
        let mut delay = match &self.state.borrow().svid {
            Some(kept) => renewal_delay(kept, self.clock.now()),
            None => Duration::ZERO,
        };
        loop {
            self.wait_until_due(delay, &mut calm).await;
            let seen = self.token_seen();
            match timeout(ASK_TIMEOUT, self.obtain()).await {
                Ok(Ok((svid, roots))) => {
                    backoff = Backoff::new(FIRST_DELAY, longest_delay(svid.lifetime()));
                    let now = self.clock.now();
                    // Certificates of seconds have their beginning, and so half of their life, in the past.
                    let least = (svid.remaining(now) / 4).max(LOOK);
                    delay = renewal_delay(&svid, now).max(least);
                    self.publish(svid, roots);
                    continue;
                }
                Ok(Err(why)) => self.failed(why),
                Err(_) => self.failed("the CA did not answer in time".into()),
            }
            self.pause(backoff.next_delay(), seen).await;
            delay = Duration::ZERO;
        }
    }

    fn load(&self) {
        let Some(cache) = &self.cache else { return };
        match cache.load(self.clock.now()) {
            Ok(None) => {}
            Ok(Some(kept)) => {
                tracing::info!(identity = %kept.svid.id, "the certificate kept on disk is in use");
                self.state.send_modify(|state| {
                    state.svid = Some(Arc::new(kept.svid));
                    state.roots = kept.roots;
                });
            }
            Err(why) => tracing::warn!("{why}"),
        }
    }

    /// Returns when a certificate is to be asked for.
    async fn wait_until_due(&mut self, delay: Duration, calm: &mut Calm) {
        let Some(svid) = self.state.borrow().svid.clone() else {
            return;
        };
        let due = self.clock.now() + delay;
        loop {
            let left = due.duration_since(self.clock.now()).unwrap_or_default();
            if left.is_zero() {
                return;
            }
            tokio::select! {
                // In steps: the time of day may jump, and a sleeping machine's timers stand still.
                () = sleep(left.min(LOOK_RARELY)) => {}
                () = self.renew.notified() => return,
                () = disbelieved(&mut self.believed, &svid, &self.clock) => {
                    tokio::select! {
                        () = calm.pass() => {}
                        () = self.renew.notified() => {}
                    }
                    return;
                }
            }
        }
    }

    /// Waits after a failure, but no longer than until the token changes or somebody asks for a renewal.
    async fn pause(&self, delay: Duration, seen: Seen) {
        let end = Instant::now() + delay;
        loop {
            tokio::select! {
                () = sleep_until(end) => return,
                () = self.renew.notified() => return,
                () = sleep(LOOK) => {
                    if self.token_seen() != seen {
                        return;
                    }
                }
            }
        }
    }

    fn token_seen(&self) -> Seen {
        let found = std::fs::metadata(self.token.as_ref()?).ok()?;
        Some((found.modified().ok()?, found.len()))
    }

    /// Makes a key and has it signed. The error is a sentence.
    async fn obtain(&self) -> Result<(Svid, String), String> {
        let current = self.state.borrow().svid.clone();
        let id = current.as_ref().map(|svid| svid.id.uri());
        let request = Request::new(self.key, id).map_err(|e| e.to_string())?;
        let question = Question {
            csr: request.pem().to_owned(),
            lifetime: self.lifetime,
            token: self.token(current.is_some())?,
        };
        let chain = (self.ask)(question).await?;
        self.accept(request, &chain)
    }

    /// The token; absent is an error unless there is a certificate to authenticate with.
    fn token(&self, certified: bool) -> Result<Option<String>, String> {
        let Some(path) = &self.token else {
            return Ok(None);
        };
        match std::fs::read_to_string(path) {
            Ok(token) => Ok(Some(token)),
            Err(_) if certified => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(format!("there is no token in {} yet", path.display()))
            }
            Err(error) => Err(format!(
                "the token {} cannot be read: {error}",
                path.display()
            )),
        }
    }

    fn accept(&self, request: Request, chain: &[String]) -> Result<(Svid, String), String> {
        if chain.len() > MOST || chain.iter().any(|text| text.len() > LONGEST) {
            return Err("the CA sent more than any honest chain has".into());
        }
        let svid = request
            .answered(&chain.join("\n"))
            .map_err(|error| format!("the CA's answer cannot be used: {error}"))?;
        if svid.remaining(self.clock.now()).is_zero() {
            return Err(
                "the CA sent a certificate that has already expired; compare the clocks".into(),
            );
        }
        // Istio: the root comes last.
        let roots = match chain {
            [_, .., root] => root.clone(),
            _ => String::new(),
        };
        Ok((svid, roots))
    }

    fn publish(&self, svid: Svid, roots: String) {
        tracing::info!(
            identity = %svid.id, serial = svid.serial, valid_seconds = svid.remaining(self.clock.now()).as_secs(),
            "new certificate"
        );
        if let Some(cache) = &self.cache
            && let Err(error) = cache.store(&svid, &roots)
        {
            tracing::warn!("the certificate cannot be kept on disk: {error}");
        }
        self.state.send_modify(|state| {
            state.svid = Some(Arc::new(svid));
            state.roots = roots;
            state.last_error = None;
            state.failures = 0;
            state.renewals += 1;
        });
    }

    fn failed(&self, why: String) {
        let now = self.clock.now();
        self.state.send_modify(|state| {
            state.failures += 1;
            state.last_error = Some(why);
        });
        let state = self.state.borrow();
        let why = state.last_error.as_deref().unwrap_or_default();
        match state.alarm(now) {
            Some((_, alarm)) => tracing::error!("{alarm}"),
            None => tracing::warn!("no new certificate: {why}"),
        }
    }
}

/// Retries come often enough that an outage of half a lifetime leaves time for several.
fn longest_delay(lifetime: Duration) -> Duration {
    (lifetime / 24).clamp(LOOK, LONGEST_DELAY)
}

/// Returns when the bundles change so that the certificate is not believed by them. Once for each change: a CA that
/// lags behind is not asked in a circle.
async fn disbelieved(
    believed: &mut Option<watch::Receiver<TrustBundles>>,
    svid: &Svid,
    clock: &Clock,
) {
    if let Some(bundles) = believed {
        while bundles.changed().await.is_ok() {
            let bundles = bundles.borrow_and_update();
            if !bundles.is_empty() && bundles.verify(&svid.chain, clock.now()).is_err() {
                return;
            }
        }
    }
    std::future::pending().await
}
