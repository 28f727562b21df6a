//! kubectl's verbs against the embedded API server, without a mesh.

use crate::mesh::{Mesh, eventually, free_port, text};
use anyhow::{Result, ensure};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::Stdio;

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: web
          image: lateen/httpbin
          ports: [{containerPort: 8080}]
          readinessProbe: {httpGet: {path: /get, port: 8080}, periodSeconds: 1}
";

#[test]
fn kubectl_finds_its_verbs() -> Result<()> {
    let mesh = Mesh::up(&["--no-mesh"])?;
    objects(&mesh)?;
    workloads(&mesh)?;
    streams(&mesh)?;
    owners_and_finalizers(&mesh)?;
    ensure!(mesh.kubectl(&["api-resources"])?.contains("deployments"));
    ensure!(mesh.kubectl(&["explain", "deployment.spec.strategy"])?.contains("rollingUpdate"));
    Ok(())
}

fn objects(mesh: &Mesh) -> Result<()> {
    mesh.kubectl(&["create", "configmap", "facts", "--from-literal=a=1"])?;
    mesh.kubectl(&["patch", "configmap", "facts", "--type=merge", "-p", r#"{"data":{"b":"2"}}"#])?;
    mesh.kubectl(&["patch", "configmap", "facts", "--type=json", "-p", r#"[{"op":"remove","path":"/data/a"}]"#])?;
    mesh.kubectl(&["label", "configmap", "facts", "kind=test"])?;
    mesh.kubectl(&["annotate", "configmap", "facts", "note=here"])?;
    let data = mesh.kubectl(&["get", "cm", "-l", "kind=test", "-o", "jsonpath={.items[*].data}"])?;
    ensure!(data == r#"{"b":"2"}"#, "{data}");
    let applied = mesh.home.join("applied.yaml");
    std::fs::write(&applied, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: facts}\ndata: {b: '3'}\n")?;
    let path = applied.to_string_lossy().into_owned();
    let conflict = mesh.kubectl_fails(&["apply", "--server-side", "-f", &path])?;
    ensure!(conflict.contains("conflict"), "server-side apply tells of the other manager: {conflict}");
    mesh.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &path])?;
    ensure!(mesh.kubectl(&["get", "cm", "facts", "-o", "yaml"])?.contains("b: \"3\""));
    let wrong = mesh.kubectl_fails(&["create", "-f", "/dev/null", "--dry-run=server"])?;
    ensure!(!wrong.is_empty());
    ensure!(mesh.kubectl_fails(&["get", "cm", "absent"])?.contains("NotFound"));
    mesh.kubectl(&["delete", "cm", "facts"])?;
    Ok(())
}

fn workloads(mesh: &Mesh) -> Result<()> {
    mesh.apply(DEPLOYMENT)?;
    mesh.kubectl(&["rollout", "status", "deploy/web", "--timeout=60s"])?;
    mesh.kubectl(&["scale", "deploy/web", "--replicas=2"])?;
    mesh.kubectl(&["wait", "--for=jsonpath={.status.readyReplicas}=2", "deploy/web", "--timeout=30s"])?;
    mesh.kubectl(&["rollout", "restart", "deploy/web"])?;
    mesh.kubectl(&["rollout", "status", "deploy/web", "--timeout=60s"])?;
    let wide = mesh.kubectl(&["get", "pods", "-o", "wide"])?;
    ensure!(wide.contains("NODE") && wide.contains("10.244."), "{wide}");
    let described = mesh.kubectl(&["describe", "deploy", "web"])?;
    ensure!(described.contains("ScalingReplicaSet") && described.contains("RollingUpdate"), "{described}");
    ensure!(mesh.kubectl(&["describe", "pod", "-l", "app=web"])?.contains("Ready"));
    mesh.kubectl(&["patch", "deploy", "web", "-p", r#"{"spec":{"template":{"spec":{"containers":[{"name":"web","env":[{"name":"A","value":"1"}]}]}}}}"#])?;
    let images = mesh.kubectl(&["get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[*].image}"])?;
    ensure!(images == "lateen/httpbin", "a strategic merge keeps the image: {images:?}");
    mesh.kubectl(&["rollout", "status", "deploy/web", "--timeout=60s"])?;
    Ok(())
}

fn streams(mesh: &Mesh) -> Result<()> {
    // kubectl may pick a pod that is about to go.
    eventually("the pods of before are gone", 40, || {
        Ok(mesh.kubectl(&["get", "pods", "-l", "app=web", "--no-headers"])?.lines().count() == 2)
    })?;
    ensure!(mesh.kubectl(&["logs", "deploy/web"])?.contains("listening on port 8080"));
    ensure!(mesh.exec("deploy/web", "web", &["echo", "hello"])? == "hello\n");
    let failed = mesh.kubectl_command(&["exec", "deploy/web", "--", "sh", "-c", "exit 7"]).output()?;
    ensure!(failed.status.code() == Some(7), "the exit code comes back: {:?}", failed.status);
    let mut cat = mesh.kubectl_command(&["exec", "-i", "deploy/web", "--", "cat"]);
    let mut cat = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    cat.stdin.take().expect("piped").write_all(b"through\n")?;
    let mut out = String::new();
    cat.stdout.take().expect("piped").read_to_string(&mut out)?;
    cat.wait()?;
    ensure!(out == "through\n", "{out:?}");

    let port = free_port();
    let mut forward = mesh.kubectl_command(&["port-forward", "deploy/web", &format!("{port}:8080")]);
    let mut forward = forward.stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(forward.stdout.take().expect("piped")).read_line(&mut line)?;
    let got = std::process::Command::new("curl").args(["-sS", "-m", "5", &format!("http://127.0.0.1:{port}/json")]).output()?;
    forward.kill()?;
    forward.wait()?;
    ensure!(text(&got.stdout).contains("slideshow"), "{line}{}", text(&got.stderr));
    Ok(())
}

const CHILD: &str = "
apiVersion: v1
kind: ConfigMap
metadata:
  name: held
  finalizers: [example.com/hold]
";

fn owners_and_finalizers(mesh: &Mesh) -> Result<()> {
    mesh.apply(CHILD)?;
    mesh.kubectl(&["delete", "cm", "held", "--wait=false"])?;
    ensure!(mesh.object(&["cm", "held"])?["metadata"]["deletionTimestamp"].is_string(), "a finalizer holds it");
    mesh.kubectl(&["patch", "cm", "held", "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#])?;
    ensure!(mesh.kubectl_fails(&["get", "cm", "held"])?.contains("NotFound"));
    mesh.kubectl(&["delete", "deploy", "web"])?;
    eventually("pods of a deleted Deployment go", 30, || {
        Ok(mesh.kubectl(&["get", "pods,rs", "--no-headers"])?.is_empty())
    })
}
