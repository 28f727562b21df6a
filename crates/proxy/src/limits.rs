//! Rate limits: counts a request by the rules that it meets, here or at a service, and refuses what is too much.
//!
//! ```text
//! decide::limits::met -> local: buckets that all workers share -> global: leases, else the service is asked
//! ```

mod buckets;
mod generations;
mod leases;
mod service;
mod standing;
#[cfg(test)]
mod tests;

use crate::authorize::Refusal;
use crate::connection::Conn;
use crate::head;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, request};
use lateen_model::decide::authz::{RequestFacts, Token};
use lateen_model::decide::limits::{Check, Counter, LimitFacts, Met, met};
use lateen_model::decide::plan::{Fault, FaultReason, RequestPlan};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use buckets::Buckets;
pub(crate) use leases::Leases;
use standing::Standing;

/// Tells clients of Envoy that the limit refused, not the application.
const LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");

/// What became of requests, for the metrics.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Passed by local rules.
    pub(crate) local_ok: AtomicU64,
    /// Refused by local rules.
    pub(crate) local_over: AtomicU64,
    /// Passed by a service.
    pub(crate) global_ok: AtomicU64,
    /// Refused by a service.
    pub(crate) global_over: AtomicU64,
    /// A service could not be asked.
    pub(crate) global_error: AtomicU64,
    /// Passed since a service could not be asked.
    pub(crate) global_open: AtomicU64,
    /// Questions to services.
    pub(crate) asked: AtomicU64,
}

impl Tally {
    /// The counters as Prometheus reads them.
    pub(crate) fn render(&self) -> String {
        let name = "lateen_rate_limit_requests_total";
        let mut out = format!(
            "# HELP {name} Requests by the limiter that counted them, and what became of them.\n# TYPE {name} counter\n"
        );
        for (limiter, outcome, counter) in [
            ("local", "ok", &self.local_ok),
            ("local", "over_limit", &self.local_over),
            ("global", "ok", &self.global_ok),
            ("global", "over_limit", &self.global_over),
            ("global", "error", &self.global_error),
            ("global", "failure_mode_allowed", &self.global_open),
        ] {
            let value = counter.load(Ordering::Relaxed);
            out += &format!("{name}{{limiter=\"{limiter}\",outcome=\"{outcome}\"}} {value}\n");
        }
        let name = "lateen_rate_limit_questions_total";
        let value = self.asked.load(Ordering::Relaxed);
        out += &format!(
            "# HELP {name} Questions to rate-limit services.\n# TYPE {name} counter\n{name} {value}\n"
        );
        out
    }
}

/// A request that may be too much.
pub(crate) struct Counting<'a> {
    pub(crate) conn: &'a Conn,
    pub(crate) head: &'a request::Parts,
    pub(crate) authority: &'a str,
    pub(crate) scheme: &'static str,
    /// The client's address as trusted proxies tell it.
    pub(crate) remote: IpAddr,
    pub(crate) token: Option<&'a Token>,
}

/// What limits have to say to a request that passed.
#[derive(Default)]
pub(crate) struct Said {
    /// For the response: names replace.
    response: Vec<(HeaderName, HeaderValue)>,
    /// For the upstream: names replace.
    request: Vec<(HeaderName, HeaderValue)>,
}

impl Said {
    /// Tells the upstream.
    pub(crate) fn on_request(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.request {
            headers.insert(name, value.clone());
        }
    }

    /// Tells the client.
    pub(crate) fn on_response(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.response {
            headers.insert(name, value.clone());
        }
    }
}

/// Counts a request.
///
/// # Errors
/// It is too much, or a service that has to be asked cannot be.
pub(crate) async fn check(
    counting: &Counting<'_>,
    plan: &RequestPlan,
) -> Result<Said, Box<Refusal>> {
    let all = counting.met(plan);
    let mut said = Said::default();
    let mut least: Option<Standing> = None;
    let mut taken = Vec::new();
    for met in &all {
        let done = match &met.check {
            Check::Local(counters) => counting.local(met, counters, &mut taken),
            // Rare, and large: every request would carry it along.
            Check::Global(descriptors) => Box::pin(counting.global(met, descriptors)).await,
        };
        match done {
            Ok(standing) => {
                let Some(standing) = standing else { continue };
                said.request.extend(standing.request_headers());
                said.response.extend(standing.response_headers());
                if met.policy.headers {
                    least = Some(Standing::least(least.take(), standing));
                }
            }
            Err(refusal) => {
                // A refused request costs nothing elsewhere.
                counting.conn.worker.shared.buckets.give_back(&taken);
                return Err(refusal);
            }
        }
    }
    if let Some(least) = least {
        said.response.extend(least.headers());
    }
    Ok(said)
}

impl Counting<'_> {
    fn met(&self, plan: &RequestPlan) -> Vec<Met> {
        let conn = self.conn;
        let live = conn.worker.shared.live.load();
        let request = RequestFacts {
            head: head::seen(self.head, self.authority, self.scheme),
            remote: self.remote,
            token: self.token,
        };
        let facts = LimitFacts::of(request, plan);
        met(&live.snapshot, &conn.facts, &conn.peer, &facts)
    }

    fn local(
        &self,
        met: &Met,
        counters: &[Counter],
        taken: &mut Vec<buckets::Taken>,
    ) -> Result<Option<Standing>, Box<Refusal>> {
        let shared = &self.conn.worker.shared;
        let mut least: Option<Standing> = None;
        for counter in counters {
            let (standing, one) = shared.buckets.take(met, counter);
            let Some(one) = one else {
                shared.tally.local_over.fetch_add(1, Ordering::Relaxed);
                let body = Bytes::from_static(b"local_rate_limited");
                return Err(refusal(met, "local_rate_limited", body, &standing));
            };
            taken.push(one);
            least = Some(Standing::least(least.take(), standing));
        }
        shared.tally.local_ok.fetch_add(1, Ordering::Relaxed);
        Ok(least)
    }

    async fn global(
        &self,
        met: &Met,
        descriptors: &[lateen_model::decide::limits::Values],
    ) -> Result<Option<Standing>, Box<Refusal>> {
        let Some(service) = met.service() else {
            return Ok(None);
        };
        let worker = &self.conn.worker;
        let tally = &worker.shared.tally;
        let asking = service::ask(worker, self.conn.facts, service, descriptors);
        match asking.await {
            Ok(service::Answer::Granted(standing)) => {
                tally.global_ok.fetch_add(1, Ordering::Relaxed);
                Ok(Some(standing))
            }
            Ok(service::Answer::Over(standing)) => {
                tally.global_over.fetch_add(1, Ordering::Relaxed);
                let body = standing.body();
                Err(refusal(met, "request_rate_limited", body, &standing))
            }
            Err(why) => {
                tally.global_error.fetch_add(1, Ordering::Relaxed);
                let fault = Fault {
                    reason: FaultReason::RateLimitUnavailable,
                    origin: Some(met.origin().clone()),
                    subject: format!("{}:{}: {why}", service.host, service.port),
                };
                if service.fail_open {
                    tally.global_open.fetch_add(1, Ordering::Relaxed);
                    worker.say(&fault, || {
                        let subject = &fault.subject;
                        format!("the rate-limit service {subject}; requests pass, as failOpen says")
                    });
                    return Ok(None);
                }
                Err(Box::new(Refusal {
                    status: fault.status(),
                    fault: Box::new(fault),
                    headers: Vec::new(),
                    body: Bytes::new(),
                    details: "rate_limiter_error".to_owned(),
                }))
            }
        }
    }
}

fn refusal(met: &Met, word: &str, body: Bytes, standing: &Standing) -> Box<Refusal> {
    let origin = met.origin();
    let mut headers = vec![(LIMITED, HeaderValue::from_static("true"))];
    headers.extend(standing.response_headers());
    if met.policy.headers {
        headers.extend(standing.headers());
    }
    Box::new(Refusal {
        fault: Box::new(Fault {
            reason: FaultReason::RateLimited,
            origin: Some(origin.clone()),
            subject: met.name(),
        }),
        status: met.policy.status,
        headers,
        body,
        // Envoy's word, and which rule it was in the form of authorization's.
        details: format!(
            "{word}{{ns[{}]-policy[{}]-rule[{}]}}",
            origin.namespace, origin.name, met.rule
        ),
    })
}
