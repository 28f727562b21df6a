//! Answers of providers that may be used again: only where the provider says so, for a minute at most, for exactly the
//! same check.

use super::Answer;
use aws_lc_rs::digest::{Context, SHA256};
use http::HeaderMap;
use http::header::{CACHE_CONTROL, SET_COOKIE};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Longest life of an answer.
const LONGEST: Duration = Duration::from_secs(60);

/// Answers of a generation; two are kept.
const MOST: usize = 5_000;

/// Largest body and headers of an answer that is kept, in bytes.
const LARGEST: usize = 4 * 1024;

/// Everything that a check says, in 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Takes the parts of a check in order. Parts are told apart: `ab`, `c` is not `a`, `bc`.
    pub fn of<'p>(parts: impl IntoIterator<Item = &'p [u8]>) -> Self {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut out = [0; 32];
        out.copy_from_slice(context.finish().as_ref());
        Self(out)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Which of `count` parts it belongs to; below `count`.
    pub fn part(&self, count: usize) -> usize {
        usize::from(self.0[0]) % count.max(1)
    }
}

/// Answers in use; one table per worker.
#[derive(Debug, Default)]
pub struct Decisions {
    young: HashMap<Fingerprint, Kept>,
    old: HashMap<Fingerprint, Kept>,
}

#[derive(Debug, Clone)]
struct Kept {
    answer: Rc<Answer>,
    until: Instant,
}

impl Decisions {
    /// The answer to the same check, while it lasts.
    pub fn find(&self, check: &Fingerprint, now: Instant) -> Option<Rc<Answer>> {
        let kept = self.young.get(check).or_else(|| self.old.get(check))?;
        (now < kept.until).then(|| Rc::clone(&kept.answer))
    }

    /// Keeps an answer for as long as [`lifetime`] allows; large ones are not kept.
    pub fn keep(&mut self, check: Fingerprint, answer: &Rc<Answer>, life: Duration, now: Instant) {
        if life.is_zero() || size(answer) > LARGEST {
            return;
        }
        if self.young.len() >= MOST {
            self.old = std::mem::take(&mut self.young);
        }
        let kept = Kept {
            answer: Rc::clone(answer),
            until: now + life.min(LONGEST),
        };
        self.young.insert(check, kept);
    }
}

fn size(answer: &Answer) -> usize {
    let all = |headers: &[(http::HeaderName, http::HeaderValue)]| -> usize {
        headers
            .iter()
            .map(|(n, v)| n.as_str().len() + v.len())
            .sum()
    };
    match answer {
        Answer::Allow(a) => {
            let lists = [&a.set, &a.add, &a.if_absent, &a.if_present, &a.downstream];
            lists.iter().map(|list| all(list)).sum::<usize>() + a.remove.len() * 32
        }
        Answer::Deny(d) => all(&d.headers) + d.body.len(),
    }
}

/// How long an answer may be used again, by its `cache-control` (RFC 9111 §5.2.2, as a shared cache reads it); zero
/// where it is not allowed, and where it sets a cookie.
pub fn lifetime(headers: &HeaderMap) -> Duration {
    if headers.contains_key(SET_COOKIE) {
        return Duration::ZERO;
    }
    let (mut life, mut shared) = (Duration::ZERO, None);
    for value in headers.get_all(CACHE_CONTROL) {
        let Ok(text) = value.to_str() else {
            return Duration::ZERO;
        };
        for directive in text.split(',').map(str::trim) {
            let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
            let seconds = || value.trim_matches('"').parse().map(Duration::from_secs);
            match name.to_ascii_lowercase().as_str() {
                "no-store" | "no-cache" | "private" => return Duration::ZERO,
                "max-age" => match seconds() {
                    Ok(seconds) => life = seconds,
                    Err(_) => return Duration::ZERO,
                },
                "s-maxage" => match seconds() {
                    Ok(seconds) => shared = Some(seconds),
                    Err(_) => return Duration::ZERO,
                },
                _ => {}
            }
        }
    }
    shared.unwrap_or(life).min(LONGEST)
}
