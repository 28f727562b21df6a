//! Metrics: our own, and the application's beside them.

use super::Admin;
use crate::config::AppMetrics;
use http::header::{ACCEPT, HOST};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use lateen_net::dial::{Dial, dial};
use lateen_net::http::{Body, Limits, Version, open, violations};
use lateen_net::stream::Stream;
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Bound on asking the application.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most bytes taken from the application.
const MOST: usize = 16 << 20;

/// The application's metrics cannot be had.
#[derive(Debug, thiserror::Error)]
enum ScrapeError {
    #[error(transparent)]
    Dial(#[from] lateen_net::dial::DialError),
    #[error("{0}")]
    Http(String),
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("it did not answer in time")]
    Late,
}

impl Admin {
    /// What the proxy counts.
    pub(super) fn own_metrics(&self) -> String {
        let mut out = self.shared.metrics.render();
        let live = self.shared.live.load();
        for (name, kind, value) in [
            (
                "lateen_access_log_dropped_total",
                "counter",
                self.shared.log.dropped(),
            ),
            ("lateen_config_generation", "gauge", live.generation),
            (
                "lateen_active_requests",
                "gauge",
                self.shared.drain.active() as u64,
            ),
            ("process_resident_memory_bytes", "gauge", resident_bytes()),
        ] {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "# TYPE {name} {kind}\n{name} {value}");
        }
        out += &self.shared.tally.render();
        self.refusal_metrics(&mut out);
        self.certificate_metrics(&mut out);
        out
    }

    /// What was refused, to whom and why.
    fn refusal_metrics(&self, out: &mut String) {
        for (name, kind, value) in self.shared.overload.figures() {
            let _ = writeln!(out, "# TYPE {name} {kind}\n{name} {value}");
        }
        if self.addresses.dns.is_some() {
            for (name, value) in crate::dns::figures(&self.shared.dns) {
                let _ = writeln!(out, "# TYPE {name} counter\n{name} {value}");
            }
        }
        if self.shared.scope.on_demand {
            for (name, value) in self.shared.demand.figures() {
                let _ = writeln!(out, "# TYPE {name} counter\n{name} {value}");
            }
        }
        let panics = lateen_net::panics::count();
        let _ = writeln!(
            out,
            "# TYPE lateen_connection_panics_total counter\nlateen_connection_panics_total {panics}"
        );
        let folded = self.shared.metrics.folded();
        let _ = writeln!(
            out,
            "# TYPE lateen_metrics_folded_total counter\nlateen_metrics_folded_total {folded}"
        );
        let _ = writeln!(out, "# TYPE lateen_http_violations_total counter");
        for (kind, count) in violations() {
            let _ = writeln!(
                out,
                "lateen_http_violations_total{{kind=\"{kind}\"}} {count}"
            );
        }
    }

    /// The same, with the application's after it. An application that does not answer costs only its own part.
    pub(super) async fn all_metrics(&self) -> String {
        let mut out = self.own_metrics();
        if let Some(app) = &self.app_metrics {
            let scraped = tokio::time::timeout(PATIENCE, scrape(app)).await;
            match scraped.unwrap_or(Err(ScrapeError::Late)) {
                Ok(text) => append(&mut out, &text),
                Err(error) => tracing::debug!("the application's metrics are missing: {error}"),
            }
        }
        out
    }
}

// An OpenMetrics end mark in the middle would end the whole scrape.
fn append(out: &mut String, text: &str) {
    for line in text.lines().filter(|l| l.trim_end() != "# EOF") {
        out.push_str(line);
        out.push('\n');
    }
}

async fn scrape(app: &AppMetrics) -> Result<String, ScrapeError> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, app.port));
    let stream = dial(
        address,
        &Dial {
            timeout: PATIENCE,
            source: None,
            keepalive: None,
        },
    )
    .await?;
    let stream = Stream::new(stream, bytes::Bytes::new());
    let broken = |e: &dyn std::fmt::Display| ScrapeError::Http(e.to_string());
    let mut sender = open(stream, Version::Http1, &Limits::default())
        .await
        .map_err(|e| broken(&e))?;
    let request = Request::get(&app.path)
        .header(HOST, address.to_string())
        .header(ACCEPT, "text/plain;version=0.0.4")
        .body(Body::Empty)
        .map_err(|e| broken(&e))?;
    let response = sender
        .request(request)
        .await
        .map_err(|f| broken(&f.error))?;
    if response.status() != StatusCode::OK {
        return Err(ScrapeError::Status(response.status()));
    }
    let body = Limited::new(response.into_body(), MOST)
        .collect()
        .await
        .map_err(|e| broken(&e))?;
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
}

/// Memory in use by this process; 0 when the kernel does not say.
pub(super) fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = status.lines().find_map(|l| {
        l.strip_prefix("VmRSS:")?
            .split_whitespace()
            .next()?
            .parse::<u64>()
            .ok()
    });
    kilobytes.unwrap_or_default() * 1024
}
