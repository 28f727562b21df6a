//! How long a change of a route takes from `apply` returning until every sidecar uses it, seen from the outside: each
//! sidecar's own configuration is read over and over on a connection kept open to its admin port.

use super::load::at;
use crate::args::Connection;
use crate::cluster::{Cluster, text};
use crate::forward;
use crate::proxy_view::ADMIN_PORT;
use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Longest time one change may take before the measurement gives up.
const LIMIT: Duration = Duration::from_secs(10);

struct Sidecar {
    pod: String,
    sender: SendRequest<Empty<Bytes>>,
}

/// Applies `changes` versions of a VirtualService of its own and prints how long each took to reach every sidecar.
///
/// # Errors
/// There is no sidecar, or a change did not arrive within ten seconds.
pub async fn run(changes: u32, connection: &Connection) -> Result<()> {
    ensure!(
        (1..=1000).contains(&changes),
        "--changes must be between 1 and 1000"
    );
    let cluster = Cluster::connect(
        connection.kubeconfig.as_deref(),
        connection.namespace.clone(),
    )
    .await?;
    let mut sidecars = sidecars(&cluster).await?;
    let mut took = Vec::new();
    for change in 0..changes {
        let mark = format!("bench-propagation-{}-{change}", std::process::id());
        cluster.apply(&route(&mark)).await?;
        let start = Instant::now();
        let waits = sidecars
            .iter_mut()
            .map(|sidecar| until_used(sidecar, &mark, start));
        let each = futures::future::try_join_all(waits).await?;
        took.push(each.into_iter().max().unwrap_or_default());
    }
    cluster.delete(&route("")).await?;
    took.sort();
    println!(
        "{changes} changes of a route, from apply returning until all {} sidecars use it:",
        sidecars.len()
    );
    println!(
        "  p50 {:.1} ms, p99 {:.1} ms, most {:.1} ms",
        at(&took, 0.5),
        at(&took, 0.99),
        at(&took, 1.0)
    );
    Ok(())
}

fn route(mark: &str) -> Value {
    let name = "lateen-bench-propagation";
    let host = "bench-propagation.lateen.invalid";
    let http = json!([{"name": mark, "directResponse": {"status": 200}}]);
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"hosts": [host], "http": http},
    })
}

/// A kept connection to every injected pod's admin port.
async fn sidecars(cluster: &Cluster) -> Result<Vec<Sidecar>> {
    let pods = cluster
        .read("/api/v1/pods?labelSelector=security.istio.io%2FtlsMode")
        .await?;
    let mut out = Vec::new();
    for pod in pods["items"].as_array().into_iter().flatten() {
        if pod["status"]["phase"] != "Running" || !pod["metadata"]["deletionTimestamp"].is_null() {
            continue;
        }
        let (namespace, name) = (
            text(&pod["metadata"]["namespace"]),
            text(&pod["metadata"]["name"]),
        );
        let stream = forward::open(cluster, &namespace, &name, ADMIN_PORT).await?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        out.push(Sidecar { pod: name, sender });
    }
    ensure!(
        !out.is_empty(),
        "no pod has a sidecar: start the sandbox with --demo bookinfo"
    );
    Ok(out)
}

async fn until_used(sidecar: &mut Sidecar, mark: &str, start: Instant) -> Result<Duration> {
    loop {
        let request = Request::get("/config_dump")
            .header(header::HOST, "localhost")
            .body(Empty::new())?;
        sidecar.sender.ready().await?;
        let response = sidecar
            .sender
            .send_request(request)
            .await
            .context("the admin port closed")?;
        let body = response.into_body().collect().await?.to_bytes();
        let took = start.elapsed();
        if body
            .windows(mark.len())
            .any(|window| window == mark.as_bytes())
        {
            return Ok(took);
        }
        ensure!(
            took < LIMIT,
            "{} does not use change {mark} after {LIMIT:?}",
            sidecar.pod
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
