//! Istio's standard metrics: counted per worker without waiting, merged when they are scraped.
//!
//! A series is found by the addresses of its shared label groups, so counting hashes a few words and no text.
//! Groups with equal text at different addresses are merged in the exposition. What clients say cannot add series
//! without end: beyond a bound a worker counts everything new as `unknown`.

mod render;
mod series;

pub use series::{Peer, Reporter, RequestSeries, Target, TcpSeries};

use lateen_base::Map;
use parking_lot::Mutex;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Istio's histogram bounds, in milliseconds or bytes.
pub const BUCKETS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10000.0,
    30000.0,
    60000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// Series of a kind that one worker has before it folds new ones together. Each is some 70 lines in the exposition.
pub const MOST_SERIES: usize = 2048;

/// Every worker's counters.
#[derive(Debug)]
pub struct Metrics {
    shards: Mutex<Vec<Arc<Shard>>>,
    version: String,
    expire: Duration,
}

/// One worker's counters. Other threads only read it.
#[derive(Debug)]
pub struct Shard {
    requests: Mutex<Map<RequestSeries, RequestCells>>,
    tcp: Mutex<Map<TcpSeries, TcpCells>>,
    epoch: Instant,
    unknown: Arc<Peer>,
    no_target: Arc<Target>,
    folded: AtomicU64,
}

/// What one finished request adds to its series.
#[derive(Debug, Clone, Copy)]
pub struct RequestSeen {
    /// From its first byte to the response's last.
    pub duration: Duration,
    /// Bytes of its body.
    pub request_bytes: u64,
    /// Bytes of the response's body.
    pub response_bytes: u64,
}

/// What a TCP connection adds to its series.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcpSeen {
    /// Connections opened.
    pub opened: u64,
    /// Connections closed.
    pub closed: u64,
    /// Bytes sent to the client.
    pub sent: u64,
    /// Bytes received from the client.
    pub received: u64,
}

#[derive(Debug)]
struct RequestCells {
    duration: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
    used: u64,
}

#[derive(Debug)]
struct TcpCells {
    seen: TcpSeen,
    used: u64,
}

/// Counts per bucket (not yet cumulative) and the sum. The last bucket is `+Inf`.
#[derive(Debug, Clone, Default)]
struct Histogram {
    counts: [u64; BUCKETS.len() + 1],
    sum: f64,
}

impl Histogram {
    fn observe(&mut self, value: f64) {
        let at = BUCKETS.partition_point(|bound| *bound < value);
        self.counts[at] += 1;
        self.sum += value;
    }

    fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
        self.sum += other.sum;
    }
}

impl Metrics {
    /// No series yet. `version` is the `tag` of `istio_build`; series unused for `expire` are forgotten when scraped.
    pub fn new(version: &str, expire: Duration) -> Self {
        Self {
            shards: Mutex::default(),
            version: version.to_owned(),
            expire,
        }
    }

    /// A new worker's counters.
    pub fn shard(&self) -> Arc<Shard> {
        let shard = Arc::new(Shard {
            requests: Mutex::default(),
            tcp: Mutex::default(),
            epoch: Instant::now(),
            unknown: Arc::new(Peer::unknown()),
            no_target: Arc::new(Target::unknown()),
            folded: AtomicU64::new(0),
        });
        self.shards.lock().push(Arc::clone(&shard));
        shard
    }

    /// How often something was counted as `unknown` because there were too many series.
    pub fn folded(&self) -> u64 {
        let shards = self.shards.lock();
        shards
            .iter()
            .map(|s| s.folded.load(Ordering::Relaxed))
            .sum()
    }

    /// Every series in Prometheus' text format, after forgetting the expired ones.
    pub fn render(&self) -> String {
        let shards = self.shards.lock();
        for shard in shards.iter() {
            shard.expire(self.expire);
        }
        render::text(&shards, &self.version)
    }
}

impl Shard {
    /// Counts a finished request.
    pub fn request(&self, series: RequestSeries, seen: RequestSeen) {
        let mut requests = self.requests.lock();
        let is_full = requests.len() >= MOST_SERIES && !requests.contains_key(&series);
        let series = if is_full {
            self.folded.fetch_add(1, Ordering::Relaxed);
            RequestSeries {
                source: Arc::clone(&self.unknown),
                destination: Arc::clone(&self.unknown),
                target: Arc::clone(&self.no_target),
                // The first digit; nobody knows more than 16 of gRPC's.
                code: series.code / 100 * 100,
                grpc_status: series.grpc_status.map(|status| status.min(17)),
                ..series
            }
        } else {
            series
        };
        let cells = requests.entry(series).or_insert_with(|| RequestCells {
            duration: Histogram::default(),
            request_bytes: Histogram::default(),
            response_bytes: Histogram::default(),
            used: 0,
        });
        cells.duration.observe(seen.duration.as_secs_f64() * 1000.0);
        cells.request_bytes.observe(seen.request_bytes as f64);
        cells.response_bytes.observe(seen.response_bytes as f64);
        cells.used = self.now();
    }

    /// Counts what happened on a TCP connection since the last call for it.
    pub fn tcp(&self, series: TcpSeries, seen: TcpSeen) {
        let mut tcp = self.tcp.lock();
        let is_full = tcp.len() >= MOST_SERIES && !tcp.contains_key(&series);
        let series = if is_full {
            self.folded.fetch_add(1, Ordering::Relaxed);
            TcpSeries {
                source: Arc::clone(&self.unknown),
                destination: Arc::clone(&self.unknown),
                target: Arc::clone(&self.no_target),
                ..series
            }
        } else {
            series
        };
        let cells = tcp.entry(series).or_insert_with(|| TcpCells {
            seen: TcpSeen::default(),
            used: 0,
        });
        cells.seen.opened += seen.opened;
        cells.seen.closed += seen.closed;
        cells.seen.sent += seen.sent;
        cells.seen.received += seen.received;
        cells.used = self.now();
    }

    fn now(&self) -> u64 {
        self.epoch.elapsed().as_secs()
    }

    fn expire(&self, after: Duration) {
        let now = self.now();
        let stale = |used: u64| now - used >= after.as_secs();
        retain(&self.requests, |cells| !stale(cells.used));
        retain(&self.tcp, |cells| !stale(cells.used));
    }
}

fn retain<K: Eq + Hash, V>(map: &Mutex<Map<K, V>>, keep: impl Fn(&V) -> bool) {
    map.lock().retain(|_, cells| keep(cells));
}

#[cfg(test)]
mod tests;
