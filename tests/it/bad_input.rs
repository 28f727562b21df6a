//! Bad input: each gives one clear sentence and leaves the rest running.

use crate::mesh::{Mesh, eventually, free_port, text};
use anyhow::{Result, ensure};

#[test]
fn a_port_in_use_is_named() -> Result<()> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port().to_string();
    let home = tempfile::tempdir()?;
    let binary = std::env::var_os("LATEEN_BIN").expect("run `cargo xtask e2e`");
    let output = std::process::Command::new(binary)
        .args([
            "sandbox",
            "up",
            "--http-port",
            &port,
            "--api-port",
            &free_port().to_string(),
        ])
        .env("LATEEN_HOME", home.path())
        .output()?;
    let said = text(&output.stderr);
    ensure!(
        !output.status.success() && said.contains(&port) && said.contains("used by"),
        "{said}"
    );
    ensure!(said.trim().lines().count() <= 3, "one sentence: {said}");
    Ok(())
}

const UNKNOWN_IMAGE: &str = "
apiVersion: v1
kind: Pod
metadata: {name: stranger}
spec:
  containers: [{name: main, image: example.com/nobody/knows:1}]
";

const MISSING_SUBSET: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: httpbin}
spec:
  hosts: [httpbin]
  http: [{route: [{destination: {host: httpbin, subset: nowhere, port: {number: 8000}}}]}]
";

#[test]
fn wrong_objects_say_so_and_harm_nobody() -> Result<()> {
    let mesh = Mesh::up(&[])?;
    let second = mesh.lateen(&["sandbox", "up"])?;
    ensure!(
        !second.status.success() && text(&second.stderr).contains("already"),
        "{}",
        text(&second.stderr)
    );
    mesh.kubectl(&["label", "namespace", "default", "istio-injection=enabled"])?;
    mesh.kubectl(&[
        "apply",
        "-f",
        "samples/httpbin/httpbin.yaml",
        "-f",
        "samples/sleep/sleep.yaml",
    ])?;
    for name in ["httpbin", "sleep"] {
        mesh.kubectl(&[
            "rollout",
            "status",
            "--timeout=60s",
            &format!("deploy/{name}"),
        ])?;
    }
    unknown_image(&mesh)?;
    missing_subset(&mesh)?;
    webhook_without_answer(&mesh)
}

fn unknown_image(mesh: &Mesh) -> Result<()> {
    mesh.apply(UNKNOWN_IMAGE)?;
    eventually("the pod says that the image is unknown", 15, || {
        let described = mesh.kubectl(&["describe", "pod", "stranger"])?;
        Ok(described.contains("example.com/nobody/knows:1") && described.contains("ImagePull"))
    })?;
    mesh.kubectl(&["delete", "pod", "stranger", "--grace-period=0", "--force"])?;
    Ok(())
}

fn missing_subset(mesh: &Mesh) -> Result<()> {
    let said = mesh.apply(MISSING_SUBSET)?;
    println!("{said}");
    eventually(
        "the call is refused with 503 and the log names the object",
        10,
        || {
            let out = mesh.exec(
                "deploy/sleep",
                "sleep",
                &[
                    "curl",
                    "-sS",
                    "-o",
                    "/dev/null",
                    "-w",
                    "%{http_code}",
                    "http://httpbin:8000/get",
                ],
            )?;
            let log = mesh.kubectl(&["logs", "deploy/sleep", "-c", "istio-proxy", "--tail=20"])?;
            Ok(out == "503" && log.contains("NC") && log.contains("httpbin"))
        },
    )?;
    eventually("the object's status names the subset", 10, || {
        Ok(mesh.object(&["virtualservice", "httpbin"])?["status"]
            .to_string()
            .contains("nowhere"))
    })?;
    mesh.kubectl(&["delete", "virtualservice", "httpbin"])?;
    eventually("the call works again", 10, || {
        let out = mesh.exec(
            "deploy/sleep",
            "sleep",
            &[
                "curl",
                "-sS",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "http://httpbin:8000/get",
            ],
        )?;
        Ok(out == "200")
    })
}

fn webhook_without_answer(mesh: &Mesh) -> Result<()> {
    mesh.kubectl(&[
        "scale",
        "-n",
        "istio-system",
        "deploy/istiod",
        "--replicas=0",
    ])?;
    mesh.kubectl(&[
        "wait",
        "-n",
        "istio-system",
        "--for=delete",
        "pod",
        "-l",
        "app=istiod",
        "--timeout=40s",
    ])?;
    mesh.kubectl(&["scale", "deploy/httpbin", "--replicas=2"])?;
    eventually("the ReplicaSet's event names the webhook", 30, || {
        Ok(mesh
            .kubectl(&["get", "events"])?
            .contains("sidecar-injector.istio.io"))
    })?;
    let out = mesh.exec(
        "deploy/sleep",
        "sleep",
        &[
            "curl",
            "-sS",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "http://httpbin:8000/get",
        ],
    )?;
    ensure!(out == "200", "running pods go on: {out}");
    mesh.kubectl(&[
        "scale",
        "-n",
        "istio-system",
        "deploy/istiod",
        "--replicas=1",
    ])?;
    mesh.kubectl(&["rollout", "status", "--timeout=90s", "deploy/httpbin"])?;
    Ok(())
}
