//! One request: try after try until there is a response or a fault.

use super::dial::patience;
use super::retry::{Course, Next, Request, Trouble};
use super::{Failed, Lease, Picked, Replay, Upstream};
use http::header::HOST;
use http::uri::{PathAndQuery, Scheme, Uri};
use http::{HeaderName, HeaderValue, Response, Version as HttpVersion, request};
use lateen_model::decide::plan::{FaultReason, ForwardPlan};
use lateen_model::workload::Workload;
use lateen_net::http::{Body, Incoming, Version};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const ATTEMPTS: HeaderName = HeaderName::from_static("x-envoy-attempt-count");

/// What is to be sent, and under which bounds.
pub(crate) struct Order<'a> {
    pub(crate) plan: &'a ForwardPlan,
    /// Where the client's connection was going.
    pub(crate) original: SocketAddr,
    /// What the client speaks.
    pub(crate) version: Version,
    /// The request's head, filtered and rewritten; `Host` is present.
    pub(crate) head: request::Parts,
    pub(crate) body: Replay,
    /// Whether the number of the try is told to the endpoint.
    pub(crate) tell_attempts: bool,
    /// When the exchange must be over.
    pub(crate) deadline: Option<Instant>,
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
}

impl Upstream {
    /// Sends a request to its cluster.
    pub(crate) async fn send(&self, order: Order<'_>) -> Result<Sent, Failed> {
        let cluster = &order.plan.cluster;
        let mut course = Course::new(&order.plan.retries);
        let idempotent = Request::is_idempotent(&order.head.method);
        loop {
            let picked = match self.pick(cluster, order.original, &course.tried).await {
                Some(picked) => picked,
                None if course.forget_tried() => continue,
                None => return Err(Failed::new(FaultReason::NoEndpoint)),
            };
            course.attempts += 1;
            let done = self.try_once(&order, &course, &picked).await;
            let request = Request {
                idempotent,
                repeatable: order.body.is_repeatable(),
            };
            let (trouble, sent) = match done {
                Ok(sent) => {
                    let (head, body) = sent.response.into_parts();
                    let disliked = course.dislikes(&head);
                    let sent = Sent {
                        response: Response::from_parts(head, body),
                        ..sent
                    };
                    if !disliked {
                        order.body.seal();
                        return Ok(sent);
                    }
                    (Trouble::Status, Some(sent))
                }
                Err(trouble) => (trouble, None),
            };
            if order.body.has_failed() {
                let failed = course.failed(trouble, &picked);
                return Err(Failed {
                    client_gone: true,
                    ..failed
                });
            }
            match (course.after(&trouble, &picked, request), sent) {
                (Next::Again(pause), _) => {
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                    }
                }
                (Next::Over, Some(sent)) => {
                    order.body.seal();
                    return Ok(sent);
                }
                (Next::Over, None) => return Err(course.failed(trouble, &picked)),
            }
        }
    }

    async fn try_once(
        &self,
        order: &Order<'_>,
        course: &Course<'_>,
        picked: &Picked,
    ) -> Result<Sent, Trouble> {
        let load = self.loads.begin(picked.address);
        let http2 = order.plan.cluster.protocol.is_http2();
        let version = if http2 { Version::Http2 } else { order.version };
        let how = patience(&order.plan.cluster, picked.more);
        let connecting = self
            .pool
            .connection(picked.address, version, &how, course.fresh);
        let mut connection = within(order.deadline, connecting)
            .await
            .ok_or(Trouble::TooLate)?
            .map_err(Trouble::Connect)?;
        let request = compose(order, version, course.attempts);
        let local = connection.watch.tcp().local_addr().ok();
        let began = Instant::now();
        let per_try = order
            .plan
            .retries
            .per_try_timeout
            .map(|limit| began + limit);
        let (until, late) = match (per_try, order.deadline) {
            (Some(one), Some(all)) if one < all => (Some(one), Trouble::SlowTry),
            (Some(one), None) => (Some(one), Trouble::SlowTry),
            (_, all) => (all, Trouble::TooLate),
        };
        let response = within(until, connection.sender.send(request))
            .await
            .ok_or(late)?;
        let response = response.map_err(|failure| Trouble::Ended {
            reused: connection.reused,
            untouched: failure.unsent.is_some() || failure.refused,
            reason: failure.error.to_string(),
        })?;
        Ok(Sent {
            response,
            lease: Lease {
                _load: load,
                address: picked.address,
                connection: Some(connection),
                pool: Rc::clone(&self.pool),
            },
            address: picked.address,
            local,
            workload: picked.workload.clone(),
            attempts: course.attempts,
            time: began.elapsed(),
        })
    }
}

async fn within<T>(until: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match until {
        Some(until) => tokio::time::timeout_at(until, work).await.ok(),
        None => Some(work.await),
    }
}

// One try's request, in the form that its version wants.
fn compose(order: &Order<'_>, version: Version, attempt: u32) -> http::Request<Body> {
    let mut head = order.head.clone();
    if order.tell_attempts {
        head.headers.insert(ATTEMPTS, HeaderValue::from(attempt));
    }
    let is_connect = head.method == http::Method::CONNECT;
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    match version {
        Version::Http1 => {
            head.version = HttpVersion::HTTP_11;
            if !is_connect {
                parts.scheme = None;
                parts.authority = None;
            }
        }
        Version::Http2 => {
            head.version = HttpVersion::HTTP_2;
            let host = head.headers.remove(HOST);
            if parts.authority.is_none() {
                parts.authority =
                    host.and_then(|h| http::uri::Authority::from_maybe_shared(h).ok());
            }
            if !is_connect {
                parts.scheme.get_or_insert(Scheme::HTTP);
            }
        }
    }
    if !is_connect {
        parts
            .path_and_query
            .get_or_insert(PathAndQuery::from_static("/"));
    }
    // The parts come from a valid URI; should the rest not fit together, the path alone always does.
    let path = parts.path_and_query.clone();
    head.uri = Uri::from_parts(parts).unwrap_or_else(|_| path.map(Uri::from).unwrap_or_default());
    http::Request::from_parts(head, order.body.body())
}
