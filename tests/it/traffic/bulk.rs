//! A gibibyte up and a gibibyte down through two sidecars, in memory that does not grow with it.

use crate::mesh::{Mesh, python, text};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::process::{Child, Stdio};

/// Counts what it is sent; sends as many bytes as the path says.
const BULK_SERVER: &str = r#"
import http.server

class Bulk(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        left = count = int(self.headers["content-length"])
        while left:
            left -= len(self.rfile.read(min(left, 1 << 20)))
        self.say(str(count).encode())

    def do_GET(self):
        self.send_response(200)
        left = int(self.path.strip("/") or 0)
        self.send_header("content-length", left)
        self.end_headers()
        block = b"x" * (1 << 20)
        while left:
            left -= self.wfile.write(block[:left])

    def say(self, body):
        self.send_response(200)
        self.send_header("content-length", len(body))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Bulk).serve_forever()
"#;

/// What a proxy's memory may grow by.
const GROWTH: u64 = 48 << 20;

#[test]
fn a_gibibyte_passes_in_bounded_memory() -> Result<()> {
    let python = python("http.server")?;
    let mesh = Mesh::up(&[])?;
    mesh.kubectl(&["label", "namespace", "default", "istio-injection=enabled"])?;
    mesh.kubectl(&["apply", "-f", "samples/sleep/sleep.yaml"])?;
    mesh.apply(&bulk(python))?;
    for deployment in ["deploy/sleep", "deploy/bulk"] {
        mesh.kubectl(&["rollout", "status", "--timeout=60s", deployment])?;
    }
    let (put, get) = (
        "head -c 1073741824 /dev/zero > /tmp/file; curl -sS -m 120 -T /tmp/file http://bulk/ -w ' %{http_code} %{time_total}'",
        "curl -sS -m 120 -o /tmp/file http://bulk/1073741824 -w '%{size_download} %{http_code} %{time_total}'",
    );
    for (what, script) in [("up", put), ("down", get)] {
        let watches = ["sleep", "bulk"].map(|name| Watch::start(&mesh, name));
        let said = mesh.exec("deploy/sleep", "sleep", &["sh", "-c", script])?;
        ensure!(said.starts_with("1073741824 200 "), "{what}: {said}");
        for watch in watches {
            let (name, least, most) = watch?.end()?;
            println!(
                "{what}: {said} s; proxy of {name}: {} MiB at first, {} MiB at most",
                least >> 20,
                most >> 20
            );
            ensure!(
                most - least < GROWTH,
                "{what}: the proxy of {name} grew from {least} to {most} bytes"
            );
        }
    }
    Ok(())
}

fn bulk(python: &str) -> String {
    let script = Value::from(BULK_SERVER);
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: bulk}}
spec:
  selector: {{app: bulk}}
  ports: [{{name: http, port: 80, targetPort: 8080}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: bulk}}
spec:
  selector: {{matchLabels: {{app: bulk}}}}
  template:
    metadata: {{labels: {{app: bulk}}}}
    spec:
      containers:
        - name: bulk
          image: curlimages/curl
          command: ['{python}', -c, {script}]
          ports: [{{containerPort: 8080}}]
          readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
"
    )
}

/// Reads a proxy's memory, ten times a second.
struct Watch {
    name: &'static str,
    child: Child,
}

impl Watch {
    fn start(mesh: &Mesh, name: &'static str) -> Result<Self> {
        let script = "while :; do curl -sS localhost:15020/stats/prometheus | grep '^process_resident_memory_bytes'; sleep 0.1; done";
        let deployment = format!("deploy/{name}");
        let mut command =
            mesh.kubectl_command(&["exec", &deployment, "-c", name, "--", "sh", "-c", script]);
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        // The first figure is from before.
        let mut first = [0];
        let stdout = child.stdout.as_mut().context("a pipe")?;
        std::io::Read::read_exact(stdout, &mut first)?;
        Ok(Self { name, child })
    }

    /// The first figure and the largest, in bytes.
    fn end(mut self) -> Result<(&'static str, u64, u64)> {
        self.child.kill()?;
        let said = text(&self.child.wait_with_output()?.stdout);
        let figures: Vec<u64> = said
            .lines()
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .map(|figure| figure as u64)
            .collect();
        let first = figures.first().copied().context("a figure")?;
        let most = figures.iter().max().copied().context("a figure")?;
        ensure!(figures.len() > 2, "{said}");
        Ok((self.name, first, most))
    }
}
