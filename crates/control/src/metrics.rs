//! The control plane's own metrics under the names that Istio's dashboards use, in Prometheus' text format.

mod authority;
mod process;

pub use authority::Authority;

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Upper bounds of `pilot_proxy_convergence_time`, in seconds: Istio's, with finer steps below 100 ms.
const SECONDS: [f64; 12] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0,
];

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The number so far.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that is set.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The number.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Counters of one name by the value of one label. The label's values are a small closed set.
#[derive(Debug, Default)]
pub struct Family(Mutex<BTreeMap<String, u64>>);

impl Family {
    /// Adds `n` under `label`.
    pub fn add(&self, label: &str, n: u64) {
        let mut counters = self.0.lock();
        match counters.get_mut(label) {
            Some(counter) => *counter += n,
            None => {
                counters.insert(label.to_owned(), n);
            }
        }
    }

    fn snapshot(&self) -> BTreeMap<String, u64> {
        self.0.lock().clone()
    }
}

/// Durations in buckets from 5 ms to 30 s.
#[derive(Debug, Default)]
pub struct Histogram(Mutex<Buckets>);

#[derive(Debug, Default, Clone)]
struct Buckets {
    counts: [u64; SECONDS.len()],
    total: u64,
    sum: f64,
}

impl Histogram {
    /// Records one duration.
    pub fn record(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let mut buckets = self.0.lock();
        buckets.total += 1;
        buckets.sum += seconds;
        for (count, bound) in buckets.counts.iter_mut().zip(SECONDS) {
            *count += u64::from(seconds <= bound);
        }
    }

    /// How many durations were recorded.
    pub fn total(&self) -> u64 {
        self.0.lock().total
    }
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    started: Instant,
    /// Pushes: commits that changed a resource.
    pub pushes: Counter,
    /// Resources whose bytes a push changed.
    pub resources_pushed: Counter,
    /// Encoded size of those.
    pub bytes_pushed: Counter,
    /// Changed resources by kind (`pilot_xds_pushes`).
    pub pushes_by_type: Family,
    /// Events of Istio kinds that changed something, by event (`pilot_k8s_cfg_events`).
    pub config_events: Family,
    /// Events of core kinds that changed something, by kind (`pilot_k8s_reg_events`).
    pub registry_events: Family,
    /// Change seen until every connected proxy answered.
    pub convergence: Histogram,
    /// First change of a batch until the batch was pushed.
    pub debounce: Histogram,
    /// Injection requests.
    pub injections: Counter,
    /// Injected pods.
    pub injected: Counter,
    /// Pods left alone.
    pub injections_skipped: Counter,
    /// Refused or failed injections.
    pub injections_failed: Counter,
    /// Time taken by injections.
    pub injection_time: Histogram,
    /// Configuration objects that validation let pass.
    pub validation_passed: Counter,
    /// Configuration objects that validation refused.
    pub validation_failed: Counter,
    /// Status writes.
    pub status_writes: Counter,
    /// The CA.
    pub ca: Authority,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            pushes: Counter::default(),
            resources_pushed: Counter::default(),
            bytes_pushed: Counter::default(),
            pushes_by_type: Family::default(),
            config_events: Family::default(),
            registry_events: Family::default(),
            convergence: Histogram::default(),
            debounce: Histogram::default(),
            injections: Counter::default(),
            injected: Counter::default(),
            injections_skipped: Counter::default(),
            injections_failed: Counter::default(),
            injection_time: Histogram::default(),
            validation_passed: Counter::default(),
            validation_failed: Counter::default(),
            status_writes: Counter::default(),
            ca: Authority::default(),
        }
    }
}

/// Figures that are looked up when metrics are scraped.
#[derive(Debug, Default, Clone)]
pub struct Figures {
    /// Services known.
    pub services: usize,
    /// VirtualServices in force.
    pub virtual_services: usize,
    /// Connected proxies by their version.
    pub proxies: BTreeMap<String, usize>,
    /// Resources and removals sent on present streams, by kind.
    pub sent: BTreeMap<String, u64>,
    /// Refused answers on present streams, by kind.
    pub rejects: BTreeMap<String, u64>,
    /// This program's version.
    pub version: String,
}

impl Metrics {
    /// Time since the start.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The page in Prometheus' text format.
    pub fn render(&self, figures: &Figures) -> String {
        let mut page = Page::default();
        self.render_pushes(&mut page, figures);
        page.family(
            "pilot_k8s_cfg_events",
            "type",
            &self.config_events.snapshot(),
        );
        page.family(
            "pilot_k8s_reg_events",
            "type",
            &self.registry_events.snapshot(),
        );
        page.gauge("pilot_services", figures.services as f64);
        page.gauge("pilot_virt_services", figures.virtual_services as f64);
        let injection = "sidecar_injection";
        for (name, counter) in [
            ("requests", &self.injections),
            ("success", &self.injected),
            ("skip", &self.injections_skipped),
            ("failure", &self.injections_failed),
        ] {
            page.counter(&format!("{injection}_{name}_total"), counter.value());
        }
        page.histogram("sidecar_injection_time_seconds", &self.injection_time);
        page.counter(
            "galley_validation_passed_total",
            self.validation_passed.value(),
        );
        page.counter(
            "galley_validation_failed_total",
            self.validation_failed.value(),
        );
        page.counter("pilot_status_writes_total", self.status_writes.value());
        self.ca.render(&mut page);
        page.gauge("istiod_uptime_seconds", self.uptime().as_secs_f64());
        page.gauge("istiod_managed_clusters", 1.0);
        page.labelled_gauge("pilot_info", &[("version", &figures.version)], 1.0);
        process::render(&mut page);
        page.text
    }

    fn render_pushes(&self, page: &mut Page, figures: &Figures) {
        page.counter("pilot_pushes_total", self.pushes.value());
        page.counter(
            "pilot_resources_pushed_total",
            self.resources_pushed.value(),
        );
        page.counter("pilot_pushed_bytes_total", self.bytes_pushed.value());
        page.family("pilot_xds_pushes", "type", &self.pushes_by_type.snapshot());
        page.histogram("pilot_proxy_convergence_time", &self.convergence);
        page.histogram("pilot_debounce_time", &self.debounce);
        page.head("pilot_xds", "gauge");
        for (version, count) in &figures.proxies {
            page.sample("pilot_xds", &[("version", version)], *count as f64);
        }
        if figures.proxies.is_empty() {
            page.sample("pilot_xds", &[("version", &figures.version)], 0.0);
        }
        page.family("pilot_xds_resources_sent", "type", &figures.sent);
        page.family("pilot_xds_rejects", "type", &figures.rejects);
        page.counter("pilot_total_xds_rejects", figures.rejects.values().sum());
    }
}

/// A page of metrics under construction.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn head(&mut self, name: &str, kind: &str) {
        let _ = writeln!(self.text, "# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.text.push_str(name);
        for (i, (label, text)) in labels.iter().enumerate() {
            let open = if i == 0 { '{' } else { ',' };
            let text = text.replace('\\', "\\\\").replace('"', "\\\"");
            let text = text.replace('\n', "\\n");
            let _ = write!(self.text, "{open}{label}=\"{text}\"");
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {value}");
    }

    fn counter(&mut self, name: &str, value: u64) {
        self.head(name, "counter");
        self.sample(name, &[], value as f64);
    }

    fn gauge(&mut self, name: &str, value: f64) {
        self.labelled_gauge(name, &[], value);
    }

    fn labelled_gauge(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.head(name, "gauge");
        self.sample(name, labels, value);
    }

    fn family(&mut self, name: &str, label: &str, values: &BTreeMap<String, u64>) {
        self.head(name, "counter");
        for (key, value) in values {
            self.sample(name, &[(label, key)], *value as f64);
        }
    }

    fn histogram(&mut self, name: &str, histogram: &Histogram) {
        let buckets = histogram.0.lock().clone();
        self.head(name, "histogram");
        let bucket = format!("{name}_bucket");
        for (count, bound) in buckets.counts.iter().zip(SECONDS) {
            self.sample(&bucket, &[("le", &bound.to_string())], *count as f64);
        }
        self.sample(&bucket, &[("le", "+Inf")], buckets.total as f64);
        self.sample(&format!("{name}_sum"), &[], buckets.sum);
        self.sample(&format!("{name}_count"), &[], buckets.total as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_what_prometheus_reads() {
        let metrics = Metrics::default();
        metrics.pushes.add(2);
        metrics.pushes_by_type.add("Service", 3);
        metrics.convergence.record(Duration::from_millis(20));
        let figures = Figures {
            services: 4,
            proxies: BTreeMap::from([("1\"0".to_owned(), 2)]),
            ..Figures::default()
        };
        let page = metrics.render(&figures);
        for line in [
            "# TYPE pilot_proxy_convergence_time histogram",
            "pilot_pushes_total 2",
            "pilot_xds_pushes{type=\"Service\"} 3",
            "pilot_proxy_convergence_time_bucket{le=\"0.01\"} 0",
            "pilot_proxy_convergence_time_bucket{le=\"0.025\"} 1",
            "pilot_proxy_convergence_time_bucket{le=\"+Inf\"} 1",
            "pilot_proxy_convergence_time_sum 0.02",
            "pilot_xds{version=\"1\\\"0\"} 2",
            "pilot_services 4",
        ] {
            assert!(
                page.lines().any(|l| l == line),
                "{line} is missing in\n{page}"
            );
        }
        assert!(page.contains("process_resident_memory_bytes "));
    }
}
