//! `istio.v1.auth.IstioCertificateService`: signs what authenticated callers ask for, the most urgent first.
//!
//! ```text
//! call --caller--> limit --> queue --(workers)--> Authority::sign --> chain
//! ```
//! Whom a certificate is for is never read from the request: it is the caller.

use crate::ca::Signing;
use crate::ca::caller::{Caller, Doorkeeper};
use crate::ca::limit::Limit;
use crate::ca::queue::Queue;
use crate::metrics::Metrics;
use lateen_base::Str;
use lateen_identity::ca::CaError;
use lateen_model::identity::SpiffeId;
use lateen_proto::ca::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use lateen_proto::ca::{
    IstioCertificateRequest, IstioCertificateResponse, Struct, value::Kind as Value,
};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// Requests that may wait.
const MOST_WAITING: usize = 4096;
/// Certificates signed at once.
const WORKERS: usize = 2;
/// Longest wait for a signature.
const MOST_WAIT: Duration = Duration::from_secs(20);
/// Largest request in bytes: a CSR has one to three KiB.
const MOST_REQUEST: usize = 64 << 10;
/// Requests that one caller (an address with an identity) may make at once, and how many more each second.
const BURST: u32 = 20;
const RATE: f64 = 1.0;

/// Validity of the certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// When the caller asks for none (Istio: `DEFAULT_WORKLOAD_CERT_TTL`).
    pub default: Duration,
    /// The most that is granted (Istio: `MAX_WORKLOAD_CERT_TTL`).
    pub most: Duration,
}

impl Default for Validity {
    fn default() -> Self {
        Self {
            default: Duration::from_secs(24 * 3600),
            most: Duration::from_secs(90 * 24 * 3600),
        }
    }
}

/// The parts of the service.
pub(crate) struct Parts {
    pub(crate) doorkeeper: Arc<Doorkeeper>,
    /// What signs now.
    pub(crate) signing: watch::Receiver<Signing>,
    /// Gets validities that are longer than any before.
    pub(crate) longest: mpsc::UnboundedSender<Duration>,
    pub(crate) validity: Validity,
    pub(crate) metrics: Arc<Metrics>,
}

/// The service.
pub(crate) struct Issuer {
    parts: Parts,
    queue: Arc<Queue<Job>>,
    limit: Limit<(Option<IpAddr>, Str, Str)>,
    longest: AtomicU64,
}

/// One request that waits for its signature.
#[derive(Debug)]
struct Job {
    csr: String,
    id: SpiffeId,
    validity: Duration,
    reply: oneshot::Sender<Result<Vec<String>, Status>>,
}

impl Issuer {
    /// The service, with workers that end with `shutdown`.
    pub(crate) fn start(parts: Parts, shutdown: &CancellationToken) -> Self {
        let issuer = Self::idle(parts);
        for _ in 0..WORKERS {
            issuer.work(shutdown.clone());
        }
        issuer
    }

    /// The service without workers.
    fn idle(parts: Parts) -> Self {
        Self {
            longest: AtomicU64::new(parts.validity.default.as_secs()),
            parts,
            queue: Arc::new(Queue::new(MOST_WAITING)),
            limit: Limit::new(BURST, RATE),
        }
    }

    fn work(&self, shutdown: CancellationToken) {
        let queue = Arc::clone(&self.queue);
        let signing = self.parts.signing.clone();
        let metrics = Arc::clone(&self.parts.metrics);
        tokio::spawn(async move {
            loop {
                let job = tokio::select! {
                    () = shutdown.cancelled() => return,
                    job = queue.pop() => job,
                };
                if job.reply.is_closed() {
                    continue;
                }
                let signing = signing.borrow().clone();
                let metrics = Arc::clone(&metrics);
                // Signing with RSA takes milliseconds.
                let signed = tokio::task::spawn_blocking(move || {
                    let signed = sign(&signing, &job, &metrics);
                    let _ = job.reply.send(signed);
                });
                let _ = signed.await;
            }
        });
    }

    /// The gRPC service.
    pub(crate) fn service(self) -> IstioCertificateServiceServer<Self> {
        IstioCertificateServiceServer::new(self).max_decoding_message_size(MOST_REQUEST)
    }

    fn validity(&self, seconds: i64) -> Result<Duration, Status> {
        let Validity { default, most } = self.parts.validity;
        match u64::try_from(seconds) {
            Ok(0) => Ok(default.min(most)),
            Ok(seconds) => Ok(Duration::from_secs(seconds).min(most)),
            Err(_) => Err(Status::invalid_argument(format!(
                "validity_duration is {seconds}: it must be 0 (the default) or a number of seconds"
            ))),
        }
    }

    fn id(&self, caller: &Caller) -> Result<SpiffeId, Status> {
        let signing = self.parts.signing.borrow();
        let (namespace, account) = (&caller.identity.namespace, &caller.identity.service_account);
        SpiffeId::of_account(&signing.trust_domain, namespace, account)
            .map_err(|e| Status::invalid_argument(e.to_string()))
    }

    /// A longer validity than any before keeps a root in the bundle for longer after its time.
    fn note(&self, validity: Duration) {
        let seconds = validity.as_secs();
        if self.longest.fetch_max(seconds, Ordering::Relaxed) < seconds {
            let _ = self.parts.longest.send(validity);
        }
    }

    async fn issue(&self, caller: Caller, request: IstioCertificateRequest) -> Answer {
        let identity = caller.identity.clone();
        let key = (caller.address, identity.namespace, identity.service_account);
        if !self.limit.allows(key, Instant::now()) {
            return Err(Status::resource_exhausted(format!(
                "{} asks for certificates too often: one in a second is enough",
                self.id(&caller)?
            )));
        }
        refuse_extras(request.metadata.as_ref())?;
        let validity = self.validity(request.validity_duration)?;
        self.note(validity);
        let (reply, answer) = oneshot::channel();
        let job = Job {
            csr: request.csr,
            id: self.id(&caller)?,
            validity,
            reply,
        };
        let full = |_| {
            Status::resource_exhausted(format!(
                "{MOST_WAITING} requests wait for certificates already: try again later"
            ))
        };
        self.queue.push(caller.urgency, job).map_err(full)?;
        match tokio::time::timeout(MOST_WAIT, answer).await {
            Ok(Ok(signed)) => signed.map(|cert_chain| {
                self.parts.metrics.ca.issued.add(1);
                Response::new(IstioCertificateResponse { cert_chain })
            }),
            Ok(Err(_)) => Err(Status::unavailable("the control plane is stopping")),
            Err(_) => Err(Status::deadline_exceeded(format!(
                "the request waited for {} s behind more urgent ones: try again",
                MOST_WAIT.as_secs()
            ))),
        }
    }
}

type Answer = Result<Response<IstioCertificateResponse>, Status>;

#[tonic::async_trait]
impl IstioCertificateService for Issuer {
    async fn create_certificate(&self, request: Request<IstioCertificateRequest>) -> Answer {
        self.parts.metrics.ca.requests.add(1);
        let doorkeeper = &self.parts.doorkeeper;
        let caller = doorkeeper.caller(request.metadata(), request.extensions());
        let caller = caller.await?;
        let identity = caller.identity.clone();
        let answer = self.issue(caller, request.into_inner()).await;
        if let Err(status) = &answer {
            let (namespace, account) = (&identity.namespace, &identity.service_account);
            tracing::warn!(
                "no certificate for {namespace}/{account}: {}",
                status.message()
            );
        }
        answer
    }
}

/// What a request may ask beside a certificate for its caller: nothing.
fn refuse_extras(metadata: Option<&Struct>) -> Result<(), Status> {
    let fields = metadata.map(|metadata| &metadata.fields);
    let asked = |name: &str| match fields.and_then(|fields| fields.get(name)?.kind.as_ref()) {
        None => false,
        Some(Value::StringValue(text)) => !text.is_empty(),
        Some(_) => true,
    };
    if asked("ImpersonatedIdentity") {
        return Err(Status::permission_denied(
            "ImpersonatedIdentity: certificates are given for the caller's own identity only",
        ));
    }
    if asked("CertSigner") {
        return Err(Status::invalid_argument(
            "CertSigner: this CA signs by itself and knows no other signers; leave it out",
        ));
    }
    Ok(())
}

fn sign(signing: &Signing, job: &Job, metrics: &Metrics) -> Result<Vec<String>, Status> {
    let Some(authority) = &signing.authority else {
        metrics.ca.sign_errors.add("CA_NOT_READY", 1);
        return Err(Status::unavailable(signing.why.to_string()));
    };
    let signed = authority.sign(&job.csr, &job.id, job.validity, SystemTime::now());
    signed.map_err(|e| {
        let (status, label): (fn(String) -> Status, _) = match &e {
            CaError::Request(_) | CaError::Signature | CaError::KeyKind(_) => {
                metrics.ca.csr_errors.add(1);
                (Status::invalid_argument, "CSR_ERROR")
            }
            _ => (Status::failed_precondition, "CERT_GEN_ERROR"),
        };
        metrics.ca.sign_errors.add(label, 1);
        status(e.to_string())
    })
}
