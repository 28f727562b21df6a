//! The answer to a request: which limits its descriptors meet, what they count, and what is said of it. The clock is the
//! caller's; only the store does IO.

#[cfg(test)]
mod tests;

use crate::limits::{Limit, Limits};
use crate::stats::{Stats, Tally};
use crate::store::{Counted, Hit, Store, Unavailable};
use crate::window::Unit;
use arc_swap::ArcSwap;
use lateen_proto::ratelimit::rate_limit_response::{Code, DescriptorStatus, RateLimit};
use lateen_proto::ratelimit::{
    Duration as WireDuration, RateLimitDescriptor, RateLimitRequest, RateLimitResponse,
};
use sha2::{Digest as _, Sha256};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Most descriptors of one request.
const MOST_DESCRIPTORS: usize = 100;
/// Most entries of one descriptor.
const MOST_ENTRIES: usize = 32;
/// Longest name of a counter; of longer ones a digest stands for what names them.
const LONGEST_KEY: usize = 256;

/// The service without its sockets.
#[derive(Debug)]
pub struct Engine {
    limits: ArcSwap<Limits>,
    store: Store,
    fail_open: bool,
    stats: Arc<Stats>,
}

/// A request gets no answer.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It is no valid one; the text says why.
    #[error("{0}")]
    Invalid(&'static str),
    /// Nothing can be counted.
    #[error("hits cannot be counted: {0}")]
    Unavailable(#[from] Unavailable),
}

/// A descriptor with what limits it.
struct Met<'r> {
    limit: Limit,
    hits: u64,
    descriptor: &'r RateLimitDescriptor,
}

impl Engine {
    /// An engine that starts without limits. `fail_open`: what cannot be counted passes.
    pub fn new(store: Store, fail_open: bool, stats: Arc<Stats>) -> Self {
        Self {
            limits: ArcSwap::default(),
            store,
            fail_open,
            stats,
        }
    }

    /// Puts other limits into force. Counters of limits that stay the same go on.
    pub fn set(&self, limits: Limits) {
        self.limits.store(Arc::new(limits));
    }

    /// The limits in force.
    pub fn limits(&self) -> Arc<Limits> {
        self.limits.load_full()
    }

    /// The counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The counters as Prometheus reads them.
    pub fn metrics(&self) -> String {
        let held = match &self.store {
            Store::Memory(memory) => {
                let evictions = &self.stats.evictions;
                evictions.store(memory.evictions(), Ordering::Relaxed);
                memory.len()
            }
            Store::Redis(_) => 0,
        };
        self.stats.render(held)
    }

    /// Answers a request. `now` is the time since 1970.
    ///
    /// # Errors
    /// The request is not valid, or nothing can be counted and has to be.
    pub async fn answer(
        &self,
        request: &RateLimitRequest,
        now: Duration,
    ) -> Result<RateLimitResponse, Refused> {
        self.stats.requests.fetch_add(1, Ordering::Relaxed);
        valid(request).map_err(|why| {
            self.stats.invalid.fetch_add(1, Ordering::Relaxed);
            Refused::Invalid(why)
        })?;
        let met = met(&self.limits.load(), request);
        let hits: Vec<Hit> = met
            .iter()
            .flatten()
            .filter(|met| !met.limit.unlimited)
            .map(|met| met.hit(&request.domain, now))
            .collect();
        let counted = match self.store.count(&hits, now).await {
            Ok(counted) => counted,
            Err(unavailable) => {
                self.stats.store_failures.fetch_add(1, Ordering::Relaxed);
                if !self.fail_open {
                    return Err(unavailable.into());
                }
                return Ok(passed(met.len()));
            }
        };
        let mut counted = counted.into_iter();
        let statuses: Vec<_> = met
            .iter()
            .map(|met| match met {
                Some(met) if met.limit.unlimited => met.unlimited(),
                Some(met) => counted.next().map_or_else(ok, |c| met.status(c, now)),
                None => ok(),
            })
            .collect();
        let over = |status: &DescriptorStatus| status.code == Code::OverLimit as i32;
        let code = match statuses.iter().any(over) {
            true => Code::OverLimit,
            false => Code::Ok,
        };
        Ok(RateLimitResponse {
            overall_code: code as i32,
            statuses,
            ..RateLimitResponse::default()
        })
    }
}

fn valid(request: &RateLimitRequest) -> Result<(), &'static str> {
    if request.domain.is_empty() {
        return Err("the domain is empty");
    }
    if request.descriptors.is_empty() {
        return Err("there is no descriptor");
    }
    if request.descriptors.len() > MOST_DESCRIPTORS {
        return Err("there are more than 100 descriptors");
    }
    for descriptor in &request.descriptors {
        if descriptor.entries.len() > MOST_ENTRIES {
            return Err("a descriptor has more than 32 entries");
        }
    }
    Ok(())
}

/// The limits that the descriptors meet, without those that another one of them replaces.
fn met<'r>(limits: &Limits, request: &'r RateLimitRequest) -> Vec<Option<Met<'r>>> {
    let mut met: Vec<Option<Met<'r>>> = request
        .descriptors
        .iter()
        .map(|descriptor| {
            let entries = descriptor.entries.iter();
            let entries = entries.map(|e| (e.key.as_str(), e.value.as_str()));
            let limit = match own_limit(limits, request, descriptor) {
                Some(limit) => limit,
                None => limits.find(&request.domain, entries)?.clone(),
            };
            let hits = match &descriptor.hits_addend {
                Some(hits) => hits.value,
                None => u64::from(request.hits_addend.max(1)),
            };
            Some(Met {
                limit,
                hits: hits.min(u64::from(u32::MAX)),
                descriptor,
            })
        })
        .collect();
    let replaced: HashSet<Arc<str>> = met
        .iter()
        .flatten()
        .flat_map(|met| met.limit.replaces.iter().cloned())
        .collect();
    for one in &mut met {
        if one
            .as_ref()
            .is_some_and(|m| replaced.contains(&m.limit.name))
        {
            *one = None;
        }
    }
    met
}

/// The limit that a descriptor brings along.
fn own_limit(
    limits: &Limits,
    request: &RateLimitRequest,
    descriptor: &RateLimitDescriptor,
) -> Option<Limit> {
    let own = descriptor.limit.as_ref()?;
    let unit = Unit::numbered(own.unit)?;
    limits.has(&request.domain).then(|| Limit {
        requests: own.requests_per_unit,
        unit,
        unlimited: false,
        shadow: false,
        name: "".into(),
        replaces: Vec::new(),
        counters: Arc::default(),
    })
}

impl Met<'_> {
    /// Its counter: domain, entries and the window's start, as envoyproxy/ratelimit names it.
    fn hit(&self, domain: &str, now: Duration) -> Hit {
        let window = self.limit.unit.window(now);
        let mut key = String::with_capacity(64);
        // Lengths keep different entries from making the same name.
        for part in std::iter::once(domain).chain(
            self.descriptor
                .entries
                .iter()
                .flat_map(|e| [e.key.as_str(), e.value.as_str()]),
        ) {
            key.push_str(&format!("{}_{part}_", part.len()));
        }
        if key.len() > LONGEST_KEY {
            let digest = Sha256::digest(key.as_bytes());
            key = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            key.push('_');
        }
        key.push_str(&format!("{}_{}", self.limit.unit.seconds(), window.start));
        Hit {
            key,
            hits: self.hits,
            limit: u64::from(self.limit.requests),
            end: window.end,
        }
    }

    fn status(&self, counted: Counted, now: Duration) -> DescriptorStatus {
        let limit = &self.limit;
        limit.counters.count(Tally {
            hits: self.hits,
            before: counted.before,
            limit: u64::from(limit.requests),
            granted: counted.granted,
            shadow: limit.shadow,
        });
        let code = match counted.granted || limit.shadow {
            true => Code::Ok,
            false => Code::OverLimit,
        };
        let left = limit.unit.window(now).left;
        DescriptorStatus {
            code: code as i32,
            current_limit: Some(RateLimit {
                requests_per_unit: limit.requests,
                unit: limit.unit as i32,
                name: limit.name.to_string(),
            }),
            limit_remaining: u32::try_from(counted.left).unwrap_or(u32::MAX),
            duration_until_reset: Some(WireDuration {
                seconds: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                nanos: i32::try_from(left.subsec_nanos()).unwrap_or(0),
            }),
        }
    }

    fn unlimited(&self) -> DescriptorStatus {
        self.limit.counters.pass(self.hits);
        DescriptorStatus {
            limit_remaining: u32::MAX,
            ..ok()
        }
    }
}

fn ok() -> DescriptorStatus {
    DescriptorStatus {
        code: Code::Ok as i32,
        ..DescriptorStatus::default()
    }
}

/// The answer when nothing could be counted and that is no reason to refuse.
fn passed(descriptors: usize) -> RateLimitResponse {
    RateLimitResponse {
        overall_code: Code::Ok as i32,
        statuses: vec![ok(); descriptors],
        ..RateLimitResponse::default()
    }
}
