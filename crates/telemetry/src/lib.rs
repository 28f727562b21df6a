//! What a proxy tells about its traffic: Istio's standard metrics, access-log lines, and its own log.
//!
//! ```text
//! record::Record --access_log::Format--> line --writer::LogWriter--> stdout   (never blocks, counts what it drops)
//! metrics::Shard (one per worker) --Metrics::render--> Prometheus text
//! ```
//! It moves no traffic and decides nothing.

pub mod access_log;
pub mod logging;
pub mod metrics;
pub mod record;
pub mod writer;
