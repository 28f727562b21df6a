//! Files that say what versions there are and how they are called.

use super::Walk;
use crate::mesh::eventually;
use anyhow::{Result, ensure};

const NOBODY: &str = "end-user: nobody";
const ALL: [&str; 3] = ["v1", "v2", "v3"];

/// By themselves they change nothing; with routes to subsets there is somewhere to go.
pub(super) fn has_subsets(walk: &Walk) -> Result<()> {
    walk.only(NOBODY, &ALL)?;
    walk.with("virtual-service-all-v1", || {
        walk.only(NOBODY, &["v1"])?;
        walk.delete("destination-rule-all")?;
        eventually("without them there are no subsets", 10, || {
            let answer = walk.get("http://reviews:9080/reviews/0", &[])?;
            Ok(answer.status == 503)
        })?;
        walk.apply("destination-rule-all")?;
        walk.only(NOBODY, &["v1"])
    })
}

/// A version without a proxy is called in plain text where nothing is said, and not called where mutual TLS is.
pub(super) fn wants_mutual_tls(walk: &Walk) -> Result<()> {
    walk.copy("ratings", "v2", &[("sidecar.istio.io/inject", "false")])?;
    let url = "http://ratings:9080/ratings/0";
    walk.with("virtual-service-ratings-db", || {
        eventually("no mutual TLS, no answer", 10, || {
            let answer = walk.get(url, &[])?;
            Ok(answer.status == 503 && answer.body.contains("TLS"))
        })?;
        // Reviews are called with it.
        walk.only(NOBODY, &["v3"])?;
        let metrics = walk.mesh.exec(
            "deploy/reviews-v3",
            "reviews",
            &["curl", "-sS", "localhost:15020/stats/prometheus"],
        )?;
        let mutual = |line: &str| {
            line.starts_with("istio_requests_total")
                && line.contains("reporter=\"destination\"")
                && line.contains("connection_security_policy=\"mutual_tls\"")
        };
        ensure!(metrics.lines().any(mutual), "{metrics}");
        walk.apply("destination-rule-all")?;
        eventually("nothing said, plain text", 10, || {
            Ok(walk.get(url, &[])?.status == 200)
        })
    })?;
    walk.without("ratings", "v2")
}

/// A third each, in no order.
pub(super) fn balances_at_random(walk: &Walk) -> Result<()> {
    walk.only(NOBODY, &ALL)?;
    let versions = walk.reviews(900, NOBODY)?;
    println!("900 requests to reviews at random: {versions:?}");
    let is_third = |count: &usize| (225..=375).contains(count);
    ensure!(
        versions.len() == 3 && versions.values().all(is_third),
        "{versions:?}"
    );
    walk.with("virtual-service-reviews-v3", || walk.only(NOBODY, &["v3"]))
}
