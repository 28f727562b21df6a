//! Copies of requests for other destinations. Nobody waits for their answers, and nothing that becomes of them touches
//! the request itself.

use crate::connection::Conn;
use crate::upstream::{Bound, Order, Replay};
use crate::worker::Worker;
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, request};
use http_body_util::BodyExt;
use lateen_model::decide::plan::{ConnectionFacts, ForwardPlan, MirrorPlan};
use lateen_model::route::RetryPolicy;
use lateen_net::http::Version;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Most bytes of a body that are copied (Envoy's default bound on what it buffers).
const MOST_BYTES: usize = 1 << 20;

/// Copies under way in one worker; more are left out.
const MOST: usize = 256;

/// Bound on a copy where the rule has no timeout.
const PATIENCE: Duration = Duration::from_secs(15);

/// Sends copies of the request with this head (and whether it is gRPC), as it goes upstream, once its body is there.
/// Tunnels are not copied.
pub(super) fn send(
    conn: &Conn,
    mirrors: &[MirrorPlan],
    (head, body, grpc): (&request::Parts, &Replay, bool),
    timeout: Option<Duration>,
) {
    let is_tunnel =
        head.headers.contains_key(http::header::UPGRADE) || head.method == http::Method::CONNECT;
    for mirror in mirrors {
        if is_tunnel || !mirror.share.takes(fastrand::u64(..)) {
            continue;
        }
        let Some(place) = Place::take() else {
            conn.worker
                .warn("more copies for mirrors than can be sent: some are left out");
            return;
        };
        let copy = Copy {
            worker: Rc::clone(&conn.worker),
            facts: conn.facts,
            plan: plan(mirror, timeout),
            head: shadowed(head),
            grpc,
            _place: place,
        };
        let whole = body.copy(MOST_BYTES);
        tokio::task::spawn_local(async move {
            if let Ok(body) = whole.await {
                copy.send(body).await;
            }
        });
    }
}

/// A copy on its way.
struct Copy {
    worker: Rc<Worker>,
    facts: ConnectionFacts,
    plan: ForwardPlan,
    head: request::Parts,
    grpc: bool,
    _place: Place,
}

impl Copy {
    async fn send(self, body: Bytes) {
        let body = Replay::full(body);
        let deadline = Bound::after(&body, self.plan.timeout.unwrap_or(PATIENCE));
        let order = Order {
            plan: &self.plan,
            facts: &self.facts,
            version: match self.head.version {
                http::Version::HTTP_2 => Version::Http2,
                _ => Version::Http1,
            },
            head: &self.head,
            body: &body,
            grpc: self.grpc,
            upgrade: false,
            deadline: None,
        };
        let done = async {
            match self.worker.upstream.send(&order).await {
                Ok(sent) => {
                    let mut body = sent.response.into_body();
                    while let Some(Ok(_)) = body.frame().await {}
                    sent.lease.finish();
                }
                Err(failed) => {
                    tracing::debug!("a copy for {} failed: {failed:?}", self.plan.cluster.name);
                }
            }
        };
        tokio::select! {
            () = done => {}
            () = deadline.passed() => {}
        }
    }
}

fn plan(mirror: &MirrorPlan, timeout: Option<Duration>) -> ForwardPlan {
    let retries = Arc::new(RetryPolicy::none());
    ForwardPlan {
        timeout,
        ..ForwardPlan::to(Arc::clone(&mirror.cluster), retries)
    }
}

/// The head of a copy: its host says that it is one (Envoy: `-shadow`).
fn shadowed(head: &request::Parts) -> request::Parts {
    let mut head = head.clone();
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    let shadow = host.map(|host| match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => {
            format!("{name}-shadow:{port}")
        }
        _ => format!("{host}-shadow"),
    });
    if let Some(value) = shadow.and_then(|host| HeaderValue::from_str(&host).ok()) {
        head.headers.insert(HOST, value);
    }
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    parts.authority = None;
    parts.scheme = None;
    head.uri = http::Uri::from_parts(parts).unwrap_or_default();
    head
}

thread_local! {
    static UNDER_WAY: Cell<usize> = const { Cell::new(0) };
}

/// One of the copies that a worker may have under way.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let count = UNDER_WAY.get();
        (count < MOST).then(|| {
            UNDER_WAY.set(count + 1);
            Self
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        UNDER_WAY.set(UNDER_WAY.get() - 1);
    }
}
