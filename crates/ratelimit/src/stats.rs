//! Counters of the service, and their Prometheus text. Counters of a limit live as long as the process, so that a
//! change of configuration resets none.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Share of a limit from which on hits are near it (envoyproxy/ratelimit).
const NEAR: f64 = 0.8;
/// Most limits that have counters of their own; those of further ones are counted together.
const MOST_LIMITS: usize = 10_000;

/// One of the counters of a limit.
type Pick = fn(&Counters) -> &AtomicU64;

/// Counters of one limit. All of them count hits, not requests.
#[derive(Debug, Default)]
pub struct Counters {
    total: AtomicU64,
    over: AtomicU64,
    near: AtomicU64,
    within: AtomicU64,
    shadow: AtomicU64,
}

/// What became of hits.
#[derive(Debug, Clone, Copy)]
pub struct Tally {
    /// How many.
    pub hits: u64,
    /// What the window had before them.
    pub before: u64,
    /// The limit.
    pub limit: u64,
    /// Whether they were within it.
    pub granted: bool,
    /// Whether they pass all the same, as the limit is in shadow mode.
    pub shadow: bool,
}

impl Counters {
    /// Counts hits.
    pub fn count(&self, tally: Tally) {
        let add = |counter: &AtomicU64, n: u64| counter.fetch_add(n, Ordering::Relaxed);
        add(&self.total, tally.hits);
        if !tally.granted {
            add(&self.over, tally.hits);
            if tally.shadow {
                add(&self.shadow, tally.hits);
            }
            return;
        }
        add(&self.within, tally.hits);
        let near = (tally.limit as f64 * NEAR) as u64;
        let after = tally.before.saturating_add(tally.hits);
        add(&self.near, after.saturating_sub(near.max(tally.before)));
    }

    /// Counts hits that no limit holds back.
    pub fn pass(&self, hits: u64) {
        self.total.fetch_add(hits, Ordering::Relaxed);
        self.within.fetch_add(hits, Ordering::Relaxed);
    }
}

/// All counters of the process.
#[derive(Debug, Default)]
pub struct Stats {
    limits: Mutex<BTreeMap<(String, String), Arc<Counters>>>,
    /// Requests that were answered.
    pub requests: AtomicU64,
    /// Requests that were no valid ones.
    pub invalid: AtomicU64,
    /// Requests that passed, or were answered with an error, since nothing could be counted.
    pub store_failures: AtomicU64,
    /// Counters that were thrown away before their window ended, as there were too many.
    pub evictions: AtomicU64,
    /// Configurations that were taken.
    pub config_loads: AtomicU64,
    /// Configurations that were refused.
    pub config_errors: AtomicU64,
}

impl Stats {
    /// Counters of the limit that is written at `key` of a domain.
    pub fn of(&self, domain: &str, key: &str) -> Arc<Counters> {
        let mut limits = self.limits.lock();
        let mut name = (domain.to_owned(), key.to_owned());
        if limits.len() >= MOST_LIMITS && !limits.contains_key(&name) {
            name = ("other".to_owned(), "other".to_owned());
        }
        Arc::clone(limits.entry(name).or_default())
    }

    /// The metrics as Prometheus reads them.
    pub fn render(&self, counters_held: usize) -> String {
        let mut out = String::new();
        let limits = self.limits.lock();
        let families: [(&str, &str, Pick); 5] = [
            ("total_hits", "Hits", |c| &c.total),
            ("over_limit", "Hits that were refused", |c| &c.over),
            ("near_limit", "Hits in the last fifth of a limit", |c| {
                &c.near
            }),
            ("within_limit", "Hits that passed", |c| &c.within),
            (
                "shadow_mode",
                "Hits over a limit that passed, as it is in shadow mode",
                |c| &c.shadow,
            ),
        ];
        for (name, help, pick) in families {
            let name = format!("ratelimit_service_rate_limit_{name}");
            let _ = writeln!(out, "# HELP {name} {help}.\n# TYPE {name} counter");
            for ((domain, key), counters) in limits.iter() {
                let value = pick(counters).load(Ordering::Relaxed);
                let (domain, key) = (escaped(domain), escaped(key));
                let _ = writeln!(out, "{name}{{domain=\"{domain}\",key=\"{key}\"}} {value}");
            }
        }
        drop(limits);
        let own = [
            ("requests", "Requests answered", &self.requests),
            (
                "invalid_requests",
                "Requests refused as invalid",
                &self.invalid,
            ),
            (
                "store_failures",
                "Requests for which nothing could be counted",
                &self.store_failures,
            ),
            (
                "evictions",
                "Counters thrown away before their window ended",
                &self.evictions,
            ),
            (
                "config_load_success",
                "Configurations taken",
                &self.config_loads,
            ),
            (
                "config_load_error",
                "Configurations refused",
                &self.config_errors,
            ),
        ];
        for (name, help, counter) in own {
            let name = format!("ratelimit_service_{name}");
            let value = counter.load(Ordering::Relaxed);
            let _ = writeln!(
                out,
                "# HELP {name} {help}.\n# TYPE {name} counter\n{name} {value}"
            );
        }
        let name = "ratelimit_service_counters";
        let _ = writeln!(
            out,
            "# HELP {name} Counters in memory.\n# TYPE {name} gauge\n{name} {counters_held}"
        );
        out
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
