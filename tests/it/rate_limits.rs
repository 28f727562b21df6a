//! Rate limits as docs/rate-limits.md tells: a bucket at each proxy, then one quota that two proxies share.

use crate::mesh::{Mesh, eventually};
use anyhow::{Result, ensure};

const CALLER: &str = "deploy/sleep";

/// Statuses of `count` requests in a row by a user.
fn statuses(mesh: &Mesh, user: &str, count: usize) -> Result<Vec<String>> {
    let script = format!(
        "for i in $(seq {count}); do curl -s -o /dev/null -w '%{{http_code}}\\n' -H 'x-user: {user}' httpbin:8000/get; done"
    );
    let output = mesh.exec(CALLER, "sleep", &["sh", "-c", &script])?;
    Ok(output.split_whitespace().map(str::to_owned).collect())
}

fn good(statuses: &[String]) -> usize {
    statuses.iter().filter(|status| *status == "200").count()
}

/// Quotas are of the clock's minutes: waits for one that lasts for a while.
fn in_one_minute() -> Result<()> {
    eventually("a minute with time left", 30, || Ok(seconds() <= 40))
}

fn seconds() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() % 60)
}

#[test]
fn a_bucket_at_each_proxy_and_a_quota_for_all() -> Result<()> {
    let mesh = Mesh::up(&[])?;
    mesh.kubectl(&["label", "namespace", "default", "istio-injection=enabled"])?;
    for sample in ["httpbin/httpbin", "sleep/sleep"] {
        mesh.kubectl(&["apply", "-f", &format!("samples/{sample}.yaml")])?;
    }
    mesh.kubectl(&["scale", "deploy/httpbin", "--replicas=2"])?;
    for deployment in ["httpbin", "sleep"] {
        let target = format!("deploy/{deployment}");
        mesh.kubectl(&["rollout", "status", "--timeout=60s", &target])?;
    }
    eventually("httpbin answers", 10, || {
        Ok(good(&statuses(&mesh, "x", 1)?) == 1)
    })?;
    a_bucket_at_each_proxy(&mesh)?;
    a_quota_for_all(&mesh)
}

fn a_bucket_at_each_proxy(mesh: &Mesh) -> Result<()> {
    mesh.kubectl(&["apply", "-f", "samples/ratelimit/local.yaml"])?;
    // Five a minute at each of the two, whichever gets more of them: the caller is refused in between, not at the end.
    eventually("the buckets are empty", 20, || {
        Ok(good(&statuses(mesh, "x", 30)?) == 0)
    })?;
    let refused = mesh.exec(CALLER, "sleep", &["curl", "-si", "httpbin:8000/get"])?;
    ensure!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    ensure!(refused.contains("x-ratelimit-remaining: 0"), "{refused}");
    let why = mesh.lateen(&["why", "--from", CALLER, "http://httpbin:8000/get"])?;
    let why = String::from_utf8_lossy(&why.stdout).into_owned();
    ensure!(why.contains("httpbin-local"), "{why}");
    mesh.kubectl(&["delete", "-f", "samples/ratelimit/local.yaml"])?;
    eventually("nobody counts any more", 10, || {
        Ok(good(&statuses(mesh, "x", 10)?) == 10)
    })
}

fn a_quota_for_all(mesh: &Mesh) -> Result<()> {
    for file in ["ratelimit", "global"] {
        mesh.kubectl(&["apply", "-f", &format!("samples/ratelimit/{file}.yaml")])?;
    }
    let service = ["-n", "istio-system", "deploy/ratelimit"];
    mesh.kubectl(&[&["rollout", "status", "--timeout=60s"], &service[..]].concat())?;
    eventually("the service is asked", 20, || {
        Ok(good(&statuses(mesh, "guest", 6)?) == 0)
    })?;
    in_one_minute()?;
    let fresh = format!("user-{}", std::process::id());
    let got = statuses(mesh, &fresh, 30)?;
    ensure!(good(&got) == 10, "two proxies share 10 a minute: {got:?}");
    ensure!(
        got.iter().all(|status| status == "200" || status == "429"),
        "{got:?}"
    );
    let other = statuses(mesh, "somebody-else", 5)?;
    ensure!(good(&other) == 5, "users are counted apart: {other:?}");
    // Without the service requests pass (failOpen).
    mesh.kubectl(&[
        "scale",
        "-n",
        "istio-system",
        "deploy/ratelimit",
        "--replicas=0",
    ])?;
    let asked = std::cell::Cell::new(0);
    eventually("requests pass without the service", 20, || {
        // Who was over the limit is so to the end of the minute: another user each time, and more than the service grants.
        asked.set(asked.get() + 1);
        let user = format!("{fresh}-{}", asked.get());
        Ok(good(&statuses(mesh, &user, 12)?) == 12)
    })
}
