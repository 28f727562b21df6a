//! Merging of the application's metrics: Prometheus scrapes the proxy, which scrapes the application.

use super::Settings;
use super::annotations::Annotations;
use serde_json::json;
use std::collections::BTreeMap;

/// Port and path where the proxy serves its own and the application's metrics (Istio: 15020).
const PORT: &str = "15020";
const PATH: &str = "/stats/prometheus";

/// What becomes of a pod's `prometheus.io/…` annotations.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Merge {
    /// What the user wrote, as JSON for the proxy; absent when nothing was written.
    pub(super) original: Option<String>,
    /// What the pod carries now; empty when merging is off.
    pub(super) annotations: BTreeMap<String, String>,
}

/// Decides for one pod. `before` is what an earlier injection recorded.
pub(super) fn merge(
    annotations: &Annotations,
    before: Option<String>,
    settings: &Settings,
) -> Merge {
    let off = !settings.prometheus_merge
        || annotations.text("prometheus.istio.io/merge-metrics") == Some("false");
    // A pod that says "do not scrape" is not scraped through the proxy either.
    if off || annotations.text("prometheus.io/scrape") == Some("false") {
        return Merge::default();
    }
    let port = annotations.text("prometheus.io/port");
    if before.is_none() && matches!(port, Some(PORT | "15090")) {
        return Merge::default();
    }
    let keys = ["scrape", "path", "port"];
    let original = before.or_else(|| {
        let written: serde_json::Map<_, _> = keys
            .iter()
            .filter_map(|&key| {
                let value = annotations.text(&format!("prometheus.io/{key}"))?;
                Some((key.to_owned(), json!(value)))
            })
            .collect();
        (!written.is_empty()).then(|| serde_json::Value::Object(written).to_string())
    });
    let annotations = keys
        .iter()
        .zip(["true", PATH, PORT])
        .map(|(key, value)| (format!("prometheus.io/{key}"), value.to_owned()))
        .collect();
    Merge {
        original,
        annotations,
    }
}
