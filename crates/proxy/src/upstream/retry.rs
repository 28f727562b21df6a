//! Whether a try is followed by another. Free while no byte was sent; otherwise as the policy says.

use super::dial::MOST_ENDPOINTS;
use super::secure::ConnectError;
use super::{Failed, Picked};
use http::{Method, Response, StatusCode};
use lateen_model::decide::cluster::{Cluster, Endpoint};
use lateen_model::decide::plan::FaultReason;
use lateen_model::route::RetryPolicy;
use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

/// Free tries on kept connections that turn out to be closed.
const MOST_STALE: u32 = 8;

/// Base of the pause before a retry by policy (Envoy: 25 ms, doubling to at most ten times that).
const PAUSE: Duration = Duration::from_millis(25);

/// Why a try gave no usable response.
#[derive(Debug)]
pub(super) enum Trouble {
    /// No connection.
    Connect(ConnectError),
    /// The connection ended before a response.
    Ended {
        /// Whether it had served a request before.
        reused: bool,
        /// No byte of the request left, or the peer says that it did not look at it.
        untouched: bool,
        /// The engine's words.
        reason: String,
    },
    /// The bound on one try ran out.
    SlowTry,
    /// The bound on the whole exchange ran out.
    TooLate,
    /// The endpoint's proxy says that it could not reach the application.
    Unreached,
    /// A response with a status that the policy may not want.
    Status,
    /// The cluster's limits leave no place for the request.
    Overflow,
}

/// What can be sent again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    /// The method does not change anything when it is repeated (RFC 9110 §9.2.2).
    pub(super) idempotent: bool,
    /// The whole body is still at hand.
    pub(super) repeatable: bool,
    /// It goes to the application beside us.
    pub(super) inbound: bool,
    /// Some of its body has been sent to an endpoint.
    pub(super) body_sent: bool,
}

impl Request {
    pub(super) fn is_idempotent(method: &Method) -> bool {
        method.is_idempotent()
    }
}

/// The tries of one request so far.
#[derive(Debug)]
pub(super) struct Course<'a> {
    policy: &'a RetryPolicy,
    left: u32,
    stale: u32,
    /// Whether a failed handshake was tried again.
    shook: bool,
    /// Endpoints that the next try avoids.
    pub(super) tried: Vec<SocketAddr>,
    /// Whether the next try needs a new connection.
    pub(super) fresh: bool,
    /// Tries made.
    pub(super) attempts: u32,
}

/// What comes after a try.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Another try, at once or after a pause.
    Again(Duration),
    /// This was the last.
    Over,
}

impl<'a> Course<'a> {
    pub(super) fn new(policy: &'a RetryPolicy) -> Self {
        Self {
            policy,
            left: policy.attempts,
            stale: 0,
            shook: false,
            tried: Vec::new(),
            fresh: false,
            attempts: 0,
        }
    }

    /// Whether a response with this head should be tried again while the policy lasts.
    pub(super) fn dislikes<B>(&self, head: &Response<B>) -> bool {
        if self.left == 0 {
            return false;
        }
        let status = head.status();
        let grpc = head
            .headers()
            .get("grpc-status")
            .and_then(|v| v.to_str().ok());
        self.policy
            .retry_on
            .iter()
            .any(|condition| match &**condition {
                "5xx" => status.is_server_error(),
                "gateway-error" => matches!(status.as_u16(), 502..=504),
                "retriable-4xx" => status == StatusCode::CONFLICT,
                "cancelled" => grpc == Some("1"),
                "deadline-exceeded" => grpc == Some("4"),
                "resource-exhausted" => grpc == Some("8"),
                "internal" => grpc == Some("13"),
                "unavailable" => grpc == Some("14"),
                "envoy-ratelimited" => head.headers().contains_key("x-envoy-ratelimited"),
                code => code.parse() == Ok(status.as_u16()),
            })
    }

    /// Decides what follows a try at `picked`.
    pub(super) fn after(&mut self, trouble: &Trouble, picked: &Picked, request: Request) -> Next {
        match trouble {
            Trouble::Connect(error) if error.is_handshake() && !self.shook => {
                self.shook = true;
                self.fresh = true;
                Next::Again(Duration::ZERO)
            }
            Trouble::Connect(_) => {
                self.tried.push(picked.address);
                // Nothing was sent: another endpoint costs nothing.
                if picked.more && self.tried.len() < MOST_ENDPOINTS {
                    return Next::Again(Duration::ZERO);
                }
                self.by_policy(&["connect-failure", "5xx", "gateway-error", "reset"])
            }
            Trouble::Ended {
                reused, untouched, ..
            } => {
                let idempotent = request.idempotent && request.repeatable;
                // An application that is ending resets what it has not accepted yet: asked once more, it refuses,
                // and the caller's proxy goes elsewhere.
                let first = request.inbound && self.stale == 0;
                let harmless = *untouched || idempotent && (*reused || first);
                if harmless && self.stale < MOST_STALE {
                    self.stale += 1;
                    self.fresh = true;
                    return Next::Again(Duration::ZERO);
                }
                self.tried.push(picked.address);
                if !request.repeatable {
                    return Next::Over;
                }
                let refused: &[&str] = if *untouched { &["refused-stream"] } else { &[] };
                let listed = [
                    &["reset", "5xx", "gateway-error", "reset-before-request"],
                    refused,
                ]
                .concat();
                if !*untouched && self.leaves_alone(request) {
                    return Next::Over;
                }
                self.by_policy(&listed)
            }
            Trouble::SlowTry => {
                self.tried.push(picked.address);
                if !request.repeatable || self.leaves_alone(request) {
                    return Next::Over;
                }
                self.by_policy(&["5xx", "gateway-error", "reset"])
            }
            Trouble::TooLate | Trouble::Overflow => Next::Over,
            Trouble::Unreached => {
                self.tried.push(picked.address);
                if !request.repeatable {
                    return Next::Over;
                }
                if picked.more && self.tried.len() < MOST_ENDPOINTS {
                    return Next::Again(Duration::ZERO);
                }
                self.by_policy(&["connect-failure", "5xx", "gateway-error", "503"])
            }
            Trouble::Status => {
                self.tried.push(picked.address);
                if request.repeatable && !self.leaves_alone(request) {
                    self.spend()
                } else {
                    Next::Over
                }
            }
        }
    }

    /// Whether sending again could do twice what should be done once, and the user has not asked for it.
    fn leaves_alone(&self, request: Request) -> bool {
        self.policy.careful && request.body_sent && !request.idempotent
    }

    fn by_policy(&mut self, conditions: &[&str]) -> Next {
        let listed = self
            .policy
            .retry_on
            .iter()
            .any(|c| conditions.contains(&&**c));
        if listed { self.spend() } else { Next::Over }
    }

    fn spend(&mut self) -> Next {
        if self.left == 0 {
            return Next::Over;
        }
        self.left -= 1;
        if !self.policy.ignore_previous_hosts {
            self.tried.clear();
        }
        let step = (self.policy.attempts - self.left - 1).min(4);
        let base = self.policy.backoff.unwrap_or(PAUSE);
        let most = (base * (1 << step)).min(base * 10);
        Next::Again(most.mul_f64(fastrand::f64()))
    }

    /// Retries that the policy was asked for so far.
    pub(super) fn spent(&self) -> u32 {
        self.policy.attempts - self.left
    }

    /// Whether the tries may begin anew with other endpoints; at most a few times.
    pub(super) fn may_start_over(&mut self, repeatable: bool) -> bool {
        self.stale += 1;
        self.tried.clear();
        repeatable && self.stale <= MOST_STALE
    }

    /// Endpoints that the next try avoids: those that were tried, and where the policy says so those of the same
    /// localities, as long as others are left (Istio: `retryRemoteLocalities`).
    pub(super) fn avoided(&self, cluster: &Cluster) -> Cow<'_, [SocketAddr]> {
        if !self.policy.remote_localities || self.tried.is_empty() {
            return Cow::Borrowed(&self.tried);
        }
        let all = cluster.discovery.endpoints();
        let was_tried = |e: &&Endpoint| self.tried.contains(&e.address);
        let near: Vec<_> = all
            .iter()
            .filter(was_tried)
            .map(|e| &e.workload.locality)
            .collect();
        let is_near = |e: &&Endpoint| near.contains(&&e.workload.locality);
        let beside: Vec<_> = all.iter().filter(is_near).map(|e| e.address).collect();
        if beside.len() == all.len() {
            return Cow::Borrowed(&self.tried);
        }
        Cow::Owned([&self.tried[..], &beside].concat())
    }

    /// Every endpoint was tried: the next try may go to any of them again.
    pub(super) fn forget_tried(&mut self) -> bool {
        !std::mem::take(&mut self.tried).is_empty()
    }

    /// The failure that the client is told of.
    pub(super) fn failed(&self, trouble: Trouble, picked: &Picked) -> Failed {
        let (reason, transport) = match trouble {
            Trouble::Connect(error) => (FaultReason::ConnectFailed, error.transport_reason()),
            Trouble::Ended { reason, .. } => {
                tracing::debug!("{} ended the connection: {reason}", picked.address);
                (FaultReason::UpstreamReset, String::new())
            }
            Trouble::SlowTry | Trouble::TooLate => (FaultReason::Timeout, String::new()),
            Trouble::Overflow => (FaultReason::Overflow, String::new()),
            Trouble::Status | Trouble::Unreached => (FaultReason::UpstreamReset, String::new()),
        };
        Failed {
            reason,
            transport,
            address: Some(picked.address),
            workload: picked.workload.clone(),
            attempts: self.attempts,
            exhausted: self.policy.attempts > 0 && self.left == 0,
            overflowed: false,
            client_gone: false,
        }
    }
}

#[cfg(test)]
mod tests;
