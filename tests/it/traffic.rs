//! Traffic that is held back and led around: limits under load, endpoints that fail, endpoints that come and go.

mod bulk;
mod churn;

use crate::mesh::{Mesh, eventually, python};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::collections::BTreeMap;

/// Answers with its pod's name, after as many milliseconds as the path says; 500 while `/tmp/bad` is there. It counts what
/// it is asked, and the most at once.
const COUNTING_SERVER: &str = r#"
import http.server, json, os, socket, threading, time

lock, seen = threading.Lock(), {"count": 0, "now": 0, "most": 0}

class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        if self.path == "/figures":
            return self.say(200, json.dumps(seen))
        with lock:
            seen["count"] += 1
            seen["now"] += 1
            seen["most"] = max(seen["most"], seen["now"])
        time.sleep(int(self.path.split("?")[0].strip("/")) / 1000)
        with lock:
            seen["now"] -= 1
        self.say(500 if os.path.exists("/tmp/bad") else 200, socket.gethostname())

    def say(self, status, text):
        self.send_response(status)
        self.send_header("content-length", len(text))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass

class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 256

Server(("0.0.0.0", 8080), Answers).serve_forever()
"#;

fn counting(python: &str, replicas: usize) -> String {
    let script = Value::from(COUNTING_SERVER);
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: counting}}
spec:
  selector: {{app: counting}}
  ports: [{{name: http, port: 80, targetPort: 8080}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: counting}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: counting}}}}
  template:
    metadata: {{labels: {{app: counting}}}}
    spec:
      containers:
        - name: counting
          image: curlimages/curl
          command: ['{python}', -c, {script}]
          ports: [{{containerPort: 8080}}]
          readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
"
    )
}

/// A caller, and so many servers.
fn up(replicas: usize) -> Result<Mesh> {
    let python = python("http.server")?;
    let mesh = Mesh::up(&[])?;
    mesh.kubectl(&["label", "namespace", "default", "istio-injection=enabled"])?;
    mesh.kubectl(&["apply", "-f", "samples/sleep/sleep.yaml"])?;
    mesh.apply(&counting(python, replicas))?;
    for deployment in ["deploy/sleep", "deploy/counting"] {
        mesh.kubectl(&["rollout", "status", "--timeout=60s", deployment])?;
    }
    Ok(mesh)
}

fn rule(mesh: &Mesh, policy: &str) -> Result<()> {
    mesh.apply(&format!(
        "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: counting}}
spec:
  host: counting
  trafficPolicy: {policy}
"
    ))?;
    Ok(())
}

/// `count` requests, as many of them at once as `at_once` says: how often each status and `x-envoy-overloaded` came, and
/// how often each server answered, where they are asked one by one.
fn ask(
    mesh: &Mesh,
    (count, at_once): (usize, usize),
    milliseconds: usize,
) -> Result<BTreeMap<String, usize>> {
    let (url, at_once) = (
        format!("http://counting/{milliseconds}?[1-{count}]"),
        at_once.to_string(),
    );
    let told = " %{http_code} %header{x-envoy-overloaded}\n";
    let mut curl = vec!["curl", "-s", "-m", "60", "-w", told, &url];
    if at_once != "1" {
        // Bodies would mix.
        curl.extend([
            "-o",
            "/dev/null",
            "-Z",
            "--parallel-immediate",
            "--parallel-max",
            &at_once,
        ]);
    }
    let said = mesh.exec("deploy/sleep", "sleep", &curl)?;
    let mut answers = BTreeMap::new();
    for line in said.lines() {
        *answers.entry(line.trim_end().to_owned()).or_default() += 1;
    }
    Ok(answers)
}

/// What a server counted.
fn figure(mesh: &Mesh, pod: &str, name: &str) -> Result<usize> {
    let curl = ["curl", "-sS", "-m", "10", "localhost:8080/figures"];
    let said: Value = serde_json::from_str(&mesh.exec(pod, "counting", &curl)?)?;
    let figure = said[name].as_u64().context("a figure")?;
    Ok(usize::try_from(figure)?)
}

#[test]
fn limits_hold_under_load() -> Result<()> {
    let mesh = up(1)?;
    let limits = [
        (
            "{connectionPool: {tcp: {maxConnections: 6}, http: {http1MaxPendingRequests: 4}}}",
            (6, 6),
        ),
        ("{connectionPool: {http: {http2MaxRequests: 9}}}", (9, 9)),
    ];
    let (mut counted, mut refused) = (0, 0);
    for (policy, (limit, served)) in limits {
        rule(&mesh, policy)?;
        eventually("the rule is there", 10, || {
            let answers = ask(&mesh, (40, 40), 200)?;
            Ok(answers.keys().any(|answer| answer.ends_with("503 true")))
        })?;
        // A server of its own, which has seen nothing yet.
        mesh.kubectl(&["rollout", "restart", "deploy/counting"])?;
        mesh.kubectl(&["rollout", "status", "--timeout=60s", "deploy/counting"])?;
        (counted, refused) = under_load(&mesh, policy, (limit, served))?;
    }
    println!("the last load: {counted} served, {refused} refused");
    Ok(())
}

/// A thousand requests, sixty at once. Returns how many were served and how many refused.
fn under_load(mesh: &Mesh, policy: &str, limits: (usize, usize)) -> Result<(usize, usize)> {
    let (at_once, at_least) = limits;
    let before = overflows(mesh)?;
    let answers = ask(mesh, (1000, 60), 300)?;
    let count = |end: &str| -> usize {
        let those = answers.iter().filter(|(answer, _)| answer.ends_with(end));
        those.map(|(_, count)| count).sum()
    };
    let (served, refused) = (count("200"), count("503 true"));
    let most = figure(mesh, "deploy/counting", "most")?;
    let seen = figure(mesh, "deploy/counting", "count")?;
    println!("{policy}: {served} served, {refused} refused, {most} at once");
    ensure!(
        served + refused == 1000 && served >= at_least && refused > 0,
        "{policy}: {answers:?}"
    );
    ensure!(
        most == at_once,
        "{policy}: {most} requests were at the server at once"
    );
    ensure!(
        seen == served,
        "{policy}: the server saw {seen} requests, and {served} were answered"
    );
    eventually("the access log tells of each", 10, || {
        Ok(overflows(mesh)? - before == refused)
    })?;
    Ok((served, refused))
}

/// Requests that the caller's proxy refused for a limit, as its access log has them.
fn overflows(mesh: &Mesh) -> Result<usize> {
    let log = mesh.kubectl(&["logs", "deploy/sleep", "-c", "istio-proxy", "--tail=-1"])?;
    Ok(log.matches(" 503 UO ").count())
}

#[test]
fn a_failing_endpoint_is_ejected_until_its_time_is_over() -> Result<()> {
    let mesh = up(3)?;
    rule(
        &mesh,
        "{outlierDetection: {consecutive5xxErrors: 3, interval: 500ms, baseEjectionTime: 6s, maxEjectionPercent: 40}}",
    )?;
    let pods = mesh.object(&["pods", "-l", "app=counting"])?;
    let bad = pods["items"][0]["metadata"]["name"].as_str();
    let bad = bad.context("a pod")?.to_owned();
    eventually("all three answer", 10, || {
        Ok(ask(&mesh, (60, 1), 0)?.len() == 3)
    })?;
    mesh.exec(&bad, "counting", &["touch", "/tmp/bad"])?;

    let failed = format!("{bad} 500");
    let ejected = std::cell::Cell::new(std::time::Instant::now());
    eventually("it fails and is ejected", 10, || {
        let answers = ask(&mesh, (30, 1), 0)?;
        ejected.set(std::time::Instant::now());
        Ok(!answers.contains_key(&failed) && answers.len() == 2)
    })?;
    let before = figure(&mesh, &bad, "count")?;
    let (mut asked, mut rounds) = (0, 0);
    while ejected.get().elapsed().as_secs() < 3 {
        let answers = ask(&mesh, (100, 1), 0)?;
        ensure!(
            answers.values().sum::<usize>() == 100
                && answers.keys().all(|answer| answer.ends_with(" 200")),
            "while it is ejected nothing fails: {answers:?}"
        );
        (asked, rounds) = (asked + 100, rounds + 1);
    }
    let after = figure(&mesh, &bad, "count")?;
    ensure!(before == after, "it got {} requests", after - before);
    println!("ejected: none of {asked} requests in {rounds} rounds went to it");

    eventually("its time is over, and it fails again", 15, || {
        Ok(ask(&mesh, (30, 1), 0)?.contains_key(&failed))
    })?;
    eventually("it is ejected again", 10, || {
        Ok(!ask(&mesh, (30, 1), 0)?.contains_key(&failed))
    })?;
    mesh.exec(&bad, "counting", &["rm", "/tmp/bad"])?;
    eventually("it is well and has its share again", 30, || {
        let answers = ask(&mesh, (90, 1), 0)?;
        let share = answers.get(&format!("{bad} 200")).copied();
        Ok(share.is_some_and(|share| share >= 15) && answers.len() == 3)
    })
}
