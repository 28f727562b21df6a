//! One request: try after try until there is a response or a fault.

use super::dial::patience;
use super::limits::{Kind, Slot, counts};
use super::outlier::Outcome;
use super::pool::Wish;
use super::retry::{Course, Next, Request, Trouble};
use super::secure::ConnectError;
use super::{Asked, Bound, Failed, Lease, Picked, Replay, Security, Upstream, hash};
use crate::body::grpc_status;
use http::header::{HOST, SET_COOKIE};
use http::uri::Scheme;
use http::{HeaderName, HeaderValue, Response, request};
use lateen_filters::number;
use lateen_model::decide::cluster::Cluster;
use lateen_model::decide::plan::{ConnectionFacts, Direction, FaultReason, ForwardPlan};
use lateen_model::service::Protocol;
use lateen_model::workload::Workload;
use lateen_net::http::{EngineError, Incoming, Outgoing, Version};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const ATTEMPTS: HeaderName = HeaderName::from_static("x-envoy-attempt-count");

/// Milliseconds that the upstream has to answer.
const EXPECTED: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

/// Our inbound proxies' word that the application was not reached: the request may go to another endpoint.
pub(crate) const UNREACHED: HeaderName = HeaderName::from_static("x-lateen-unreached");

/// What is to be sent, and under which bounds.
pub(crate) struct Order<'a> {
    pub(crate) plan: &'a ForwardPlan,
    /// The client's connection.
    pub(crate) facts: &'a ConnectionFacts,
    /// What the client speaks.
    pub(crate) version: Version,
    /// The request's head, filtered and rewritten; `Host` is present.
    pub(crate) head: &'a request::Parts,
    pub(crate) body: &'a Replay,
    /// Whether it is gRPC, which needs HTTP/2 all the way.
    pub(crate) grpc: bool,
    /// Whether it asks to change the protocol, which only HTTP/1 can.
    pub(crate) upgrade: bool,
    /// By when there must be an answer.
    pub(crate) deadline: Option<&'a Bound>,
}

/// A response, and what it holds on to.
pub(crate) struct Sent {
    pub(crate) response: Response<Incoming>,
    pub(crate) lease: Lease,
    pub(crate) address: SocketAddr,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) workload: Option<Arc<Workload>>,
    pub(crate) attempts: u32,
    /// From sending the last try to its response's head.
    pub(crate) time: Duration,
    /// Whether it would have been tried again, had the cluster's limit on retries left one.
    pub(crate) overflowed: bool,
}

impl Order<'_> {
    /// Whether it goes to the application beside us.
    fn inbound(&self) -> bool {
        self.facts.direction == Direction::Inbound
    }
}

impl Upstream {
    /// Sends a request to its cluster.
    pub(crate) async fn send(&self, order: &Order<'_>) -> Result<Sent, Failed> {
        let mut cluster = Arc::clone(&order.plan.cluster);
        let mut course = Course::new(&order.plan.retries);
        let idempotent = Request::is_idempotent(&order.head.method);
        let (hash, cookie) = hash::of_request(&cluster.balancer, order.head, order.facts);
        let mut retrying: Option<Slot> = None;
        loop {
            let picked = self.next(&cluster, order, &mut course, hash).await;
            let picked = picked.ok_or_else(|| Failed::new(FaultReason::NoEndpoint))?;
            course.attempts += 1;
            let mut done = self.try_once(order, &cluster, &course, &picked).await;
            if let Some(outcome) = outcome(&done) {
                self.note(&cluster, picked.address, outcome);
            }
            if let (Ok(sent), Some(cookie)) = (&mut done, &cookie) {
                sent.response
                    .headers_mut()
                    .append(SET_COOKIE, cookie.clone());
            }
            let repeatable = order.body.is_repeatable();
            let request = Request {
                idempotent,
                repeatable,
                inbound: order.inbound(),
                body_sent: order.body.was_sent(),
            };
            let (trouble, sent) = match judge(order, &course, done) {
                Judged::Good(sent) => {
                    order.body.seal();
                    return Ok(sent);
                }
                Judged::Bad(trouble, sent) => (trouble, sent),
            };
            if matches!(trouble, Trouble::Connect(_) | Trouble::Unreached)
                && let Some(newer) = self.newer(&cluster)
                && course.may_start_over(repeatable)
            {
                // The endpoints have changed while we were calling one that is gone.
                cluster = newer;
                continue;
            }
            if order.body.has_failed() {
                let failed = course.failed(trouble, &picked);
                return Err(Failed {
                    client_gone: true,
                    ..failed
                });
            }
            let spent = course.spent();
            let mut next = course.after(&trouble, &picked, request);
            drop(retrying.take());
            let counted = course.spent() > spent && counts(&cluster.settings);
            if counted {
                let state = self.state(&cluster);
                retrying = state.and_then(|state| state.retry(&cluster.settings));
            }
            let overflowed = counted && retrying.is_none();
            if overflowed {
                next = Next::Over;
            }
            if hash::sticks(&cluster.balancer, &trouble) {
                course.tried.clear();
            }
            let pause = match (next, sent) {
                (Next::Again(pause), _) => pause,
                (Next::Over, Some(sent)) => {
                    order.body.seal();
                    return Ok(Sent { overflowed, ..sent });
                }
                (Next::Over, None) => {
                    return Err(course.failed(trouble, &picked).overflowed(overflowed));
                }
            };
            drop((picked, trouble));
            if !pause.is_zero() {
                Box::pin(tokio::time::sleep(pause)).await;
            }
        }
    }

    /// The endpoint for the next try; when all were tried, any of them again.
    async fn next(
        &self,
        cluster: &Arc<Cluster>,
        order: &Order<'_>,
        course: &mut Course<'_>,
        hash: Option<u64>,
    ) -> Option<Picked> {
        let host = order.head.headers.get(HOST).and_then(|h| h.to_str().ok());
        loop {
            let avoided = course.avoided(cluster);
            let asked = Asked {
                original: order.facts.destination,
                host,
                hash,
                tried: &avoided,
            };
            match self.pick(cluster, &asked).await {
                Some(picked) => return Some(picked),
                None if course.forget_tried() => {}
                None => return None,
            }
        }
    }

    async fn try_once(
        &self,
        order: &Order<'_>,
        cluster: &Arc<Cluster>,
        course: &Course<'_>,
        picked: &Picked,
    ) -> Result<Sent, Trouble> {
        let load = self.loads.begin(picked.address);
        let version = version(order);
        let place = self.place(cluster, picked, order.facts);
        let state = self.state(cluster).filter(|_| counts(&cluster.settings));
        let wish = Wish {
            version,
            timeout: patience(cluster, picked.more),
            fresh: course.fresh,
            state: state.as_ref(),
        };
        let all = order.deadline;
        let mut connection = match self.pool.kept(&place, &wish) {
            Some(kept) => kept,
            None => {
                // Opening is rare and its future large, and requests wait within requests.
                let connecting = Box::pin(self.pool.opened(&place, &wish));
                let connecting = self.unless_gone(cluster, picked.address, connecting);
                Box::pin(within(None, all, connecting))
                    .await?
                    .map_err(|error| match error {
                        ConnectError::Overflow => Trouble::Overflow,
                        error => Trouble::Connect(error),
                    })?
            }
        };
        let most = cluster.settings.pool.max_requests;
        let counted = state.map(|state| state.begin(Kind::Request, most));
        let Some(counted) = counted.map_or(Some(None), |slot| slot.map(Some)) else {
            self.pool.give_back(connection);
            return Err(Trouble::Overflow);
        };
        let (headers, count) = told(order, course.attempts);
        // What this connection is, not what the client called its own.
        let is_tls = matches!(place.security, Security::Origin { .. });
        let request = Outgoing {
            head: order.head,
            set: &headers[..count],
            scheme: if is_tls { Scheme::HTTPS } else { Scheme::HTTP },
            body: order.body.body(),
        };
        let local = connection.local;
        let began = Instant::now();
        let limit = order.plan.retries.per_try_timeout;
        let one = limit.map(|limit| Bound::after(order.body, limit));
        let response = {
            // In place: what waits for it holds a reference.
            let sending = pin!(connection.sender.send(request));
            within(one.as_ref(), all, sending).await
        };
        let response =
            response.inspect_err(|_| self.note(cluster, picked.address, Outcome::Late))?;
        let response = response.map_err(|failure| Trouble::Ended {
            reused: connection.reused,
            untouched: failure.unsent
                || failure.refused
                || !connection.reused && refused_certificate(&failure.error),
            reason: failure.error.to_string(),
        })?;
        Ok(Sent {
            response,
            lease: Lease {
                _load: load,
                _counted: counted,
                connection,
                pool: Rc::clone(&self.pool),
            },
            address: picked.address,
            local,
            workload: picked.workload.clone(),
            attempts: course.attempts,
            time: began.elapsed(),
            overflowed: false,
        })
    }
}

/// What a try gave.
enum Judged {
    /// A response that is passed on.
    Good(Sent),
    /// Why there might be another try, with the response if there is one.
    Bad(Trouble, Option<Sent>),
}

fn judge(order: &Order<'_>, course: &Course<'_>, done: Result<Sent, Trouble>) -> Judged {
    let mut sent = match done {
        Ok(sent) => sent,
        Err(trouble) => return Judged::Bad(trouble, None),
    };
    let unreached = sent.response.headers_mut().remove(UNREACHED).is_some();
    // Only a proxy of the mesh is believed, which takes it out of its application's answers.
    let is_told = matches!(sent.lease.security(), Security::Mesh { .. })
        || sent.workload.as_ref().is_some_and(|w| w.has_sidecar);
    if unreached && is_told && !order.inbound() {
        Judged::Bad(Trouble::Unreached, Some(sent))
    } else if course.dislikes(&sent.response) {
        Judged::Bad(Trouble::Status, Some(sent))
    } else {
        Judged::Good(sent)
    }
}

/// Whether the endpoint ended the connection over our certificate: with TLS 1.3 it says so only after we have begun to
/// send, and it has not looked at the request.
fn refused_certificate(error: &EngineError) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let tls = inner.downcast_ref::<rustls::Error>().or_else(|| {
            let io = inner.downcast_ref::<std::io::Error>()?;
            io.get_ref()?.downcast_ref::<rustls::Error>()
        });
        if let Some(rustls::Error::AlertReceived(alert)) = tls {
            use rustls::AlertDescription as Alert;
            return matches!(
                alert,
                Alert::BadCertificate
                    | Alert::UnsupportedCertificate
                    | Alert::CertificateRevoked
                    | Alert::CertificateExpired
                    | Alert::CertificateUnknown
                    | Alert::CertificateRequired
                    | Alert::UnknownCA
                    | Alert::AccessDenied
                    | Alert::DecryptError
                    | Alert::HandshakeFailure
            );
        }
        cause = inner.source();
    }
    false
}

// What the tries say about the endpoint (Envoy: a reset before an answer counts as a failure to connect).
fn outcome(done: &Result<Sent, Trouble>) -> Option<Outcome> {
    match done {
        Ok(sent) => {
            let grpc = grpc_status(sent.response.headers());
            let status = sent.response.status().as_u16();
            Some(Outcome::Answer(grpc.map_or(status, http_status)))
        }
        Err(Trouble::Connect(_) | Trouble::Ended { .. }) => Some(Outcome::Unreachable),
        // Who was late with an answer is noted where that is found; who waited for a connection says nothing.
        Err(Trouble::SlowTry | Trouble::TooLate) => None,
        Err(Trouble::Unreached | Trouble::Status | Trouble::Overflow) => None,
    }
}

// gRPC's statuses in HTTP's words.
fn http_status(grpc: u16) -> u16 {
    match grpc {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}

// A declared HTTP port is called with HTTP/1, whatever the client spoke (Istio), but for gRPC, which has no HTTP/1 form.
// What is not declared, and the application beside us, gets what the client spoke.
fn version(order: &Order<'_>) -> Version {
    let settings = &order.plan.cluster.settings;
    match order.plan.cluster.protocol {
        _ if order.upgrade => Version::Http1,
        _ if settings.h2_upgrade => Version::Http2,
        _ if settings.pool.use_client_protocol && !order.grpc => order.version,
        protocol if protocol.is_http2() => Version::Http2,
        Protocol::Http | Protocol::GrpcWeb if !order.inbound() && !order.grpc => Version::Http1,
        _ => order.version,
    }
}

/// The result of `work`, unless the bound on one try or on all of them passes before.
async fn within<T>(
    one: Option<&Bound>,
    all: Option<&Bound>,
    work: impl Future<Output = T>,
) -> Result<T, Trouble> {
    let passed = async |bound: Option<&Bound>| match bound {
        Some(bound) => bound.passed().await,
        None => std::future::pending().await,
    };
    tokio::select! {
        biased;
        done = work => Ok(done),
        () = passed(all) => Err(Trouble::TooLate),
        () = passed(one) => Err(Trouble::SlowTry),
    }
}

/// What one try says beyond the request's head; its second header only where there is a bound.
fn told(order: &Order<'_>, attempt: u32) -> ([(HeaderName, HeaderValue); 2], usize) {
    let limit = limit(order, attempt);
    let millis = limit.map_or(0, |limit| {
        u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)
    });
    let headers = [
        (ATTEMPTS, number(attempt.into())),
        (EXPECTED, number(millis.max(1))),
    ];
    let count = match limit {
        _ if order.inbound() => 0,
        None => 1,
        Some(_) => 2,
    };
    (headers, count)
}

// What a try may take: its own bound, or what is left for the whole exchange.
fn limit(order: &Order<'_>, attempt: u32) -> Option<Duration> {
    let left = match (order.plan.timeout, order.deadline) {
        (Some(all), _) if attempt == 1 => Some(all),
        (_, until) => until.map(Bound::left),
    };
    let each = order.plan.retries.per_try_timeout;
    left.into_iter().chain(each).min()
}
