//! kubectl's verbs against the embedded API server, without a mesh.

mod access;
mod looks;
mod pods;
mod state;

use crate::mesh::{Mesh, eventually, free_port, text};
use anyhow::{Result, ensure};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
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
    typed(&mesh)?;
    looks::reads(&mesh)?;
    history(&mesh)?;
    owners_and_finalizers(&mesh)?;
    namespaces(&mesh)?;
    looks::refusals(&mesh)
}

fn objects(mesh: &Mesh) -> Result<()> {
    mesh.kubectl(&["create", "configmap", "facts", "--from-literal=a=1"])?;
    mesh.kubectl(&[
        "patch",
        "configmap",
        "facts",
        "--type=merge",
        "-p",
        r#"{"data":{"b":"2"}}"#,
    ])?;
    mesh.kubectl(&[
        "patch",
        "configmap",
        "facts",
        "--type=json",
        "-p",
        r#"[{"op":"remove","path":"/data/a"}]"#,
    ])?;
    mesh.kubectl(&["label", "configmap", "facts", "kind=test"])?;
    mesh.kubectl(&["annotate", "configmap", "facts", "note=here"])?;
    let data = mesh.kubectl(&[
        "get",
        "cm",
        "-l",
        "kind=test",
        "-o",
        "jsonpath={.items[*].data}",
    ])?;
    ensure!(data == r#"{"b":"2"}"#, "{data}");
    let applied = mesh.home.join("applied.yaml");
    std::fs::write(
        &applied,
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: facts}\ndata: {b: '3'}\n",
    )?;
    let path = applied.to_string_lossy().into_owned();
    let conflict = mesh.kubectl_fails(&["apply", "--server-side", "-f", &path])?;
    ensure!(
        conflict.contains("conflict"),
        "server-side apply tells of the other manager: {conflict}"
    );
    mesh.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &path])?;
    ensure!(
        mesh.kubectl(&["get", "cm", "facts", "-o", "yaml"])?
            .contains("b: \"3\"")
    );
    let misspelt = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: wrong}\ndate: {b: '3'}\n";
    let file = mesh.home.join("misspelt.yaml");
    std::fs::write(&file, misspelt)?;
    let wrong = mesh.kubectl_fails(&["create", "-f", &file.to_string_lossy()])?;
    ensure!(
        wrong.contains("unknown field \"date\""),
        "the field is named: {wrong}"
    );
    ensure!(
        mesh.kubectl_fails(&["get", "cm", "absent"])?
            .contains("NotFound")
    );
    edits(mesh, &applied)?;
    mesh.kubectl(&["delete", "cm", "facts"])?;
    Ok(())
}

/// `diff` and `edit` of an object whose manifest lies in `applied`.
fn edits(mesh: &Mesh, applied: &Path) -> Result<()> {
    let (path, text_before) = (applied.to_string_lossy(), std::fs::read_to_string(applied)?);
    std::fs::write(applied, text_before.replace('3', "4"))?;
    let diff = mesh.kubectl_command(&["diff", "-f", &path]).output()?;
    let shown = text(&diff.stdout);
    ensure!(diff.status.code() == Some(1), "{shown}");
    ensure!(
        shown.contains("-  b: \"3\"") && shown.contains("+  b: \"4\""),
        "{shown}"
    );
    let mut edit = mesh.kubectl_command(&["edit", "cm", "facts"]);
    let edited = edit.env("EDITOR", "sed -i /b:/s/3/5/").output()?;
    ensure!(edited.status.success(), "{}", text(&edited.stderr));
    ensure!(mesh.kubectl(&["get", "cm", "facts", "-o", "jsonpath={.data.b}"])? == "5");
    Ok(())
}

fn workloads(mesh: &Mesh) -> Result<()> {
    mesh.apply(DEPLOYMENT)?;
    mesh.kubectl(&["rollout", "status", "deploy/web", "--timeout=60s"])?;
    mesh.kubectl(&["scale", "deploy/web", "--replicas=2"])?;
    mesh.kubectl(&[
        "wait",
        "--for=jsonpath={.status.readyReplicas}=2",
        "deploy/web",
        "--timeout=30s",
    ])?;
    mesh.kubectl(&["rollout", "restart", "deploy/web"])?;
    mesh.kubectl(&["rollout", "status", "deploy/web", "--timeout=60s"])?;
    let wide = mesh.kubectl(&["get", "pods", "-o", "wide"])?;
    ensure!(wide.contains("NODE") && wide.contains("10.244."), "{wide}");
    let described = mesh.kubectl(&["describe", "deploy", "web"])?;
    ensure!(
        described.contains("ScalingReplicaSet") && described.contains("RollingUpdate"),
        "{described}"
    );
    mesh.kubectl(&["patch", "deploy", "web", "-p", r#"{"spec":{"template":{"spec":{"containers":[{"name":"web","env":[{"name":"A","value":"1"}]}]}}}}"#])?;
    let images = mesh.kubectl(&[
        "get",
        "deploy",
        "web",
        "-o",
        "jsonpath={.spec.template.spec.containers[*].image}",
    ])?;
    ensure!(
        images == "lateen/httpbin",
        "a strategic merge keeps the image: {images:?}"
    );
    mesh.kubectl(&["rollout", "status", "deploy/web", "--timeout=60s"])?;
    Ok(())
}

fn streams(mesh: &Mesh) -> Result<()> {
    // kubectl may pick a pod that is about to go.
    eventually("the pods of before are gone", 40, || {
        Ok(mesh
            .kubectl(&["get", "pods", "-l", "app=web", "--no-headers"])?
            .lines()
            .count()
            == 2)
    })?;
    ensure!(
        mesh.kubectl(&["logs", "deploy/web"])?
            .contains("listening on port 8080")
    );
    ensure!(mesh.exec("deploy/web", "web", &["echo", "hello"])? == "hello\n");
    let failed = mesh
        .kubectl_command(&["exec", "deploy/web", "--", "sh", "-c", "exit 7"])
        .output()?;
    ensure!(
        failed.status.code() == Some(7),
        "the exit code comes back: {:?}",
        failed.status
    );
    let mut cat = mesh.kubectl_command(&["exec", "-i", "deploy/web", "--", "cat"]);
    let mut cat = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    cat.stdin.take().expect("piped").write_all(b"through\n")?;
    let mut out = String::new();
    cat.stdout.take().expect("piped").read_to_string(&mut out)?;
    cat.wait()?;
    ensure!(out == "through\n", "{out:?}");

    let folder = mesh.home.join("folder");
    std::fs::create_dir(&folder)?;
    std::fs::write(folder.join("file"), "copied")?;
    let pod = mesh.kubectl(&[
        "get",
        "pods",
        "-l",
        "app=web",
        "-o",
        "jsonpath={.items[0].metadata.name}",
    ])?;
    mesh.kubectl(&[
        "cp",
        &folder.to_string_lossy(),
        &format!("{pod}:/tmp/there"),
    ])?;
    let back = mesh.home.join("back");
    mesh.kubectl(&[
        "cp",
        &format!("{pod}:/tmp/there/file"),
        &back.to_string_lossy(),
    ])?;
    ensure!(std::fs::read_to_string(&back)? == "copied");
    forwards(mesh)
}

fn forwards(mesh: &Mesh) -> Result<()> {
    mesh.kubectl(&["expose", "deploy", "web", "--port=80", "--target-port=8080"])?;
    let port = free_port();
    let mut forward = mesh.kubectl_command(&["port-forward", "svc/web", &format!("{port}:80")]);
    let mut forward = forward.stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    // The pipe stays open: kubectl has more to say and would end at a closed one.
    let mut said = BufReader::new(forward.stdout.take().expect("piped"));
    said.read_line(&mut line)?;
    let got = std::process::Command::new("curl")
        .args(["-sS", "-m", "5", &format!("http://127.0.0.1:{port}/json")])
        .output()?;
    forward.kill()?;
    forward.wait()?;
    ensure!(
        text(&got.stdout).contains("slideshow"),
        "{line}{}",
        text(&got.stderr)
    );
    Ok(())
}

/// What a person types at a terminal, and at a container's own standard input.
fn typed(mesh: &Mesh) -> Result<()> {
    let typed = |typed: &str, command: &str| -> Result<(Option<i32>, String)> {
        let mut terminal = std::process::Command::new("script");
        terminal.args([
            "-qec",
            &format!("stty rows 33 cols 99; {command}"),
            "/dev/null",
        ]);
        terminal
            .env("KUBECONFIG", mesh.home.join("kubeconfig"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut terminal = terminal.spawn()?;
        terminal
            .stdin
            .as_mut()
            .expect("piped")
            .write_all(typed.as_bytes())?;
        let mut out = String::new();
        terminal
            .stdout
            .take()
            .expect("piped")
            .read_to_string(&mut out)?;
        Ok((terminal.wait()?.code(), out))
    };
    let (code, out) = typed("stty size; exit 5\n", "kubectl exec -it deploy/web -- sh")?;
    ensure!(code == Some(5) && out.contains("33 99"), "{code:?} {out}");
    let run = [
        "run",
        "asked",
        "--rm",
        "-i",
        "--image=busybox",
        "--restart=Never",
        "--",
        "sh",
    ];
    let mut run = mesh
        .kubectl_command(&run)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    run.stdin
        .take()
        .expect("piped")
        .write_all(b"echo $((6 * 7)); exit 4\n")?;
    let mut out = String::new();
    run.stdout.take().expect("piped").read_to_string(&mut out)?;
    ensure!(run.wait()?.code() == Some(4) && out.contains("42"), "{out}");
    Ok(())
}

/// Revisions of a Deployment.
fn history(mesh: &Mesh) -> Result<()> {
    let image = || {
        mesh.kubectl(&[
            "get",
            "deploy",
            "web",
            "-o",
            "jsonpath={.spec.template.spec.containers[0].image}",
        ])
    };
    mesh.kubectl(&["rollout", "pause", "deploy/web"])?;
    mesh.kubectl(&["set", "image", "deploy/web", "web=kennethreitz/httpbin"])?;
    mesh.kubectl(&["set", "env", "deploy/web", "B=2"])?;
    ensure!(
        mesh.kubectl(&["describe", "deploy", "web"])?
            .contains("DeploymentPaused")
    );
    mesh.kubectl(&["rollout", "resume", "deploy/web"])?;
    mesh.kubectl(&["rollout", "status", "deploy/web", "--timeout=60s"])?;
    ensure!(image()? == "kennethreitz/httpbin");
    let revisions = mesh.kubectl(&["rollout", "history", "deploy/web"])?;
    ensure!(
        revisions
            .lines()
            .filter(|line| line.ends_with("<none>"))
            .count()
            >= 3,
        "{revisions}"
    );
    mesh.kubectl(&["rollout", "undo", "deploy/web"])?;
    mesh.kubectl(&["rollout", "status", "deploy/web", "--timeout=60s"])?;
    ensure!(image()? == "lateen/httpbin");
    Ok(())
}

fn namespaces(mesh: &Mesh) -> Result<()> {
    mesh.kubectl(&["create", "namespace", "short"])?;
    mesh.kubectl(&[
        "create",
        "deployment",
        "idle",
        "-n",
        "short",
        "--image=pause",
    ])?;
    mesh.kubectl(&[
        "rollout",
        "status",
        "-n",
        "short",
        "deploy/idle",
        "--timeout=30s",
    ])?;
    mesh.kubectl(&[
        "delete",
        "deploy",
        "idle",
        "-n",
        "short",
        "--cascade=orphan",
    ])?;
    let left = mesh.kubectl(&["get", "deploy,rs", "-n", "short", "-o", "name"])?;
    ensure!(
        left.starts_with("replicaset.apps/idle-") && left.lines().count() == 1,
        "{left}"
    );
    mesh.kubectl(&[
        "delete",
        "rs",
        "--all",
        "-n",
        "short",
        "--cascade=foreground",
    ])?;
    ensure!(
        mesh.kubectl(&["get", "pods", "-n", "short", "-o", "name"])?
            .is_empty(),
        "children go first"
    );
    mesh.kubectl(&["delete", "namespace", "short"])?;
    ensure!(
        mesh.kubectl_fails(&["get", "namespace", "short"])?
            .contains("NotFound")
    );
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
    ensure!(
        mesh.object(&["cm", "held"])?["metadata"]["deletionTimestamp"].is_string(),
        "a finalizer holds it"
    );
    mesh.kubectl(&[
        "patch",
        "cm",
        "held",
        "--type=merge",
        "-p",
        r#"{"metadata":{"finalizers":null}}"#,
    ])?;
    ensure!(
        mesh.kubectl_fails(&["get", "cm", "held"])?
            .contains("NotFound")
    );
    mesh.kubectl(&["delete", "deploy", "web"])?;
    eventually("pods of a deleted Deployment go", 30, || {
        Ok(mesh
            .kubectl(&["get", "pods,rs", "--no-headers"])?
            .is_empty())
    })
}
