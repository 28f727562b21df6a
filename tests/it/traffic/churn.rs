//! Five hundred requests a second with default settings, while servers come and go: none of them fails.

use crate::mesh::{Mesh, eventually, free_port, text};
use crate::resilience::{load, nothing_failed, soak_seconds};
use anyhow::{Context as _, Result, ensure};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Requests a second.
const RATE: u32 = 500;
const SERVER: &str = "deploy/ratings-v1";
/// Changes of endpoints a second.
const FLAPS: u32 = 10;
const PATH: &str = "/ratings/0";

/// The gateway calls ratings itself: two cores carry this rate over one hop and start pods beside it, not over two.
const ROUTE: &str = r#"
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings-from-outside}
spec:
  hosts: ["*"]
  gateways: [bookinfo-gateway]
  http: [{match: [{uri: {prefix: /ratings}}], route: [{destination: {host: ratings}}]}]
"#;

#[test]
fn nothing_is_lost_while_endpoints_come_and_go() -> Result<()> {
    let mesh = Mesh::up(&["--demo", "bookinfo"])?;
    mesh.apply(ROUTE)?;
    eventually("the gateway leads to ratings", 10, || {
        let (status, body) = mesh.curl(PATH, &[])?;
        Ok(status == 200 && body.contains("ratings"))
    })?;

    let ready = |mesh: &Mesh| mesh.kubectl(&["rollout", "status", SERVER, "--timeout=60s"]);
    let restarts = during(&mesh, |mesh| {
        // kubectl restarts nothing twice within a second, and a rollout may be faster.
        eventually("a restart", 5, || {
            Ok(mesh.kubectl(&["rollout", "restart", SERVER]).is_ok())
        })?;
        ready(mesh).map(drop)
    })?;
    println!("restarted the server {restarts} times");
    let scalings = during(&mesh, |mesh| {
        for replicas in ["3", "1", "2", "1"] {
            mesh.kubectl(&["scale", &format!("--replicas={replicas}"), SERVER])?;
            ready(mesh)?;
        }
        Ok(())
    })?;
    println!("scaled the server up and down {scalings} times");
    flapping(&mesh)
}

/// Repeats `change` as long as the load lasts. Returns how often.
fn during(mesh: &Mesh, change: impl Fn(&Mesh) -> Result<()>) -> Result<usize> {
    let mut running = load(mesh, PATH, (RATE, soak_seconds()))?;
    let mut times = 0;
    while running.try_wait()?.is_none() {
        change(mesh)?;
        times += 1;
    }
    nothing_failed(running)?;
    Ok(times)
}

/// Endpoints that leave their service and come back, while they live.
fn flapping(mesh: &Mesh) -> Result<()> {
    mesh.kubectl(&["scale", SERVER, "--replicas=3"])?;
    mesh.kubectl(&["rollout", "status", SERVER, "--timeout=60s"])?;
    mesh.kubectl(&["label", "pods", "-l", "app=ratings", "serving=yes"])?;
    let selector = r#"{"spec": {"selector": {"app": "ratings", "serving": "yes"}}}"#;
    mesh.kubectl(&["patch", "service", "ratings", "-p", selector])?;
    let api = Api::open(mesh)?;
    let pods = mesh.object(&["pods", "-l", "app=ratings"])?;
    let pods: Vec<String> = pods["items"]
        .as_array()
        .context("pods")?
        .iter()
        .filter_map(|pod| Some(pod["metadata"]["name"].as_str()?.to_owned()))
        .collect();
    ensure!(pods.len() == 3, "{pods:?}");

    // One of them stays, the others come and go.
    let mut running = load(mesh, PATH, (RATE, soak_seconds()))?;
    let (start, mut flaps) = (Instant::now(), 0_u32);
    while running.try_wait()?.is_none() {
        let pod = &pods[1 + flaps as usize % 2];
        let serving = if flaps / 2 % 2 == 0 { "no" } else { "yes" };
        api.label(pod, serving)?;
        flaps += 1;
        let next = Duration::from_secs(1) * flaps / FLAPS;
        std::thread::sleep(next.saturating_sub(start.elapsed()));
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "endpoints flapped {flaps} times, {:.1} a second",
        f64::from(flaps) / seconds
    );
    ensure!(
        f64::from(flaps) / seconds > f64::from(FLAPS) / 2.0,
        "fewer than half of the flaps"
    );
    nothing_failed(running)?;
    let slices = mesh.object(&["endpointslices", "-l", "kubernetes.io/service-name=ratings"])?;
    ensure!(
        !slices["items"].as_array().is_none_or(Vec::is_empty),
        "{slices}"
    );
    Ok(())
}

/// `kubectl proxy`: changes of labels without starting kubectl for each.
struct Api {
    child: Child,
    port: u16,
}

impl Api {
    fn open(mesh: &Mesh) -> Result<Self> {
        let port = free_port();
        let mut command = mesh.kubectl_command(&["proxy", "--port", &port.to_string()]);
        let child = command.stdout(Stdio::null()).spawn()?;
        let api = Self { child, port };
        eventually("kubectl proxy answers", 10, || {
            let url = format!("http://127.0.0.1:{port}/version");
            let output = Command::new("curl").args(["-sSf", &url]).output()?;
            Ok(output.status.success())
        })?;
        Ok(api)
    }

    fn label(&self, pod: &str, serving: &str) -> Result<()> {
        let url = format!(
            "http://127.0.0.1:{}/api/v1/namespaces/default/pods/{pod}",
            self.port
        );
        let patch = format!(r#"{{"metadata": {{"labels": {{"serving": "{serving}"}}}}}}"#);
        let output = Command::new("curl")
            .args(["-sSf", "-o", "/dev/null", "-X", "PATCH", &url])
            .args(["-H", "content-type: application/merge-patch+json"])
            .args(["-d", &patch])
            .output()?;
        ensure!(output.status.success(), "{}", text(&output.stderr));
        Ok(())
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
