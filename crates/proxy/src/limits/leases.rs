//! Hits that a service granted ahead, and limits that it said are used up. A state machine without IO and clock.
//!
//! Whoever finds no hit left asks for several at once; the others wait for that answer. A lease ends with the window in
//! which it was granted, at the latest, so the sum of what all proxies let through never passes the limit. What is left of
//! a lease by then is lost: leases may use less than the limit, never more.

use super::generations::Generations;
use super::standing::Standing;
use lateen_filters::external::Fingerprint;
use lateen_proto::ratelimit::RateLimitResponse;
use lateen_proto::ratelimit::rate_limit_response::rate_limit::Unit;
use lateen_proto::ratelimit::rate_limit_response::{Code, DescriptorStatus};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Questions whose answers are kept for sure as long as they are used.
const MOST: usize = 4096;
/// Most hits of a lease.
const LARGEST: u32 = 1000;
/// A lease is at most this part of what is left: other proxies want some, too.
const SHARE: u32 = 10;
/// How long an answer holds where no limit applies.
const UNLIMITED: Duration = Duration::from_secs(1);

/// What one question is about.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    /// All of it: the service, its domain, every descriptor.
    pub(super) whole: Fingerprint,
    /// Each descriptor by itself.
    pub(super) parts: Vec<Fingerprint>,
}

/// How a question ended: whether it was answered; absent: not yet.
pub(super) type Ended = watch::Receiver<Option<Result<(), Rc<str>>>>;

/// What a request has to do.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing: one hit of the lease is its own.
    Granted(Standing),
    /// Nothing: its limit is used up.
    Over(Standing),
    /// Ask for this many hits, of which one is its own, and then tell [`Leases::answered`] or [`Leases::failed`].
    Ask(u32),
    /// Wait for who is asking, then try again.
    Wait(Ended),
}

/// What became of who asked.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Its hit is granted.
    Granted(Standing),
    /// The limit is used up.
    Over(Standing),
    /// Not so many are left: ask for one.
    Fewer,
}

/// Answers of services, as far as they still hold.
#[derive(Debug)]
pub(crate) struct Leases {
    known: Generations<Fingerprint, Lease>,
    over: Generations<Fingerprint, Over>,
}

/// What came of asking; an error says why nothing did.
type Told = Result<(), Rc<str>>;

#[derive(Debug, Default)]
struct Lease {
    left: u32,
    /// Hits that the lease began with, less the asker's own.
    size: u32,
    until: Option<Instant>,
    standing: Standing,
    /// Hits to ask for next.
    next: u32,
    asking: Option<watch::Sender<Option<Told>>>,
}

#[derive(Debug)]
struct Over {
    until: Instant,
    standing: Standing,
}

impl Default for Leases {
    fn default() -> Self {
        Self {
            known: Generations::new(MOST),
            over: Generations::new(MOST),
        }
    }
}

impl Leases {
    /// Takes a hit.
    pub(super) fn take(&mut self, subject: &Subject, now: Instant) -> Step {
        for part in &subject.parts {
            match self.over.find(part) {
                Some(over) if now < over.until => {
                    return Step::Over(over.standing.at(over.until, now));
                }
                Some(_) => self.over.remove(part),
                None => {}
            }
        }
        let lease = self.known.entry(&subject.whole, Lease::default);
        if let Some(until) = lease.until.filter(|until| now < *until && lease.left > 0) {
            lease.left -= 1;
            let standing = lease.standing.at(until, now);
            return Step::Granted(Standing {
                remaining: standing.remaining + u64::from(lease.left),
                ..standing
            });
        }
        if let Some(asking) = &lease.asking {
            return Step::Wait(asking.subscribe());
        }
        lease.asking = Some(watch::Sender::new(None));
        Step::Ask(lease.demand())
    }

    /// Takes the answer to a question for `hits` that was sent at `asked`.
    pub(super) fn answered(
        &mut self,
        subject: &Subject,
        (asked, hits): (Instant, u32),
        answer: &RateLimitResponse,
    ) -> Verdict {
        let lease = self.known.entry(&subject.whole, Lease::default);
        let standing = standing(answer);
        if answer.overall_code() == Code::OverLimit {
            lease.left = 0;
            lease.size = 0;
            lease.next = 1;
            if hits > 1 && standing.remaining > 0 {
                // Whoever waits goes on waiting.
                return Verdict::Fewer;
            }
            lease.end(Ok(()));
            let parts = subject.parts.iter().zip(&answer.statuses);
            for (part, status) in parts.filter(|(_, s)| s.code() == Code::OverLimit) {
                let until = asked + holds(status);
                let over = Over {
                    until,
                    standing: standing.clone(),
                };
                *self.over.entry(part, || Over {
                    until,
                    standing: Standing::default(),
                }) = over;
            }
            return Verdict::Over(standing);
        }
        let limited = answer.statuses.iter().filter(|s| s.current_limit.is_some());
        let life = limited.clone().map(holds).min().unwrap_or(UNLIMITED);
        let share = limited.map(|s| s.limit_remaining / SHARE).min();
        lease.left = hits - 1;
        lease.size = hits - 1;
        lease.until = Some(asked + life);
        lease.standing = standing.clone();
        lease.next = (hits.saturating_mul(2))
            .min(share.unwrap_or(LARGEST))
            .clamp(1, LARGEST);
        lease.end(Ok(()));
        Verdict::Granted(Standing {
            remaining: standing.remaining + u64::from(hits - 1),
            ..standing
        })
    }

    /// The question got no answer.
    pub(super) fn failed(&mut self, subject: &Subject, why: &Rc<str>) {
        let lease = self.known.entry(&subject.whole, Lease::default);
        lease.end(Err(Rc::clone(why)));
    }

    /// How many questions' answers are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.len() + self.over.len()
    }
}

impl Lease {
    /// How many hits to ask for: twice as many as before when those were used up, as many as were used when not.
    fn demand(&mut self) -> u32 {
        let used = self.size - self.left;
        let hits = match self.left {
            0 => self.next,
            _ => self.next.min(used),
        };
        self.left = 0;
        self.size = 0;
        hits.max(1)
    }

    fn end(&mut self, how: Result<(), Rc<str>>) {
        if let Some(asking) = self.asking.take() {
            asking.send_replace(Some(how));
        }
    }
}

impl Standing {
    /// As it is at `now`, when the window ends at `end`.
    fn at(&self, end: Instant, now: Instant) -> Self {
        Self {
            reset: end.saturating_duration_since(now),
            ..self.clone()
        }
    }
}

/// How long what a descriptor's status says holds, from when it was asked on. Whole seconds may be rounded up
/// (envoyproxy/ratelimit): the last of them is not counted on.
fn holds(status: &DescriptorStatus) -> Duration {
    let Some(reset) = &status.duration_until_reset else {
        return Duration::ZERO;
    };
    let seconds = u64::try_from(reset.seconds).unwrap_or(0);
    match u32::try_from(reset.nanos).unwrap_or(0) {
        0 => Duration::from_secs(seconds.saturating_sub(1)),
        // No more than a year, so that sums stay within bounds.
        nanos => Duration::new(seconds.min(366 * 24 * 3600), nanos.min(999_999_999)),
    }
    .min(Duration::from_secs(366 * 24 * 3600))
}

/// How the answer's tightest limit stands.
fn standing(answer: &RateLimitResponse) -> Standing {
    let mut policy = String::new();
    let mut least: Option<&DescriptorStatus> = None;
    for status in &answer.statuses {
        let Some(limit) = &status.current_limit else {
            continue;
        };
        let window = match limit.unit() {
            Unit::Unknown => continue,
            Unit::Second => 1,
            Unit::Minute => 60,
            Unit::Hour => 3600,
            Unit::Day => 86_400,
            Unit::Month => 30 * 86_400,
            Unit::Year => 365 * 86_400,
        };
        policy += &format!(", {};w={window}", limit.requests_per_unit);
        if least.is_none_or(|least| status.limit_remaining < least.limit_remaining) {
            least = Some(status);
        }
    }
    let reset = least.and_then(|status| status.duration_until_reset.as_ref());
    let reset = reset.map(|reset| {
        let seconds = u64::try_from(reset.seconds).unwrap_or(0);
        let nanos = u32::try_from(reset.nanos).unwrap_or(0);
        Duration::new(seconds.min(366 * 24 * 3600), nanos.min(999_999_999))
    });
    let limit = least.and_then(|status| status.current_limit.as_ref());
    let over = answer.overall_code() == Code::OverLimit;
    Standing {
        limit: limit.map(|limit| u64::from(limit.requests_per_unit)),
        policy: policy.into(),
        remaining: least.map_or(0, |status| u64::from(status.limit_remaining)),
        reset: reset.unwrap_or_default(),
        ..Standing::default()
    }
    .with(answer, over)
}
