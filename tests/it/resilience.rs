//! Nothing is lost: rollouts under load, the control plane's death, a sidecar's restart.

use crate::mesh::{Mesh, eventually, text};
use anyhow::{Context as _, Result, ensure};
use std::process::{Child, Command, Stdio};

/// Seconds of each load; longer with LATEEN_SOAK_SECONDS.
pub fn soak_seconds() -> u32 {
    std::env::var("LATEEN_SOAK_SECONDS")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(10)
}

/// Starts a load on a path of the gateway: so many requests a second, for so many seconds.
pub fn load(mesh: &Mesh, path: &str, (rate, seconds): (u32, u32)) -> Result<Child> {
    let binary = std::env::var_os("LATEEN_BIN").context("run `cargo xtask e2e`")?;
    let url = format!("http://127.0.0.1:{}{path}", mesh.http_port);
    let mut command = Command::new(binary);
    command.args([
        "bench",
        "load",
        &url,
        "--rate",
        &rate.to_string(),
        "--seconds",
        &seconds.to_string(),
    ]);
    Ok(command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?)
}

/// Waits for a load's end, and looks at what it met.
pub fn nothing_failed(load: Child) -> Result<()> {
    let output = load.wait_with_output()?;
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    println!("{said}");
    ensure!(
        output.status.success() && said.contains("0 failed"),
        "{said}"
    );
    Ok(())
}

const PAGE: &str = "/productpage";

/// No retries, so that nothing hides a failure.
const RETRIES_OFF: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http: [{retries: {attempts: 0}, route: [{destination: {host: reviews}}]}]
";

#[test]
fn no_request_is_lost() -> Result<()> {
    let mesh = Mesh::up(&["--demo", "bookinfo"])?;
    mesh.apply(RETRIES_OFF)?;
    let running = load(&mesh, PAGE, (200, soak_seconds()))?;
    mesh.kubectl(&["rollout", "restart", "deploy/reviews-v1"])?;
    mesh.kubectl(&["rollout", "status", "deploy/reviews-v1", "--timeout=60s"])?;
    nothing_failed(running)?;
    the_control_plane_may_die(&mesh)
}

fn the_control_plane_may_die(mesh: &Mesh) -> Result<()> {
    let running = load(mesh, PAGE, (200, soak_seconds()))?;
    mesh.kubectl(&[
        "scale",
        "-n",
        "istio-system",
        "deploy/istiod",
        "--replicas=0",
    ])?;
    mesh.kubectl(&[
        "delete",
        "pod",
        "-n",
        "istio-system",
        "-l",
        "app=istiod",
        "--grace-period=0",
        "--force",
    ])?;
    nothing_failed(running)?;
    restart_sidecar(mesh)?;
    let (status, _) = mesh.curl("/productpage", &[])?;
    ensure!(
        status == 200,
        "with no control plane and a restarted sidecar: {status}"
    );
    let log = mesh.kubectl(&[
        "logs",
        "deploy/productpage-v1",
        "-c",
        "istio-proxy",
        "--tail=5",
    ])?;
    ensure!(
        log.contains("outbound|9080||reviews.default.svc.cluster.local"),
        "routed, not passed through: {log}"
    );

    mesh.kubectl(&[
        "scale",
        "-n",
        "istio-system",
        "deploy/istiod",
        "--replicas=1",
    ])?;
    mesh.kubectl(&[
        "rollout",
        "status",
        "-n",
        "istio-system",
        "deploy/istiod",
        "--timeout=60s",
    ])?;
    eventually("every proxy is connected again", 30, || {
        let status = mesh.lateen(&["proxy-status"])?;
        Ok(text(&status.stdout)
            .lines()
            .filter(|line| line.contains("SYNCED"))
            .count()
            >= 7)
    })?;
    let sent = resources_sent(mesh)?;
    println!("resources sent after the control plane came back: {sent}");
    ensure!(sent < 40.0, "no full resend: {sent} resources");
    Ok(())
}

/// Resources that the control plane has sent on the streams that are open now.
fn resources_sent(mesh: &Mesh) -> Result<f64> {
    let url = "http://istiod.istio-system:15014/metrics";
    let metrics = mesh.exec(
        "deploy/productpage-v1",
        "productpage",
        &["curl", "-sS", url],
    )?;
    let lines = metrics
        .lines()
        .filter(|line| line.starts_with("pilot_xds_resources_sent{"));
    let values: Vec<f64> = lines
        .filter_map(|line| line.rsplit_once(' ')?.1.parse().ok())
        .collect();
    ensure!(!values.is_empty(), "no counter of resources:\n{metrics}");
    Ok(values.iter().sum())
}

fn restart_sidecar(mesh: &Mesh) -> Result<()> {
    let restarts = |mesh: &Mesh| -> Result<i64> {
        let pods = mesh.object(&["pods", "-l", "app=productpage"])?;
        let statuses = pods["items"][0]["status"]["initContainerStatuses"].clone();
        let proxy = statuses
            .as_array()
            .into_iter()
            .flatten()
            .find(|s| s["name"] == "istio-proxy")
            .cloned();
        proxy
            .and_then(|s| s["restartCount"].as_i64())
            .context("the sidecar's status")
    };
    let before = restarts(mesh)?;
    mesh.exec(
        "deploy/productpage-v1",
        "productpage",
        &["curl", "-sS", "-X", "POST", "localhost:15000/quitquitquit"],
    )?;
    eventually("the sidecar has restarted and is ready", 40, || {
        Ok(restarts(mesh)? > before
            && mesh
                .curl("/productpage", &[])
                .is_ok_and(|(status, _)| status == 200))
    })
}
